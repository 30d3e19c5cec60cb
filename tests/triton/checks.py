"""What the Triton engine must compute, on CPU tensors; `run_checks` runs a group of it, as a program.

The interpreter rounds float32 to bfloat16 towards zero.
"""

from __future__ import annotations

import numpy as np
import torch
from triton import knobs

from qkernel import Definition
from qkernel.engines import eager
from qkernel.engines import triton as engine
from qkernel.engines.triton_kernels import launch

from ..oracle import DEFINITIONS, LUMA, oracle
from ..patches import SYNTHETIC, image
from ..qkernel.agreement import assert_gradients_agree, assert_values_agree
from ..qkernel.cases import Case, assert_agrees

#: Of one brightness, so that no family drowns the others in the value.
MODERATE = tuple(name for name in SYNTHETIC if not name.startswith("amplitude"))


def mosaic(families, n: int, rows: int = 2, columns: int = 3) -> np.ndarray:
    """Patches of all families beside each other."""
    return np.concatenate([image(f, rows * n, columns * n, n, seed) for seed, f in enumerate(families)], 1)


def surrounded(pixels: np.ndarray, dtype: torch.dtype = torch.float32, margin: int = 3) -> torch.Tensor:
    """Images C x H x W as a batch of one in a sea of NaN, which shows any read outside them."""
    channels, height, width = pixels.shape
    sea = torch.full((1, channels, height + 2 * margin, width + 2 * margin), float("nan"), dtype=dtype)
    inside = sea[:, :, margin:-margin, margin:-margin]
    inside.copy_(torch.from_numpy(pixels)[None])
    return inside


def check(
    x: torch.Tensor, definition: Definition, offset=None, value: bool = True, gradient: bool = True
) -> None:
    """Value and gradient of each image agree with the oracle's."""
    n = definition.patch_size
    pixels = x.double().numpy()
    expected = oracle(
        pixels if x.shape[1] == 3 else pixels[:, 0],
        definition.name,
        n,
        data_range=definition.data_range,
        eps=definition.eps,
        offset=offset or (0, 0),
    )
    grid = None if offset is None else torch.tensor(offset, dtype=torch.int32)
    if value:
        assert_values_agree(engine.q(x, definition, grid, 1.0, "none"), expected, x.dtype)
    if gradient:
        grad_output = torch.full((x.shape[0],), float(expected.q[0].size))
        found = engine.q_grad(grad_output, x, definition, grid, 1.0, "none")
        for channel, share in enumerate(LUMA if x.shape[1] == 3 else (1.0,)):
            assert_gradients_agree(found[:, channel], expected, x.dtype, share, offset or (0, 0))


def vector(x: torch.Tensor, n: int) -> int:
    """Pixels that the value kernel reads at a time."""
    (layout,), _, _ = launch.reading([x], n, launch.lane_columns(n, x, "none", gradient=False), False)
    return layout.vector


def definitions() -> None:
    for name in DEFINITIONS:
        for n in (4, 8, 16):
            families = tuple(SYNTHETIC) if n == 8 else MODERATE[::2]
            x = torch.tensor(mosaic(families, n), dtype=torch.float32)[None, None]
            assert vector(x, n) == 4
            check(x, Definition(name, n), value=False)
            x = torch.tensor(mosaic((*families[:3], "random_on_ramp"), n), dtype=torch.float32)[None, None]
            check(x, Definition(name, n), gradient=False)
        check(
            torch.tensor(mosaic(MODERATE[:4], 8), dtype=torch.float32)[None, None],
            Definition(name, 8, eps=1e-3),
        )


def general(sizes=(4, 8, 16)) -> None:
    for name in DEFINITIONS:
        for n in sizes:
            pixels = image("random_on_ramp", 3 * n + 1, 4 * n + 3, n)[None]
            check(surrounded(pixels), Definition(name, n))
            for offset in ((1, 0), (n - 1, n - 1))[n > 8 :]:
                check(surrounded(pixels), Definition(name, n), offset)
        rgb = np.stack([image("random_on_ramp", 25, 43, 8, seed) for seed in range(3)])
        check(surrounded(rgb), Definition(name))
        x = torch.tensor(rgb, dtype=torch.float32)[None].contiguous(memory_format=torch.channels_last)
        assert engine.q_grad(torch.ones(()), x, Definition(name), None, 1.0, "mean").stride() == x.stride()
        check(x, Definition(name))
        check(torch.tensor(rgb[:, :16, :32], dtype=torch.float32)[None], Definition(name))
    x = torch.tensor(np.round(image("camera", 48, 64, 8) * 255), dtype=torch.float32)[None, None]
    check(x, Definition("zhu2010", data_range=255.0))
    check(x.transpose(2, 3), Definition("zhu2010", data_range=255.0))


