"""What only a GPU can show: streams, graphs, devices, large images. For the CUDA and the Triton engine alike.

The library's own tests run on these engines too: `pytest -m gpu`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qkernel.engines
from qkernel import MAEQLoss, q_metric
from qkernel.definition import Definition

from ..qkernel.cases import Case, assert_agrees
from ..qkernel.test_any_input import DTYPES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ENGINES = [name for name in ("cuda", "triton") if name in qkernel.engines.ENGINES]

SANITIZED = """
import torch
from qkernel import MAEQLoss, QLoss
single, half, other = torch.float32, torch.bfloat16, torch.float16
cases = [(1, single, 72), (3, single, 72), (1, half, 72), (1, single, 75), (3, other, 75)]
def run(sizes, offsets):
    for channels, dtype, width in cases:
        for n in sizes:
            for offset in offsets:
                pred = torch.rand(2, channels, 43, width, device="cuda", dtype=dtype, requires_grad=True)
                for make in (MAEQLoss, QLoss):
                    loss = make(patch_size=n, offset=offset, engine="{engine}")
                    loss(pred, torch.rand_like(pred)).backward()
run({sizes}, ((0, 0), (1, 2)))
if "{engine}" == "cuda":
    from qkernel.engines.cuda import _cuda
    _cuda.set_few_patches(0)  # then the gradient takes the kernels for many
    run((8,), ((0, 0),))
torch.cuda.synchronize()
"""


@pytest.fixture(params=ENGINES)
def gpu_engine(request) -> str:
    if reason := qkernel.engines.ENGINES[request.param].missing():
        pytest.fail(f"engine {request.param!r} should be here, but: {reason}")
    return request.param


def _loss_and_gradient(pred, target, engine, grad_output=None, **settings):
    pred = pred.detach().requires_grad_()
    loss = MAEQLoss(0.1, engine=engine, **settings)(pred, target)
    return loss.detach(), torch.autograd.grad(loss, pred, grad_output)[0]


@pytest.fixture
def many_patches():
    """The CUDA engine's kernels for many patches, also where they are few."""
    if "cuda" not in ENGINES or (reason := qkernel.engines.ENGINES["cuda"].missing()):
        pytest.fail(f"engine 'cuda' should be here, but: {reason}")
    module = qkernel.engines.ENGINES["cuda"]._cuda
    before = module.set_few_patches(0)
    yield
    module.set_few_patches(before)


def test_the_kernels_for_many_patches_on_any_input(many_patches):
    engine = qkernel.engines.ENGINES["cuda"]
    counted = [
        assert_agrees(engine, Case.drawn(seed, DTYPES, (8,)), torch.device("cuda")) for seed in range(60)
    ]
    assert sum(counted) > 36


def test_a_stream_is_waited_for_and_not_left(gpu_engine):
    pred, target = torch.rand(2, 4, 1, 512, 512, device="cuda")
    want = _loss_and_gradient(pred, target, gpu_engine)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Work in front: on another stream the kernels would not wait for it, and read zeros.
        late = torch.zeros_like(pred)
        torch.cuda._sleep(20_000_000)
        late.copy_(pred)
        got = _loss_and_gradient(late, target, gpu_engine)
    stream.synchronize()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_a_graph_replays_on_new_pixels_and_new_offsets(gpu_engine):
    pred, target = torch.rand(2, 4, 1, 128, 128, device="cuda")
    offset = torch.zeros(2, dtype=torch.int32, device="cuda")
    _loss_and_gradient(pred, target, gpu_engine, offset=offset)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = _loss_and_gradient(pred, target, gpu_engine, offset=offset)
    for top, left in ((0, 0), (3, 5), (7, 7)):
        pred.copy_(torch.rand_like(pred))
        offset.copy_(torch.tensor([top, left], dtype=torch.int32))
        graph.replay()
        # An offset in a tensor, here too: without one a kernel for aligned rows is taken, which rounds
        # otherwise.
        want = _loss_and_gradient(pred, target, gpu_engine, offset=offset.clone())
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)


def test_kernels_that_come_early_wait_for_each_other(gpu_engine):
    """A chain of nothing but them: every call reads what the last one wrote, or writes where it has read."""
    pred, target = torch.rand(2, 8, 1, 128, 128, device="cuda")
    one = torch.ones((), device="cuda")

    def chain(between):
        results, x = [], pred
        for _ in range(6):
            value = q_metric(x, engine=gpu_engine)
            between()
            loss, x = _loss_and_gradient(x, target, gpu_engine, one)
            between()
            results += [value, loss, x]
        return results

    images = torch.rand(40, 8, 1, 128, 128, device="cuda")
    want = chain(torch.cuda.synchronize)
    alone = [q_metric(image, engine=gpu_engine).item() for image in images]
    for _ in range(20):
        for a, b in zip(chain(lambda: None), want, strict=True):
            assert torch.equal(a, b)
        assert [v.item() for v in [q_metric(image, engine=gpu_engine) for image in images]] == alone
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = chain(lambda: None)
        values = [q_metric(image, engine=gpu_engine) for image in images]
    for _ in range(20):
        graph.replay()
        for a, b in zip(found, want, strict=True):
            assert torch.equal(a, b)
        assert [v.item() for v in values] == alone


