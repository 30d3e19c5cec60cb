"""The Triton engine on a GPU: what the interpreter cannot show."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from qkernel import Definition, MAEQLoss, QLoss, mae_q_loss, q_metric
from qkernel.engines import triton as engine

from ..oracle import DEFINITIONS, LUMA, oracle
from ..patches import SYNTHETIC, image
from ..qkernel.agreement import assert_gradients_agree, assert_values_agree

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
metric = functools.partial(q_metric, engine="triton")


def _pictures(n: int = 8, width: int = 0, channels: int = 1, images: int = 2) -> torch.Tensor:
    """Images whose patches are far from every threshold."""
    shape = (6 * n + 2, width or 9 * n + 5)
    planes = [image("random_on_ramp", *shape, n, seed) for seed in range(images * channels)]
    stacked = np.stack(planes).reshape(images, channels, *shape)
    return torch.tensor(stacked, dtype=torch.float32, device="cuda")


def _check(x: torch.Tensor, name: str, n: int, offset: tuple[int, int] = (0, 0), eps: float = 0.0) -> None:
    pixels = x.detach().double().cpu().numpy()
    expected = oracle(pixels if x.shape[1] == 3 else pixels[:, 0], name, n, offset=offset, eps=eps)
    largest = np.abs(expected.gradient).max()
    scale = 2.0 ** -np.floor(np.log2(largest)) if largest > 0 else 1.0
    leaf = x.detach().requires_grad_()
    value = metric(leaf, name, n, reduction="none", offset=offset, eps=eps)
    (gradient,) = torch.autograd.grad(value.sum() * (scale * expected.q[0].size), leaf)
    assert value.dtype == torch.float32 and gradient.dtype == x.dtype
    assert gradient.stride() == torch.empty_like(x).stride()
    assert_values_agree(value, expected, x.dtype)
    for channel, share in enumerate(LUMA if x.shape[1] == 3 else (1.0,)):
        assert_gradients_agree(gradient[:, channel], expected, x.dtype, scale * share, offset)


# Each combination is another kernel to compile, and each test is compiled for by a process of its own.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [4, 8, 16])
def test_every_patch_family_agrees_with_the_svd(n, dtype):
    for family in SYNTHETIC:
        pixels = np.stack([image(family, 6 * n, 9 * n, n, seed) for seed in range(2)])[:, None]
        for name in DEFINITIONS:
            _check(torch.tensor(pixels).to("cuda", dtype), name, n)


@pytest.mark.parametrize(
    ("name", "n", "dtype"),
    [
        *(("zhu2010", n, torch.float32) for n in (4, 8, 16)),
        ("zhu2010", 8, torch.bfloat16),
        ("zhu2010", 8, torch.float16),
        ("mmsp2024", 8, torch.float32),
    ],
)
def test_every_path_through_memory_agrees_with_the_svd(name, n, dtype):
    for width in (8 * n, 8 * n + 8, 8 * n + 1):
        for channels in (1, 3):
            x = (_pictures(n, width, channels) / channels).to(dtype)
            _check(x, name, n)
            _check(x.contiguous(memory_format=torch.channels_last), name, n)
        _check(x[:, :1, :, 1:], name, n)
        _check(x[:, :1].transpose(2, 3), name, n)
        _check(x[:, :1], name, n, offset=(n - 1, 1))


def test_smoothed_and_in_blocks_of_several_warps_it_agrees_with_the_svd():
    _check(_pictures(8), "zhu2010", 8, eps=1e-3)
    # Wide enough for blocks of several warps.
    _check(_pictures(8, 1000).repeat(1, 1, 8, 4).contiguous(), "zhu2010", 8)


def test_nan_and_inf_reach_the_value_in_every_dtype():
    for dtype in DTYPES:
        for name in DEFINITIONS:
            for bad in (float("nan"), float("inf")):
                x = _pictures().to(dtype)
                clean = metric(x, name, reduction="none")
                x[1, 0, -1, -1] = bad
                assert torch.equal(metric(x, name, reduction="none"), clean), "outside the whole patches"
                x[1, 0, 17, 33] = bad
                value = metric(x, name, reduction="none")
                assert value[0] == clean[0] and value[1].isnan()


@pytest.mark.parametrize("pixel", ["l1", "mse", "charbonnier"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_composite_loss_is_its_parts(dtype, pixel):
    for channels in (1, 3):
        pred = (_pictures(channels=channels) / 3).to(dtype).requires_grad_()
        target = torch.rand(pred.shape, device="cuda")
        settings = {"weight": 0.1, "pixel": pixel, "return_terms": True}
        loss, terms = mae_q_loss(pred, target, engine="triton", **settings)
        double = pred.detach().double().requires_grad_()
        exact, parts = mae_q_loss(double, target.double(), engine="eager", **settings)
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
        for part in ("pixel", "q"):
            torch.testing.assert_close(terms[part].double(), parts[part], rtol=1e-5, atol=1e-7)
        (found,) = torch.autograd.grad(loss * 2**14, pred)
        (wanted,) = torch.autograd.grad(exact * 2**14, double)
        relative = 2e-4 if dtype == torch.float32 else torch.finfo(dtype).eps
        bound = relative * wanted.abs() + 1e-4 * wanted.abs().max()
        assert ((found.double() - wanted).abs() <= bound).all()


def test_a_side_stream_is_honoured():
    x = _pictures(width=1024, images=8).requires_grad_()
    expected = torch.autograd.grad(metric(x), x)[0]
    side = torch.cuda.Stream()
    busy = torch.rand(4096, 4096, device="cuda")
    with torch.cuda.stream(side):
        # Work that the kernels must queue behind on this stream: until it is done, y is zeros.
        y = torch.zeros_like(x)
        for _ in range(20):
            busy = busy @ busy * 1e-3
        y.copy_(x.detach())
        found = torch.autograd.grad(metric(y.requires_grad_()), y)[0]
    side.synchronize()
    assert torch.equal(found, expected)


def test_a_second_gpu_is_honoured():
    if torch.cuda.device_count() < 2:
        return
    x = _pictures()
    second = x.to("cuda:1").requires_grad_()
    value = metric(second)
    (gradient,) = torch.autograd.grad(value, second)
    assert value.device == gradient.device == second.device and torch.cuda.current_device() == 0
    torch.testing.assert_close(value.cpu(), metric(x).cpu(), rtol=1e-6, atol=0)


def test_a_captured_step_replays_on_new_pixels_and_a_new_random_offset():
    x = _pictures(images=4).requires_grad_()
    loss = QLoss(engine="triton", offset="random")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.autograd.grad(loss(x), x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(x)
        (gradient,) = torch.autograd.grad(value, x)
    # All 64 values there are to draw from.
    all_of_them = {}
    for dy in range(8):
        for dx in range(8):
            leaf = x.detach().requires_grad_()
            fixed = QLoss(engine="triton", offset=(dy, dx))(leaf)
            all_of_them[fixed.item()] = torch.autograd.grad(fixed, leaf)[0]
    seen = set()
    for _ in range(20):
        graph.replay()
        torch.cuda.synchronize()
        seen.add(value.item())
        assert torch.equal(gradient, all_of_them[value.item()])
    assert len(seen) > 4
    with torch.no_grad():
        x.mul_(0.5)
    graph.replay()
    assert min(abs(value.item() - 0.5 * v) for v in all_of_them) <= 1e-6 * abs(value.item())


def test_torch_compile_sees_one_graph():
    x, target = _pictures(), torch.rand_like(_pictures())
    for loss in (QLoss(engine="triton"), MAEQLoss(engine="triton")):
        torch.compiler.reset()
        step = torch.compile(lambda x, loss=loss: loss(x, target) * 2, fullgraph=True)
        leaf = x.detach().requires_grad_()
        found = step(leaf)
        plain = loss(leaf, target) * 2
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)
        for a, b in zip(torch.autograd.grad(found, leaf), torch.autograd.grad(plain, leaf), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)


def test_nothing_waits_for_the_gpu():
    x, target = _pictures().requires_grad_(), torch.rand_like(_pictures())
    losses = [QLoss(engine="triton", offset=o) for o in ((0, 0), (3, 1), "random")] + [
        MAEQLoss(engine="triton")
    ]
    for loss in losses:
        loss(x, target).backward()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for loss in losses:
            loss(x, target).backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_only_the_gradient_and_a_small_workspace_are_allocated():
    definition = Definition()
    for dtype in DTYPES:
        x = torch.rand(4, 1, 1024, 1024, device="cuda").to(dtype)
        one = torch.ones((), device="cuda")
        engine.q(x, definition, None, 1.0, "mean")
        engine.q_grad(one, x, definition, None, 1.0, "mean")
        image_bytes = x.numel() * x.element_size()
        for call, allowed in (
            (lambda x=x: engine.q(x, definition, None, 1.0, "mean"), 0.005 * image_bytes),
            (lambda x=x, g=one: engine.q_grad(g, x, definition, None, 1.0, "mean"), image_bytes),
        ):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            # The allocator rounds each of three small tensors up to 512 bytes.
            assert torch.cuda.max_memory_allocated() - before <= allowed + 3 * 512


def test_results_repeat_to_the_last_bit():
    for x in (_pictures(width=1000, images=8), _pictures(channels=3)):
        x.requires_grad_()
        results = []
        for _ in range(5):
            value = metric(x)
            results.append((value, torch.autograd.grad(value, x)[0]))
        for value, gradient in results[1:]:
            assert torch.equal(value, results[0][0]) and torch.equal(gradient, results[0][1])


def test_offsets_beyond_32_bits_are_reached():
    free, _ = torch.cuda.mem_get_info()
    side = 46400
    if free < 12 * side * side:
        return
    # More than 2^31 pixels: the patches in the last rows lie beyond what an int32 can count.
    x = torch.zeros(1, 1, side, side, dtype=torch.float16, device="cuda")
    ramp = torch.arange(side, device="cuda", dtype=torch.float32).remainder(8) * 0.125
    x[0, 0, -8:] = ramp
    # Every patch of the last row is a horizontal ramp: s1 = sqrt(64 * 0.125^2) = 1, Q = 1.
    value = metric(x.requires_grad_())
    rows = side // 8
    assert abs(value.item() * rows - 1) < 1e-4
    (gradient,) = torch.autograd.grad(value * rows * rows, x)
    assert not gradient[0, 0, :-8].any() and gradient[0, 0, -8:, 0].all()
