"""The error a user can do something about."""

__all__ = ["UserError"]


class UserError(Exception):
    """Something the user gave is wrong: shown as one line naming the value and the way out, exit code 2."""
