"""The training runs of a comparison: as many steps as the budget buys, and none of them twice."""

import csv
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from model.comparison.config import CompareConfig
from model.errors import UserError
from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig
from model.training.trainer import train
from model.weights import load_weights, replace_file

__all__ = ["FIRST", "Budget", "Run", "settle_budget", "train_all"]

FIRST = "first stage"
"""Stands in place of the loss for the weights that all losses of a network start from."""

# Steps that are timed to turn minutes into steps, after some that pay for memory and the choice of kernels.
TIMED, UNTIMED = 5, 2


@dataclass(frozen=True)
class Budget:
    """Steps of a network's two stages."""

    steps: int
    finetune_steps: int
    seconds_per_step: float | None = None
    """Of MAE, as measured; None where the steps were given."""


@dataclass(frozen=True)
class Run:
    """A finished run: what it trained, and where its weights are."""

    network: str
    loss: str
    """The formula, or `FIRST`."""
    weights: Path

    @property
    def label(self) -> str:
        """Its name among the methods of the evaluation."""
        return f"{self.network} {self.loss}"


def train_all(config: CompareConfig) -> list[Run] | None:
    """Train every network, then go on with every loss; what is finished is left as it is.

    Returns:
        The runs, networks outermost, the first stage before the losses; None if one was interrupted.

    Raises:
        UserError: as `train`.
    """
    runs = []
    for network, loss, one in _plan(config):
        title = f"{network}, {'MAE' if loss == FIRST else loss}"
        if not _finished(one):
            resume = any((one.out / "checkpoints").glob("step-*")) and config.resume
            outcome = train(dataclasses.replace(one, resume=resume, overwrite=not resume), title)
            if not outcome.finished:
                say(f"the comparison goes on with: python -m model compare --resume --out {config.out}")
                return None
        else:
            say(f"{title}: finished before")
        runs.append(Run(network, loss, one.out / "weights.safetensors"))
    return runs


def _plan(config: CompareConfig) -> Iterator[tuple[str, str, TrainConfig]]:
    for network in config.networks:
        budget = settle_budget(config, network)
        first = config.first_stage(network, budget.steps)
        yield network, FIRST, first
        for formula in config.formulas:
            yield network, formula, config.second_stage(network, formula, first.out, budget.finetune_steps)


def _finished(config: TrainConfig | FinetuneConfig) -> bool:
    """Whether a run is there with all of its steps; weights are also written on the way."""
    path = config.out / "weights.safetensors"
    return path.is_file() and load_weights(path)[1].training.get("steps") == config.steps


def settle_budget(config: CompareConfig, network: str) -> Budget:
    """The steps of a network, timed where minutes are given; kept, so that a resumed run has the same.

    Raises:
        UserError: if a step takes longer than a stage may.
    """
    if not (config.minutes or config.finetune_minutes):
        return Budget(config.steps, config.finetune_steps)
    path = config.out / network / "budget.json"
    if path.is_file():
        return Budget(**json.loads(path.read_text()))
    seconds = _seconds_per_step(config, network)
    steps, finetune_steps = (
        int(minutes * 60 / seconds) if minutes else given
        for minutes, given in (
            (config.minutes, config.steps),
            (config.finetune_minutes, config.finetune_steps),
        )
    )
    if not (steps and finetune_steps):
        raise UserError(f"a step of {network} takes {seconds:.1f} s, longer than a stage: give more minutes")
    say(f"{network}: {seconds:.3g} s a step; {steps} steps, then {finetune_steps} with each loss")
    budget = Budget(steps, finetune_steps, seconds)
    replace_file(path, json.dumps(dataclasses.asdict(budget)).encode())
    return budget


def _seconds_per_step(config: CompareConfig, network: str) -> float:
    """The median time of a step with MAE."""
    with tempfile.TemporaryDirectory() as scratch:
        short = dataclasses.replace(
            config.first_stage(network, UNTIMED + TIMED), out=Path(scratch), log_every=1, save_every=0
        )
        train(short, f"{network}, timing a step")
        with (short.out / "log.csv").open(newline="") as file:
            ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    later = ends[UNTIMED - 1 :]
    return statistics.median(b - a for a, b in pairwise(later))
