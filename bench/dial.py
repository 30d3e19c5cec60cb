"""Where the dial of `deblur --sharpness` stands by itself: chosen on photographs kept from training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from model.data.degradation import Degradation
from model.data.sources import load_images
from model.device import choose_device
from model.errors import UserError
from model.evaluation.methods import NetworkMethod
from model.evaluation.protocol import find_protocol
from model.evaluation.table import shown, straight
from model.interpolation import between
from model.progress import say
from model.shipped import DIALS, shipped
from model.training.validation import METRICS, Validation
from model.weights import load_weights

from . import record

STEPS = 8
#: What the photographs are that somebody gives to `deblur`: out of focus, by these radii in pixels.
RADII = (1, 2, 3, 4)


@dataclass(frozen=True)
class Point:
    """The means over all photographs and blurs, at one position of the dial."""

    sharpness: float
    pictures: int
    psnr: float
    ssim: float
    q: float


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photographs", type=Path, nargs="+", required=True, help="what they were trained on"
    )
    parser.add_argument("--blur", choices=tuple(DIALS), default="focus", help="as of `deblur`")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder (default: bench/results)")


def run(options: argparse.Namespace) -> int:
    """Measure, write CSV and Markdown, and say where the dial should stand."""
    dial, device = DIALS[options.blur], choose_device(options.device)
    config = load_weights(shipped(dial.soft))[1].training["config"]
    images = load_images(options.photographs, config["crop"], lambda name, why: say(f"skipped {name}: {why}"))
    if len(images) <= config["holdout"]:
        raise UserError(
            f"{len(images)} photographs are not those of the training, which kept {config['holdout']}"
        )
    _, held_out = images.split(config["holdout"], config["seed"])
    sets = [Validation(held_out, config["crop"], one, device) for one in _degradations(options.blur, config)]
    points = []
    for sharpness in np.linspace(0, 1, STEPS + 1).tolist():
        network = NetworkMethod("", between(shipped(dial.soft), shipped(dial.sharp), sharpness), device)
        scores = [one(network.restore)[0] for one in sets]
        means = {metric: fmean(getattr(score, metric) for score in scores) for metric in METRICS}
        points.append(Point(sharpness, len(held_out) * len(sets), **means))
    machine = record.machine(options.device)
    record.write(options.out / f"dial_{options.blur}.csv", points, machine)
    text = report(points, options.blur, machine)
    (options.out / f"dial_{options.blur}.md").write_text(text, encoding="utf-8", newline="\n")
    print(text)
    print(f"Written: {options.out}/dial_{options.blur}.csv and .md")
    return 0


def _degradations(blur: str, config: Mapping[str, Any]) -> list[Degradation]:
    """The blur that a network was trained for, or, of one for many, several that are worth restoring."""
    if not config.get("vary"):
        return [Degradation(config["blur"], config["noise"], config["quantise"])]
    camera = find_protocol("focus")
    return [Degradation(f"disc:{radius}", camera.noise, True, camera.jpeg, camera.light) for radius in RADII]


def chosen(points: Sequence[Point]) -> float:
    """The largest sharpness at which PSNR is not below that at 0, as far as its record has digits."""
    psnr = [round(point.psnr, 3) for point in points]
    return max(point.sharpness for point, one in zip(points, psnr, strict=True) if one >= psnr[0])


def report(points: Sequence[Point], blur: str, machine: record.Machine) -> str:
    """The dial as a table, and the choice."""

    def line(point: Point) -> list[str]:
        return [f"{point.sharpness:g}", *(shown(metric, getattr(point, metric)) for metric in METRICS)]

    blurred = {
        "box": "blurred by the box",
        "focus": f"out of focus by {', '.join(map(str, RADII))} pixels, with the camera of protocol focus",
    }
    about = (
        f"Central crops of photographs kept from training, {blurred[blur]}, {points[0].pictures} pictures "
        f"in all. The dial of `deblur --blur {blur}` stands at {chosen(points):g} by itself, the "
        "largest eighth at which PSNR is not below that at 0."
    )
    table = straight([["sharpness", "PSNR dB", "SSIM", "Q"], *map(line, points)])
    return "\n\n".join([f"# The dial, {blur}", record.describe(machine), about, table]) + "\n"
