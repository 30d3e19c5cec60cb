"""Where a run is, and how it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.training.validation import Score

__all__ = ["Outcome", "Progress"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    weights: Path
    """The weights it wrote."""
    step: int
    """Steps done."""
    finished: bool
    """False if it was interrupted."""
    seconds: float
    """Time spent in steps, also before interruptions."""
    terms: dict[str, float]
    """Mean loss terms since the last line of the log."""
    validation: Score | None = None
    """Of the last validated weights, which are the written ones if the run is finished."""
    before: Score | None = None
    """Of the blurred pictures themselves."""


@dataclass
class Progress:
    """Where a run is; saved with its checkpoints."""

    step: int = 0
    seconds: float = 0.0
    best: float = float("-inf")

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to saved values."""
        vars(self).update(state)
