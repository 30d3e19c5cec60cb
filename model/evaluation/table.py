"""The table: means over pictures, as Markdown for people and CSV for programs; other formats in `formats`."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from model.evaluation.bootstrap import confidence_interval
from model.evaluation.evaluator import METRICS, Measurement

__all__ = ["DIGITS", "HEADERS", "Row", "marks", "mean_rows", "shown", "straight", "to_csv", "to_markdown"]

HEADERS = {"psnr": "PSNR dB", "ssim": "SSIM", "q": "Q", "lpips": "LPIPS", "seconds": "s / picture"}
DIGITS = {"psnr": 2, "ssim": 4, "q": 4, "lpips": 4, "seconds": 3}
_LARGER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}


@dataclass(frozen=True)
class Row:
    """One line: a method, or a method on one picture, and its numbers; None where there is none."""

    labels: tuple[str, ...]
    values: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    """95 % confidence intervals of the means over pictures."""
    pictures: int = 0
    """How many the means are over."""
    ours: bool = True
    """Measured here; other rows are not ranked."""


def mean_rows(measurements: Iterable[Measurement], intervals: bool = False) -> list[Row]:
    """Average each method's measurements over the pictures, methods in order of appearance.

    Args:
        measurements: of any methods.
        intervals: also find confidence intervals by bootstrap over the pictures.
    """
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(measurement.method, []).append(measurement)
    rows = []
    for method, group in groups.items():
        columns = {metric: [getattr(one, metric) for one in group] for metric in METRICS}
        rows.append(
            Row(
                (method,),
                {metric: _mean(values) for metric, values in columns.items()},
                {
                    metric: confidence_interval(values) if None not in values else None
                    for metric, values in columns.items()
                    # A mean time depends on the machine, not on which pictures were drawn.
                    if metric != "seconds"
                }
                if intervals
                else {},
                pictures=len(group),
            )
        )
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present and len(present) == len(values) else None


def shown(metric: str, value: float | None) -> str:
    """A number as tables show it."""
    return "n/a" if value is None else f"{value:.{DIGITS[metric]}f}"


def marks(rows: Sequence[Row]) -> list[dict[str, int]]:
    """For each row, which of its numbers is the best (1) or the second (2) of ours, as rounded for the table.

    Q is not ranked: a picture can be sharper than the truth. Nor is time.
    """
    places: list[dict[str, int]] = [{} for _ in rows]
    for metric, larger in _LARGER_IS_BETTER.items():
        values = [row.values.get(metric) if row.ours else None for row in rows]
        rounded = [None if value is None else round(value, DIGITS[metric]) for value in values]
        order = sorted({value for value in rounded if value is not None}, reverse=larger)
        for place, value in zip(places, rounded, strict=True):
            if value in order[:2]:
                place[metric] = order.index(value) + 1
    return places


def to_markdown(
    rows: Sequence[Row], names: Mapping[str, str] | None = None, underline_second: bool = False
) -> str:
    """A Markdown table that is also straight as plain text; the best PSNR, SSIM and LPIPS are bold.

    Args:
        rows: one line each.
        names: replaces labels by what people should read.
        underline_second: also underline the second best, by HTML's <ins>, which GitHub shows underlined.
    """
    names = names or {}
    lines = [["method", *HEADERS.values()]]
    for row, ranks in zip(rows, marks(rows), strict=True):
        cells = [names.get(row.labels[0], row.labels[0])]
        for metric in METRICS:
            text, rank = shown(metric, row.values[metric]), ranks.get(metric)
            if rank == 1:
                text = f"**{text}**"
            elif rank == 2 and underline_second:
                text = f"<ins>{text}</ins>"
            cells.append(text)
        lines.append(cells)
    return straight(lines)


def straight(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the headings first, as a Markdown table with columns of even width."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def joined(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return (
            "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"
        )

    return "\n".join(map(joined, [lines[0], rule, *lines[1:]]))


def to_csv(rows: Sequence[Row], label_names: Sequence[str] = ("method",), intervals: bool = False) -> str:
    """The same as CSV, six digits, an empty cell where there is no number.

    Args:
        rows: one line each.
        label_names: heads of the labels' columns.
        intervals: also write the number of pictures and the ends of the confidence intervals.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    bounded = [metric for metric in METRICS if metric != "seconds"] if intervals else []
    ends = [f"{metric}_{end}" for metric in bounded for end in ("low", "high")]
    writer.writerow([*label_names, *METRICS, *(["pictures", *ends] if intervals else [])])
    for row in rows:
        values: list[float | None] = [row.values[metric] for metric in METRICS]
        if intervals:
            values.append(row.pictures or None)
            for metric in bounded:
                values.extend(row.intervals.get(metric) or (None, None))
        writer.writerow([*row.labels, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue()
