"""The photographs of the demonstration, all inside scikit-image's wheel: nothing is downloaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from model.errors import UserError

__all__ = ["HeldOut", "Scenes", "scikit_image_scenes"]


@dataclass(frozen=True)
class HeldOut:
    """A photograph that no network is trained on, and what to show of it."""

    path: Path
    title: str
    left: int
    """Left edge of the zoomed crop in pixels."""
    top: int
    """Top edge of the zoomed crop in pixels."""
    side: int = 96
    """Side of the zoomed crop in pixels."""


@dataclass(frozen=True)
class Scenes:
    """Photographs to train on, and others to be judged by."""

    training: list[Path]
    held_out: list[HeldOut]


# Both motorcycles are one scene seen from two places, so they stay together.
_TRAINING = (
    "motorcycle_left.png",
    "motorcycle_right.png",
    "coffee.png",
    "rocket.jpg",
    "coins.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
)
_HELD_OUT = (
    ("astronaut.png", "astronaut", 174, 64),
    ("camera.png", "camera", 246, 78),
    ("chelsea.png", "cat", 118, 66),
)


def scikit_image_scenes() -> Scenes:
    """Nine photographs to train on and three held out.

    Raises:
        UserError: if scikit-image is not installed, or its wheel no longer carries them.
    """
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("the demonstration needs scikit-image's photographs: pip install scikit-image")
    folder = Path(package.origin).parent / "data"
    missing = [name for name in (*_TRAINING, *(row[0] for row in _HELD_OUT)) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"this scikit-image carries no {missing[0]}; version 0.25 or 0.26 does")
    return Scenes(
        training=[folder / name for name in _TRAINING],
        held_out=[HeldOut(folder / name, title, left, top) for name, title, left, top in _HELD_OUT],
    )
