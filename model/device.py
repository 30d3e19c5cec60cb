"""The device that a command runs on."""

import torch

from model.errors import UserError

__all__ = ["choose_device"]


def choose_device(name: str) -> torch.device:
    """Turn a name into a device that is there; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: if the name is no device or the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device is called {name!r}; give cpu, cuda, cuda:1, mps or auto") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UserError(f"device {name!r} is not there; give cpu or auto")
    return device
