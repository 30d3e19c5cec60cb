"""What is measured side by side: qkernel's engines, plain torch, torch.compile, l1_loss, and a copy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch._functorch.config as functorch
from torch import Tensor

from model.errors import UserError
from qkernel import Definition, MAEQLoss, QLoss, reference
from qkernel.engines import ENGINES
from qkernel.functional import Offset

MODES = ("forward", "backward", "both")

#: Weight of Q in the composite loss.
WEIGHT = 0.01


@dataclass(frozen=True)
class Inputs:
    """The tensors of one call: ``pred`` asks for its gradient, ``buffer`` is what a copy goes to."""

    pred: Tensor
    target: Tensor
    buffer: Tensor

    @classmethod
    def of(cls, pred: Tensor, target: Tensor, dtype: torch.dtype, device: str) -> Inputs:
        pred, target = (x.to(device, dtype) for x in (pred, target))
        return cls(pred.requires_grad_(), target, torch.empty_like(target))


#: Of pred and target: a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Provider:
    """One implementation of one kernel, a loss.

    ``images`` is how many images the forward pass must read: pred alone, or also the target.
    """

    kernel: str
    name: str
    loss: Loss
    images: int

    def __call__(self, inputs: Inputs) -> Tensor:
        return self.loss(inputs.pred, inputs.target)

    @property
    def compiled(self) -> bool:
        """Whether it is one of qkernel's compiled engines, which may allocate without torch."""
        return self.name in ENGINES and self.name != "eager"

    def bytes_moved(self, mode: str, pixels: int, itemsize: int) -> int:
        """The fewest bytes a kernel can move: each input read once, the gradient written once."""
        if self.kernel in ("copy", "read"):
            return {"copy": 2, "read": 1}[self.kernel] * pixels * itemsize
        forward, backward = self.images, self.images + 1
        images = {"forward": forward, "backward": backward, "both": forward + backward}[mode]
        return images * pixels * itemsize

    def step(self, inputs: Inputs, mode: str, ready: bool = False) -> Callable[[], object]:
        """The call that is timed.

        "forward" is a metric's call, without a graph; "both" a training step's; "backward" is the backward
        pass of a graph that is built once, here. ``ready``: the gradient of the loss, 1, is there already,
        and torch need not fill it by a kernel of its own, as where the loss is a term of another.
        """
        source = inputs.pred.detach()
        if self.kernel == "copy":
            return lambda: inputs.buffer.copy_(source)
        if self.kernel == "read":
            return source.sum
        if mode == "forward":

            def forward() -> None:
                with torch.no_grad():
                    self(inputs)

            return forward
        loss = self(inputs)
        grad_output = torch.ones_like(loss) if ready else None
        if mode == "both":
            return lambda: torch.autograd.grad(self(inputs), inputs.pred, grad_output)
        return lambda: torch.autograd.grad(loss, inputs.pred, grad_output, retain_graph=True)


def _plain_q(refine: bool) -> Loss:
    definition = Definition()
    return lambda pred, target: -reference.q_per_image(pred, definition, None, refine=refine).mean()


def _plain_mae_q(pred: Tensor, target: Tensor) -> Tensor:
    pixel = reference.pixel_per_image(pred, target, "l1", 1.0).mean()
    return pixel - WEIGHT * reference.q_per_image(pred, Definition(), None, refine=False).mean()


def _compiled(loss: Loss) -> Loss:
    # A donated buffer is used up by the first backward pass; "backward" makes many over one graph.
    functorch.donated_buffer = False
    return torch.compile(loss, dynamic=False, fullgraph=True)


def engines(device: str, names: list[str] | None = None) -> list[str]:
    """The engines to measure: those named, which must be there, or all that are."""
    there = {name: _missing(name, device) for name in ENGINES}
    for name in names or ():
        if name not in there:
            raise UserError(f"unknown engine {name!r}: choose from {', '.join(there)}")
        if there[name]:
            raise UserError(f"engine {name!r} is not available on {device}: {there[name]}")
    return names or [name for name, reason in there.items() if not reason]


def _missing(name: str, device: str) -> str | None:
    engine = ENGINES[name]
    probe = torch.zeros(1, 1, 8, 8, device=device)
    return engine.missing() or engine.refusal(probe, Definition())


def providers(names: list[str], compiled: tuple[str, ...], offset: Offset = (0, 0)) -> list[Provider]:
    """Everything to run interleaved; ``compiled`` are the kernels ("q", "mae_q") also put to torch.compile.

    ``offset`` is the engines' patch grid's.

    - the engines, through the public modules QLoss and MAEQLoss;
    - "plain": the closed form as one writes it in torch, with autograd; "refined": the same with the small
      eigenvalue computed accurately, which is what the eager engine runs;
    - "compile": torch.compile of the plain form;
    - torch's l1_loss, and a copy of one image, which shows the memory's speed.
    """
    found = []
    for kernel, images, plain, module in (
        ("q", 1, _plain_q(refine=False), QLoss),
        ("mae_q", 2, _plain_mae_q, functools.partial(MAEQLoss, WEIGHT)),
    ):
        found += [Provider(kernel, name, module(engine=name, offset=offset), images) for name in names]
        found.append(Provider(kernel, "plain", plain, images))
        if kernel == "q":
            found.append(Provider(kernel, "refined", _plain_q(refine=True), images))
        if kernel in compiled:
            found.append(Provider(kernel, "compile", _compiled(plain), images))
    found.append(Provider("l1_loss", "torch", torch.nn.functional.l1_loss, images=2))
    found.append(Provider("copy", "torch", lambda pred, target: pred, images=1))
    return found
