"""The same bits every time: in 30 runs, with one thread and with two, in a forked worker."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from qkernel import MAEQLoss, q_metric

from ..conftest import takes

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def _images(*shape, device="cpu"):
    """Noise on a ramp: without it most patches are isotropic, and a Q of 0 is no hard thing to repeat."""
    return torch.rand(*shape, device=device) + torch.arange(shape[-1], device=device) / 2


def _everything(pred, target, engine, definition):
    """Values and gradients of the metric and of the fused loss."""
    a, b = pred.detach().requires_grad_(), target.detach().requires_grad_()
    q = q_metric(a, definition, engine=engine)
    assert q > 0
    loss, terms = MAEQLoss(0.1, definition=definition, engine=engine, return_terms=True)(a, b)
    return [
        q.detach(),
        *torch.autograd.grad(q, a),
        loss.detach(),
        *terms.values(),
        *torch.autograd.grad(loss, (a, b)),
    ]


# With fewer and with more rows of patches than threads, and large enough for every thread to be busy.
SIZES = ((3, 1, 35, 43), (1, 3, 40, 40), (1, 1, 8, 300), (1, 1, 320, 264))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_thirty_runs_give_the_same_bits(engine, device, size, dtype):
    if not takes(engine, dtype):
        pytest.skip(f"{engine} takes no {dtype}")
    pred, target = _images(2, *size, device=device).to(dtype)
    first = _everything(pred, target, engine, "zhu2010")
    for _ in range(29 if size == SIZES[0] and dtype != torch.float64 else 3):
        for a, b in zip(first, _everything(pred, target, engine, "zhu2010"), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("definition", ["zhu2010", "mmsp2024"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_number_of_threads_does_not_change_a_bit(engine, device, size, definition):
    for dtype in DTYPES:
        if not takes(engine, dtype):
            continue
        pred, target = _images(2, *size, device=device).to(dtype)
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(_everything(pred, target, engine, definition))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                if engine == "eager":
                    # torch itself splits a long sum among its threads: the last bits may differ.
                    torch.testing.assert_close(a, b, rtol=4 * torch.finfo(a.dtype).eps, atol=0)
                else:
                    assert torch.equal(a, b)


def test_a_value_does_not_depend_on_the_batch_around_it(engine, device):
    x = _images(5, 1, 33, 47, device=device)
    each = q_metric(x, reduction="none", engine=engine)
    for i in range(5):
        assert q_metric(x[i : i + 1], engine=engine) == each[i]


class _Sharpness(Dataset):
    def __init__(self, engine):
        self.engine = engine

    def __len__(self):
        return 6

    def __getitem__(self, index):
        torch.manual_seed(index)
        picture = _images(1, 200, 200).requires_grad_()
        value = q_metric(picture, engine=self.engine)
        value.backward()
        return value.detach(), picture.grad


@pytest.mark.timeout(120)
def test_forked_data_loader_workers_measure_too(engine, device):
    """A worker forked while the parent has a thread pool must not wait for threads it does not have."""
    if device.type != "cpu":
        pytest.skip("CUDA does not survive a fork")
    torch.set_num_threads(2)
    want = [_Sharpness(engine)[i] for i in range(6)]
    q_metric(_images(2, 1, 512, 512), engine=engine)
    loader = DataLoader(
        _Sharpness(engine), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for (value, gradient), (other_value, other_gradient) in zip(loader, want, strict=True):
        assert torch.equal(value, other_value) and torch.equal(gradient, other_gradient)


def test_calls_from_several_python_threads_do_not_disturb_each_other(engine, device):
    from concurrent.futures import ThreadPoolExecutor

    pictures = _images(8, 1, 1, 96, 104, device=device)
    want = [_everything(x, x.flip(-1), engine, "zhu2010") for x in pictures]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: _everything(x, x.flip(-1), engine, "zhu2010"), pictures))
    for a, b in zip(got, want, strict=True):
        for left, right in zip(a, b, strict=True):
            assert torch.equal(left, right)
