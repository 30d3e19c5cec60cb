"""The GPU benchmark's rows as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from . import gpu_reach, record, tables
from .limits import Measured
from .reach import Outcome

_HOW = """\
Each provider is a captured CUDA graph over sets of inputs that together are three times the L2 cache or more;
the graphs are replayed in turn, the cache filled with other memory that was only read before each, and times
are per set. "call (CPU)" is the processor's time for a forward and
backward call without a graph. GB/s counts the bytes that must move at least: each image read once, the
gradient written once; "of copy" is their rate over that of `Tensor.copy_` of contiguous images in the same
rounds. "read" is the sum of one image: what reading alone reaches, for a copy turns from reading to writing.
The gradient of the loss, 1, lies ready: torch's filling it is no kernel of any of these.

The rows "issue" are streams of arithmetic that touch no memory, and the faster is the rate at which the GPU
issues instructions. Instructions per pixel are counted in the engines' machine code for this GPU, for
contiguous rows, along the longest way; "of issue" is their rate over the measured one. The limit is the
slower of the two, so a kernel's share of it is the larger of its two shares. With three channels there is no
count.

Memory is bytes: the most that a call holds at a time beside the gradient, its result included. "shifted" rows
begin off the 16 bytes of a vector load, and so do those of an odd width; "offset" is a patch grid that begins
inside the image. plain: the closed form as one writes it in torch, with autograd; refined: plain with the
small eigenvalue computed accurately, which the eager engine runs; compile: torch.compile of plain.
"""

_HEAD = (
    "provider",
    "ms p50",
    "p20",
    "p80",
    "GB/s",
    "of copy",
    "instructions per pixel",
    "1e9 a second",
    "of issue",
    "of the limit",
    "memory",
    "times as fast as plain",
    "note",
)


def report(rows: Sequence[Measured], machine: record.Machine) -> str:
    """The whole record: what was to be reached and was, where the engines lose, and every cell."""
    others = max((row.others for row in rows if row.others is not None), default=None)
    parts = ["# Q as a loss on a GPU\n", record.describe(machine, others) + "\n"]
    parts += ["## Reach\n", _reach(rows), "## Open\n", _open(rows)]
    parts += ["## Where an engine loses\n", _losses(rows)]
    parts += ["## How to read this\n", _HOW]
    for key in dict.fromkeys(map(_cell, rows)):
        cell = [row for row in rows if _cell(row) == key]
        shape, dtype, mode, layout = key
        title = f"{tables.size(shape)} {dtype} {mode}" + f" {layout}" * (layout != "contiguous")
        plain = {row.kernel: row.ms_p50 for row in cell if row.provider == gpu_reach.PLAIN}
        parts += [f"## {title}\n", tables.table(_HEAD, [_line(row, plain.get(row.kernel)) for row in cell])]
    return "\n".join(parts)


def _cell(row: Measured) -> tuple:
    return row.shape, row.dtype, row.mode, row.layout


def _reach(rows: Sequence[Measured]) -> str:
    demanded, beside = _outcomes(rows)
    head = ["float32 where nothing else is said", "wanted", "measured", "reached"]
    lines = [
        [o.text, o.wanted, o.measured, tables.YES_NO[o.reached]] for o in demanded if o.reached is not None
    ]
    found = [[o.text, o.measured] for o in beside if o.reached is not None]
    return tables.table(head, lines) + "\n" + tables.table(["beside", "measured"], found)


def _open(rows: Sequence[Measured]) -> str:
    demanded, beside = _outcomes(rows)
    lines = [f"- {o.text}: {o.wanted}\n" for o in demanded if o.reached is None]
    lines += [f"- beside, {o.text}\n" for o in beside if o.reached is None]
    if not lines:
        return "Nothing.\n"
    return "Not measured, for want of time where no cell below gives another reason:\n\n" + "".join(lines)


def _outcomes(rows: Sequence[Measured]) -> tuple[list[Outcome], list[Outcome]]:
    return gpu_reach.outcomes(rows, gpu_reach.TARGETS), gpu_reach.outcomes(rows, gpu_reach.BESIDE)


def _losses(rows: Sequence[Measured]) -> str:
    found = gpu_reach.losses(rows) or ["nowhere in this run"]
    places = "; ".join(gpu_reach.compared(rows, gpu_reach.COMPILED)) or "nowhere"
    text = [f"- {line}\n" for line in found]
    text.append(f"\nAgainst plain where it has a row below, against torch.compile at: {places}.\n")
    return "".join(text)


def _line(row: Measured, plain: float | None) -> list[str]:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    ratio = plain / row.ms_p50 if plain is not None and row.ms_p50 is not None else None
    return [
        f"{row.kernel}/{row.provider}",
        *(cell(ms, ".4g") for ms in (row.ms_p50, row.ms_p20, row.ms_p80)),
        cell(row.gbytes_per_s, ".0f"),
        cell(row.share_of_copy, ".1%"),
        cell(row.instructions_per_pixel, ".1f"),
        cell(row.ginstructions_per_s, ".0f"),
        cell(row.share_of_issue, ".1%"),
        cell(row.share_of_limit, ".1%"),
        cell(row.workspace_bytes, ",d"),
        cell(ratio, ".2f"),
        row.note,
    ]
