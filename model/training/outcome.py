"""Where a run is, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import UserError
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
    world: int = 1
    """Processes that share the crops."""
    photographs: str = ""
    """The digest of what is trained on."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to saved values; what older versions did not save stays as it is."""
        vars(self).update(state)

    def check(self, here: "Progress", folders: Sequence[Path]) -> None:
        """Refuse to go on with other crops than those that the run began with.

        Args:
            here: of the run that is to go on, before the saved values were loaded.
            folders: where its photographs lie.

        Raises:
            UserError: if its processes or its photographs are others.
        """
        if self.world != here.world:
            raise UserError(
                f"the run was begun by {self.world} processes and cannot go on with {here.world}: "
                "start as many"
            )
        if self.photographs != here.photographs:
            raise UserError(
                f"{', '.join(map(str, folders))}: these are not the photographs that the run began with "
                "(other names or sizes); put those back, or begin anew with --overwrite"
            )
