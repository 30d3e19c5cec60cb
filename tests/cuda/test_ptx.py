"""What nvcc makes of the kernels, executed on the CPU by `bench.ptx`, with the engine's own launches.

The oracle and the library's tests are for the same kernels compiled for the CPU (`kernels`); here PTX has to
compute the same bits.
"""

from __future__ import annotations

import functools
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from bench.ptx import cuda_runtime
from qkernel import Definition

from ..oracle import DEFINITIONS
from .conftest import few_patches

ROOT = Path(__file__).parents[2]


@functools.cache
def _built(architecture: int) -> cuda_runtime.CudaModule | str:
    try:
        built = cuda_runtime.build(architecture, ROOT / "build" / "tests" / "ptx")
    except cuda_runtime.Unavailable as error:
        return str(error)
    return cuda_runtime.CudaModule(*built)


@pytest.fixture
def ptx(request, monkeypatch) -> cuda_runtime.CudaModule:
    """The engine's module, for compute_80 or the architecture that the test names."""
    module = _built(getattr(request, "param", 80))
    if isinstance(module, str):
        pytest.skip(module)
    module.record = type(module.record)()
    module.set_few_patches(0)
    return module


def _images(images: int, channels: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    """Noise over ramps, so that patches of all coherences are there."""
    generator = torch.Generator().manual_seed(height * width)
    noise = torch.rand(images, channels, height, width, generator=generator, dtype=torch.float64)
    ramp = torch.linspace(0, 3, width, dtype=torch.float64) * torch.linspace(0, 1, height)[:, None]
    return (0.3 * noise + ramp).to(dtype)


def _shifted(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(x, (3, 5))[..., 3:-5]


def _cases(definition: str):
    """(name, pred, target, pixel term, patch size, offset, reduction); the target counts for pixel terms."""
    single, double, half = torch.float32, torch.float64, torch.bfloat16
    # Several blocks, a last warp that is not full, pixels left over on both sides.
    for dtype in (single, half, torch.float16):
        x = _images(2, 1, 43, 88, dtype)
        yield f"direct {dtype}", x, x.flip(3), "none", 8, None, "mean"
        yield f"direct l1 {dtype}", x, x.flip(3), "l1", 8, None, "none"
        x = _images(2, 3, 43, 88, dtype)
        yield f"direct rgb {dtype}", x, x.flip(3), "none", 8, None, "sum"
        yield f"direct rgb l1 {dtype}", x, x.flip(3), "l1", 8, None, "mean"
        for channels in (1, 3):
            # The gradient's rows, one after the other, do not begin where 16 bytes do.
            x = _images(2, channels, 43, 48 if channels == 1 else 32, dtype)[..., :-5]
            y = torch.nn.functional.pad(x.flip(3), (0, 5))[..., :-5]
            yield f"spread {channels} {dtype}", x, y, "none", 8, None, "mean"
            yield f"spread l1 {channels} {dtype}", x, y, "l1", 8, None, "none"
        x = _images(2, 3, 43, 88, dtype)
        yield f"spread rgb {dtype}", x, x.flip(3), "l1", 8, None, "sum"
        yield f"staged shifted {dtype}", _shifted(x), x.flip(3), "l1", 8, None, "sum"
        yield f"staged one channel {dtype}", _shifted(x[:, :1]), x.flip(3)[:, 1:2], "l1", 8, None, "mean"
    x = _images(1, 3, 27, 45)
    yield "staged rgb", x, x.flip(2), "mse", 8, None, "mean"
    yield "staged channels last", x.to(memory_format=torch.channels_last), x, "none", 8, (3, 7), "mean"
    yield "staged, half a target", x, x.flip(2).to(half), "charbonnier", 8, (0, 1), "mean"
    for images in (3, 33, 1030):  # those that share a block's warps, those with a warp each, or with a thread
        x = _images(images, 1, *((13, 21) if images < 100 else (5, 9)))
        yield f"staged 4, {images} images", x, x.flip(3), "l1", 4, None, "none"
        yield f"staged 4, {images} images, mean", x, x.flip(3), "none", 4, (1, 2), "mean"
    for n, dtype in ((5, single), (17, half), (6, double)):
        x = _images(1, 3, 2 * n + 1, 3 * n + 2, dtype)
        yield f"loop {n} {dtype}", x, x.flip(3), "l1", n, (n - 1, 2), "mean"
    x = _images(1, 1, 64, 65)
    yield "loop 64", x, x, "none", 64, None, "mean"


def _computed(engine, pred, target, pixel, definition, offset, reduction) -> list[torch.Tensor]:
    grid = None if offset is None else torch.tensor(offset, dtype=torch.int32)
    grad_output = torch.rand(pred.shape[0] if reduction == "none" else (), generator=torch.Generator())
    tail = definition, grid, 0.25, reduction
    if pixel == "none":
        return [engine.q(pred, *tail), engine.q_grad(grad_output, pred, *tail)]
    term = pred, target, pixel, 0.1
    return [*engine.pixel_q(*term, *tail), engine.pixel_q_grad(grad_output, *term, *tail)]


@pytest.mark.parametrize("formula", DEFINITIONS)
@pytest.mark.parametrize("ptx", [75, 80], indirect=True)
def test_every_kernel_computes_the_bits_of_its_lanes(formula, ptx, kernels, cuda_engine, monkeypatch):
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (0, 0))
    ptx.record.watch = True
    for name, pred, target, pixel, n, offset, reduction in _cases(formula):
        arguments = pred, target, pixel, Definition(formula, n), offset, reduction
        results = []
        for module in (kernels, ptx):
            monkeypatch.setattr(cuda_engine, "_cuda", module)
            with few_patches(module) if name.startswith("spread") else nullcontext():
                results.append(_computed(cuda_engine, *arguments))
        expected, found = results
        # A product that is rounded to 64 digits on the way, instead of not at all.
        exact = pred.dtype != torch.float64
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(
                a,
                b,
                rtol=0 if exact else 1e-13,
                atol=0 if exact else 1e-18,
                msg=f"{formula}, {name}: {{}}".format,
            )
        # The last launch was the gradient's: every pixel of it is written, and once.
        gradient = ptx.record.regions[-1]
        assert gradient.name == "the gradient"
        writes = gradient.writes[gradient.address - gradient.base :]
        assert writes.max() == 1 and writes.sum() == pred.numel() * pred.element_size(), name
    others = "Central" if Definition(formula).formula.gradient == "sobel" else "Sobel"
    assert set(ptx.record.launched) == {kernel for kernel in ptx.kernels if others not in kernel}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_direct_kernels_read_each_pixel_once(ptx, cuda_engine, monkeypatch, dtype, channels):
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (0, 0))
    monkeypatch.setattr(cuda_engine, "_cuda", ptx)
    ptx.record.watch = True

    def reads(name: str) -> list[int]:
        (image,) = (one for one in ptx.record.regions if one.name == name)
        return sorted(set(image.reads[image.address - image.base :].tolist()))

    # 64 patches an image: lanes without one would read a neighbour's.
    pred, target = _images(2, 2 * channels, 64, 64, dtype).split(channels, dim=1)
    pred, target = pred.contiguous(), target.contiguous()
    settings, one = (Definition(), None, 0.25, "mean"), torch.ones(())
    term = pred, target, "l1", 0.1
    for call, arguments in (
        (cuda_engine.q, (pred, *settings)),
        (cuda_engine.q_grad, (one, pred, *settings)),
        (cuda_engine.pixel_q, (*term, *settings)),
        (cuda_engine.pixel_q_grad, (one, *term, *settings)),
    ):
        ptx.record.regions.clear()
        call(*arguments)
        assert reads("pred") == [1]
        if "l1" in arguments:
            assert reads("target") == [1]


