"""Zhu and Milanfar's no-reference sharpness metric Q as a fused, differentiable loss for PyTorch.

loss = MAEQLoss(weight=0.01)(pred, target)    # mean |pred - target| - 0.01 * Q(pred)
sharpness = q_metric(picture)                 # higher is sharper
"""

from .definition import FORMULAS, Definition
from .functional import mae_q_loss, q_loss, q_map, q_metric
from .loss import MAEQLoss, QLoss
from .reference import PatchQuantities
from .version import __version__

__all__ = [
    "FORMULAS",
    "Definition",
    "MAEQLoss",
    "PatchQuantities",
    "QLoss",
    "__version__",
    "mae_q_loss",
    "q_loss",
    "q_map",
    "q_metric",
]
