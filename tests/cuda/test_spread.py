"""The gradient's kernels for few patches: what is asked of every engine, and the bits of those for many."""

from __future__ import annotations

import pytest
import torch

from qkernel import MAEQLoss, q_metric

from ..oracle import DEFINITIONS
from ..patches import image
from ..qkernel.test_accuracy import (  # noqa: F401
    test_an_eight_bit_picture_agrees_with_the_svd,
    test_contrast_whose_square_is_hardly_a_number_keeps_its_digits,
    test_gradient_of_a_patch_is_bounded,
    test_rgb_is_measured_on_its_luma,
    test_smoothing_agrees_with_the_svd,
    test_straight_edges_get_the_gradient_without_s2,
)
from ..qkernel.test_any_input import test_any_input_gives_what_plain_torch_gives_in_float64  # noqa: F401
from ..qkernel.test_functional_strides import test_strides_do_not_matter  # noqa: F401
from ..qkernel.test_loss import (  # noqa: F401
    test_fused_agrees_with_the_svd,
    test_mae_has_gradient_0_where_pred_is_target,
    test_weight_0_is_the_pixel_loss_alone,
)
from .conftest import few_patches
from .test_paths import HALF, _path, test_vectors_of_pixels_agree_with_the_svd  # noqa: F401


@pytest.fixture(autouse=True)
def few(kernels):
    with few_patches(kernels):
        yield


def test_few_patches_take_them_wherever_the_gradient_lies(kernels, cuda_engine):
    kernels.set_few_patches(64)  # of each of 132 multiprocessors
    x, larger = torch.empty(32, 1, 128, 128), torch.empty(65, 1, 128, 128)
    assert _path(cuda_engine, kernels, x, backward=True) == "spread"
    assert _path(cuda_engine, kernels, x) == _path(cuda_engine, kernels, larger, backward=True) == "direct"
    assert _path(cuda_engine, kernels, x[..., 1:], backward=True) == "staged"
    offset = torch.zeros(2, dtype=torch.int32)
    assert _path(cuda_engine, kernels, x, backward=True, offset=offset) == "staged"


@pytest.mark.parametrize("dtype", (torch.float32, *HALF), ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [80, 77])
def test_they_give_the_bits_of_the_kernels_for_many(engine, kernels, definition, dtype, channels, side):
    """So no patch counts for the gradient that does not count for the value."""
    # Rows that begin where 16 bytes do; those of the gradient need not.
    images = torch.stack([torch.tensor(image("camera", 48, 80, 8, i)) for i in range(4 * channels)])
    images = images.unflatten(0, (4, channels)).to(dtype)[..., :side]
    images[0, 0, :8, :8] = 0.5  # a flat patch
    images[1, 0, :8, 8:16] = torch.linspace(0, 1, 8).to(dtype)  # one of rank 1
    pred, target = images.chunk(2)
    results = []
    for patches in (1 << 14, 0):
        kernels.set_few_patches(patches)
        a = pred.detach().requires_grad_()
        q = q_metric(a, definition, reduction="none", engine=engine)
        loss = MAEQLoss(0.5, definition=definition, engine=engine)(a, target)
        results.append([torch.autograd.grad(value.sum(), a)[0] for value in (q, loss)])
    gradients, others = results
    # Zeros have their sign too.
    bits = torch.int32 if dtype is torch.float32 else torch.int16
    assert torch.equal(gradients[0].view(bits), others[0].view(bits))
    # `Staged`, which writes rows that begin anyhow, adds the pixel term's gradient with two roundings.
    rtol = 0 if side == 80 else torch.finfo(dtype).eps
    torch.testing.assert_close(gradients[1], others[1], rtol=rtol, atol=0 if side == 80 else 1e-9)
