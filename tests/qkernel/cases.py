"""Calls of an engine drawn at random: every kind of input beside every other, which no list of cases covers.

A failure names its case, which `Case.drawn` draws again from its seed, for the same dtypes and patch sizes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from qkernel import Definition
from qkernel.engines import eager

from .agreement import GRADIENT_TOLERANCE, VALUE_TOLERANCE


def _cropped(x: Tensor, columns: int) -> Tensor:
    # In a sea of NaN, which shows any read outside the image.
    sea = pad(x, (columns, columns, 3, 1), value=float("nan"))
    return sea[:, :, 3:-1, columns:-columns]


#: The same pixels in other places of the memory.
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "every other row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "cropped on a boundary": lambda x: _cropped(x, 16),
    "cropped off a boundary": lambda x: _cropped(x, 1),
    "some channels": lambda x: x.repeat(1, 2, 1, 1)[:, : x.shape[1]],
    "images innermost": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


@dataclass(frozen=True)
class Case:
    """One call. ``pixel`` is None for Q alone."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    layout: str
    definition: Definition
    offset: tuple[int, int] | None
    weight: float
    reduction: str
    pixel: str | None
    target_dtype: torch.dtype
    target_layout: str
    seed: int

    @classmethod
    def drawn(cls, seed: int, dtypes: tuple[torch.dtype, ...], patch_sizes: tuple[int, ...]) -> Case:
        draw = random.Random(seed)
        n = draw.choice(patch_sizes)
        height = draw.choice((n, n + 1, 2 * n, 3 * n - 1, draw.randint(n, 3 * n + 5)))
        # Widths that vectors fit are rare among all; of those, some are no multiple of n.
        fitting = (n, 2 * n, 8 * (n // 8 + 2), 16 * (n // 16 + 1), 4 * (n // 4) + 4, 8 * (n // 8) * 3 + 8)
        width = draw.choice((*fitting, draw.randint(n, 5 * n + 9)))
        offset = draw.randint(0, min(n - 1, height - n)), draw.randint(0, min(n - 1, width - n))
        name = draw.choice(("zhu2010", "mmsp2024", "pythonq"))
        pixel = draw.choice((None, "l1", "mse", "charbonnier"))
        return cls(
            (draw.choice((1, 1, 2, 3)), draw.choice((1, 3)), height, width),
            draw.choice(dtypes),
            draw.choice(list(LAYOUTS)),
            Definition(name, n, eps=draw.choice((0.0, 0.0, 1e-3))),
            offset if draw.random() < 0.3 else None,
            draw.choice((0.3, -1.0) if pixel is None else (0.0, 0.3, 0.3, -1.0)),
            draw.choice(("mean", "sum", "none")),
            pixel,
            draw.choice(dtypes),
            draw.choice(list(LAYOUTS)),
            seed,
        )

    def tensors(self, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """pred, target and grad_output."""
        make = torch.Generator().manual_seed(self.seed)
        images, _, height, width = self.shape
        # A ramp that bends, steep enough beside the noise for most patches to count.
        y, x = torch.arange(height)[:, None], torch.arange(width)
        noise = torch.rand(self.shape, generator=make)
        pred = (0.02 * x + 0.0003 * y * y + 0.03 * noise).to(self.dtype)
        target = torch.rand(self.shape, generator=make).to(self.target_dtype)
        size = (images,) if self.reduction == "none" else ()
        grad_output = torch.rand(size, generator=make)
        # Laid out on the device: moving a tensor there keeps no gaps between its pixels.
        pred, target, grad_output = (t.to(device) for t in (pred, target, grad_output))
        return LAYOUTS[self.layout](pred), LAYOUTS[self.target_layout](target), grad_output


def assert_agrees(engine, case: Case, device: torch.device | str = "cpu", ulps: float = 0.5) -> bool:
    """What the engine (a module) answers is what plain torch answers in float64, and pred and target are left
    alone.

    ``ulps`` is what rounding to half precision may cost. Returns whether any patch has counted.
    """
    pred, target, grad_output = case.tensors(device)
    before = pred.clone(), target.clone()
    offset = None if case.offset is None else torch.tensor(case.offset, dtype=torch.int32, device=device)
    images = (pred,) if case.pixel is None else (pred, target)
    arguments = () if case.pixel is None else (case.pixel, 0.01)
    arguments += (case.definition, offset, case.weight, case.reduction)
    name = "q" if case.pixel is None else "pixel_q"
    exact = [image.double() for image in images]

    found, wanted = getattr(engine, name)(*images, *arguments), getattr(eager, name)(*exact, *arguments)
    tolerance = VALUE_TOLERANCE[pred.dtype]
    if case.pixel is None:
        _assert_close(found, wanted, tolerance * wanted.abs(), case)
    else:
        pixel, q = wanted[1]
        _assert_close(found[1], wanted[1], tolerance * wanted[1].abs(), case)
        _assert_close(found[0], wanted[0], tolerance * (pixel.abs() + abs(case.weight) * q.abs()), case)

    found = getattr(engine, f"{name}_grad")(grad_output, *images, *arguments)
    wanted = getattr(eager, f"{name}_grad")(grad_output.double(), *exact, *arguments)
    assert found.dtype == pred.dtype and found.stride() == torch.empty_like(pred).stride(), case
    bound = GRADIENT_TOLERANCE[pred.dtype] * wanted.abs().amax((1, 2, 3), keepdim=True)
    if pred.dtype.itemsize == 2:
        # Rounded once; the smallest step of float16 besides.
        info = torch.finfo(pred.dtype)
        bound = bound + ulps * info.eps * wanted.abs() + info.smallest_normal * info.eps
    _assert_close(found, wanted, bound.expand_as(wanted), case)
    assert torch.equal(pred, before[0]) and torch.equal(target, before[1]), case
    return bool(eager.q(pred.double(), case.definition, offset, 1.0, "sum") > 0)


def _assert_close(found: Tensor, wanted: Tensor, bound: Tensor, case: Case) -> None:
    assert found.shape == wanted.shape, case
    excess = (found.double() - wanted).abs() - bound
    assert (excess <= 1e-300).all(), f"{case}: off by {excess.max().item():.3g} more than allowed"
