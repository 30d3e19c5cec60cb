"""One evaluation in every form it is read in: Markdown, CSV, JSON and LaTeX."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.evaluation.evaluator import METRICS, Failure, Measurement
from model.evaluation.published import beside
from model.evaluation.table import (
    HEADERS,
    Row,
    marks,
    mean_rows,
    shown,
    straight,
    to_csv,
    to_markdown,
)
from model.weights import replace_file

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """What was measured, under which protocol, and what went wrong.

    Args:
        measurements: one for each method and picture.
        notes: the foot of the table: protocol, metrics, machine.
        facts: the same as names and values, for programs.
        knows: method -> what it is told of the blur.
        failures: methods that gave nothing for a picture.
        published: the paper's table whose rows stand beside ours; "" for none.
    """

    measurements: Sequence[Measurement]
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    knows: Mapping[str, str] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    published: str = ""

    def __post_init__(self) -> None:
        rows = mean_rows(self.measurements, intervals=True)
        failed = {failure.method for failure in self.failures} - {row.labels[0] for row in rows}
        # A method that failed everywhere keeps its line, without numbers.
        rows += [Row((method,), dict.fromkeys(METRICS)) for method in self.knows if method in failed]
        object.__setattr__(self, "rows", beside(rows, self.published) if self.published else rows)

    rows: Sequence[Row] = field(init=False)
    """Our means with their confidence intervals, and the paper's figures where they were asked for."""

    def foot(self) -> list[str]:
        """The lines below the table, failures first."""
        lines = []
        for method in dict.fromkeys(failure.method for failure in self.failures):
            failed = [failure for failure in self.failures if failure.method == method]
            done = sum(one.method == method for one in self.measurements)
            first = failed[0]
            lines.append(
                f"{method} failed on {len(failed)} of {done + len(failed)} pictures, which its means leave "
                f"out, e.g. {first.image}: {first.reason}"
            )
        told = [f"{method}: {what}" for method, what in self.knows.items() if what]
        return [*lines, *self.notes, *(["What methods are told: " + "; ".join(told) + "."] if told else [])]

    def plain(self) -> str:
        """The table and its foot for a terminal."""
        return "\n".join([to_markdown(self.rows), "", *self.foot()])

    def markdown(self) -> str:
        """The table, the second best underlined; confidence intervals; the foot."""
        parts = [to_markdown(self.rows, underline_second=True)]
        bounded = [metric for metric in METRICS if metric != "seconds"]
        rows = [row for row in self.rows if any(row.intervals.get(metric) for metric in bounded)]
        if rows:
            lines = [["95 % confidence", *(HEADERS[metric] for metric in bounded), "pictures"]]
            lines += [
                [row.labels[0], *(_interval(metric, row) for metric in bounded), str(row.pictures)]
                for row in rows
            ]
            parts.append(straight(lines))
        # Each line of the foot is a paragraph.
        return "\n\n".join([*parts, *self.foot()]) + "\n"

    def csv(self) -> str:
        """Means, number of pictures and confidence intervals; the paper's rows are not among them."""
        return to_csv([row for row in self.rows if row.ours], intervals=True)

    def per_image_csv(self) -> str:
        """Every picture's numbers."""
        return to_csv(
            [
                Row((one.method, one.image), {metric: getattr(one, metric) for metric in METRICS})
                for one in self.measurements
            ],
            ("method", "image"),
        )

    def json(self) -> str:
        """Everything: facts, means, intervals, every picture's numbers, failures. Infinity is "inf"."""
        content = {
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "rows": [
                {
                    "method": row.labels[0],
                    "ours": row.ours,
                    "knows": self.knows.get(row.labels[0], ""),
                    "pictures": row.pictures,
                    "means": dict(row.values),
                    "intervals": dict(row.intervals),
                }
                for row in self.rows
            ],
            "per_image": [
                {"method": one.method, "image": one.image, **{name: getattr(one, name) for name in METRICS}}
                for one in self.measurements
            ],
            "failures": [asdict(failure) for failure in self.failures],
        }
        return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def latex(self) -> str:
        """A tabular for the package booktabs: the best bold, the second underlined, the foot as comments."""
        lines = [
            *(f"% {line}" for line in self.foot()),
            r"\begin{tabular}{l" + "r" * len(METRICS) + "}",
            r"\toprule",
            " & ".join(["method", *(_escaped(HEADERS[metric]) for metric in METRICS)]) + r" \\",
            r"\midrule",
        ]
        for row, ranks in zip(self.rows, marks(self.rows), strict=True):
            cells = [_escaped(row.labels[0])]
            for metric in METRICS:
                text = shown(metric, row.values[metric])
                command = {1: r"\textbf{", 2: r"\underline{"}.get(ranks.get(metric, 0))
                cells.append(f"{command}{text}}}" if command else text)
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write table.md, results.csv, per_image.csv, results.json and table.tex, each whole or not at all.

        Raises:
            UserError: if one cannot be written.
        """
        contents = {
            "results.csv": self.csv(),
            "per_image.csv": self.per_image_csv(),
            "results.json": self.json(),
            "table.tex": self.latex(),
            "table.md": self.markdown(),
        }
        for name, content in contents.items():
            replace_file(folder / name, content.encode())
        return [folder / name for name in contents]


def _interval(metric: str, row: Row) -> str:
    ends = row.intervals.get(metric)
    return " to ".join(shown(metric, end) for end in ends) if ends else "n/a"


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: written as words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


_ESCAPES = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
