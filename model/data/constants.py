"""What is made once and looked up in every step, and what torch.compile takes as a constant."""

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

__all__ = ["compiled", "constant"]

P = ParamSpec("P")
R = TypeVar("R")

_constants: list[Callable] = []


def constant(make: Callable[P, R]) -> Callable[P, R]:
    """Keep what `make` returns for each of its arguments; tensors in it may be trained through."""
    kept = cache(make)

    @wraps(make)
    def look_up(*args: P.args, **kwargs: P.kwargs) -> R:
        # The first call may be under inference_mode, a later one not.
        with torch.inference_mode(False):
            return kept(*args, **kwargs)

    _constants.append(look_up)
    return look_up


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """torch.compile for one shape, to which what is kept here is constant: it would look through a cache.

    The marks are not set where the constants are defined, since that imports torch._dynamo, which takes a
    program longer than torch itself; most compile nothing.
    """
    for look_up in _constants:
        torch.compiler.assume_constant_result(look_up)
    return torch.compile(function, dynamic=False)
