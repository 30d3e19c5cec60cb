"""Large gradients of the C++ engine are written past the cache, and are to the last bit what others are."""

from __future__ import annotations

import pytest
import torch

from qkernel import MAEQLoss, QLoss

PARTS = 4


def gradient(loss, x, *target):
    x = x.detach().requires_grad_()
    loss(x, *target).backward()
    return x.grad


# Rows of whole cache lines, with and without pixels left over at the right.
@pytest.mark.parametrize("width", [2048, 1552])
@pytest.mark.parametrize("patch_size", [4, 5, 8, 16])
@pytest.mark.parametrize("pixel", [None, "l1"])
def test_a_gradient_written_past_the_cache_is_that_of_its_parts(simd, width, patch_size, pixel):
    height = 2048 if patch_size == 16 else 2080  # whole patches in every part
    # Twelve mebibytes, and one part of them well below: the parts stay in the cache.
    assert height * width * 4 >= 12 << 20 > 2 * height // PARTS * width * 4
    make = torch.Generator().manual_seed(0)
    x, target = torch.rand(2, 1, 1, height, width, generator=make)
    options = {"engine": "cpp", "patch_size": patch_size}
    loss = QLoss(**options) if pixel is None else MAEQLoss(0.5, pixel=pixel, **options)
    arguments = () if pixel is None else (target,)
    whole = gradient(loss, x, *arguments)
    for part in range(PARTS):
        rows = slice(part * height // PARTS, (part + 1) * height // PARTS)
        expected = gradient(loss, x[:, :, rows].clone(), *(a[:, :, rows].clone() for a in arguments))
        # A quarter of the patches and of the pixels: each weighs four times as much, which is exact.
        assert torch.equal(PARTS * whole[:, :, rows], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [(0, 0), (0, 16), (7, 3)])
def test_colour_and_margins_are_written_past_the_cache(simd, dtype, offset):
    height, width = 4 * 256, 1040
    assert 3 * height * width * 4 >= 12 << 20
    make = torch.Generator().manual_seed(0)
    x, target = torch.rand(2, 1, 3, height, width, generator=make, dtype=dtype)
    loss = MAEQLoss(0.5, engine="cpp", patch_size=24, offset=offset)
    whole = gradient(loss, x, target)
    # Interleaved channels are never written past the cache.
    assert torch.equal(whole, gradient(loss, x.contiguous(memory_format=torch.channels_last), target))