def halves() -> None:
    for n in (4, 8, 16):
        pixels = torch.tensor(mosaic(("random_on_ramp", "camera", "diagonal_step"), n, 2, 4))[None, None]
        for name in ("zhu2010", "mmsp2024"):
            assert vector(pixels.half(), n) == (4 if n == 16 else 8)
            check(pixels.half(), Definition(name, n))
            check(pixels.bfloat16(), Definition(name, n), gradient=not knobs.runtime.interpret)


def pixel_terms() -> None:
    torch.manual_seed(0)
    single, half, other_half = torch.float32, torch.float16, torch.bfloat16
    every = ("l1", "mse", "charbonnier")
    for n, shape, dtypes, terms in (
        (8, (2, 1, 16, 32), (single, single), every),
        (8, (2, 1, 16, 32), (single, other_half), ("l1",)),
        (8, (1, 3, 16, 32), (single, single), ("l1",)),
        (8, (1, 3, 19, 27), (single, single), every),
        (8, (1, 3, 19, 27), (single, other_half), ("l1",)),
        (4, (1, 1, 8, 16), (single, single), ("charbonnier",)),
        # Vectors of two patches.
        (4, (1, 1, 8, 16), (half, half), ("l1",)),
        (16, (1, 3, 16, 32), (single, single), ("l1", "charbonnier")),
    ):
        for pixel in terms:
            pred = (torch.rand(shape) * 0.1 + 0.1 * torch.arange(shape[3])).to(dtypes[0])
            target = torch.rand(shape).to(dtypes[1])
            target[..., 0, 0] = pred[..., 0, 0].to(target.dtype)
            arguments = (pixel, 1e-3, Definition("zhu2010", n), None, 0.3, "none")
            found = engine.pixel_q(pred, target, *arguments)
            exact = eager.pixel_q(pred.double(), target.double(), *arguments)
            for got, want in zip(found, exact, strict=True):
                torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-7)
            grad_output = torch.rand(shape[0])
            found = engine.pixel_q_grad(grad_output, pred, target, *arguments)
            exact = eager.pixel_q_grad(grad_output.double(), pred.double(), target.double(), *arguments)
            bound = 1e-4 * exact.abs().max().item()
            precision = max(1e-4, torch.finfo(found.dtype).eps)
            torch.testing.assert_close(found.double(), exact, rtol=precision, atol=bound)
    # A flat pred has no gradient of Q; zeros of either sign are no difference, and NaN has no sign.
    cycle = torch.tensor([-0.0, 1.0, 0.0, -1.0, float("nan"), 0.5])[torch.arange(3 * 16 * 32) % 6]
    cycle = cycle.view(1, 3, 16, 32)
    for zero, channels in ((0.0, 1), (-0.0, 1), (-0.0, 3)):
        pair = torch.full((1, channels, 16, 32), zero), cycle[:, :channels]
        found = engine.pixel_q_grad(torch.ones(()), *pair, "l1", 0.0, Definition(), None, 0.3, "sum")
        torch.testing.assert_close(
            found * pair[0].numel(), torch.sign(-pair[1].nan_to_num()), rtol=1e-6, atol=0
        )
    # The gradient for the target is that of the exchanged pair with weight 0.
    arguments = ("l1", 1e-3, Definition(), None, 0.0, "sum")
    found = engine.pixel_q_grad(torch.ones(()), target, pred, *arguments)
    assert found.dtype == target.dtype
    expected = torch.sign(target - pred) / pred[0].numel()
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=0)


