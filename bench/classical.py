"""The classical methods of the paper's Table II on Kodak and BSDS500, under both protocols."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from model.evaluation.command import measure
from model.evaluation.config import EvaluateConfig
from model.evaluation.evaluator import METRICS
from model.evaluation.formats import Table
from model.evaluation.published import beside
from model.evaluation.table import Row, to_markdown

from . import record

SETS = ("kodak", "bsds500")
#: What the paper fed its iterative methods, and what it fed its networks.
PROTOCOLS = ("paper-circular", "paper-kodak")
METHODS = ("al", "mlm", "mrl", "red-fp:iterations=100", "wiener", "richardson-lucy")
#: For the 24 pictures of Kodak alone: over the 500 of BSDS500 they take hours.
SLOW_METHODS = ("red-fp", "red-fp:denoiser=dncnn", "red-sdm")

ABOUT = """\
The same methods are measured twice: on crops blurred with a circular border and not rounded, which is
what the paper gave its iterative methods, and on 8-bit crops with a mirrored border, which is what it
gave its networks. Only the second lets a method be compared with a network. On the published crop of
kodim19 aL, mRL and mLM equal the published pictures pixel for pixel (tests/model/classical), but the
averages of Table II are not met: which pixels of the BSDS500 images it averages is not known. mLM is the
best of all where its model of the blur is exact, and fails where it is not. The paper's denoiser
in RED, TNRD, is not to be had: non-local means stands in its place, or a DnCNN of our own training where the
row says so. RED-FP has 100 iterations, the "light" setting of its published code; with 200, its other
setting, and as RED-SDM with 1500, it is measured on Kodak alone, for the time it takes. Times of the paper's
aL, mLM and mRL are most likely of one iteration; ours are of a picture.
"""


@dataclass(frozen=True)
class Mean:
    """One row: a method over one data set, with the ends of the 95 % confidence interval of its PSNR."""

    data: str
    protocol: str
    method: str
    pictures: int
    failed: int
    psnr: float | None
    psnr_low: float | None
    psnr_high: float | None
    ssim: float | None
    q: float | None
    lpips: float | None
    seconds: float | None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder of data sets (default: QKERNEL_DATA)")
    parser.add_argument("--lpips-weights", type=Path, help="folder with alexnet_features.npz")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="as of `python -m model evaluate`")
    parser.add_argument(
        "--slow-methods", nargs="*", default=SLOW_METHODS, help="more, on Kodak alone (none: leave empty)"
    )
    parser.add_argument("--limit", type=int, default=0, help="pictures of each set (default: all)")
    parser.add_argument("--batch", type=int, default=1, help="pictures restored at once")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="folder (default: bench/results for all, else runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Measure, write CSV and Markdown; an interrupted run goes on where it stopped."""
    complete = (tuple(options.sets), tuple(options.protocols), options.limit) == (SETS, PROTOCOLS, 0)
    folder = options.out or (record.RESULTS if complete else record.SCRATCH)
    machine = record.machine(options.device)
    tables = {
        (data, protocol): _table(options, data, protocol)
        for protocol in options.protocols
        for data in options.sets
    }
    rows = [mean for place, table in tables.items() for mean in means(*place, table)]
    record.write(folder / f"classical_{options.device}.csv", rows, machine)
    text = report(tables, machine)
    (folder / f"classical_{options.device}.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Written: {folder}/classical_{options.device}.csv and .md")
    return 0


def _table(options: argparse.Namespace, data: str, protocol: str) -> Table:
    config = EvaluateConfig(
        photographs=[Path(data)],
        data=options.data,
        protocol=protocol,
        methods=[*options.methods, *(options.slow_methods if data == "kodak" else ())],
        limit=options.limit,
        batch=options.batch,
        lpips_weights=options.lpips_weights,
        device=options.device,
        # Results are kept there.
        out=record.SCRATCH / "classical",
    )
    return measure(config)[0]


def means(data: str, protocol: str, table: Table) -> list[Mean]:
    """The rows of one table as records."""
    return [
        Mean(
            data,
            protocol,
            row.labels[0],
            row.pictures,
            sum(failure.method == row.labels[0] for failure in table.failures),
            row.values["psnr"],
            *(row.intervals.get("psnr") or (None, None)),
            *(row.values[metric] for metric in METRICS[1:]),
        )
        for row in table.rows
        if row.ours
    ]


def averaged(tables: Sequence[Table]) -> list[Row]:
    """Rows of several sets as one: the mean of the sets' means, as the paper's table is labelled.

    Methods that one of the sets lacks are left out.
    """
    result = []
    of = [{row.labels: row for row in table.rows} for table in tables]
    for rows in ([rows[labels] for rows in of] for labels in of[0] if all(labels in rows for rows in of)):
        values = {metric: [row.values[metric] for row in rows] for metric in METRICS}
        result.append(
            replace(
                rows[0],
                values={
                    metric: None if None in column else fmean(column) for metric, column in values.items()
                },
                intervals={},
            )
        )
    return result


def report(tables: dict[tuple[str, str], Table], machine: record.Machine) -> str:
    """Everything as Markdown: averages beside the paper's, then each set."""
    parts = ["# Classical methods", record.describe(machine), ABOUT.replace("\n", " ").strip()]
    for protocol in dict.fromkeys(protocol for _, protocol in tables):
        of = {data: table for (data, name), table in tables.items() if name == protocol}
        if len(of) > 1:
            parts += [f"## {' and '.join(of)} averaged, {protocol}"]
            parts += [to_markdown(beside(averaged(list(of.values())), "II"), underline_second=True)]
        for data, table in of.items():
            parts += [f"## {data}, {protocol}", table.markdown().strip()]
    return "\n\n".join(parts) + "\n"
