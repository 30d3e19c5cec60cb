"""The learning rate over a run."""

import math

__all__ = ["warmup_cosine"]


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """The factor on the highest learning rate at a step: a linear rise, then half a cosine down to nothing.

    Args:
        step: from 0 to steps - 1.
        steps: steps of the whole run.
        warmup: steps of the rise; cut to the length of the run.

    Returns:
        A number in (0, 1].
    """
    warmup = min(warmup, steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (steps - warmup + 1))
