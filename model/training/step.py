"""One optimiser step, and what it leaves on the device to be read later: no wait for the device inside."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from model.networks.luma import take_luma
from model.training.losses import Loss

__all__ = ["Reading", "Stepper"]


@dataclass(frozen=True)
class Reading:
    """What the device has gathered since the last reading."""

    terms: dict[str, float]
    """Mean loss and terms, over steps and processes, and `grad_norm`, the mean length of the gradient."""
    failed: int | None
    """The first step whose loss or gradient was not finite; from there on the weights stood still."""
    wrong: str
    """The term that was not finite then."""


class Stepper:
    """Forward, backward, and update.

    A step whose loss or gradient is not finite is not taken, nor is any after it: the optimiser's own switch
    for that, which loss scaling uses, lies on the device. So the weights are still good when the host finds
    out. Under float16 the switch belongs to the loss scaling, which skips single steps as a matter of course.

    Args:
        accelerator: carries precision and processes, and in how many parts, equally large, a batch goes
            through the network, one after the other (`gradient_accumulation_steps`).
        network: prepared by it.
        optimizer: prepared by it, fused.
        loss: of (restored, sharp).
        clip_norm: longest gradient; 0 does not limit it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        clip_norm: float,
    ) -> None:
        self.accelerator, self.network, self.optimizer, self.loss = accelerator, network, optimizer, loss
        self.clip_norm = clip_norm or float("inf")
        self.parameters = [one for one in network.parameters() if one.requires_grad]
        self.device = accelerator.device
        self.scaled = accelerator.scaler is not None and accelerator.scaler.is_enabled()
        self._first = torch.full((), -1.0, device=self.device, dtype=torch.float64)
        self._names: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        self._sums: Tensor | None = None
        self._wrong: Tensor | None = None

    def __call__(self, step: int, rate: float, blurred: Tensor, sharp: Tensor) -> None:
        """Take a step.

        Args:
            step: its number, for `Reading.failed`.
            rate: learning rate.
            blurred: network input, N x {1, 3} x H x W float32.
            sharp: the luma it should become, N x 1 x H x W float32.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.device.type == "cuda":
            # Results of a captured graph live until the next step begins. Elsewhere there are none, and the
            # call would import the compiler, which takes a second or two.
            torch.compiler.cudagraph_mark_step_begin()
        parts = self.accelerator.gradient_accumulation_steps
        *others, last = zip(blurred.chunk(parts), sharp.chunk(parts), strict=True)
        with self.accelerator.no_sync(self.network):
            found = [self._backward(*pair) for pair in others]
        # Processes exchange the gradient when it is whole.
        found.append(self._backward(*last))
        terms = found[0]
        if others:
            terms = {name: torch.stack([one[name] for one in found]).mean() for name in terms}
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.clip_norm)
        self._gather(step, {**terms, "grad_norm": norm})
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, blurred: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        """Add a part's share to the gradient; returns its terms and their sum, "loss"."""
        restored = self.network(blurred)
        # What is trained is luma: a network for RGB has seen three equal channels.
        loss, terms = self.loss(take_luma(restored), sharp)
        # Divides by the number of parts.
        self.accelerator.backward(loss)
        return {**terms, "loss": loss.detach()}

    def _gather(self, step: int, terms: dict[str, Tensor]) -> None:
        values = torch.stack([term.to(torch.float32) for term in terms.values()])
        judged = values[:-1] if self.scaled else values
        newly = ~torch.isfinite(judged).all() & (self._first < 0)
        self._first = torch.where(newly, float(step), self._first)
        if self._sums is None or self._wrong is None:
            self._names = list(terms)
            self._sums, self._wrong = torch.zeros_like(values), torch.zeros_like(values)
        self._wrong = torch.where(newly, values, self._wrong)
        self._sums = self._sums + values
        self._count += 1
        if not self.scaled:
            inner = getattr(self.optimizer, "optimizer", self.optimizer)
            inner.grad_scale, inner.found_inf = None, (self._first >= 0).to(torch.float32)

    @property
    def unread(self) -> bool:
        """Whether a step was taken since the last reading."""
        return self._count > 0

    def read(self) -> Reading:
        """Wait for the device, and hand out what was gathered."""
        assert self._sums is not None and self._wrong is not None, "no step was taken"
        packed = torch.stack([self._sums / self._count, self._wrong]).double()
        failed = self._first
        if self.accelerator.num_processes > 1:
            packed = self.accelerator.reduce(packed, "mean")
            everywhere = self.accelerator.gather(failed[None])
            # The earliest failure of any process; -1 is none.
            failed = torch.where(everywhere < 0, float("inf"), everywhere).min()
            failed = torch.where(torch.isinf(failed), -1.0, failed)
        *numbers, first = torch.cat([packed.flatten(), failed.reshape(1)]).tolist()
        count = len(self._names)
        terms, wrong = dict(zip(self._names, numbers, strict=False)), numbers[count:]
        # A sum of terms is wrong because one of them is: the terms come first.
        names = [
            name for name, value in zip(self._names, wrong, strict=True) if not abs(value) < float("inf")
        ]
        self._begin()
        return Reading(terms, int(first) if first >= 0 else None, names[0] if names else "")
