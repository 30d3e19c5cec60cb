"""The table of a comparison: what each run cost and what it gained."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.comparison.runs import FIRST, Run
from model.evaluation.formats import Table
from model.evaluation.paired import Difference, against
from model.evaluation.table import HEADERS, shown, straight
from model.networks import parameter_count
from model.weights import load_network

__all__ = ["METRICS", "Comparison", "Line", "compare_runs"]

METRICS = ("psnr", "ssim", "q", "lpips")


@dataclass(frozen=True)
class Line:
    """One row: a run, and the means over the test pictures; the blurred pictures themselves have no run."""

    network: str
    knows_blur: bool
    arguments: Mapping[str, Any]
    """Of the constructor, where they are not the published ones."""
    parameters: int
    loss: str
    steps: int
    """Of this stage."""
    earlier_steps: int
    """Of the first stage, where the run goes on from it."""
    crops: int
    seconds: float
    """Of training in this stage, as it was on the machine; other programs slow it."""
    means: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """The network as tables show it, with what makes it another than the published one."""
        words = [f"{key}={value}" for key, value in self.arguments.items()]
        words += ["knows the blur"] * self.knows_blur
        return self.network + (f" ({', '.join(words)})" if words else "")


@dataclass(frozen=True)
class LossDifference:
    """A loss against the first one, from the same weights."""

    network: str
    loss: str
    control: str
    metric: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """The rows, the differences between losses, and what all of it rests on."""

    lines: Sequence[Line]
    differences: Sequence[LossDifference]
    blurred: Mapping[str, float | None]
    notes: Sequence[str]
    facts: Mapping[str, Any]

    def markdown(self) -> str:
        """The tables and their foot."""
        head = ["network", "M parameters", "loss", "steps", "crops", "seconds"]
        rows = [[*head, *(HEADERS[metric] for metric in METRICS)]]
        rows.append(["blurred", *[""] * 5, *(shown(metric, self.blurred[metric]) for metric in METRICS)])
        rows += [
            [
                line.name,
                f"{line.parameters / 1e6:.2f}",
                "l1, first stage" if line.loss == FIRST else line.loss,
                f"{line.earlier_steps} + {line.steps}" if line.earlier_steps else str(line.steps),
                f"{line.crops:,}",
                f"{line.seconds:.0f}",
                *(shown(metric, line.means[metric]) for metric in METRICS),
            ]
            for line in self.lines
        ]
        parts = [straight(rows)]
        if self.differences:
            parts += [f"Against {self.differences[0].control}, picture by picture:", self._differences()]
        return "\n\n".join([*parts, *self.notes]) + "\n"

    def _differences(self) -> str:
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for one in self.differences:
            cells.setdefault((one.network, one.loss), {})[one.metric] = one.difference.shown(one.metric)
        rows = [["network", "loss", *(HEADERS[metric] for metric in METRICS)]]
        rows += [
            [network, loss, *(found.get(metric, "n/a") for metric in METRICS)]
            for (network, loss), found in cells.items()
        ]
        return straight(rows)

    def csv(self) -> str:
        """The rows with all digits that matter; an empty cell where there is no number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = ("network", "knows_blur", "arguments", "parameters", "loss", "steps", "earlier_steps")
        writer.writerow([*columns, "crops", "seconds", *METRICS])
        writer.writerow(["blurred", *[""] * (len(columns) + 1), *map(_digits, self._ordered(self.blurred))])
        for line in self.lines:
            loss = "l1" if line.loss == FIRST else line.loss
            values = [
                *(line.network, line.knows_blur, json.dumps(dict(line.arguments)), line.parameters, loss),
                *(line.steps, line.earlier_steps, line.crops, f"{line.seconds:.1f}"),
            ]
            writer.writerow([*values, *map(_digits, self._ordered(line.means))])
        return text.getvalue()

    @staticmethod
    def _ordered(means: Mapping[str, float | None]) -> list[float | None]:
        return [means[metric] for metric in METRICS]

    def json(self) -> str:
        """Everything, for programs."""
        content = {
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "blurred": dict(self.blurred),
            "rows": [vars(line) for line in self.lines],
            "differences": [
                {
                    **{name: getattr(one, name) for name in ("network", "loss", "control", "metric")},
                    **vars(one.difference),
                }
                for one in self.differences
            ],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, default=dict) + "\n"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def compare_runs(
    runs: Sequence[Run],
    arguments: Mapping[str, Mapping[str, Any]],
    measured: Table,
    notes: Sequence[str],
    facts: Mapping[str, Any],
) -> Comparison:
    """Put what the runs say of themselves beside what was measured of them.

    Args:
        runs: networks outermost, each first stage before its losses.
        arguments: network -> what was changed of it.
        measured: the evaluation, with a method for each run's label and `blurred`.
        notes, facts: the foot, for people and for programs.
    """
    means = {row.labels[0]: {metric: row.values[metric] for metric in METRICS} for row in measured.rows}
    lines: list[Line] = []
    differences: list[LossDifference] = []
    first = Run("", "", runs[0].weights)
    control: Run | None = None
    for run in runs:
        network, card = load_network(run.weights)
        if run.loss == FIRST:
            first, control = run, None
        training = card.training
        earlier = lines[-1].earlier_steps or lines[-1].steps if lines and run is not first else 0
        lines.append(
            Line(
                network=run.network,
                knows_blur=bool(getattr(network, "knows_blur", False)),
                arguments=arguments.get(run.network, {}),
                parameters=parameter_count(network),
                loss=run.loss,
                steps=training["steps"],
                earlier_steps=earlier,
                crops=training["crops"],
                seconds=training["seconds"],
                means=means[run.label],
            )
        )
        if run is first:
            continue
        if control is None:
            control = run
            continue
        found = against(measured.measurements, control.label, run.label, METRICS)
        differences += [
            LossDifference(run.network, run.loss, control.loss, metric, one) for metric, one in found.items()
        ]
    return Comparison(lines, differences, means["blurred"], notes, facts)
