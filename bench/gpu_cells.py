"""What the GPU benchmark measures: cells of one shape, dtype, mode and layout, all providers interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from . import cuda, limits, memory, record, tables, timing
from .content import DTYPES, pictures
from .limits import OURS, Measured
from .providers import Inputs, Provider, engines, providers

if TYPE_CHECKING:
    from .issue import Stream

Shape = tuple[int, int, int, int]

DEVICE = "cuda"

#: Seconds that a cell may take, one with torch.compile in it besides, and one of our engines alone.
CELL, COMPILED_CELL, OWN_CELL = 12.0, 20.0, 5.0

#: And what it takes to compile its calls, where that was not done before.
COMPILATION = 45.0

#: Seconds of a cell's rounds.
ROUNDS = 1.5

SMALL, LARGE, HUGE = (32, 1, 128, 128), (1, 1, 8192, 8192), (1, 1, 16384, 16384)
BATCH, TINY, ODD = (64, 1, 1000, 1000), (1, 1, 256, 256), (1, 1, 8192, 8191)

#: First row and column of the patch grid with the layout "offset".
OFFSET = (3, 5)


@dataclass(frozen=True)
class Cell:
    """``compiled``: torch.compile of Q too. ``alone``: nothing but our engines, the copy and the read."""

    shape: Shape
    mode: str = "both"
    dtype: str = "float32"
    layout: str = "contiguous"
    compiled: bool = False
    alone: bool = False

    @property
    def name(self) -> str:
        layout = "" if self.layout == "contiguous" else f" {self.layout}"
        return f"{tables.size(self.shape)} {self.dtype} {self.mode}{layout}"

    @property
    def seconds(self) -> float:
        return OWN_CELL if self.alone else CELL + self.compiled * COMPILED_CELL


#: In order of importance, since time may run out: what the targets are about, then where it pays.
CELLS = (
    Cell(LARGE, "forward"),
    Cell(LARGE, "backward"),
    Cell(LARGE, compiled=True),
    Cell(SMALL, compiled=True),
    *(Cell(LARGE, layout=layout, alone=True) for layout in ("shifted", "offset")),
    *(Cell(BATCH, mode, alone=True) for mode in ("forward", "backward", "both")),
    *(Cell(LARGE, mode, layout="shifted", alone=True) for mode in ("forward", "backward")),
    *(Cell(LARGE, mode, layout="offset", alone=True) for mode in ("forward", "backward")),
    Cell(ODD, alone=True),
    Cell(LARGE, dtype="bfloat16"),
    *(Cell(LARGE, mode, "bfloat16", alone=True) for mode in ("forward", "backward")),
    *(Cell(HUGE, mode, alone=True) for mode in ("forward", "backward", "both")),
    Cell((1, 1, 2048, 2048)),
    Cell((1, 1, 4096, 4096)),
    Cell((8, 3, 256, 256)),
    Cell(SMALL, "forward"),
    Cell(SMALL, dtype="bfloat16"),
    Cell(LARGE, dtype="float16", alone=True),
    Cell((16, 3, 2048, 2048)),
    # Hundreds of inputs to exceed the cache, each with many kernels of plain torch: it takes longest.
    Cell(TINY, compiled=True),
    Cell((1, 1, 1024, 1024), compiled=True),
)

#: What reading alone reaches: the sum of one image.
READ = Provider("read", "torch", lambda pred, target: pred.sum(), images=1)

#: Calls from Python that are timed without a graph, for what they cost the processor, and how many at a time:
#: the queue must never fill up, or the processor waits for the GPU.
CALLS, QUEUED = 100, 20

#: Their mode in the record.
CALL = "call (CPU)"


def measure(end: float, late: Sequence[Cell] = ()) -> Iterator[list[Measured]]:
    """The rows of one cell after the other, while there is time before ``end`` (of `time.perf_counter`).

    ``late``: cells that have something to compile yet.
    """
    yield call_overhead()
    for cell in CELLS:
        if time.perf_counter() + cell.seconds + COMPILATION * (cell in late) > end:
            print(f"no time left for {cell.name}", flush=True)
            continue
        try:
            yield measured(cell)
        except torch.OutOfMemoryError as error:
            # Of a small GPU, for a large cell: the others fit.
            print(f"no memory for {cell.name}: {str(error).partition(chr(10))[0]}", flush=True)
        torch.compiler.reset()
        torch.cuda.empty_cache()


def measured(cell: Cell, rivals: Sequence[Provider] | None = None) -> list[Measured]:
    """All providers on one cell, or only these, each a captured graph over inputs that together exceed the
    cache."""
    begin = time.perf_counter()
    dtype = DTYPES[cell.dtype]
    # The pattern repeats every few hundred pixels anyway, and a photograph of 64 megapixels takes long to
    # make.
    pred, target = (_tiled(x, cell.shape) for x in pictures((1, *cell.shape[1:2], 512, 512), "photo"))
    sets = cuda.sets_needed(pred.numel() * dtype.itemsize)
    inputs = [Inputs.of(pred, target, dtype, DEVICE) for _ in range(sets)]
    laid_out = [_shifted(one) for one in inputs] if cell.layout == "shifted" else inputs
    blank = Measured("", "", cell.mode, cell.dtype, *cell.shape, "photo", layout=cell.layout)
    failed, ready = [], []
    for provider in _providers(cell) if rivals is None else rivals:
        row = replace(blank, kernel=provider.kernel, provider=provider.name)
        try:
            # These show the memory's speed: always of contiguous images.
            own = inputs if provider.kernel in ("copy", "read") else laid_out
            ready.append((provider, *_prepared(provider, row, own)))
        except Exception as error:
            # Plain torch may not fit, and torch.compile may fail: a result like any other, but not for us.
            if provider.name in OURS:
                raise
            first_line = str(error).partition("\n")[0]
            failed.append(replace(row, note=f"{type(error).__name__}: {first_line[:100]}"))
            torch.cuda.empty_cache()
    try:
        streams = issue_streams()
    except Exception as error:
        # Then there is no verdict on the limit, but all the rest.
        print(f"no issue rate: {error}", flush=True)
        streams = []
    replays = [replay for _, _, replay in ready] + [stream.launch for stream in streams]
    others = record.Others()
    samples = timing.interleave(replays, ROUNDS, clock=timing.cuda_clock)
    blank = replace(blank, others=others.share())
    rows = []
    for (provider, row, _), sample in zip(ready, samples[: len(ready)], strict=True):
        row = replace(_timed(row, sample, sets), others=blank.others)
        rate = provider.bytes_moved(cell.mode, row.pixels, dtype.itemsize) / row.ms_p50 / 1e6
        rows.append(replace(row, gbytes_per_s=rate))
    for stream, sample in zip(streams, samples[len(ready) :], strict=True):
        row = _timed(replace(blank, kernel="issue", provider=stream.name), sample, 1)
        rows.append(replace(row, ginstructions_per_s=stream.instructions / row.ms_p50 / 1e6))
    times = "  ".join(f"{r.kernel}/{r.provider} {r.ms_p50:.3g}" for r in rows)
    print(f"{cell.name} ({time.perf_counter() - begin:.0f} s), ms: {times}", flush=True)
    return limits.with_shares(rows) + failed


def _providers(cell: Cell) -> list[Provider]:
    names = engines(DEVICE)
    if not cell.alone:
        # The eager engine is measured as "refined", without what a loss adds to it. Ours first: they must not
        # lack the memory that plain torch took.
        found = of_cell(cell, [name for name in names if name in OURS or name != "eager"], DEVICE)
        return sorted([*found, READ], key=lambda provider: provider.name not in OURS)
    found = of_cell(cell, [name for name in names if name in OURS], DEVICE)
    return [*(provider for provider in found if provider.name in OURS or provider.kernel == "copy"), READ]


def of_cell(cell: Cell, names: list[str], device: str) -> list[Provider]:
    """These engines on the cell's patch grid, with what is measured beside them."""
    offset = torch.tensor(OFFSET, dtype=torch.int32, device=device) if cell.layout == "offset" else (0, 0)
    return providers(names, ("q",) if cell.compiled else (), offset)


