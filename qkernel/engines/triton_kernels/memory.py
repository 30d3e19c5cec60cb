"""What a lane exchanges with memory, and with other lanes of its warp.

In assembly, an instruction for each vector and each exchange, where `tl.load`, `tl.store` and `tl.gather`
would do. Triton's pass `tritongpu-coalesce` (of 3.6 and 3.7) takes, for every load and store, the slice of
the kernel that hangs together with it; where all of a kernel does, that is quadratic, and it was most of a
compilation. And how they deal blocks out to threads is up to them, where here a lane is a thread, which the
exchanges rely on: a block has as many numbers as a program has threads, and the kernels check it. LLVM does
not know that the exchanges are convergent: no kernel may branch on what differs from lane to lane.

The interpreter knows no assembly and does it Triton's way.
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(knobs.runtime.interpret)

WARP = tl.constexpr(32)


@triton.jit
def one_lane_is_one_thread(LANES: tl.constexpr):
    if not INTERPRETED:
        tl.static_assert(tl.extra.cuda.num_threads() == LANES)


@triton.constexpr_function
def _registers(count: int, first: int) -> str:
    names = ", ".join(f"${first + k}" for k in range(count))
    return names if count == 1 else f"{{{names}}}"


@triton.constexpr_function
def _size(count: int, bits: int) -> str:
    return f"b{bits}" if count == 1 else f"v{count}.b{bits}"


@triton.constexpr_function
def _kind(bits: int) -> str:
    return "h" if bits == 16 else "r"


@triton.constexpr_function
def _types(count: int, bits: int) -> tuple:
    return (tl.int16 if bits == 16 else tl.int32,) * count


@triton.constexpr_function
def _load_text(count: int, bits: int, masked: bool) -> str:
    # Operands: what is loaded, the pointer, the mask.
    load = f"ld.global.{_size(count, bits)} {_registers(count, 0)}, [${count}];"
    if not masked:
        return load
    zeros = " ".join(f"mov.b{bits} ${k}, 0;" for k in range(count))
    return f"{zeros} @${count + 1} {load}"


@triton.constexpr_function
def _load_operands(count: int, bits: int, masked: bool) -> str:
    return ",".join([f"={_kind(bits)}"] * count + ["l"] + ["b"] * masked)


@triton.constexpr_function
def _store_text(count: int, bits: int) -> str:
    # Operands: a result, which there must be, the pointer, the mask, what is stored.
    return f"@$2 st.global.{_size(count, bits)} [$1], {_registers(count, 3)}; mov.b32 $0, 0;"


@triton.constexpr_function
def _store_operands(count: int, bits: int) -> str:
    return ",".join(["=r", "l", "b", *[_kind(bits)] * count])


@triton.jit
def load(pointers, mask, V: tl.constexpr, MASKED: tl.constexpr):
    """V neighbouring pixels for each lane, from where its pointer points to: V blocks [L] in float32.

    MASKED: only where ``mask`` is true, and 0 elsewhere. All V are read at once: the pointers are multiples
    of V pixels.
    """
    DTYPE: tl.constexpr = pointers.dtype.element_ty
    BITS: tl.constexpr = DTYPE.primitive_bitwidth
    out = ()
    if INTERPRETED:
        for k in tl.static_range(V):
            pixel = tl.load(pointers + k, mask=mask, other=0.0) if MASKED else tl.load(pointers + k)
            out = out + (pixel.to(tl.float32),)
    else:
        SIZE: tl.constexpr = 16 if BITS * V == 16 else 32
        WORDS: tl.constexpr = BITS * V // SIZE
        words = tl.inline_asm_elementwise(
            _load_text(WORDS, SIZE, MASKED),
            _load_operands(WORDS, SIZE, MASKED),
            [pointers, mask] if MASKED else [pointers],
            _types(WORDS, SIZE),
            is_pure=False,
            pack=1,
        )
        for k in tl.static_range(WORDS):
            if BITS == SIZE:
                out = out + (_pixel(words[k], DTYPE),)
            elif DTYPE.is_bf16():
                # The upper half of a float32.
                low, high = words[k] << 16, words[k] & -65536
                out = out + (_pixel(low, tl.float32), _pixel(high, tl.float32))
            else:
                low, high = words[k].to(tl.int16), (words[k] >> 16).to(tl.int16)
                out = out + (_pixel(low, DTYPE), _pixel(high, DTYPE))
    return out


@triton.jit
def _pixel(bits, DTYPE: tl.constexpr):
    return bits.to(DTYPE, bitcast=True).to(tl.float32)


@triton.jit
def store(pointers, pixels, mask, V: tl.constexpr):
    """The inverse of `load`, with pixels rounded to what the pointers point to."""
    DTYPE: tl.constexpr = pointers.dtype.element_ty
    BITS: tl.constexpr = DTYPE.primitive_bitwidth
    if INTERPRETED:
        for k in tl.static_range(V):
            tl.store(pointers + k, pixels[k].to(DTYPE), mask=mask)
    else:
        SIZE: tl.constexpr = 16 if BITS * V == 16 else 32
        WORDS: tl.constexpr = BITS * V // SIZE
        words = ()
        for k in tl.static_range(WORDS):
            if BITS == SIZE:
                words = words + (_bits(pixels[k], DTYPE),)
            else:
                words = words + (_pair(_bits(pixels[2 * k], DTYPE), _bits(pixels[2 * k + 1], DTYPE)),)
        tl.inline_asm_elementwise(
            _store_text(WORDS, SIZE),
            _store_operands(WORDS, SIZE),
            (pointers, mask) + words,
            tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def _bits(pixel, DTYPE: tl.constexpr):
    if DTYPE.primitive_bitwidth == 16:
        return pixel.to(DTYPE).to(tl.int16, bitcast=True)
    else:
        return pixel.to(tl.int32, bitcast=True)


@triton.jit
def _pair(low, high):
    return tl.inline_asm_elementwise(
        "mov.b32 $0, {$1, $2};", "=r,h,h", [low, high], tl.int32, is_pure=True, pack=1
    )


@triton.jit
def lane_numbers(L: tl.constexpr):
    """[L]: each lane's number in its warp."""
    return tl.arange(0, L) % WARP


