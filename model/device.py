"""The device that a command runs on."""

import platform
from pathlib import Path

import torch

from model.errors import UserError

__all__ = ["choose_device", "device_name", "processor_name"]


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


def processor_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """The model of a device; of a CPU also how many threads are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{processor_name()}, {torch.get_num_threads()} threads"
    return device.type
