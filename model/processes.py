"""The processes that torchrun has started for one command."""

import hashlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore

__all__ = ["first_to_fail", "first_to_say", "leads", "processes"]


def processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the first of them, which speaks and writes for all."""
    return os.environ.get("RANK", "0") == "0"


def first_to_say(text: str) -> bool:
    """Whether no other process has asked this before: what goes wrong in all of them is said once."""
    return _count(f"said {hashlib.sha256(text.encode()).hexdigest()}") == 1


def first_to_fail() -> bool:
    """Whether no other process has asked this before: what fails then may fail for lack of the first."""
    return _count("failed") == 1


def _count(key: str) -> int:
    """How many processes have counted here, this one included; 1 where they cannot tell each other."""
    # torchrun keeps a store outside of the processes, there before any group of theirs and after it.
    if processes() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return 1
    # Which it also keeps when it starts them all anew.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        return _store().add(f"qkernel, attempt {attempt}: {key}", 1)
    except (KeyError, RuntimeError):
        # torchrun itself has left.
        return 1


def _store() -> "TCPStore":
    from torch.distributed import TCPStore

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(seconds=10))
