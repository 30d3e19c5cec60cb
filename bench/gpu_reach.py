"""The targets of the GPU engines, and where they lose: computed from the rows of one run, never typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import tables
from .gpu_cells import BATCH, CALL, HUGE, LARGE, ODD, SMALL, Shape
from .limits import OURS, Measured
from .reach import Outcome

PLAIN, COMPILED = "plain", "compile"
TITLES = {"q": "Q", "mae_q": "MAE - w Q"}

#: (kernel, provider, shape, mode, dtype, layout) of a row.
Key = tuple[str, str, Shape, str, str, str]
Table = dict[Key, Measured]

#: What is measured, and whether that is enough; None where the rows do not hold it.
Verdict = tuple[str, bool] | None


@dataclass(frozen=True)
class Target:
    """What an engine must reach, in words, and what the rows say about it."""

    engine: str
    text: str
    wanted: str
    judge: Callable[[Table], Verdict]

    def outcome(self, table: Table) -> Outcome:
        measured, reached = self.judge(table) or ("not measured", None)
        return Outcome(f"{self.engine}: {self.text}", self.wanted, measured, reached)


def _key(
    kernel: str, engine: str, shape: Shape, mode: str, dtype: str = "float32", layout: str = "contiguous"
) -> Key:
    return kernel, engine, shape, mode, dtype, layout


def _place(key: Key) -> str:
    kernel, _, shape, mode, dtype, layout = key
    parts = [tables.size(shape), TITLES[kernel], mode]
    parts += [dtype] * (dtype != "float32") + [layout] * (layout != "contiguous")
    return " ".join(parts)


def _of_limit(least: float, *place) -> Target:
    key = _key(*place)

    def judge(table: Table) -> Verdict:
        row = table.get(key)
        if row is None or row.share_of_limit is None:
            return None
        slower = "copy" if row.share_of_copy >= row.share_of_issue else "issue"
        return f"{row.share_of_limit:.1%} ({slower})", row.share_of_limit >= least

    return Target(key[1], f"{_place(key)}, of the limit", f">= {least:.0%}", judge)


def _speed_up(rival: str, least: float, kernel: str, engine: str, shape: Shape, mode: str) -> Target:
    key = _key(kernel, engine, shape, mode)

    def judge(table: Table) -> Verdict:
        ratio = _ratio(table, (kernel, rival, *key[2:]), key)
        return None if ratio is None else (f"{ratio:.3g}", ratio >= least)

    title = {PLAIN: "plain torch", COMPILED: "torch.compile"}[rival]
    return Target(engine, f"{_place(key)}, speed-up over {title}", f">= {least:g}", judge)


def _ratio(table: Table, above: Key, below: Key) -> float | None:
    rows = table.get(above), table.get(below)
    if any(row is None or row.ms_p50 is None for row in rows):
        return None
    return rows[0].ms_p50 / rows[1].ms_p50


def _microseconds(most: float, *place) -> Target:
    key = _key(*place)

    def judge(table: Table) -> Verdict:
        row = table.get(key)
        return None if row is None else (f"{1e3 * row.ms_p50:.3g}", 1e3 * row.ms_p50 <= most)

    return Target(key[1], f"{_place(key)}, captured, microseconds", f"<= {most:g}", judge)


def _processor(most: float, kernel: str, engine: str) -> Target:
    key = _key(kernel, engine, SMALL, CALL)

    def judge(table: Table) -> Verdict:
        ratio = _ratio(table, key, (kernel, PLAIN, *key[2:]))
        return None if ratio is None else (f"{ratio:.3g}", ratio <= most)

    text = f"{tables.size(SMALL)} {TITLES[kernel]} both, not captured, of plain torch's time on the processor"
    return Target(engine, text, f"<= {most:g}", judge)


def _half_precision(least: float, kernel: str, engine: str, shape: Shape, mode: str) -> Target:
    """The pixel rate in bfloat16 of float32's: half the bytes, but as many instructions."""
    full, half = _key(kernel, engine, shape, mode), _key(kernel, engine, shape, mode, "bfloat16")

    def judge(table: Table) -> Verdict:
        ratio = _ratio(table, full, half)
        if ratio is None or table[half].share_of_issue is None:
            return None
        allowed = ratio / table[half].share_of_issue
        enough = least if allowed >= least else 1
        return f"{ratio:.3g} (issue allows {allowed:.3g})", ratio >= enough

    wanted = f">= {least:g} if issue allows it, else 1"
    return Target(engine, f"{_place(half)}, pixel rate of float32's", wanted, judge)


