"""What the demonstration says of its table and shows of its photographs."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from model.data.blur import box_blur
from model.demo.comparison import Panel, Strip
from model.demo.scenes import HeldOut
from model.evaluation.evaluator import Measurement
from model.evaluation.methods import Method
from model.evaluation.metrics import sharpness_q
from model.evaluation.protocol import Pair
from model.evaluation.table import Row
from model.photo.picture import Picture, read_picture
from model.photo.restore import restore_picture

__all__ = ["read_table", "strip"]


def read_table(rows: Sequence[Row], pairs: Sequence[Pair], q_definition: str) -> str:
    """The table in words: gains in PSNR, and what fine-tuning changes."""
    values = {row.labels[0]: row.values for row in rows}

    def value(method: str, metric: str) -> float:
        number = values[method][metric]
        return float("nan") if number is None else number

    gains = {name: value(name, "psnr") - value("blurred", "psnr") for name in ("mae", "mae_q")}
    decibels = value("mae_q", "psnr") - value("mae", "psnr")
    change = value("mae_q", "q") / value("mae", "q") - 1 if value("mae", "q") else float("nan")
    sharp = fmean(sharpness_q(pair.sharp, q_definition) for pair in pairs)
    return (
        f"Restoring gains {gains['mae']:+.2f} dB before fine-tuning and {gains['mae_q']:+.2f} dB after it.\n"
        f"Fine-tuning changes PSNR by {decibels:+.2f} dB and Q by {change:+.1%}; "
        f"the sharp photographs have a Q of {sharp:.4f}."
    )


def strip(
    held: HeldOut,
    pair: Pair,
    methods: Mapping[str, Method],
    measurements: Sequence[Measurement],
    titles: Mapping[str, str],
    q_definition: str,
) -> Strip:
    """A row of the picture: the photograph in colour, its luma restored, as `deblur` does."""
    sharp = read_picture(held.path)
    channels = torch.from_numpy(np.ascontiguousarray(sharp.pixels.transpose(2, 0, 1)))[None]
    blurred = sharp.with_pixels(box_blur(channels)[0].permute(1, 2, 0).numpy())
    shown = {
        "blurred": blurred,
        **{name: restore_picture(blurred, method) for name, method in methods.items()},
    }
    of = {one.method: one for one in measurements if one.image == pair.name}
    panels = [
        Panel(titles[name], _pixels(picture), f"{of[name].psnr:.2f} dB   Q {of[name].q:.3f}")
        for name, picture in shown.items()
    ]
    panels.append(Panel("sharp", _pixels(sharp), f"Q {sharpness_q(pair.sharp, q_definition):.3f}"))
    return Strip(held.title, _pixels(sharp), panels, held.left, held.top, held.side)


def _pixels(picture: Picture) -> NDArray[np.uint8]:
    return picture.pixels if picture.pixels.shape[2] == 3 else picture.pixels[..., 0]  # type: ignore[return-value]
