"""PTX instructions as functions on the state of a launch.

`program` makes of each instruction a function of the state and of the threads that execute it (None: all). It
returns nothing, or for a branch (who goes, where to), or `Wait` where others must come first.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import access, arithmetic, compute, control
from .syntax import Instruction, Kernel


@dataclass(frozen=True)
class Step:
    instruction: Instruction
    run: Callable


def program(kernel: Kernel) -> list[Step]:
    """The kernel's instructions, ready to run. Kept with the kernel."""
    if not hasattr(kernel, "program"):
        kernel.program = [Step(i, _step(kernel, i)) for i in kernel.code]
    return kernel.program


def _step(kernel: Kernel, instruction: Instruction) -> Callable:
    name = instruction.opcode[0]
    if name not in BUILDERS:
        raise NotImplementedError(f"{kernel.name}: {instruction.text!r} is not among the instructions known")
    try:
        run = BUILDERS[name](kernel, instruction)
    except (KeyError, ValueError, IndexError) as error:
        raise NotImplementedError(f"{kernel.name}: {instruction.text!r}: {error!r}") from error
    if instruction.guard is None or name == "bra":
        return run
    if name in ("bar", "barrier"):
        raise NotImplementedError(f"{kernel.name}: {instruction.text!r}: a barrier that not all come to")
    register, wanted = instruction.guard

    def guarded(state, mask):
        chosen = state.registers[register] if wanted else ~state.registers[register]
        chosen = np.broadcast_to(chosen, state.threads) if mask is None else chosen & mask
        if chosen.all():
            return run(state, None)
        if not chosen.any():
            return None
        result = run(state, chosen)
        if name in ("ret", "exit"):
            goes, target = result
            return goes & chosen, target
        return result

    return guarded


BUILDERS: dict[str, Callable] = {
    "add": compute.arithmetical(operator.add),
    "sub": compute.arithmetical(operator.sub),
    "mul": compute.multiply,
    "mad": compute.multiply_add,
    "fma": compute.arithmetical(arithmetic.fused_multiply_add),
    "div": compute.divide,
    "rem": compute.arithmetical(arithmetic.remainder),
    "sqrt": compute.arithmetical(np.sqrt),
    "rcp": compute.arithmetical(np.reciprocal),
    "rsqrt": compute.arithmetical(arithmetic.inverse_root, ulps=2),
    "abs": compute.arithmetical(np.abs),
    "neg": compute.arithmetical(operator.neg),
    "min": compute.extreme(np.minimum),
    "max": compute.extreme(np.maximum),
    "and": compute.bitwise(operator.and_),
    "or": compute.bitwise(operator.or_),
    "xor": compute.bitwise(operator.xor),
    "not": compute.bitwise(operator.invert),
    "shl": compute.bitwise(arithmetic.shift_left, "", "u32"),
    "shr": compute.bitwise(arithmetic.shift_right, "", "u32"),
    "shf": compute.funnel_shift,
    "bfe": compute.bitwise(arithmetic.extract_bits, "", "u32", "u32"),
    "bfi": compute.bitwise(arithmetic.insert_bits, "", "", "u32", "u32"),
    "prmt": compute.bitwise(arithmetic.permute_bytes),
    "cvt": compute.convert,
    "cvta": compute.move,
    "mov": compute.move,
    "setp": compute.set_predicate,
    "selp": compute.select,
    "ld": access.load,
    "st": access.store,
    "bra": control.branch,
    "ret": control.end,
    "exit": control.end,
    "shfl": control.shuffle,
    "vote": control.vote,
    "griddepcontrol": control.dependency,
    "bar": control.barrier,
    "barrier": control.barrier,
}
