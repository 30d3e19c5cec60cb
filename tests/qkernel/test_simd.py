"""Every instruction set the C++ engine was built for agrees with the SVD, and reads nothing but the image."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch

from qkernel import mae_q_loss, q_metric
from qkernel.engines import cpp

from ..oracle import DEFINITIONS, LUMA, oracle
from ..patches import image
from .agreement import assert_gradients_agree, assert_values_agree
from .conftest import SIMD_LEVELS


def test_the_environment_chooses_the_instruction_set(simd):
    assert cpp.simd() == simd


def test_an_unknown_instruction_set_is_an_error_that_lists_the_others(simd, monkeypatch):
    monkeypatch.setenv("QKERNEL_SIMD", "mmx")
    cpp.simd.cache_clear()
    with pytest.raises(ValueError, match=f"QKERNEL_SIMD.*{SIMD_LEVELS[0]}.*'mmx'"):
        cpp.simd()


@functools.cache
def _images(definition, n, channels, dtype):
    """Images and their oracle, for all instruction sets; and the share of luma that the first channel has."""
    families = ("random_on_weak_ramp", "near_rank_1", "diagonal_ramp", "camera", "constant")
    # One patch more than any register holds.
    pixels = np.stack([image(f, 2 * n + 1, 17 * n + 1, n, 1) for f in families])
    x = torch.tensor(pixels[:, None]).to(dtype)
    if channels == 3:
        # Strong gradients only: luma rounded in float32 is no longer near rank 1.
        x = torch.cat([x, x.flip(-1), torch.zeros_like(x)], 1)[:1]
    return x, oracle(x.double().numpy(), definition, n), LUMA[0] if channels == 3 else 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_values_and_gradients_agree_with_the_svd(simd, definition, dtype):
    for n in (4, 5, 8, 16):
        for channels in (1, 3):
            x, expected, share = _images(definition, n, channels, dtype)
            x = x.detach().clone().requires_grad_()
            values = q_metric(x, definition, n, reduction="none", engine="cpp")
            values.sum().mul(expected.q[0].size).backward()
            assert_values_agree(values, expected, dtype)
            assert_gradients_agree(x.grad[:, 0], expected, dtype, share)


def test_the_fused_loss_is_its_parts(simd):
    pred, target = torch.rand(2, 2, 3, 25, 83).unbind(0)
    pred += torch.arange(83) / 8
    for pixel, term in (
        ("l1", lambda d: d.abs()),
        ("mse", lambda d: d.square()),
        ("charbonnier", lambda d: (d.square() + 1e-2**2).sqrt()),
    ):
        a, b = pred.clone().requires_grad_(), pred.clone().requires_grad_()
        fused = mae_q_loss(a, target, 0.3, pixel, 1e-2, engine="cpp")
        parts = term(b - target).mean() - 0.3 * q_metric(b, engine="cpp")
        torch.testing.assert_close(fused, parts, rtol=2e-6, atol=0)
        fused.backward()
        parts.backward()
        assert (a.grad - b.grad).abs().max() <= 1e-5 * b.grad.abs().max()


# The image lies between two pages that may not be touched, right against the one after it or before it.
GUARDED = """
import ctypes, mmap
import torch
from qkernel import mae_q_loss, q_metric

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE

def guarded(values, at_end):
    size = values.numel() * values.element_size()
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for start in (address, address + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(start), page, 0) == 0
    offset = (pages + 1) * page - size if at_end else page
    x = torch.frombuffer(memory, dtype=values.dtype, count=values.numel(), offset=offset)
    return x.view(values.shape).copy_(values)

for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for n in (3, 4, 5, 8, 16):
        shapes = (1, 1, n, n), (1, 1, n, n + 1), (2, 1, 2 * n + 1, 9 * n + 2), (1, 3, n + 2, 17 * n - 1)
        for shape in shapes:
            values = (torch.rand(shape) + torch.arange(shape[-1]) / 4).to(dtype)
            for layout in (torch.contiguous_format, torch.channels_last):
                for at_end in (True, False):
                    shaped = values
                    if layout is torch.channels_last:
                        shaped = values.permute(0, 2, 3, 1).contiguous()
                    x, y = guarded(shaped, at_end), guarded(shaped, at_end)
                    if layout is torch.channels_last:
                        x, y = x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2)
                    x.requires_grad_()
                    for definition in ("zhu2010", "mmsp2024"):
                        q_metric(x, definition, n, engine="cpp").backward()
                        mae_q_loss(x, y, definition=definition, patch_size=n, engine="cpp").backward()
print("untouched")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect as on Linux")
def test_not_a_byte_outside_the_image_is_read(simd):
    ran = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "untouched", f"exit status {ran.returncode}: {ran.stderr[-2000:]}"
