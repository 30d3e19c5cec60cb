"""What classical methods have in common: a callable with typed parameters that says what it must be told."""

from enum import StrEnum
from typing import ClassVar, Protocol

from torch import Tensor

from model.classical.blur import BlackBox

__all__ = ["Classical", "Knows", "at_least"]


class Knows(StrEnum):
    """What a method is told about the blur, beside the blurred picture."""

    NOTHING = "blind"
    """Nothing, or what it learned from examples."""
    OPERATOR = "calls the blur"
    """The blur as a black box: a function from picture to picture."""
    KERNEL = "knows the kernel"
    """The kernel itself, and so the transfer function and the adjoint."""
    ANSWER = "made elsewhere"
    """Pictures that others have restored."""


class Classical(Protocol):
    """A frozen dataclass: its fields are its parameters, on the command line `name:field=value`."""

    knows: ClassVar[Knows]

    def __call__(self, blurred: Tensor, blur: BlackBox) -> Tensor:
        """Restore N x 1 x H x W in [0, 1]; pictures of a batch do not influence each other."""
        ...


def at_least(smallest: float, name: str, value: float) -> None:
    """Refuse a parameter below its smallest value (NaN too).

    Raises:
        ValueError: naming it and its value.
    """
    if not value >= smallest:
        raise ValueError(f"{name} must be at least {smallest:g}, got {value}")
