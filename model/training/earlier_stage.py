"""What a stage is told otherwise than the one whose weights it starts from, and where it validates."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.data.luma_set import LumaSet
from model.data.store import is_store
from model.networks.published import is_checkpoint
from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig, plain_values
from model.weights import load_weights

__all__ = ["CROPS", "differences", "say_contradictions"]

CROPS = ("blur", "noise", "quantise", "jpeg", "light", "vary")
"""Options that say how crops are made worse."""


def differences(here: TrainConfig, there: Mapping[str, Any], names: Iterable[str]) -> str:
    """The options that differ, such as `blur box:5 (before: disc:3), seed 0 (before: 5)`; empty if none do.

    Args:
        here: the later stage.
        there: the recorded options of the earlier one; what it does not have was as it is by default.
        names: the options to look at.
    """
    usual = {item.name: item.default for item in dataclasses.fields(TrainConfig)}
    found = []
    for name in names:
        now, before = plain_values(getattr(here, name)), there.get(name)
        before = usual[name] if before is None else before
        if now != before:
            found.append(f"{name} {now} (before: {before})")
    return ", ".join(found)


def say_contradictions(config: TrainConfig, images: LumaSet, held_out: LumaSet | None) -> None:
    """Say where crops are not those that the weights know, and where validation is on what was trained on."""
    if config.validation and held_out is not None:
        trained = set(_places(config.photographs, images))
        both = [place for place in _places(config.validation, held_out) if place in trained]
        if both:
            number = f"{len(both)} of {len(held_out)}"
            say(f"warning: {number} validation photographs are also trained on, e.g. {both[0]}")
    if not isinstance(config, FinetuneConfig) or config.weights is None or is_checkpoint(config.weights):
        return
    training = load_weights(config.weights)[1].training
    made = training.get("config", {})
    if training.get("pairs") and not images.paired:
        say(
            f"warning: {config.weights} was trained on pairs; crops here have {config.degradation.describe()}"
        )
    elif "blur" in made and not images.paired and (differing := differences(config, made, CROPS)):
        say(f"warning: {config.weights} was trained on other crops than this run's: {differing}")
    if config.holdout and not config.validation and _validates_on_trained(config, made):
        text = f"warning: {config.weights} may have been trained on what is held out here"
        differing = differences(config, made, ("holdout", "seed"))
        say(f"{text}: {differing}" if differing else text)


def _places(sources: Sequence[Path], images: LumaSet) -> list[Path]:
    """Where the photographs lie; those of a store have names inside of it."""
    inside = sources[0] if is_store(sources[0]) else Path()
    return [(inside / name).resolve() for name in images.names]


def _validates_on_trained(config: TrainConfig, made: Mapping[str, Any]) -> bool:
    """Whether an earlier stage on the same photographs held others, or fewer, out."""
    before = {Path(path).resolve() for path in made.get("photographs", [])}
    if before.isdisjoint(path.resolve() for path in config.photographs):
        return False
    held_out = 0 if made.get("validation") else made.get("holdout", 0)
    return made.get("seed") != config.seed or held_out < config.holdout
