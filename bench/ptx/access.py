"""Instructions that load and store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import memory
from .arithmetic import TYPES
from .operands import Array, Read, address_of, reader, selected, write
from .syntax import SIZES, Address, Instruction, Kernel, Register, Vector


def load(kernel: Kernel, instruction: Instruction) -> Callable:
    space, kind = instruction.opcode[1], instruction.opcode[-1]
    target, address = instruction.operands
    targets = target.parts if isinstance(target, Vector) else (target,)
    unit, signed = SIZES[kind], TYPES[kind]
    place = _address(kernel, address, shared=space == "shared")

    def distribute(state, mask, values: Array) -> None:
        for i, register in enumerate(targets):
            column = np.ascontiguousarray(values[:, i]).view(signed)
            if mask is not None and len(column) != state.threads:
                full = np.zeros(state.threads, column.dtype)
                full[mask] = column
                column = full
            write(state, kernel, register, column, mask)

    def from_parameters(state, mask):
        (at,) = np.unique(selected(place(state), state, mask))
        end = int(at) + unit * len(targets)
        values = state.parameters[int(at) : end].view(f"u{unit}").reshape(1, -1)
        for i, register in enumerate(targets):
            write(state, kernel, register, np.ascontiguousarray(values[:, i]).view(signed), mask)

    def from_global(state, mask):
        addresses = selected(place(state), state, mask)
        values = state.memory.load(addresses, unit, len(targets), _ahead(state, mask))
        _count(state, mask, "load", addresses, unit * len(targets))
        distribute(state, mask, values)

    def from_shared(state, mask):
        offsets = selected(place(state), state, mask)
        blocks, threads = (selected(x, state, mask) for x in (state.block, state.thread))
        values = state.shared.load(blocks, threads, offsets, unit, len(targets))
        _count(state, mask, None, offsets, unit * len(targets))
        distribute(state, mask, values)

    return {"param": from_parameters, "global": from_global, "shared": from_shared}[space]


def store(kernel: Kernel, instruction: Instruction) -> Callable:
    space, kind = instruction.opcode[1], instruction.opcode[-1]
    address, source = instruction.operands
    sources = source.parts if isinstance(source, Vector) else (source,)
    unsigned = f"b{8 * SIZES[kind]}"
    reads = [reader(kernel, s, unsigned) for s in sources]
    place = _address(kernel, address, shared=space == "shared")

    def run(state, mask):
        addresses = selected(place(state), state, mask)
        values = np.stack([selected(read(state), state, mask) for read in reads], axis=1)
        size = SIZES[kind] * len(sources)
        if space == "global":
            state.memory.store(addresses, values, _ahead(state, mask))
            _count(state, mask, "store", addresses, size)
        else:
            blocks, threads = (selected(x, state, mask) for x in (state.block, state.thread))
            state.shared.store(blocks, threads, addresses, values)
            _count(state, mask, None, addresses, size)

    if space not in ("global", "shared"):
        raise ValueError(f"stores to {space}")
    return run


def _address(kernel: Kernel, address: Address, shared: bool) -> Read:
    base, offset = address.base, address.offset
    if isinstance(base, Register):
        kind = f"u{8 * SIZES[kernel.registers[base.name]]}"
        read = reader(kernel, base, kind)
        by = np.array([offset % (1 << (8 * TYPES[kind].itemsize))], TYPES[kind])
        return lambda state: (read(state) + by).astype(np.uint32 if shared else np.uint64)
    constant = np.array([address_of(kernel, base.name) + offset], np.uint32 if shared else np.uint64)
    return lambda state: constant


def _ahead(state, mask: Array | None) -> Array | None:
    """Which threads have not yet waited, in a kernel that may be launched before the last one has ended."""
    return None if state.waited is None else ~selected(state.waited, state, mask)


def _count(state, mask: Array | None, what: str | None, addresses: Array, size: int) -> None:
    """A global "load" or "store", or an access to shared memory (None)."""
    if state.counts is None:
        return
    counts, warps = state.counts, selected(state.warp, state, mask)
    if what is None:
        counts.shared_requests += len(np.unique(warps))
        cycles, least = memory.bank_cycles(addresses, warps, size)
        counts.bank_cycles += cycles
        counts.least_bank_cycles += least
    else:
        counts.requests[what] += len(np.unique(warps))
        counts.sectors[what] += memory.sectors(addresses, warps, size)
        counts.bytes[what] += size * len(addresses)