@pytest.mark.parametrize("n", [4, 5, 8])
def test_an_impossible_grid_is_never_followed(ptx, cuda_engine, monkeypatch, n):
    """Any access before the tensors' beginning or behind their end would be an error here."""
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (0, 0))
    monkeypatch.setattr(cuda_engine, "_cuda", ptx)
    x, definition = _images(2, 1, 10, 14), Definition(patch_size=n)
    for bad in ((-1, 0), (0, n), (1 << 30, 0), (0, -(1 << 31))):
        offset = torch.tensor(bad, dtype=torch.int32)
        assert cuda_engine.q(x, definition, offset, 1.0, "none").isnan().all()
        assert cuda_engine.q_grad(torch.ones(2), x, definition, offset, 1.0, "none").isnan().all()


#: Names of the kernels that may be launched before the last one has ended.
EARLY = re.compile("DirectI.*Lb0E|SpreadI|combine_kernel")


def test_who_waits_is_launched_early(ptx, cuda_engine, monkeypatch, request):
    """What any other kernel reads may be of any kernel before it, and it would not wait."""
    # Of a device with this number nothing is remembered.
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (64, 0))
    monkeypatch.setattr(cuda_engine, "_cuda", ptx)
    request.addfinalizer(lambda: ptx.runtime.set_ptx_version(0))
    x, settings = _images(2, 1, 16, 24), (Definition(), None, 1.0, "mean")
    empty, shifted = torch.empty(0, 1, 16, 24), _shifted(x)
    for version, images, few, expected in (
        (90, x, False, "forward combine"),
        (90, x, True, "forward combine backward"),
        (90, shifted, False, "combine"),
        (80, x, True, ""),
        (90, empty, False, ""),
    ):
        ptx.runtime.set_ptx_version(version)
        ptx.record.launched.clear()
        with few_patches(ptx) if few else nullcontext():
            cuda_engine.q(images, *settings)
            cuda_engine.q_grad(torch.ones(()), images, *settings)
        launched = set(ptx.record.launched)
        assert len(launched) == (3 if len(images) else 1)
        for name in launched:
            kind = "combine" if "combine" in name else "backward" if "Lb1E" in name else "forward"
            assert ptx.runtime.early(name.encode()) == (kind in expected), (name, version)
            assert kind not in expected or EARLY.search(name)


@pytest.mark.parametrize("ptx", [90], indirect=True)
def test_from_9_0_on_they_touch_nothing_before_they_have_waited(ptx, kernels, cuda_engine, monkeypatch):
    """Who does not wait would be told by the machine: what it reads may not be there yet."""
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (0, 0))
    assert len(ptx.kernels) > 60
    for name, kernel in ptx.kernels.items():
        assert kernel.waits == bool(EARLY.search(name)), name
        lets = sum(i.opcode == ("griddepcontrol", "launch_dependents") for i in kernel.code)
        assert lets == ("Lb0E" in name or "combine" in name), name
    for name, pred, target, pixel, n, offset, reduction in _cases("zhu2010"):
        if not name.startswith(("direct", "spread")) and offset is None:
            continue
        results = []
        for module in (kernels, ptx):
            monkeypatch.setattr(cuda_engine, "_cuda", module)
            with few_patches(module) if name.startswith("spread") else nullcontext():
                results.append(
                    _computed(cuda_engine, pred, target, pixel, Definition(patch_size=n), offset, reduction)
                )
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b), name
