"""From tensors to launches: geometry, strides, workspace, and the choice of kernel variant.

Everything here takes tensors wherever they are, so the tests run it under Triton's interpreter on the CPU;
what the engine accepts is decided in `qkernel.engines.triton`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...definition import Definition
from .finish import finish_kernel
from .passes import gradient_kernel, value_kernel

PATCH_SIZES = (4, 8, 16)

#: Bytes of a vector load.
VECTOR = 16

#: Without vectors: the fewer columns a lane holds, the closer are the pixels that a warp reads at a time.
GENERAL_COLUMNS = 4

#: Off: kernels write out their fused multiply-adds, and results do not change with Triton's default.
OPTIONS = {"enable_fp_fusion": False, "num_stages": 1}

#: (from so many lanes on, of one patch each, warps of the value kernel, warps of the gradient kernel). A lane
#: holds up to 64 pixels in registers, so eight to thirteen warps fill a multiprocessor, and they are best
#: dealt out in small blocks: of one warp while there are fewer than four for each of some 130
#: multiprocessors, so that all of them have work. More warps in a value kernel mean fewer partial sums to add
#: up; the warps of the gradient kernel share nothing, and it needs up to 255 registers a thread.
WARPS = ((0, 1, 1), (1 << 15, 2, 1), (1 << 18, 4, 2))

#: Partial sums that the finishing kernel, a single block, has in flight at a time, and its warps.
FINISH_BLOCK = 4096
FINISH_WARPS = 8

#: For kernels in which the assembler would spill rather than take more registers; see `registers`.
ALL_REGISTERS = {"maxnreg": 255}


@dataclass(frozen=True)
class Layout:
    """How an image tensor is passed: strides of image, channel, row and column, and the vector's width V.

    V > 0: rows are read in vectors of V pixels, and the first three strides are in units of V. V = 0: any
    strides.
    """

    strides: tuple[int, int, int, int]
    vector: int


def lane_columns(n: int, x: Tensor, pixel: str, gradient: bool) -> int:
    """How many columns of a patch one lane of the aligned path holds.

    Up to 64 pixels fit the registers. Of a patch of 16 rows, a gradient kernel that also walks over channels
    or a target has room for half of that, and so has a value kernel that walks over both with a root in each
    pixel.
    """
    if n < 16:
        return n
    rgb = x.shape[1] == 3
    return 2 if (rgb and pixel == "charbonnier") or (gradient and (rgb or pixel != "none")) else 4


def vector_width(dtype: torch.dtype, patch_size: int, columns: int) -> int:
    """Pixels per vector load: 16 bytes, but with 16 rows no more than a lane holds, or registers run out."""
    full = VECTOR // dtype.itemsize
    return min(full, columns) if patch_size == 16 else full


def reading(
    images: Sequence[Tensor | None], patch_size: int, columns: int, has_offset: bool
) -> tuple[list[Layout], int, int]:
    """How images of one shape are read together: layouts, columns of a lane, patches read at a time.

    All are read in vectors, or none. ``columns`` is `lane_columns`; None stands for no image.
    """
    present = [x for x in images if x is not None]
    if not has_offset and all(_fits_vectors(x, patch_size, columns) for x in present):
        vectors = [0 if x is None else vector_width(x.dtype, patch_size, columns) for x in images]
        # A vector may span several patches.
        group = max(1, *(v // columns for v in vectors))
    else:
        vectors, columns, group = [0] * len(images), min(columns, GENERAL_COLUMNS), 1
    return [_layout(x, v) for x, v in zip(images, vectors, strict=True)], columns, group


def _strides(x: Tensor) -> tuple[int, int, int, int]:
    image, channel, row, column = x.stride()
    # Strides of dimensions of size 1 are arbitrary and unused.
    return (0 if x.shape[0] == 1 else image), (0 if x.shape[1] == 1 else channel), row, column


def _fits_vectors(x: Tensor, patch_size: int, columns: int) -> bool:
    *strides, column = _strides(x)
    v = vector_width(x.dtype, patch_size, columns)
    return (
        column == 1
        and x.shape[3] % v == 0
        and x.data_ptr() % VECTOR == 0
        and all(stride % v == 0 for stride in strides)
    )


def _layout(x: Tensor | None, vector: int) -> Layout:
    if x is None:
        return Layout((0, 0, 0, 0), 0)
    *strides, column = _strides(x)
    return Layout((*(stride // max(1, vector) for stride in strides), column), vector)


@dataclass(frozen=True)
class Geometry:
    """Cells of the patch grid per image (see `cells`), and how they are dealt out to programs."""

    columns: int
    lanes: int
    warps: int
    cells: int
    cells_per_row: int
    blocks: int

    @classmethod
    def of(
        cls,
        x: Tensor,
        n: int,
        columns: int,
        group: int,
        has_offset: bool,
        everywhere: bool,
        gradient: bool,
    ) -> Geometry:
        images, _, height, width = x.shape
        if everywhere:
            # With an offset the grid may begin up to n - 1 pixels into its first cell.
            extra = n - 1 if has_offset else 0
            rows, per_row = -(-(height + extra) // n), -(-(width + extra) // n)
        else:
            rows, per_row = height // n, width // n
        lanes_per_patch = n // columns
        total = images * rows * per_row * lanes_per_patch
        warps = next(w[2 if gradient else 1] for w in reversed(WARPS) if total >= w[0])
        lanes = 32 * warps
        # A lane has as many patches as one vector spans.
        blocks = -(-rows * per_row * lanes_per_patch // (lanes * group))
        # Rows and columns are counted in 32 bits, a lane's first one and what follows it.
        sides = max(height, width) + 2 * n
        if blocks * lanes * group >= 2**31 or blocks * images >= 2**31 or sides >= 2**31:
            raise ValueError(f"images of {height} x {width} ({images} of them) are too large for one launch")
        return cls(columns, lanes, warps, rows * per_row, per_row, blocks)


def registers(
    definition: Definition, vector: int, group: int, channels: int, pixel: str, gradient: bool
) -> dict[str, int]:
    """The option ALL_REGISTERS where `bench inspect --all` has shown a need of it."""
    n, sobel = definition.patch_size, definition.formula.gradient == "sobel"
    if gradient:
        needed = n == 16 or (pixel == "none" and channels == 3 and vector == 0)
    elif pixel == "none":
        needed = False
    elif n == 4:
        needed = group > 1 or sobel
    else:
        rgb = channels == 3
        needed = (n == 16 and rgb) or (pixel == "charbonnier" and (rgb or vector == 0))
    return ALL_REGISTERS if needed else {}


def formula_flags(definition: Definition) -> dict[str, bool]:
    formula = definition.formula
    return {
        "SOBEL": formula.gradient == "sobel",
        "EIGEN_COHERENCE": formula.coherence == "eigen",
        "EIGEN_VALUE": formula.value == "eigen",
    }


def unit(definition: Definition) -> float:
    """What the kernels' gradients are multiples of: 2 or 8 times the published ones, of pixels up to
    data_range."""
    return 1 / ((8 if definition.formula.gradient == "sobel" else 2) * definition.data_range)


def value(
    x: Tensor,
    target: Tensor | None,
    pixel: str,
    charbonnier_eps: float,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> tuple[Tensor, Tensor | None]:
    """`q` (no target: weight * Q), or `pixel_q` (pixel term - weight * Q) and its two terms. Two launches."""
    images, channels, height, width = x.shape
    n = definition.patch_size
    shape = (images,) if reduction == "none" else ()
    result = torch.empty(shape, dtype=torch.float32, device=x.device)
    terms = None if target is None else torch.empty((2, *shape), dtype=torch.float32, device=x.device)
    if images == 0:
        # As in torch: the mean of nothing is NaN, its sum 0.
        for empty in (result, terms):
            if empty is not None:
                empty.fill_(float("nan") if reduction == "mean" else 0.0)
        return result, terms

    columns = lane_columns(n, x, pixel, gradient=False)
    (source, other), columns, group = reading((x, target), n, columns, offset is not None)
    everywhere = target is not None
    geometry = Geometry.of(x, n, columns, group, offset is not None, everywhere, gradient=False)
    programs = images * geometry.blocks
    partial = torch.empty((1 if target is None else 2) * programs, dtype=torch.float32, device=x.device)
    value_kernel[(programs,)](
        x,
        target,
        offset,
        partial,
        height,
        width,
        geometry.cells,
        geometry.cells_per_row,
        geometry.blocks,
        channels,
        *source.strides,
        *other.strides,
        definition.threshold,
        unit(definition),
        definition.smoothing,
        charbonnier_eps**2,
        **formula_flags(definition),
        N=n,
        C=geometry.columns,
        CHANNELS=channels,
        PIXEL=pixel,
        HAS_OFFSET=offset is not None,
        X_V=source.vector,
        T_V=other.vector,
        GROUP=group,
        LANES=geometry.lanes,
        num_warps=geometry.warps,
        **registers(definition, source.vector, group, channels, pixel, gradient=False),
        **OPTIONS,
    )
    outputs = images if reduction == "none" else 1
    finish_kernel[(outputs,)](
        partial,
        result,
        terms,
        offset,
        height,
        width,
        programs // outputs,
        images if reduction == "mean" else 1,
        weight,
        channels * height * width,
        N=n,
        WITH_PIXEL=target is not None,
        HAS_OFFSET=offset is not None,
        BLOCK=FINISH_BLOCK,
        num_warps=FINISH_WARPS,
        **OPTIONS,
    )
    return result, terms


def gradient(
    grad_output: Tensor,
    x: Tensor,
    target: Tensor | None,
    pixel: str,
    charbonnier_eps: float,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> Tensor:
    """Gradient of `value` for ``x``. One launch; ``grad_output`` is read on the device."""
    images, channels, height, width = x.shape
    n = definition.patch_size
    result = torch.empty_like(x)
    if x.numel() == 0:
        return result
    columns = lane_columns(n, x, pixel, gradient=True)
    (source, other, out), columns, group = reading((x, target, result), n, columns, offset is not None)
    geometry = Geometry.of(x, n, columns, group, offset is not None, everywhere=True, gradient=True)
    share = 1 / images if reduction == "mean" else 1.0
    gradient_kernel[(images * geometry.blocks,)](
        x,
        target,
        offset,
        grad_output,
        result,
        height,
        width,
        geometry.cells,
        geometry.cells_per_row,
        geometry.blocks,
        channels,
        *source.strides,
        *other.strides,
        *out.strides,
        grad_output.stride(0) if grad_output.dim() else 0,
        definition.threshold,
        unit(definition),
        definition.smoothing,
        charbonnier_eps**2,
        (weight if target is None else -weight) * share,
        share / (channels * height * width),
        **formula_flags(definition),
        SMOOTH=definition.smoothing > 0,
        N=n,
        C=geometry.columns,
        CHANNELS=channels,
        PIXEL=pixel,
        # Of the gradient for the target, Q is no part.
        WITH_Q=target is None or weight != 0,
        HAS_OFFSET=offset is not None,
        X_V=source.vector,
        T_V=other.vector,
        GROUP=group,
        LANES=geometry.lanes,
        num_warps=geometry.warps,
        **registers(definition, source.vector, group, channels, pixel, gradient=True),
        **OPTIONS,
    )
    return result
