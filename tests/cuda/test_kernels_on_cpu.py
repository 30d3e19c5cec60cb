"""The CUDA kernels, run on the CPU, meet what is asked of every engine: these are the library's own tests."""

from __future__ import annotations

from ..qkernel.test_accuracy import (  # noqa: F401
    test_an_eight_bit_picture_agrees_with_the_svd,
    test_any_data_range_agrees_with_the_svd,
    test_any_grid_offset_agrees_with_the_svd,
    test_contrast_whose_square_is_hardly_a_number_keeps_its_digits,
    test_gradient_of_a_patch_is_bounded,
    test_rgb_is_measured_on_its_luma,
    test_single_patches_agree_with_the_svd,
    test_smoothing_agrees_with_the_svd,
    test_straight_edges_get_the_gradient_without_s2,
    test_value_and_gradient_agree_with_the_svd,
)
from ..qkernel.test_any_input import test_any_input_gives_what_plain_torch_gives_in_float64  # noqa: F401
from ..qkernel.test_determinism import test_thirty_runs_give_the_same_bits  # noqa: F401
from ..qkernel.test_functional_offset import (  # noqa: F401
    test_random_offsets_reach_every_grid_that_fits_and_no_other,
    test_the_backward_uses_the_grid_of_its_forward,
)
from ..qkernel.test_functional_strides import (  # noqa: F401
    test_an_unaligned_start_does_not_matter,
    test_strides_do_not_matter,
)
from ..qkernel.test_loss import (  # noqa: F401
    test_fused_agrees_with_the_reference,
    test_fused_agrees_with_the_svd,
    test_fused_equals_composed,
    test_mae_has_gradient_0_where_pred_is_target,
    test_terms_are_detached_unweighted_and_make_up_the_loss,
    test_weight_0_is_the_pixel_loss_alone,
)
