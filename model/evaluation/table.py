"""The table: means over pictures, as Markdown for people and CSV for programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from model.evaluation.evaluator import METRICS, Measurement

__all__ = ["Row", "mean_rows", "to_csv", "to_markdown"]

_HEADERS = {"psnr": "PSNR dB", "ssim": "SSIM", "q": "Q", "lpips": "LPIPS", "seconds": "s / picture"}
_DIGITS = {"psnr": 2, "ssim": 4, "q": 4, "lpips": 4, "seconds": 3}
_LARGER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}


@dataclass(frozen=True)
class Row:
    """One line: a method, or a method on one picture, and its numbers; None where there is none."""

    labels: tuple[str, ...]
    values: dict[str, float | None]


def mean_rows(measurements: Iterable[Measurement]) -> list[Row]:
    """Average each method's measurements over the pictures, methods in order of appearance."""
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(measurement.method, []).append(measurement)
    return [
        Row((method,), {metric: _mean([getattr(one, metric) for one in group]) for metric in METRICS})
        for method, group in groups.items()
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if len(present) == len(values) else None


def to_markdown(rows: Sequence[Row], names: dict[str, str] | None = None) -> str:
    """A Markdown table that is also straight as plain text; the best PSNR, SSIM and LPIPS are bold.

    Q is not: a picture can be sharper than the truth. Names replaces labels by what people should read.
    """
    names = names or {}
    best = {}
    for metric, larger in _LARGER_IS_BETTER.items():
        present = [round(value, _DIGITS[metric]) for row in rows if (value := row.values[metric]) is not None]
        if present:
            best[metric] = max(present) if larger else min(present)
    lines = [["method", *_HEADERS.values()]]
    for row in rows:
        cells = [names.get(row.labels[0], row.labels[0])]
        for metric in METRICS:
            value = row.values[metric]
            text = "n/a" if value is None else f"{value:.{_DIGITS[metric]}f}"
            bold = value is not None and round(value, _DIGITS[metric]) == best.get(metric)
            cells.append(f"**{text}**" if bold else text)
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def joined(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return (
            "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"
        )

    return "\n".join(map(joined, [lines[0], rule, *lines[1:]]))


def to_csv(rows: Sequence[Row], label_names: Sequence[str] = ("method",)) -> str:
    """The same as CSV, six digits, an empty cell where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*label_names, *METRICS])
    for row in rows:
        values = [row.values[metric] for metric in METRICS]
        writer.writerow([*row.labels, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue()
