"""Operands of PTX instructions: how a function on the state reads them, and writes its result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arithmetic import TYPES
from .syntax import SIZES, Kernel, Register, Special, Symbol

Array = np.ndarray
#: From the state to the values of an operand.
Read = Callable[..., Array]
_UNSIGNED, _SIGNED = ({size: np.dtype(f"{kind}{size}") for size in (1, 2, 4, 8)} for kind in "ui")


def reader(kernel: Kernel, operand, kind: str) -> Read:
    """The operand's values as the numpy type of ``kind``."""
    to = TYPES[kind]
    if isinstance(operand, Register):
        size, name = SIZES[kernel.registers[operand.name]], operand.name
        if to.kind == "b" or size == to.itemsize:
            return lambda state: state.registers[name].view(to)
        if size > to.itemsize:  # the lower bits
            unsigned = np.dtype(f"u{to.itemsize}")
            return lambda state: state.registers[name].astype(unsigned).view(to)
        raise ValueError(f"{name} is narrower than {kind}")
    if isinstance(operand, Special):
        return lambda state: state.special[operand.name].astype(np.dtype(f"u{to.itemsize}")).view(to)
    if isinstance(operand, Symbol):
        constant = address_of(kernel, operand.name)
    else:
        constant = operand.bits
    if to.kind == "b":
        value = np.array([bool(constant)])
    else:
        bits = 8 * to.itemsize
        value = np.array([constant % (1 << bits)], np.dtype(f"u{to.itemsize}")).view(to)
    return lambda state: value


def address_of(kernel: Kernel, symbol: str) -> int:
    """In the symbol's own state space."""
    if symbol in kernel.shared:
        return kernel.shared[symbol]
    return {name: offset for name, offset, _ in kernel.parameters}[symbol]


def write(state, kernel: Kernel, operand: Register, value: Array, mask: Array | None) -> None:
    name = operand.name
    kind = kernel.registers[name]
    if kind != "pred":
        size, found = SIZES[kind], value.dtype
        if found.itemsize > size:
            raise ValueError(f"{name} has no room for {found}")
        if found.itemsize < size:  # extended by its own sign
            value = value.astype((_SIGNED if found.kind == "i" else _UNSIGNED)[size])
        elif not value.flags.c_contiguous:
            value = np.ascontiguousarray(value)
        value = value.view(_UNSIGNED[size])
    if mask is not None:
        old = state.registers.get(name)
        # Of the threads that have not been here all bits are set: NaN, or a number far from any in use.
        value = np.where(mask, value, ~np.zeros(1, value.dtype) if old is None else old)
    state.registers[name] = value


def computed(kernel: Kernel, target: Register, function: Callable, *reads: Read) -> Callable:
    def run(state, mask):
        write(state, kernel, target, function(*[read(state) for read in reads]), mask)

    return run


def selected(values: Array, state, mask: Array | None) -> Array:
    full = np.broadcast_to(values, state.threads)
    return full if mask is None else full[mask]
