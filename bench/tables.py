"""Measurements as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import reach
from .record import BUSY, Machine, Timing, describe

KERNELS = {"q": "QLoss", "mae_q": "MAEQLoss", "l1_loss": "l1_loss", "copy": "copy", "read": "read"}

_HOW = """\
Milliseconds are medians (20th - 80th percentile) of interleaved runs: all providers of a column ran once per
round, in a balanced order. "forward" is a call without a graph, "backward" the backward pass of a retained
graph, "both" a training step's forward and backward; each is timed, none is computed from the others. GB/s
counts the bytes that must move at least, and "of copy" is their rate over that of `Tensor.copy_` in the same
rounds. Memory is the peak beyond what was there before: of "both"'s forward with its graph and result, and of
its backward with the gradient; in units of one image batch (pred).

Providers: the engines by name, through the public modules; plain: the closed form as one writes it in torch,
with autograd; refined: plain with the small eigenvalue computed accurately, which the eager engine runs;
compile: torch.compile of plain; l1_loss: `torch.nn.functional.l1_loss` on the same tensors.
"""


def size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def short(value: float) -> str:
    """Three digits, and never an exponent for a large number."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are aligned to the left."""
    rules = ["---" if i < left else "--:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rules, *rows)) + "\n"


def micro(rows: Sequence[Timing], machine: Machine, others: float | None) -> str:
    """The whole report of `bench micro`."""
    content = rows[0].content
    parts = [f"# Q as a loss on {machine.device}\n", describe(machine, others) + f" Content: {content}.\n"]
    if machine.device == "cpu":
        parts += ["## Reach\n", _reach(rows)]
    parts += ["## How to read this\n", _HOW]
    for shape in dict.fromkeys(r.shape for r in rows):
        parts.append(f"## {size(shape)}\n")
        for dtype in dict.fromkeys(r.dtype for r in rows if r.shape == shape):
            cell = [r for r in rows if r.shape == shape and r.dtype == dtype]
            parts += [f"### {size(shape)} {dtype}\n", _cell(cell)]
    disturbed = dict.fromkeys(
        f"- {size(r.shape)} {r.dtype} {r.mode}: others took {r.others:.0%}\n"
        for r in rows
        if r.others is not None and r.others > BUSY
    )
    if disturbed:
        parts += ["## Disturbed\n", "".join(disturbed)]
    notes = dict.fromkeys(
        f"- {KERNELS[r.kernel]} {r.provider}, {size(r.shape)} {r.dtype} {r.mode}: {r.note}\n"
        for r in rows
        if r.note
    )
    if notes:
        parts += ["## Notes\n", "".join(notes)]
    compiled = [r.first_call_s for r in rows if r.provider == "compile" and r.first_call_s]
    if compiled:
        parts.append(
            f"torch.compile took {max(compiled):.0f} s at its slowest before its first call returned, "
            f"{sum(compiled):.0f} s in all, for {len(compiled)} rows; rows it is missing from were not tried "
            "(`--compile all` tries them).\n"
        )
    return "\n".join(parts)


def _reach(rows: Sequence[Timing]) -> str:
    def lines(outcomes: Sequence[reach.Outcome]) -> list[list[str]]:
        return [[o.text, o.wanted, o.measured, YES_NO[o.reached]] for o in outcomes]

    head = ["float32, C++ engine", "wanted", "measured", "reached"]
    demanded = lines([*reach.outcomes(rows), *reach.backward_memory(rows)])
    beside = [line[:1] + line[2:3] for line in lines(reach.outcomes(rows, reach.CPU_BESIDE))]
    return table(head, demanded) + "\n" + table(["beside", "measured"], beside)


YES_NO = {True: "yes", False: "**no**", None: "-"}


def _cell(rows: Sequence[Timing]) -> str:
    modes = list(dict.fromkeys(r.mode for r in rows))
    head = ["", *(f"{m} ms" for m in modes), *(f"{m} GB/s (of copy)" for m in modes)]
    head += ["memory forward", "backward"]
    lines = []
    for kernel, provider in dict.fromkeys((r.kernel, r.provider) for r in rows):
        by_mode = {r.mode: r for r in rows if (r.kernel, r.provider) == (kernel, provider)}
        name = KERNELS[kernel] + ("" if provider == "torch" else f" {provider}")
        found = [by_mode.get(mode) for mode in modes]
        line = [name, *(_ms(r) for r in found), *(_rate(r) for r in found)]
        step = by_mode.get("both")
        line += [_images(step, "extra_bytes_forward"), _images(step, "extra_bytes_backward")]
        lines.append(line)
    return table(head, lines)


def _ms(row: Timing | None) -> str:
    if row is None or row.ms_p50 is None:
        return "failed" if row is not None and row.note else ""
    return f"{short(row.ms_p50)} ({short(row.ms_p20)} - {short(row.ms_p80)})"


def _rate(row: Timing | None) -> str:
    if row is None or row.gbytes_per_s is None:
        return ""
    return f"{short(row.gbytes_per_s)} ({row.share_of_copy:.0%})"


def _images(row: Timing | None, column: str) -> str:
    value = None if row is None else getattr(row, column)
    if value is None:
        return ""
    itemsize = {"float64": 8, "float32": 4}.get(row.dtype, 2)
    return f"{value / (row.n * row.c * row.h * row.w * itemsize):.3g}"