def _workspace(most: float, kernel: str, engine: str, shape: Shape) -> Target:
    key = _key(kernel, engine, shape, "both")

    def judge(table: Table) -> Verdict:
        row = table.get(key)
        if row is None or row.workspace_bytes is None:
            return None
        share = row.workspace_bytes / (4 * row.pixels)
        return f"{share:.2%}", share <= most

    text = f"{_place(key)}, memory beside the gradient, of the image"
    return Target(engine, text, f"<= {most:.1%}", judge)


MODES = ("forward", "backward")

#: Float32 where nothing else is said. Plain is the faster of the eager forms: harder to beat.
TARGETS = (
    *(_of_limit(0.9, "q", "cuda", LARGE, mode) for mode in MODES),
    _of_limit(0.9, "mae_q", "cuda", LARGE, "both"),
    *(_of_limit(0.9, "q", "cuda", shape, mode) for shape in (BATCH, HUGE) for mode in MODES),
    *(_of_limit(0.9, "mae_q", "cuda", shape, "both") for shape in (BATCH, HUGE)),
    *(
        _of_limit(0.7, "q", "cuda", LARGE, mode, "float32", layout)
        for layout in ("shifted", "offset")
        for mode in MODES
    ),
    *(_of_limit(0.7, "mae_q", "cuda", LARGE, "both", "float32", layout) for layout in ("shifted", "offset")),
    *(_of_limit(0.7, kernel, "cuda", ODD, "both") for kernel in TITLES),
    _speed_up(PLAIN, 30, "q", "cuda", LARGE, "both"),
    _speed_up(COMPILED, 3, "q", "cuda", LARGE, "both"),
    _microseconds(8, "q", "cuda", SMALL, "both"),
    *(_workspace(0.005, kernel, "cuda", LARGE) for kernel in TITLES),
    *(_of_limit(0.8, "q", "triton", shape, mode) for shape in (LARGE, BATCH, HUGE) for mode in MODES),
    _speed_up(PLAIN, 25, "q", "triton", LARGE, "both"),
    _speed_up(COMPILED, 2.5, "q", "triton", LARGE, "both"),
    _microseconds(12, "q", "triton", SMALL, "both"),
    _processor(0.5, "q", "triton"),
    *(_half_precision(1.7, "q", "triton", LARGE, mode) for mode in (*MODES, "both")),
    *(_workspace(0.005, kernel, "triton", LARGE) for kernel in TITLES),
)

#: Not demanded, but of interest: what is demanded of the other engine.
BESIDE = (
    _processor(0.5, "q", "cuda"),
    *(_half_precision(1.7, "q", "cuda", LARGE, mode) for mode in (*MODES, "both")),
    _of_limit(0.8, "mae_q", "triton", LARGE, "both"),
    *(_of_limit(0.7, "q", "triton", LARGE, "both", "float32", layout) for layout in ("shifted", "offset")),
    _of_limit(0.7, "q", "triton", ODD, "both"),
)


def outcomes(rows: Sequence[Measured], targets: Sequence[Target] = TARGETS) -> list[Outcome]:
    """Each target with what the rows say about it."""
    table = {(r.kernel, r.provider, r.shape, r.mode, r.dtype, r.layout): r for r in rows}
    return [target.outcome(table) for target in targets]


def losses(rows: Sequence[Measured]) -> list[str]:
    """The places where an engine is slower than plain torch or torch.compile, in words."""
    table = {(r.kernel, r.provider, r.shape, r.mode, r.dtype, r.layout): r for r in rows}
    found = []
    for key in table:
        for rival in (PLAIN, COMPILED):
            ratio = _ratio(table, (key[0], rival, *key[2:]), key) if key[1] in OURS else None
            if ratio is not None and ratio < 1:
                found.append(f"{key[1]}, {_place(key)}: {1 / ratio:.3g} times as long as {rival}")
    return found


def compared(rows: Sequence[Measured], rival: str) -> list[str]:
    """The places where the rival was measured: elsewhere nothing is known of losing to it."""
    keys = ((r.kernel, r.provider, r.shape, r.mode, r.dtype, r.layout) for r in rows if r.ms_p50 is not None)
    return [_place(key) for key in keys if key[1] == rival]
