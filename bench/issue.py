"""How many instructions a GPU issues in a second: long chains of arithmetic that touch no memory, timed.

A scheduler issues at most one instruction for one of its warps a cycle, whatever it is. What shows that
rate depends on the GPU. Where there is an FMA lane for every thread of a warp (compute capability 8.6, 8.9,
9.0), a stream of FMAs alone is issued at it. Where there are fewer (7.5, 8.0), an FMA holds its unit for two
cycles, and only FMAs and integers in turn, which have units of their own, fill every cycle. Both streams are
measured, and the faster is the issue rate: no kernel issues more, and one whose instructions crowd into one
unit less.
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl

#: Independent chains of a thread, and operations of each in one turn of the loop. Their product is large
#: beside the three or so instructions that make the loop, and its code fits the instruction cache.
CHAINS, LENGTH = 8, 32
WARPS = 8

#: Blocks for each multiprocessor, which takes them as it is done with others, and turns of the loop: some two
#: milliseconds in all, in which a launch no longer counts.
BLOCKS, TURNS = 64, 128

#: What the streams consist of, and whether every other operation is one on integers.
STREAMS = {"fma": False, "fma+integer": True}


@triton.jit
def _fma(x, factor, shift):
    # As assembly, or two become one packed instruction where there is such a thing (10.0).
    return tl.inline_asm_elementwise(
        "fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", [x, factor, shift], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _funnel_shift(x, other, by):
    # One instruction, of which no two can be made one, as of additions or logic.
    return tl.inline_asm_elementwise(
        "shf.l.wrap.b32 $0, $1, $2, $3;", "=r,r,r,r", [x, other, by], dtype=tl.int32, is_pure=True, pack=1
    )


@triton.jit(do_not_specialize=["turns", "by"])
def arithmetic_kernel(
    out,
    factor,
    shift,
    by,
    turns,
    CHAINS: tl.constexpr,
    LENGTH: tl.constexpr,
    MIXED: tl.constexpr,
    THREADS: tl.constexpr,
):
    """CHAINS x LENGTH operations per thread and turn; their results are stored, so that none is left out."""
    thread = tl.arange(0, THREADS)
    floats, integers = (), ()
    for i in tl.static_range(CHAINS):
        floats = floats + ((thread + i).to(tl.float32),)
        integers = integers + (thread + i,)
    for _ in range(turns):
        for step in tl.static_range(LENGTH):
            f, n = (), ()
            for i in tl.static_range(CHAINS):
                if MIXED and (step + i) % 2 == 1:
                    f = f + (floats[i],)
                    n = n + (_funnel_shift(integers[i], thread, by),)
                else:
                    f = f + (_fma(floats[i], factor, shift),)
                    n = n + (integers[i],)
            floats, integers = f, n
    total = floats[0]
    for i in tl.static_range(CHAINS):
        total += floats[i] + integers[i].to(tl.float32)
    tl.store(out + tl.program_id(0) * THREADS + thread, total)


@dataclass(frozen=True)
class Stream:
    """A launch of one stream of `STREAMS`, and the instructions that all its threads together are issued."""

    name: str
    launch: Callable[[], object]
    instructions: int


def streams(device: str) -> list[Stream]:
    """One launch of each stream, which fills the device. The first call of each compiles it."""
    blocks = BLOCKS * torch.cuda.get_device_properties(device).multi_processor_count
    threads = 32 * WARPS
    out = torch.empty(blocks * threads, device=device)
    # The loop's own instructions are left out: at most five beside 256.
    instructions = blocks * threads * TURNS * CHAINS * LENGTH

    def launch(mixed: bool) -> None:
        # The values stay finite and change at every step, as pixels do.
        arithmetic_kernel[(blocks,)](
            out, 0.999, 0.5, 7, TURNS, MIXED=mixed, num_warps=WARPS, **shape_of_loop()
        )

    return [Stream(name, partial(launch, mixed), instructions) for name, mixed in STREAMS.items()]


def shape_of_loop() -> dict[str, int]:
    """The kernel's constants but MIXED."""
    return {"CHAINS": CHAINS, "LENGTH": LENGTH, "THREADS": 32 * WARPS}
