"""Instructions that compute: each function makes one of an instruction's words and operands.

What is made takes the state of a launch and the threads that execute (None: all).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

from . import arithmetic
from .arithmetic import TYPES
from .operands import Array, computed, reader, write
from .syntax import SIZES, Instruction, Kernel, Register, Symbol, Vector


def _halves(function: Callable) -> Callable:
    """Of packed arithmetic: the same on both halves."""

    def packed(*values: Array) -> Array:
        pairs = np.broadcast_arrays(*(v.view(np.float32).reshape(-1, 2) for v in values))
        return np.ascontiguousarray(function(*pairs)).view(np.uint64).ravel()

    return packed


def arithmetical(function: Callable, ulps: int = 1) -> Callable:
    """An approximation of it ("approx") may be ``ulps`` away, a division's of the whole range ("full") 2."""

    def build(kernel: Kernel, instruction: Instruction) -> Callable:
        *modes, kind = instruction.opcode[1:]
        target, *sources = instruction.operands
        kinds, apply = [kind] * len(sources), function
        if kind == "f32x2":
            apply = _halves(function)
        elif kind in ("f16", "bf16") and modes and modes[-1] == "f32":
            # f32 = bf16 op f32: the first operand is the narrow one.
            kinds[0] = kind
            widen = arithmetic.bfloat16_to_float if kind == "bf16" else (lambda x: x.astype(np.float32))
            kinds[1:] = ["f32"] * (len(sources) - 1)
            apply = lambda a, *rest: function(widen(a), *rest)  # noqa: E731
        elif kind in ("f16", "bf16", "f16x2", "bf16x2"):
            raise ValueError("no arithmetic in half precision")
        if modes and not set(modes) <= {"rn", "ftz", "lo", "f32", "full", "approx"}:
            raise ValueError(f"modes {modes}")
        plain = apply
        if "full" in modes or "approx" in modes:
            most, rounded = 2 if "full" in modes else ulps, plain
            plain = lambda *values: arithmetic.off_by(rounded(*values), most)  # noqa: E731
        if "ftz" in modes:
            kept = plain
            plain = lambda *values: arithmetic.flush(kept(*map(arithmetic.flush, values)))  # noqa: E731
        reads = [reader(kernel, s, k) for s, k in zip(sources, kinds, strict=True)]
        return computed(kernel, target, plain, *reads)

    return build


def multiply(kernel: Kernel, instruction: Instruction) -> Callable:
    *modes, kind = instruction.opcode[1:]
    if "wide" in modes:
        wide = TYPES[f"{kind[0]}{2 * int(kind[1:])}"]
        target, a, b = instruction.operands
        product = lambda a, b: a.astype(wide) * b.astype(wide)  # noqa: E731
        return computed(kernel, target, product, reader(kernel, a, kind), reader(kernel, b, kind))
    if "hi" in modes:
        if kind not in ("u32", "s32"):
            raise ValueError(f"mul.hi of {kind}")
        target, a, b = instruction.operands
        return computed(
            kernel, target, arithmetic.high_product, reader(kernel, a, kind), reader(kernel, b, kind)
        )
    return arithmetical(operator.mul)(kernel, instruction)


def multiply_add(kernel: Kernel, instruction: Instruction) -> Callable:
    *modes, kind = instruction.opcode[1:]
    if "wide" not in modes:
        return arithmetical(lambda a, b, c: a * b + c)(kernel, instruction)
    wide = f"{kind[0]}{2 * int(kind[1:])}"
    target, a, b, c = instruction.operands
    function = lambda a, b, c: a.astype(TYPES[wide]) * b.astype(TYPES[wide]) + c  # noqa: E731
    return computed(
        kernel, target, function, reader(kernel, a, kind), reader(kernel, b, kind), reader(kernel, c, wide)
    )


def divide(kernel: Kernel, instruction: Instruction) -> Callable:
    whole = instruction.opcode[-1][0] in "us"
    return arithmetical(arithmetic.quotient if whole else np.divide)(kernel, instruction)


def extreme(pick: Callable) -> Callable:
    def build(kernel: Kernel, instruction: Instruction) -> Callable:
        opcode = tuple(word for word in instruction.opcode if word != "NaN")
        function = arithmetic.smaller_or_larger(pick, nan="NaN" in instruction.opcode)
        bare = Instruction(instruction.guard, opcode, instruction.operands, instruction.text)
        return arithmetical(function)(kernel, bare)

    return build


