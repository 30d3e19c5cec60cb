"""Strides and alignment of the input do not matter, and gradients have those of empty_like."""

from __future__ import annotations

import pytest
import torch

from qkernel import q_metric

from ..patches import stack


def _batch(images, channels, height, width, dtype, device):
    return torch.tensor(stack(images, channels, height, width), dtype=dtype, device=device)


STRIDES = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch_last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "every_second_column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "every_third_row": lambda x: x.repeat_interleave(3, 2)[..., ::3, :],
    "unaligned_window": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 1))[..., 1:-1, 3:-2],
    "half_of_the_channels": lambda x: torch.cat([x, x + 1], 1)[:, : x.shape[1]],
    "every_second_channel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "expanded_batch": lambda x: x[:1].expand_as(x),
    "expanded_rows": lambda x: x[..., :1, :].expand_as(x),
    "expanded_columns": lambda x: x[..., :1].expand_as(x),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strides", STRIDES)
def test_strides_do_not_matter(engine, device, strides, channels):
    for dtype in (torch.float32, torch.bfloat16):
        for definition, height, width in (("zhu2010", 17, 75), ("mmsp2024", 24, 32)):
            strided = STRIDES[strides](_batch(2, channels, height, width, dtype, device))
            assert strided.is_contiguous() == (strides == "contiguous") or strides == "channels_last"
            before = strided.clone()
            plain = strided.contiguous(memory_format=torch.contiguous_format).clone()
            got = q_metric(strided, definition, reduction="none", engine=engine)
            # Another order of the same sums, so a few roundings.
            torch.testing.assert_close(
                got, q_metric(plain, definition, reduction="none", engine=engine), rtol=2e-6, atol=0
            )
            gradient = _gradient(strided, engine, definition)
            want = _gradient(plain, engine, definition)
            assert gradient.stride() == torch.empty_like(strided).stride()
            torch.testing.assert_close(
                gradient, want, rtol=torch.finfo(dtype).eps, atol=1e-5 * want.abs().max()
            )
            assert torch.equal(strided, before), "the input was written to"


def _gradient(x, engine, definition="zhu2010"):
    """By the op itself: autograd would be free to change the strides of what it hands on."""
    ones = torch.ones(x.shape[0], device=x.device)
    settings = (definition, 8, 1e-3, 1.0, 0.0, None, 1.0, "none", engine)
    return torch.ops.qkernel.q_grad(ones, x, *settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unaligned_start_does_not_matter(engine, device, dtype):
    x = _batch(1, 1, 32, 48, dtype, device)
    for shift in range(1, 9):
        memory = torch.empty(x.numel() + 16, dtype=dtype, device=device)
        moved = memory[shift : shift + x.numel()].view(x.shape).copy_(x)
        value, want_value = q_metric(moved, engine=engine), q_metric(x, engine=engine)
        got, want = _gradient(moved, engine), _gradient(x, engine)
        if engine == "triton":
            # Its path for aligned rows adds in another order, so a few roundings.
            torch.testing.assert_close(value, want_value, rtol=1e-5, atol=0)
            rtol = max(1e-5, torch.finfo(dtype).eps)
            torch.testing.assert_close(got, want, rtol=rtol, atol=1e-5 * want.abs().max().item())
        else:
            assert value == want_value
            assert torch.equal(got, want)
