"""Restoring without learning: iterative methods and filters by name. A new one is a file and a line."""

from model.classical.al import ApproximateLandweber
from model.classical.denoisers import DENOISERS
from model.classical.method import Classical
from model.classical.mlm import ModifiedLevenbergMarquardt
from model.classical.mrl import ModifiedRichardsonLucy
from model.classical.red import RedDescent, RedFixedPoint
from model.classical.richardson_lucy import RichardsonLucy
from model.classical.wiener import Wiener

__all__ = ["CLASSICAL"]

CLASSICAL: dict[str, type[Classical]] = {
    "al": ApproximateLandweber,
    "mlm": ModifiedLevenbergMarquardt,
    "mrl": ModifiedRichardsonLucy,
    "red-fp": RedFixedPoint,
    "red-sdm": RedDescent,
    "wiener": Wiener,
    "richardson-lucy": RichardsonLucy,
    **DENOISERS,
}
"""Name -> a frozen dataclass whose fields are the parameters of `name:field=value,...`."""
