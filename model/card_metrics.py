"""What weights can do, measured for their card."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from model.demo.scenes import scikit_image_scenes
from model.errors import UserError
from model.evaluation.command import measure
from model.evaluation.config import EvaluateConfig
from model.evaluation.data_sets import DATA_SETS
from model.evaluation.protocol import find_protocol

__all__ = ["SCIKIT_IMAGE", "card_metrics", "protocol_of"]

SCIKIT_IMAGE = "scikit-image"
"""Not a protocol's name: `central` on the photographs in scikit-image's wheel, at hand everywhere. With
another protocol on them it is PROTOCOL@scikit-image."""


def card_metrics(
    weights: Path, names: Sequence[str], data: Path | None = None, lpips_weights: Path | None = None
) -> dict[str, dict[str, float]]:
    """Measure weights by each protocol on its own data set, on the CPU in float32.

    Args:
        weights: the file.
        names: protocols, SCIKIT_IMAGE, or PROTOCOL@scikit-image.
        data: folder of the data sets; where it is None, the one that QKERNEL_DATA names.
        lpips_weights: folder with alexnet_features.npz; without it torchvision's cache, or no LPIPS.

    Returns:
        name -> "blurred_psnr", "psnr", "ssim", "q", "lpips" where it could be measured, and "pictures".

    Raises:
        UserError: if a protocol, a data set or the weights cannot be found or used.
    """
    return {name: _measured(weights, name, data, lpips_weights) for name in names}


def protocol_of(name: str) -> tuple[str, bool]:
    """The protocol that a name of `card_metrics` means, and whether it is of scikit-image's photographs."""
    if name == SCIKIT_IMAGE:
        return "central", True
    return name.removesuffix(f"@{SCIKIT_IMAGE}"), name.endswith(f"@{SCIKIT_IMAGE}")


def _measured(weights: Path, name: str, data: Path | None, lpips_weights: Path | None) -> dict[str, float]:
    protocol, everywhere = protocol_of(name)
    scenes = scikit_image_scenes() if everywhere else None
    with tempfile.TemporaryDirectory() as folder:
        table, pairs = measure(
            EvaluateConfig(
                photographs=[*scenes.training, *(held.path for held in scenes.held_out)] if scenes else [],
                protocol=protocol,
                data=data,
                weights=[weights],
                lpips=not everywhere,
                lpips_weights=lpips_weights,
                cache=False,
                device="cpu",
                out=Path(folder),
            )
        )
    if not everywhere and len(pairs) != (there := DATA_SETS[find_protocol(name).data].photographs):
        raise UserError(f"{name} is of {there} photographs, {len(pairs)} were measured")
    before, after = table.rows
    found = {metric: after.values[metric] for metric in ("psnr", "ssim", "q", "lpips")}
    numbers = {metric: round(value, 5) for metric, value in found.items() if value is not None}
    assert before.values["psnr"] is not None  # PSNR is always measured
    return {"blurred_psnr": round(before.values["psnr"], 5), **numbers, "pictures": len(pairs)}
