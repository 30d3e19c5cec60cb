import pytest
import torch

from bench.content import CONTENTS, pictures
from bench.providers import MODES, Inputs, engines, providers
from model.errors import UserError


def _by_name(names):
    return {(p.kernel, p.name): p for p in providers(names, compiled=())}


@pytest.mark.parametrize(
    ("kernel", "name", "forward", "backward"),
    [("q", "eager", 1, 2), ("q", "plain", 1, 2), ("mae_q", "eager", 2, 3), ("l1_loss", "torch", 2, 3)],
)
def test_least_bytes_of_the_definition(kernel, name, forward, backward):
    """Images read: pred, for a composite also the target. The backward pass writes one more."""
    provider = _by_name(["eager"])[kernel, name]
    moved = [provider.bytes_moved(mode, pixels=100, itemsize=4) for mode in MODES]
    assert moved == [400 * forward, 400 * backward, 400 * (forward + backward)]
    assert _by_name(["eager"])["copy", "torch"].bytes_moved("both", 100, 2) == 400


def test_providers_of_a_kernel_compute_the_same():
    pred, target = pictures((2, 3, 40, 48), "photo")
    inputs = Inputs.of(pred, target, torch.float64, "cpu")
    found = _by_name(engines("cpu"))
    for kernel in ("q", "mae_q"):
        results = [p.step(inputs, "both")()[0] for (k, _), p in found.items() if k == kernel]
        assert len(results) >= 2
        for gradient in results[1:]:
            torch.testing.assert_close(gradient, results[0], rtol=1e-4, atol=1e-9)


def test_a_backward_step_can_be_repeated():
    inputs = Inputs.of(*pictures((1, 1, 32, 32), "photo"), torch.float32, "cpu")
    for provider in providers(["eager"], compiled=()):
        step = provider.step(inputs, "backward")
        step()
        step()


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("shape", [(2, 3, 24, 700), (1, 1, 1100, 16)])
def test_pictures_fill_any_size(content, shape):
    pred, target = pictures(shape, content)
    assert pred.shape == target.shape == shape
    assert pred.min() >= 0 and pred.max() <= 1
    assert pred.std() > 0.01
    assert not torch.equal(pred, target)


def test_blurred_pictures_are_less_sharp():
    sharp, _ = pictures((1, 1, 128, 128), "photo")
    blurred, _ = pictures((1, 1, 128, 128), "blurred")
    assert blurred.diff().abs().mean() < 0.8 * sharp.diff().abs().mean()


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="unknown engine 'abacus'"):
        engines("cpu", ["abacus"])
    with pytest.raises(UserError, match="unknown content 'cats'"):
        pictures((1, 1, 8, 8), "cats")
