"""Repeated borders, against torch's padding."""

import pytest
import torch
import torch.nn.functional as F

from model.networks.border import repeat_border


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 2), (3, 5)])
@pytest.mark.parametrize("side", [1, 4])
def test_is_replicate_padding_on_one_axis(before, after, side):
    x = torch.rand(2, 3, side, 5)
    torch.testing.assert_close(
        repeat_border(x, -2, before, after), F.pad(x, (0, 0, before, after), mode="replicate"), rtol=0, atol=0
    )
    x = x.mT
    torch.testing.assert_close(
        repeat_border(x, -1, before, after), F.pad(x, (before, after, 0, 0), mode="replicate"), rtol=0, atol=0
    )


def test_gradient():
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: repeat_border(x, -1, 2, 1), x)
