"""Several weights of Q from the same start, and the table that compares them (Table I of the paper)."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path

from model.processes import leads
from model.progress import say
from model.training.config import FinetuneConfig
from model.training.engine import process_group
from model.training.failure import Diverged
from model.training.messages import resuming
from model.training.run_folder import (
    RESULTS,
    RunFolder,
    earlier_results,
    finished_card,
    holds_checkpoint,
    refuse_earlier_sweep,
)
from model.training.trainer import Outcome, train
from model.training.validation import DIVERGED, METRICS, Score, table
from model.weights import replace_file

__all__ = ["sweep"]

#: The row of what all runs start from.
BLURRED = "blurred"


def sweep(config: FinetuneConfig) -> dict[float, Outcome | None] | None:
    """Fine-tune with each weight in turn, on the same crops, in subfolders `w_0.01`, ... of the run's folder.

    Runs that are finished are not repeated when resuming.

    Returns:
        The runs by weight, None for one that diverged; or None if one was interrupted.

    Raises:
        UserError: as `train`.
    """
    with process_group(config.device):
        return _sweep(config)


def _sweep(config: FinetuneConfig) -> dict[float, Outcome | None] | None:
    config.check()
    folder = RunFolder(config.out)
    if not (config.resume or config.overwrite):
        refuse_earlier_sweep(config.out)
    if leads():
        folder.write_config(config.recorded())
    outcomes: dict[float, Outcome | None] = {}
    runs = {weight: _one(config, weight) for weight in config.q_weights}
    rows = _earlier_rows(config.out, runs.values()) if config.resume else {}
    # Of all weights at once: the sweep may be interrupted in the first.
    replaced = earlier_results(config) if config.overwrite and not config.resume else []
    for weight, one in runs.items():
        name = one.out.name
        if config.resume and finished_card(one):
            say(f"{name}: finished before")
            continue
        one.resume = config.resume and holds_checkpoint(one.out)
        # Killed before its first checkpoint.
        one.overwrite = config.overwrite or (config.resume and not one.resume)
        try:
            outcome = train(one, f"w = {weight:g}", replaced)
        except Diverged as error:
            say(f"{name} diverged, the sweep goes on without it: {error}")
            outcomes[weight], rows[name] = None, DIVERGED
            continue
        finally:
            replaced = []
        if not outcome.finished:
            say(f"the sweep goes on with: {resuming(config)}")
            return None
        outcomes[weight] = outcome
        if outcome.validation is not None and outcome.before is not None:
            rows |= {BLURRED: outcome.before, name: outcome.validation}
            if leads():
                # After each run, so that a sweep that is resumed knows what was blurred how much.
                replace_file(config.out / RESULTS, _csv(rows))
    order = (BLURRED, *(run.out.name for run in runs.values()))
    rows = {key: rows[key] for key in order if key in rows}
    if rows and leads():
        shown = table(rows)
        say(f"\n{shown}")
        replace_file(config.out / "table.txt", f"{shown}\n".encode())
        replace_file(config.out / RESULTS, _csv(rows))
        say(f"written: {config.out / RESULTS}")
    return outcomes


def _one(config: FinetuneConfig, weight: float) -> FinetuneConfig:
    return dataclasses.replace(config, q_weight=weight, q_weights=[], out=config.out / f"w_{weight:g}")


def _earlier_rows(out: Path, runs: Iterable[FinetuneConfig]) -> dict[str, Score]:
    """Of the runs that are finished, from their cards; of what they began from, from the table so far."""
    table = _read(out / RESULTS)
    rows = {BLURRED: table[BLURRED]} if BLURRED in table else {}
    for one in runs:
        card = finished_card(one)
        if card is not None and all(f"validation_{metric}" in card.metrics for metric in METRICS):
            rows[one.out.name] = Score(**{metric: card.metrics[f"validation_{metric}"] for metric in METRICS})
    return rows


def _csv(rows: dict[str, Score]) -> bytes:
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["run", *METRICS])
    writer.writerows([name, *(getattr(score, metric) for metric in METRICS)] for name, score in rows.items())
    return content.getvalue().encode()


def _read(path: Path) -> dict[str, Score]:
    """The rows of `_csv`; none if there is no file, or it is another version's."""
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
        return {line["run"]: Score(**{metric: float(line[metric]) for metric in METRICS}) for line in lines}
    except (OSError, KeyError, TypeError, ValueError):
        return {}
