"""Executes a kernel for a grid of blocks, an instruction at a time for all threads together.

Threads that have parted are groups with a program counter each; the one that is furthest behind goes on, and
groups that meet are one again. What the hardware would wait for (a barrier, a shuffle's lanes) waits here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from . import instructions
from .control import Wait
from .memory import Fault, GlobalMemory, Region, SharedMemory
from .syntax import Kernel

#: Threads that are executed together.
THREADS = 16384


@dataclass
class Counts:
    """What a launch did. Instructions are those of warps; ``sectors`` and ``cycles`` see `memory`.

    ``by_opcode`` counts warps' instructions by the opcode's first word.
    """

    warp_instructions: int = 0
    by_opcode: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    sectors: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    shared_requests: int = 0
    bank_cycles: int = 0
    least_bank_cycles: int = 0


@dataclass
class Record:
    """What is kept of launches: the kernels' names, counts if there is an object for them, and the memory
    they were given, with how often each byte was touched if it is to be watched."""

    counts: Counts | None = None
    watch: bool = False
    launched: list[str] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)


@dataclass
class Launch:
    """The state that instructions work on: registers, memories and who is there.

    A register holds a value for each thread, or a single one where all threads have the same. ``waited``: who
    has waited for the kernel before, in a kernel that does.
    """

    kernel: Kernel
    registers: dict[str, np.ndarray]
    parameters: np.ndarray
    memory: GlobalMemory
    shared: SharedMemory
    special: dict[str, np.ndarray]
    block: np.ndarray
    thread: np.ndarray
    counts: Counts | None
    waited: np.ndarray | None

    @property
    def threads(self) -> int:
        return len(self.thread)

    @property
    def warp(self) -> np.ndarray:
        return self.block * (32 * 32) + self.thread // 32


@dataclass(eq=False)
class Group:
    """Threads with a common program counter."""

    at: int
    mask: np.ndarray
    waits: bool = False


def launch(
    kernel: Kernel,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    parameters: bytes,
    regions: Sequence[Region],
    dynamic_shared: int = 0,
    record: Record | None = None,
) -> None:
    """Run a kernel.

    Args:
        kernel: from `syntax.Kernels`.
        grid: blocks.
        block: threads of a block.
        parameters: as they lie in the kernel's parameter space.
        regions: the memory it may touch.
        dynamic_shared: bytes of shared memory beside the kernel's own.
        record: what is to be kept of it.

    Raises:
        Fault: for what a kernel must not do, with the instruction.
    """
    if len(parameters) != kernel.parameter_bytes:
        raise ValueError(f"{len(parameters)} bytes of parameters, not {kernel.parameter_bytes}")
    size = int(np.prod(block))
    if not 0 < size <= 1024:
        raise Fault(f"{size} threads in a block")
    record = Record() if record is None else record
    record.launched.append(kernel.name)
    for region in regions:
        if not any(region is known for known in record.regions):
            record.regions.append(region)
            if record.watch:
                region.watch()
    program = instructions.program(kernel)
    space, blocks = GlobalMemory(regions), int(np.prod(grid))
    at_once = max(1, THREADS // size)
    for first in range(0, blocks, at_once):
        numbers = np.arange(first, min(first + at_once, blocks))
        state = _state(kernel, grid, block, parameters, space, numbers, dynamic_shared, record.counts)
        with np.errstate(all="ignore"):
            _run(state, program)


def _state(kernel, grid, block, parameters, space, numbers, dynamic_shared, counts) -> Launch:
    size = int(np.prod(block))
    thread = np.tile(np.arange(size), len(numbers))
    number = np.repeat(numbers, size)
    special = {"laneid": thread % 32}
    special["tid.x"], rest = thread % block[0], thread // block[0]
    special["tid.y"], special["tid.z"] = rest % block[1], rest // block[1]
    special["ctaid.x"], rest = number % grid[0], number // grid[0]
    special["ctaid.y"], special["ctaid.z"] = rest % grid[1], rest // grid[1]
    for i, axis in enumerate("xyz"):
        special[f"ntid.{axis}"] = np.array([block[i]])
        special[f"nctaid.{axis}"] = np.array([grid[i]])
    return Launch(
        kernel,
        {},
        np.frombuffer(parameters, np.uint8),
        space,
        SharedMemory(len(numbers), kernel.shared_bytes + dynamic_shared, -(-size // 32)),
        {name: value.astype(np.uint32) for name, value in special.items()},
        number - numbers[0],
        thread,
        counts,
        np.zeros(len(thread), bool) if kernel.waits else None,
    )


def _run(state: Launch, program: list[instructions.Step]) -> None:
    groups = [Group(0, np.ones(state.threads, bool))]
    while groups:
        ready = [g for g in groups if not g.waits]
        if not ready:
            _release(state, program, groups)
            continue
        group = min(ready, key=lambda g: g.at)
        for other in [g for g in ready if g is not group and g.at == group.at]:
            group.mask = group.mask | other.mask
            groups.remove(other)
        others = [g.at for g in groups if g is not group and g.at > group.at]
        groups.remove(group)
        groups += _advance(state, program, group, min(others, default=len(program)))


def _advance(state: Launch, program, group: Group, limit: int) -> list[Group]:
    """Run one group until it parts, waits, ends, or meets another; what has become of it."""
    mask = None if group.mask.all() else group.mask
    alive = None if state.counts is None else len(np.unique(state.warp[group.mask]))
    at = group.at
    while True:
        step = program[at]
        if alive is not None:
            state.counts.warp_instructions += alive
            state.counts.by_opcode[step.instruction.opcode[0]] += alive
        try:
            result = step.run(state, mask)
        except (Fault, KeyError) as error:
            reason = (
                f"register {error} is read before anything was written"
                if isinstance(error, KeyError)
                else error
            )
            raise Fault(
                f"{reason}\n  in {state.kernel.name}, instruction {at}: {step.instruction.text}"
            ) from error
        if isinstance(result, Wait):
            return [Group(at, group.mask, waits=True)]
        if result is not None:
            goes, target = result
            parts = [Group(target, group.mask & goes), Group(at + 1, group.mask & ~goes)]
            return [g for g in parts if g.mask.any() and g.at < len(program)]
        at += 1
        if at >= limit:
            return [Group(at, group.mask)] if at < len(program) else []


def _release(state: Launch, program, groups: list[Group]) -> None:
    """All that are left wait. Those at the same place wait together; then whoever is complete goes on."""
    merged: dict[int, Group] = {}
    for group in groups:
        if group.at in merged:
            merged[group.at].mask = merged[group.at].mask | group.mask
        else:
            merged[group.at] = group
    met = len(merged) < len(groups)
    groups[:] = merged.values()
    left = np.zeros(state.threads, bool)
    for group in groups:
        left |= group.mask
    released = False
    for group in list(groups):
        step = program[group.at]
        if step.instruction.opcode[0] not in ("bar", "barrier") or "warp" in step.instruction.opcode:
            continue
        # The block's barrier: complete for the blocks whose threads that have not ended are all here.
        missing = np.unique(state.block[left & ~group.mask])
        here = group.mask & ~np.isin(state.block, missing)
        if here.any():
            state.shared.block_barriers[np.unique(state.block[here])] += 1
            groups.remove(group)
            if (group.mask & ~here).any():
                groups.append(Group(group.at, group.mask & ~here, waits=True))
            groups.append(Group(group.at + 1, here))
            released = True
    if met and not released:
        for group in groups:
            group.waits = False  # a warp's exchange may be complete now
    elif not released:
        step = program[groups[0].at]
        raise Fault(
            "threads wait for others that do not come"
            f"\n  in {state.kernel.name}, instruction {groups[0].at}: {step.instruction.text}"
        )
