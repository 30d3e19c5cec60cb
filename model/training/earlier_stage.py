"""What a stage is told otherwise than the one whose weights it starts from."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from model.training.config import TrainConfig, plain_values

__all__ = ["CROPS", "differences"]

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
