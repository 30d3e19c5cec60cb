"""The weights for photographs out of focus: on crops blurred by discs of several radii, and on real pairs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from model.data.photographs import find_photographs
from model.device import choose_device
from model.evaluation.command import measure
from model.evaluation.config import EvaluateConfig
from model.evaluation.data_sets import locate
from model.evaluation.evaluator import METRICS
from model.evaluation.formats import Table
from model.evaluation.methods import NetworkMethod
from model.evaluation.table import HEADERS, marks, shown, straight
from model.interpolation import between
from model.shipped import BOX, FOCUS, shipped
from model.weights import Card, load_weights, save_weights

from . import record
from .classical import means
from .focus_picture import draw

BLURS = ("none", "disc:1", "disc:2", "disc:3", "disc:4", "disc:5")
PICTURE = record.ROOT / "docs" / "focus.jpg"
REAL = "real pairs"
#: By what the real pairs are made smaller, so that their blur is one that the networks were trained for.
REDUCED = 4
REAL_REDUCED = f"real pairs / {REDUCED}"

ABOUT = """\
Kodak: central crops of 128 x 128, blurred in amounts of light by discs of these radii in pixels, with
Gaussian noise of variance 2.5e-5 (1.3 levels) and JPEG of quality 90; "none" is only noisy and compressed,
and what a network changes there is harm. Real pairs: 12 of DPDD's 76 test pictures, photographed out of focus
and sharp (Abuolaim and Brown, ECCV 2020), resampled to 1024 x 1024, in squares of 128 x 128: not comparable
with published figures of DPDD. Their blur differs from place to place and is often far wider than the
networks were trained for, and the two pictures of a pair differ in more than blur. "/ 4": the same made
smaller by four, both pictures of a pair, which is what to do with a photograph that is far out of focus.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with kodak and dpdd (default: QKERNEL_DATA)")
    parser.add_argument(
        "--weights", type=Path, nargs="+", help="default: those that come with the repository"
    )
    parser.add_argument(
        "--control", type=Path, help="weights fine-tuned as unet_focus_q was, but with w = 0: one row more"
    )
    parser.add_argument("--lpips-weights", type=Path, help="folder with alexnet_features.npz")
    parser.add_argument("--limit", type=int, default=0, help="pictures of each set (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--picture", type=Path, help="default: docs/focus.jpg for all, else beside the record"
    )
    parser.add_argument("--out", type=Path, help="folder (default: bench/results for all, else runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Measure, write CSV and Markdown; an interrupted run goes on where it stopped."""
    whole = options.weights is None and not options.limit
    folder = options.out or (record.RESULTS if whole else record.SCRATCH)
    machine = record.machine(options.device)
    tables = dict(_tables(options))
    rows = [mean for blur, table in tables.items() for mean in means(_data(blur), blur, table)]
    record.write(folder / f"focus_{options.device}.csv", rows, machine)
    text = report(tables, machine)
    (folder / f"focus_{options.device}.md").write_text(text, encoding="utf-8", newline="\n")
    if options.weights is None:
        picture = options.picture or (PICTURE if whole else folder / PICTURE.name)
        draw(picture, _dial(choose_device(options.device)))
        print(f"Drawn: {picture}")
    print(text)
    print(f"Written: {folder}/focus_{options.device}.csv and .md")
    return 0


def _data(blur: str) -> str:
    return "dpdd" if blur in (REAL, REAL_REDUCED) else "kodak"


def _photographs(blur: str, data: Path | None) -> Path:
    """Where the pictures of a row are; the smaller ones are made."""
    if blur in BLURS:
        return Path("kodak")
    there, smaller = locate(Path("dpdd"), data), record.SCRATCH / "focus" / f"dpdd_{REDUCED}"
    if blur == REAL:
        return there
    for path in find_photographs(there):
        target = smaller / path.relative_to(there).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.convert("RGB").reduce(REDUCED).save(target)
    return smaller


def _shipped() -> list[str]:
    """The network for a box, and the dial for photographs out of focus: its ends, and where it stands."""
    default = record.SCRATCH / "focus" / "default.safetensors"
    _, card = load_weights(shipped(FOCUS.sharp))
    network = between(shipped(FOCUS.soft), shipped(FOCUS.sharp), FOCUS.default)
    save_weights(default, network, Card(card.network, card.network_args))
    return [
        f"{BOX.soft}=weights:{shipped(BOX.soft)}",
        f"{FOCUS.soft}=weights:{shipped(FOCUS.soft)}",
        f"dial at {FOCUS.default:g}=weights:{default}",
        f"{FOCUS.sharp}=weights:{shipped(FOCUS.sharp)}",
    ]


def _dial(device: torch.device) -> dict[str, NetworkMethod]:
    """The dial for the picture: its ends, and where it stands."""
    return {
        f"dial at {share:g}": NetworkMethod(
            "", between(shipped(FOCUS.soft), shipped(FOCUS.sharp), share), device
        )
        for share in (0.0, FOCUS.default, 1.0)
    }


def _tables(options: argparse.Namespace) -> Iterator[tuple[str, Table]]:
    methods = [f"weights:{path}" for path in options.weights or ()] or _shipped()
    if options.control:
        methods.append(f"w = 0, the control=weights:{options.control}")
    for blur in (*BLURS, REAL, REAL_REDUCED):
        kodak = blur in BLURS
        # Squares of the size that the networks were trained on, as `deblur` restores them.
        place = _photographs(blur, options.data)
        pixels = {"protocol": "focus", "blur": blur, "photographs": [place]}
        if not kodak:
            pixels = {"protocol": "grid", "photographs": [place / "sharp"], "blurred": place / "blur"}
        config = EvaluateConfig(
            data=options.data,
            methods=methods,
            limit=options.limit,
            lpips_weights=options.lpips_weights,
            device=options.device,
            # Results are kept there.
            out=record.SCRATCH / "focus",
            **pixels,
        )
        yield blur, measure(config)[0]


def report(tables: dict[str, Table], machine: record.Machine) -> str:
    """All settings in one table, and below it the intervals of PSNR."""
    metrics = [metric for metric in METRICS if metric != "seconds"]
    lines = [["blur", "method", *(HEADERS[metric] for metric in metrics)]]
    intervals = [["blur", "method", HEADERS["psnr"], "95 % confidence", "pictures"]]
    for blur, table in tables.items():
        for row, ranks in zip(table.rows, marks(table.rows), strict=True):
            name = row.labels[0]
            cells = [shown(metric, row.values[metric]) for metric in metrics]
            best = zip(metrics, cells, strict=True)
            lines.append(
                [blur, name, *(f"**{cell}**" if ranks.get(one) == 1 else cell for one, cell in best)]
            )
            low, high = (shown("psnr", end) for end in row.intervals.get("psnr") or (None, None))
            intervals.append([blur, name, cells[0], f"{low} to {high}", str(row.pictures)])
    parts = ["# Photographs out of focus", record.describe(machine), " ".join(ABOUT.split())]
    parts += ["## By blur", straight(lines), "## How certain", straight(intervals)]
    parts += ["## Protocols", *(f"- {blur}: {table.notes[0]}" for blur, table in tables.items())]
    return "\n\n".join(parts) + "\n"
