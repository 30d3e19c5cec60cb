"""Branches, and instructions for which other threads are needed: shuffles, votes and barriers.

A branch returns (who goes, where to); what must wait for others returns `Wait`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .memory import Fault
from .operands import Array, reader, selected, write
from .syntax import Immediate, Instruction, Kernel, Vector


@dataclass(frozen=True)
class Wait:
    """The instruction is to be tried again when more threads have come to it."""


def branch(kernel: Kernel, instruction: Instruction) -> Callable:
    target = kernel.labels[instruction.operands[0].name]

    def run(state, mask):
        if instruction.guard is None:
            goes = np.ones(state.threads, bool)
        else:
            register, wanted = instruction.guard
            goes = np.broadcast_to(state.registers[register] == wanted, state.threads)
            if not (goes if mask is None else goes & mask).any():
                return None
        return goes, target

    return run


def end(kernel: Kernel, instruction: Instruction) -> Callable:
    return lambda state, mask: (np.ones(state.threads, bool), len(kernel.code))


def _warps_are_whole(state, mask: Array | None) -> bool:
    if mask is None:
        return state.threads % 32 == 0
    lanes = mask.reshape(-1, 32)
    return bool((lanes.all(axis=1) | ~lanes.any(axis=1)).all())


def _all_lanes(state, mask: Array | None, members: Array) -> None:
    if (selected(members, state, mask) != 0xFFFFFFFF).any():
        raise Fault("an exchange within a part of a warp")


def shuffle(kernel: Kernel, instruction: Instruction) -> Callable:
    mode = instruction.opcode[2]
    target, source, b, c, members = instruction.operands
    # The second target says whether the other lane lies in the segment.
    target, within = target.parts if isinstance(target, Vector) else (target, None)
    reads = [reader(kernel, x, "u32") for x in (source, b, c, members)]

    def run(state, mask):
        value, by, clamp, members = (read(state) for read in reads)
        _all_lanes(state, mask, members)
        if not _warps_are_whole(state, mask):
            return Wait()
        lane = state.special["laneid"].astype(np.int64)
        by, clamp = by.astype(np.int64), clamp.astype(np.int64)
        segment = clamp >> 8 & 31
        first = lane & segment
        last = first | (clamp & 31 & ~segment)
        by = by & 31
        other = {
            "bfly": lambda: lane ^ by,
            "idx": lambda: first | (by & ~segment),
            "up": lambda: lane - by,
            "down": lambda: lane + by,
        }[mode]()
        inside = other >= last if mode == "up" else other <= last
        other = np.where(inside, other, lane)
        everyone = np.broadcast_to(value, state.threads)
        write(state, kernel, target, everyone[np.arange(state.threads) - lane + other], mask)
        if within is not None:
            write(state, kernel, within, inside, mask)
        return None

    return run


def vote(kernel: Kernel, instruction: Instruction) -> Callable:
    if instruction.opcode[1:] != ("sync", "any", "pred"):
        raise ValueError("only votes on whether it holds in any lane")
    target, source, members = instruction.operands
    own, members = reader(kernel, source, "pred"), reader(kernel, members, "u32")

    def run(state, mask):
        _all_lanes(state, mask, members(state))
        if not _warps_are_whole(state, mask):
            return Wait()
        warps = np.broadcast_to(own(state), state.threads).reshape(-1, 32)
        write(state, kernel, target, np.repeat(warps.any(axis=1), 32), mask)
        return None

    return run


def dependency(kernel: Kernel, instruction: Instruction) -> Callable:
    """Kernels follow one another here; but what one touches before it has waited for the last is a fault."""

    def wait(state, mask):
        state.waited[slice(None) if mask is None else mask] = True

    return {"wait": wait, "launch_dependents": lambda state, mask: None}[instruction.opcode[1]]


def barrier(kernel: Kernel, instruction: Instruction) -> Callable:
    if instruction.opcode[1] == "warp":
        members = reader(kernel, instruction.operands[0], "u32")

        def of_warp(state, mask):
            _all_lanes(state, mask, members(state))
            if not _warps_are_whole(state, mask):
                return Wait()
            here = slice(None) if mask is None else mask
            passed = np.unique(np.stack([state.block[here], state.thread[here] // 32]), axis=1)
            state.shared.warp_barriers[passed[0], passed[1]] += 1
            return None

        return of_warp
    if len(instruction.operands) != 1 or instruction.operands[0] != Immediate(0):
        raise ValueError("only barrier 0, of all threads")

    def of_block(state, mask):
        if mask is not None:
            return Wait()
        state.shared.block_barriers += 1
        return None

    return of_block
