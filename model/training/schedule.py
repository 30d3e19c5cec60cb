"""The learning rate over a run."""

import math

__all__ = ["learning_rate"]


def learning_rate(
    step: int, steps: int, warmup: int = 0, hold: float = 0.0, end: float = 0.0, kind: str = "cosine"
) -> float:
    """The factor on the highest learning rate at a step: a linear rise, a plateau, and the fall to `end`.

    Args:
        step: from 0 to steps - 1.
        steps: steps of the whole run.
        warmup: steps of the rise; cut to the length of the run.
        hold: share of the run, from its beginning, before the fall begins.
        end: the factor one step after the last; above 0 for "exponential".
        kind: "cosine", "linear", "exponential" or "constant".

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: if `kind` is unknown.
    """
    warmup = min(warmup, steps)
    if step < warmup:
        return (step + 1) / warmup
    begin = max(warmup, round(hold * steps))
    if kind == "constant" or step < begin:
        return 1.0
    # In (0, 1): neither the first step of the fall nor the last one stands still.
    done = (step - begin + (begin > warmup)) / (steps - begin + 1)
    if kind == "cosine":
        return end + (1 - end) * (0.5 + 0.5 * math.cos(math.pi * done))
    if kind == "linear":
        return end + (1 - end) * (1 - done)
    if kind == "exponential":
        return end**done
    raise ValueError(f"no schedule is called {kind!r}")
