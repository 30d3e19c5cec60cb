"""What the demonstration starts from, and what may be said of it."""

from dataclasses import dataclass
from pathlib import Path

from model.shipped import MAE, shipped
from model.weights import load_network

__all__ = ["Start", "starting_point"]


@dataclass(frozen=True)
class Start:
    """Weights that are fine-tuned, and the words that are true of them."""

    weights: Path
    """The file, relative to the working directory where that is shorter to type."""
    origin: str
    """Where they come from, in sentences."""
    titles: dict[str, str]
    """What people read for the methods in results.csv: blurred, mae (the start) and mae_q (fine-tuned)."""
    unseen: str
    """Who has not seen the photographs that are measured, as a sentence."""


def starting_point(given: Path | None, with_q: bool = True) -> Start:
    """The weights that a user has given, or those that come with the program; `with_q` is of the fine-tuning.

    Raises:
        UserError: if they are not there or cannot be loaded.
    """
    weights = given or _near(shipped(MAE))
    # Before anything is said or written; the run and the comparison load them again.
    load_network(weights)
    if given is not None:
        return Start(
            weights,
            origin=f"The network is that of {given}.",
            # Nothing is known of how it was trained.
            titles={"blurred": "blurred", "mae": "before", "mae_q": "fine-tuned"},
            unseen="The fine-tuning has not seen them.",
        )
    return Start(
        weights,
        origin=(
            "A U-Net comes with this program. It was trained on other photographs, with the mean absolute\n"
            f"error, MAE, to take away a 5 x 5 box blur. Its card: python -m model info {weights}"
        ),
        titles={
            "blurred": "blurred",
            "mae": "U-Net, MAE",
            "mae_q": "U-Net, MAE - w Q" if with_q else "U-Net, MAE, longer",
        },
        unseen="No network was trained on them.",
    )


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
