"""Everything that restores, behind one face: blurred N x 1 x H x W in [0, 1] -> restored, same shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from model.weights import load_network

__all__ = ["Identity", "Method", "NetworkMethod", "method_from_weights"]


class Method(Protocol):
    """What the evaluator knows of a method."""

    name: str

    def restore(self, blurred: Tensor) -> Tensor:
        """Restore N x 1 x H x W float luma in [0, 1]; the result need not be clipped."""
        ...


@dataclass
class Identity:
    """Gives back what it gets: the blurred row of every table."""

    name: str = "blurred"

    def restore(self, blurred: Tensor) -> Tensor:
        """Return `blurred`."""
        return blurred


class NetworkMethod:
    """A trained network.

    Args:
        name: its row in the table.
        network: put into evaluation mode and moved to `device`.
        device: where it runs.
    """

    def __init__(self, name: str, network: nn.Module, device: torch.device) -> None:
        self.name, self.device = name, device
        self.network = network.to(device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def restore(self, blurred: Tensor) -> Tensor:
        """Restore luma in float32; the result is not clipped."""
        blurred = blurred.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        return self.network(blurred)


def method_from_weights(path: Path, device: torch.device) -> NetworkMethod:
    """The network in a weights file, named after the file, or after its folder if it is called weights.

    Raises:
        UserError: if the file cannot be loaded.
    """
    network, _ = load_network(path)
    name = path.absolute().parent.name if path.stem == "weights" else path.stem
    return NetworkMethod(name, network, device)