def bitwise(function: Callable, *kinds: str) -> Callable:
    """``kinds`` are the operands' types where they are not the instruction's."""

    def build(kernel: Kernel, instruction: Instruction) -> Callable:
        kind = instruction.opcode[-1]
        target, *sources = instruction.operands
        types = kinds or [kind] * len(sources)
        return computed(
            kernel,
            target,
            function,
            *(reader(kernel, s, t or kind) for s, t in zip(sources, types, strict=True)),
        )

    return build


def funnel_shift(kernel: Kernel, instruction: Instruction) -> Callable:
    _, direction, mode, _ = instruction.opcode
    function = functools.partial(arithmetic.funnel_shift, direction == "l", mode == "wrap")
    return bitwise(function)(kernel, instruction)


def convert(kernel: Kernel, instruction: Instruction) -> Callable:
    *modes, target_kind, source_kind = instruction.opcode[1:]
    target, *sources = instruction.operands
    if not set(modes) <= {"rn", "rzi", "rni", "rmi", "rpi"}:
        raise ValueError(f"modes {modes}")
    reads = [reader(kernel, s, source_kind) for s in sources]
    if target_kind in ("f16x2", "bf16x2"):
        half = target_kind[:-2]

        def pack(high: Array, low: Array) -> Array:
            upper, lower = (
                arithmetic.convert(x, source_kind, half, ()).view(np.uint16).astype(np.uint32)
                for x in (high, low)
            )
            return (upper << np.uint32(16)) | lower

        return computed(kernel, target, pack, *reads)
    function = functools.partial(
        arithmetic.convert, source=source_kind, target=target_kind, modes=tuple(modes)
    )
    return computed(kernel, target, function, *reads)


def move(kernel: Kernel, instruction: Instruction) -> Callable:
    target, source = instruction.operands
    kind = instruction.opcode[-1]
    if isinstance(source, Vector):  # packs, the first the lowest
        part = f"b{8 * SIZES[kind] // len(source.parts)}"
        reads = [reader(kernel, p, part) for p in source.parts]
        # Compilers leave parts open that nobody needs. Whoever does use them gets NaN.
        open_part = np.array([-1]).astype(TYPES[part])

        def pack(state, mask):
            named = [p.name if isinstance(p, Register) else None for p in source.parts]
            parts = [
                open_part if name and name not in state.registers else read(state)
                for name, read in zip(named, reads, strict=True)
            ]
            columns = np.stack(np.broadcast_arrays(*parts), axis=1)
            packed = np.ascontiguousarray(columns).view(TYPES[f"b{8 * SIZES[kind]}"]).ravel()
            write(state, kernel, target, packed, mask)

        return pack
    if isinstance(target, Vector):
        part = TYPES[f"b{8 * SIZES[kind] // len(target.parts)}"]
        read = reader(kernel, source, f"b{8 * SIZES[kind]}")

        def unpack(state, mask):
            values = np.ascontiguousarray(read(state)).view(part).reshape(-1, len(target.parts))
            for i, register in enumerate(target.parts):
                if register != Symbol("_"):
                    write(state, kernel, register, np.ascontiguousarray(values[:, i]), mask)

        return unpack
    return computed(kernel, target, lambda x: x, reader(kernel, source, kind))


def set_predicate(kernel: Kernel, instruction: Instruction) -> Callable:
    comparison, *joined, kind = (word for word in instruction.opcode[1:] if word != "ftz")
    target, a, b, *other = instruction.operands
    reads = [reader(kernel, x, kind) for x in (a, b)] + [reader(kernel, x, "pred") for x in other]
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[joined[0]] if joined else None
    if isinstance(target, Vector):
        raise ValueError("two targets")

    def function(a: Array, b: Array, *rest: Array) -> Array:
        found = arithmetic.compare(comparison, a, b)
        return join(found, rest[0]) if join else found

    return computed(kernel, target, function, *reads)


def select(kernel: Kernel, instruction: Instruction) -> Callable:
    target, a, b, chosen = instruction.operands
    kind = instruction.opcode[-1]
    reads = reader(kernel, chosen, "pred"), reader(kernel, a, kind), reader(kernel, b, kind)
    return computed(kernel, target, np.where, *reads)
