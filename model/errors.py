"""The error a user can do something about."""

__all__ = ["UserError", "memory_error"]


class UserError(Exception):
    """Something the user gave is wrong: shown as one line naming the value and the way out, exit code 2."""


def memory_error(error: Exception, advice: str) -> UserError:
    """What to say of a torch.OutOfMemoryError: what was tried, what was free and which other processes hold
    memory, not its allocator's affairs.

    Args:
        error: torch's.
        advice: the options that take less memory.
    """
    figures = str(error)
    for affairs in (" Including non-PyTorch memory", " Of the allocated memory"):
        figures = figures.partition(affairs)[0]
    return UserError(f"the GPU's memory does not suffice: {advice}. {figures.rstrip('. ')}")