def _prepared(
    provider: Provider, row: Measured, inputs: list[Inputs]
) -> tuple[Measured, Callable[[], object]]:
    """The row with all but its times, and the captured graph to be timed."""
    begin = time.perf_counter()
    with cuda.on_side():
        steps = [provider.step(one, row.mode, ready=True) for one in inputs]
        steps[0]()
    torch.cuda.synchronize()
    row = replace(row, first_call_s=time.perf_counter() - begin)
    if provider.name in OURS:
        row = replace(row, **memory.of_step(provider, inputs[0], row.mode, DEVICE))
        row = replace(
            row,
            workspace_bytes=limits.workspace(row, inputs[0].pred.element_size()),
            instructions_per_pixel=limits.instructions_per_pixel(row, architecture()),
        )
    return row, cuda.captured(steps)


def _timed(row: Measured, sample: timing.Sample, sets: int) -> Measured:
    low, middle, high = (sample.ms(p) / sets for p in (20, 50, 80))
    return replace(row, ms_p20=low, ms_p50=middle, ms_p80=high, rounds=len(sample.seconds))


def architecture() -> int:
    """The device's compute capability, times 10."""
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def issue_streams() -> list[Stream]:
    """The streams of `issue`, compiled. It is imported here, for it needs Triton."""
    from . import issue

    streams = issue.streams(DEVICE)
    for stream in streams:
        stream.launch()
    torch.cuda.synchronize()
    return streams


def _tiled(x: torch.Tensor, shape: Shape) -> torch.Tensor:
    n, _, h, w = shape
    return x.float().repeat(n, 1, -(-h // x.shape[2]), -(-w // x.shape[3]))[:, :, :h, :w].contiguous()


def _shifted(inputs: Inputs) -> Inputs:
    """The same images in wider buffers: most rows begin off the 16 bytes of a vector load."""

    def shifted(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(*x.shape[:3], x.shape[3] + 1)[..., 1:].copy_(x)

    return Inputs(shifted(inputs.pred.detach()).requires_grad_(), shifted(inputs.target), inputs.buffer)


def call_overhead() -> list[Measured]:
    """Milliseconds of the processor per forward and backward call, without a graph, on a small batch."""
    pred, target = (_tiled(x, SMALL) for x in pictures((1, 1, 128, 128), "photo"))
    inputs = Inputs.of(pred, target, torch.float32, DEVICE)
    rows = []
    for provider in providers(engines(DEVICE), ()):
        step = provider.step(inputs, "both")
        samples = [_processor_seconds(step) for _ in range(5)]
        blank = Measured(provider.kernel, provider.name, CALL, "float32", *SMALL, "photo")
        rows.append(_timed(blank, timing.Sample(tuple(samples[1:])), CALLS))
    return rows


def _processor_seconds(step: Callable[[], object]) -> float:
    total = 0.0
    for _ in range(CALLS // QUEUED):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(QUEUED):
            step()
        total += time.perf_counter() - begin
    torch.cuda.synchronize()
    return total
