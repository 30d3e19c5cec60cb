"""The moving average of the weights, and the network that is validated and written."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.training.batch_norm import measure_batch_norm

__all__ = ["WeightAverage"]


class WeightAverage:
    """Holds a second network whose parameters follow those of the first.

    The decay rises as (1 + n) / (10 + n) to its full value, so that the first steps are forgotten quickly.

    Args:
        network: the one that is trained, not wrapped.
        shadow: a network of the same shape on the same device; its weights are overwritten.
        decay: share of the average that a step leaves as it is, below 1; 0 keeps no average.
    """

    def __init__(self, network: nn.Module, shadow: nn.Module, decay: float) -> None:
        self.network, self.shadow, self.decay, self.steps = (
            network,
            shadow.eval().requires_grad_(False),
            decay,
            0,
        )
        self._copy_parameters()

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an optimiser step in; no wait for the device."""
        if not self.decay:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.shadow.parameters()), list(self.network.parameters()), 1 - decay)

    @torch.no_grad()
    def snapshot(self, batches: Iterable[Tensor]) -> nn.Module:
        """The averaged network with batch-norm statistics measured on some batches, in evaluation mode.

        Args:
            batches: inputs; none keeps the running statistics of the trained network.
        """
        if not self.decay:
            self._copy_parameters()
        for mine, theirs in zip(self.shadow.buffers(), self.network.buffers(), strict=True):
            mine.copy_(theirs)
        batches = iter(batches)
        first = next(batches, None)
        if first is not None:
            measure_batch_norm(self.shadow, _chained(first, batches))
        return self.shadow.eval()

    @torch.no_grad()
    def _copy_parameters(self) -> None:
        for mine, theirs in zip(self.shadow.parameters(), self.network.parameters(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"steps": self.steps, "parameters": dict(self.shadow.named_parameters())}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved average."""
        self.steps = state["steps"]
        for name, parameter in self.shadow.named_parameters():
            parameter.copy_(state["parameters"][name])


def _chained(first: Tensor, rest: Iterable[Tensor]) -> Iterable[Tensor]:
    yield first
    yield from rest