def edges() -> None:
    definition = Definition()
    x = torch.tensor(image("random_on_ramp", 27, 45, 8), dtype=torch.float32)[None, None]
    ones = torch.ones(())

    def value(x, offset=None, reduction="mean"):
        return engine.q(x, definition, offset, 1.0, reduction)

    # Pixels outside the whole patches count for nothing, whatever they are.
    outside = x.clone()
    outside[..., 24:, :] = float("nan")
    outside[..., 40:] = float("inf")
    assert value(outside) == value(x)
    gradient = engine.q_grad(ones, outside, definition, None, 1.0, "mean")
    torch.testing.assert_close(
        gradient, engine.q_grad(ones, x, definition, None, 1.0, "mean"), rtol=0, atol=0
    )
    assert (gradient[..., 24:, :] == 0).all() and (gradient[..., 40:] == 0).all()
    loss, terms = engine.pixel_q(x, x, "charbonnier", 1e-3, definition, None, 0.5, "mean")
    torch.testing.assert_close(terms, torch.stack([torch.tensor(1e-3), value(x)]))
    torch.testing.assert_close(loss, terms[0] - 0.5 * terms[1])
    # Inside, a single one is enough.
    for bad in (float("nan"), float("inf"), -float("inf")):
        for at in ((0, 0), (7, 7), (12, 20), (23, 39)):
            inside = x.clone()
            inside[0, 0, at[0], at[1]] = bad
            assert value(inside).isnan(), (bad, at)
    # An offset that is out of range is never followed.
    for offset in ((8, 0), (0, -1), (2**30, 3), (-(2**31), 0)):
        grid = torch.tensor(offset, dtype=torch.int32)
        assert value(surrounded(x[0].double().numpy()), grid).isnan()
        assert not engine.q_grad(ones, x, definition, grid, 1.0, "mean").isfinite().all()
    # Reductions, and no images at all.
    batch = torch.cat([x, 2 * x, x.flip(3)])
    each = value(batch, reduction="none")
    assert torch.equal(each[0], value(x)) and each.shape == (3,)
    torch.testing.assert_close(value(batch, reduction="sum"), each.sum())
    torch.testing.assert_close(value(batch), each.mean())
    assert value(batch[:0]).isnan() and value(batch[:0], reduction="sum") == 0
    assert value(batch[:0], reduction="none").shape == (0,)
    assert engine.q_grad(ones, batch[:0], definition, None, 1.0, "mean").shape == (0, 1, 27, 45)
    # Flat, nearly flat and isotropic: nothing but 0, and nothing that is not finite.
    for flat in (
        torch.zeros(1, 1, 16, 16),
        torch.full((1, 1, 16, 16), 0.3),
        1e-20 * torch.rand(1, 1, 16, 16),
    ):
        for name in DEFINITIONS:
            assert engine.q(flat, Definition(name), None, 1.0, "mean").isfinite()
            assert engine.q_grad(ones, flat, Definition(name), None, 1.0, "mean").isfinite().all()
    # Contrast whose square is hardly a number.
    for contrast in (1e-15, 2e-19):
        weak = contrast * torch.arange(16.0).remainder(8).repeat(8, 1)[None, None] + 1e-20 * torch.rand(8, 16)
        arguments = (definition, None, 1.0, "mean")
        exact = eager.q_grad(ones.double(), weak.double(), *arguments)
        bound = 1e-4 * exact.abs().max().item()
        found = engine.q_grad(ones, weak, *arguments)
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=bound)


def touched_once(driver) -> None:
    """Of aligned images each pixel is read once, pred twice with a pixel term other than l1; any gradient is
    written once."""
    driver.record.watch = True

    def counts(name: str, of: str) -> np.ndarray:
        region = [r for r in driver.record.regions if r.name == name][-1]
        return getattr(region, of)[region.address - region.base :]

    ones = torch.ones(())
    for dtype in (torch.float32, torch.bfloat16):
        x, other = torch.rand(2, 2, 1, 64, 64, dtype=torch.float32).to(dtype)
        arguments = (Definition(), None, 0.5, "mean")
        engine.q_grad(ones, x, *arguments)
        assert (counts("x", "reads") == 1).all() and (counts("gradient", "writes") == 1).all()
        for pixel, times in (("l1", 1), ("mse", 2)):
            engine.pixel_q_grad(ones, x, other, pixel, 0.0, *arguments)
            assert (counts("x", "reads") == times).all() and (counts("target", "reads") == 1).all()
            assert (counts("gradient", "writes") == 1).all()
        rgb, other_rgb = (image.expand(-1, 3, -1, -1).contiguous() for image in (x, other))
        engine.pixel_q_grad(ones, rgb, other_rgb, "l1", 0.0, *arguments)
        assert (counts("x", "reads") == 1).all() and (counts("target", "reads") == 1).all()
        shifted = torch.nn.functional.pad(x, (3, 5))[..., 3:-5]
        engine.pixel_q_grad(ones, shifted, other, "l1", 0.0, *arguments)
        writes = counts("gradient", "writes")
        assert writes.max() == 1 and writes.sum() == x.numel() * x.element_size()
        assert counts("x", "reads").max() == 1
        # Read in vectors, but no whole number of patches wide, nor of lanes for a warp.
        odd = torch.rand(1, 1, 21, 8 * 9 + 16 // x.element_size()).to(dtype)
        assert vector(odd, 8) > 0
        engine.q_grad(ones, odd, *arguments)
        writes = counts("gradient", "writes")
        assert writes.max() == 1 and writes.sum() == odd.numel() * odd.element_size()


def any_input(count: int = 24) -> None:
    # Small blocks, so that the small images take several.
    launch.WARPS = ((0, 1, 1),)
    counted = []
    for seed in range(count):
        case = Case.drawn(seed, engine.DTYPES, engine.PATCH_SIZES)
        # The interpreter rounds towards zero.
        counted.append(assert_agrees(engine, case, ulps=1 if knobs.runtime.interpret else 0.5))
    assert sum(counted) > 0.6 * count


GROUPS = {f.__name__: f for f in (definitions, general, halves, pixel_terms, edges, any_input)}
