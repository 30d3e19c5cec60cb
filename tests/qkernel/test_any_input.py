"""Every engine on inputs of every kind beside every other."""

from __future__ import annotations

import torch

import qkernel.engines
from qkernel.engines import triton

from .cases import Case, assert_agrees

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PATCH_SIZES = (3, 4, 5, 7, 8, 9, 16, 20, 33)


def test_any_input_gives_what_plain_torch_gives_in_float64(engine, device):
    # Of Triton nearly every case is another kernel to compile.
    count, dtypes, sizes = (
        (10, triton.DTYPES, triton.PATCH_SIZES) if engine == "triton" else (400, DTYPES, PATCH_SIZES)
    )
    module = qkernel.engines.ENGINES[engine]
    counted = [assert_agrees(module, Case.drawn(seed, dtypes, sizes), device) for seed in range(count)]
    assert sum(counted) > 0.6 * count