@triton.jit
def from_lane(x, number):
    """The int32 x of the lane of the same warp with this number."""
    if INTERPRETED:
        return _gathered(x, number)
    else:
        return tl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, $2, 31, -1;", "=r,r,r", [x, number], tl.int32, is_pure=False, pack=1
        )


@triton.constexpr_function
def _exchange_text(mode: str, distance: int) -> str:
    return f"shfl.sync.{mode}.b32 $0, $1, {distance}, {0 if mode == 'up' else 31}, -1;"


@triton.jit
def exchanged(x, MODE: tl.constexpr, DISTANCE: tl.constexpr):
    """The float32 x of another lane: "up" has that of the one DISTANCE to the left, "down" to the right.

    The outermost lanes of a warp have something. "bfly": lanes DISTANCE apart, a power of two, exchange
    theirs.
    """
    if INTERPRETED:
        lane = lane_numbers(x.shape[0])
        if MODE == "bfly":
            return _gathered(x, lane ^ DISTANCE)
        else:
            return _gathered(x, (lane + (WARP - DISTANCE if MODE == "up" else DISTANCE)) % WARP)
    else:
        got = tl.inline_asm_elementwise(
            _exchange_text(MODE, DISTANCE),
            "=r,r",
            [x.to(tl.int32, bitcast=True)],
            tl.int32,
            is_pure=False,
            pack=1,
        )
        return got.to(tl.float32, bitcast=True)


@triton.jit
def _gathered(x, number):
    L: tl.constexpr = x.shape[0]
    WARPS: tl.constexpr = L // WARP
    return tl.reshape(tl.gather(tl.reshape(x, [WARPS, WARP]), tl.reshape(number, [WARPS, WARP]), 1), [L])


@triton.jit
def fma_in_place(x, y, z):
    """tl.fma, which LLVM does not take for one.

    In a loop its vectorizer would make pairs of the numbers that are carried from turn to turn, and move the
    operations on them behind all loads of a turn: then registers run out.
    """
    if INTERPRETED:
        return tl.fma(x, y, z)
    else:
        return tl.inline_asm_elementwise(
            "fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", [x, y, z], tl.float32, is_pure=True, pack=1
        )


@triton.constexpr_function
def _add_text(bit: int) -> str:
    return (
        f"{{ .reg .pred %isset; .reg .b32 %bit; and.b32 %bit, $3, {bit}; setp.ne.b32 %isset, %bit, 0; "
        "mov.f32 $0, $1; @%isset add.rn.f32 $0, $0, $2; }"
    )


@triton.jit
def add_if_bit(x, y, word, BIT: tl.constexpr):
    """x + y where ``word`` has the bit, else x.

    Of a choice between two sums LLVM makes a sum with a choice, and the assembler chooses for all pixels of a
    patch ahead, each time into a register of its own.
    """
    if INTERPRETED:
        return tl.where((word & BIT) != 0, x + y, x)
    else:
        return tl.inline_asm_elementwise(
            _add_text(BIT), "=&f,f,f,r", [x, y, word], tl.float32, is_pure=True, pack=1
        )


@triton.constexpr_function
def _set_text(bit: int) -> str:
    return f"mov.b32 $0, $1; @$2 or.b32 $0, $0, {bit};"


@triton.jit
def set_where(condition, word, BIT: tl.constexpr):
    """The int32 with the bit where the condition holds; see `add_if_bit`."""
    if INTERPRETED:
        return tl.where(condition, word | BIT, word)
    else:
        return tl.inline_asm_elementwise(
            _set_text(BIT), "=r,r,b", [word, condition], tl.int32, is_pure=True, pack=1
        )