def test_in_a_graph_they_wait_for_whatever_came_before(gpu_engine):
    """A copy, another kernel, another stream's work."""
    images = torch.rand(3, 8, 1, 128, 128, device="cuda")
    target = torch.rand(8, 1, 128, 128, device="cuda")
    source, pred = torch.zeros_like(images[0]), torch.zeros_like(images[0])
    _loss_and_gradient(pred, target, gpu_engine)
    graph, other = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        pred.copy_(source)
        first = _loss_and_gradient(pred, target, gpu_engine)
        # Another image in the same memory, which the last backward pass has just read.
        pred.mul_(0.5)
        second = _loss_and_gradient(pred, target, gpu_engine)
        other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(other):
            pred.add_(second[1])
        torch.cuda.current_stream().wait_stream(other)
        third = _loss_and_gradient(pred, target, gpu_engine)
    for image in images:
        source.copy_(image)
        graph.replay()
        want_second = _loss_and_gradient(image * 0.5, target, gpu_engine)
        want = _loss_and_gradient(image, target, gpu_engine), want_second
        want += (_loss_and_gradient(image * 0.5 + want_second[1], target, gpu_engine),)
        for got, expected in zip((first, second, third), want, strict=True):
            for a, b in zip(got, expected, strict=True):
                assert torch.equal(a, b)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_images_on_another_device_than_the_current_just_work(gpu_engine):
    x = torch.rand(1, 1, 64, 64)
    with torch.cuda.device(0):
        value, gradient = _loss_and_gradient(x.to("cuda:1"), (x / 2).to("cuda:1"), gpu_engine)
        assert torch.cuda.current_device() == 0
    assert gradient.device == value.device == torch.device("cuda:1")
    torch.testing.assert_close(value.cpu(), _loss_and_gradient(x, x / 2, "eager")[0], rtol=1e-5, atol=0)


def test_an_impossible_offset_gives_nan(gpu_engine):
    x = torch.rand(1, 1, 20, 20, device="cuda")
    for bad in ((-1, 0), (8, 0), (1 << 30, 1 << 30)):
        offset = torch.tensor(bad, dtype=torch.int32, device="cuda")
        engine = qkernel.engines.ENGINES[gpu_engine]
        assert engine.q(x, Definition(), offset, 1.0, "mean").isnan()


def test_more_pixels_than_32_bits_count(gpu_engine):
    height, width = 32768 + 8, 65536
    if torch.cuda.mem_get_info()[0] < 3 * 2 * height * width:
        pytest.skip("needs 13 GB of free GPU memory")
    x = torch.zeros(1, 1, height, width, device="cuda", dtype=torch.bfloat16)
    tile = torch.rand(8, 8, device="cuda") + torch.arange(8, device="cuda")
    x[0, 0, -8:, -8:] = tile
    x.requires_grad_()
    value = q_metric(x, engine=gpu_engine)
    (gradient,) = torch.autograd.grad(value, x, torch.tensor(1e6, device="cuda"))
    patches = (height // 8) * (width // 8)
    alone = x.detach()[..., -8:, -8:].clone().requires_grad_()
    want = q_metric(alone, engine=gpu_engine)
    torch.testing.assert_close(value * patches, want, rtol=1e-5, atol=0)
    (want,) = torch.autograd.grad(want, alone, torch.tensor(1e6 / patches, device="cuda"))
    torch.testing.assert_close(gradient[..., -8:, -8:], want, rtol=0.01, atol=0)
    assert gradient.count_nonzero() == want.count_nonzero()


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(gpu_engine, tool):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer")
    # Triton's blocks are powers of two.
    sizes = "(4, 8)" if gpu_engine == "triton" else "(4, 5, 8)"
    program = SANITIZED.replace("{engine}", gpu_engine).replace("{sizes}", sizes)
    # Libraries ask the driver for what it may not have, and take no for an answer: that is no error.
    checked = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"]
    # First without, so that Triton's kernels have been compiled.
    for command in ([], checked):
        done = subprocess.run(
            [*command, sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=150,
            cwd=Path(__file__).parents[2],
            # Otherwise torch's allocator hides what lies outside a tensor.
            env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
