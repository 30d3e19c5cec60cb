"""The kernel that combines the warps' sums: few images share its warps, many are dealt out to its threads."""

from __future__ import annotations

import pytest
import torch

from qkernel import mae_q_loss, q_metric

# (images, sides): a warp's sums stand for 32 patches of 8 x 8, or 256 pixels outside them.
BATCHES = [(1, 512), (2, 40), (31, 19), (32, 24), (33, 160), (40, 8), (300, 50), (1030, 9), (2100, 8)]


@pytest.mark.parametrize(("images", "side"), BATCHES)
def test_an_image_gets_the_value_it_has_alone(engine, images, side):
    noise = torch.rand(images, 1, side, side, generator=torch.Generator().manual_seed(side))
    strength = torch.linspace(0.5, 1, images)[:, None, None, None]
    pred = strength * (torch.linspace(0, side / 16, side) + 0.02 * noise)
    target = pred.flip(3)
    some = sorted({0, images // 3, images - 1})
    for loss in (
        lambda i, reduction: q_metric(pred[i], reduction=reduction, engine=engine),
        lambda i, reduction: mae_q_loss(
            pred[i], target[i], weight=0.1, definition="mmsp2024", reduction=reduction, engine=engine
        ),
    ):
        each = loss(slice(None), "none")
        assert each.shape == (images,) and each.unique().numel() == images
        # Which threads add what depends on the batch: in float64, that is not to be seen.
        alone = torch.stack([loss(slice(i, i + 1), "mean") for i in some])
        torch.testing.assert_close(each[some], alone, rtol=2e-7, atol=0)
        for reduction in ("mean", "sum"):
            expected = getattr(each.double(), reduction)().float()
            torch.testing.assert_close(loss(slice(None), reduction), expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3, 5, 7])
def test_every_number_is_summed_once_in_however_many_turns(kernels, wide, shift):
    counts = [*range(150), *(2**k + e for k in range(8, 14) for e in (-1, 0, 1, 2, 3))]
    for count in counts:
        numbers = [float(i % 1000 + 1) for i in range(count)]
        assert kernels.sum_of_parts(numbers, shift, wide) == sum(numbers), count
