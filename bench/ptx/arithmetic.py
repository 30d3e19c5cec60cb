"""What PTX's instructions compute, on numpy arrays with a value for each thread ("PTX ISA", chapter 9).

Values of float types come and go as arrays of that type, bfloat16 excepted, which numpy lacks: its bits are
uint16. Denormal numbers are kept, unless the instruction says ``ftz``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray

#: The numpy type of a PTX type. Untyped bits are unsigned.
TYPES = {
    **{f"b{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    "f16": np.dtype("f2"),
    "f32": np.dtype("f4"),
    "f64": np.dtype("f8"),
    "bf16": np.dtype("u2"),
    "f16x2": np.dtype("u4"),
    "bf16x2": np.dtype("u4"),
    "f32x2": np.dtype("u8"),
    "pred": np.dtype(bool),
}


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once."""
    if a.dtype == np.float64:
        # Of 64 digits instead of the product's 106: the last digit may differ, seldom.
        return (a.astype(np.longdouble) * b + c).astype(np.float64)
    product = a.astype(np.float64) * b  # exact
    wide = product + c
    # Rounding twice goes wrong only where the first rounding arrives in the middle between two float32.
    middle = (wide.view(np.uint64) & np.uint64(0x1FFFFFFF)) == np.uint64(0x10000000)
    middle |= np.abs(wide) < 2.0**-125
    if middle.any():
        # To the nearest odd number if something was cut off: then the second rounding sees that.
        back = wide - product
        rest = (product - (wide - back)) + (c - back)
        bits = wide.view(np.int64)
        even = (bits & 1) == 0
        toward = np.where((rest > 0) == (wide > 0), 1, -1)
        wide = np.where(middle & (rest != 0) & even & (wide != 0), bits + toward, bits).view(np.float64)
    return wide.astype(np.float32)


def inverse_root(x: Array) -> Array:
    """1 / sqrt(x), rounded once but for few."""
    return (1 / np.sqrt(x.astype(np.float64))).astype(x.dtype)


def bfloat16_to_float(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float_to_bfloat16(x: Array) -> Array:
    """Rounded to the nearest, ties to even; every NaN becomes 0x7fff."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)


def flush(x: Array) -> Array:
    """Denormal numbers to 0 of their sign."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


def off_by(x: Array, ulps: int) -> Array:
    """As far from the rounded result as an approximation is allowed to be, up or down by its bits."""
    bits = x.view(np.int32)
    hashed = (bits.astype(np.uint32) * np.uint32(0x9E3779B1)) >> np.uint32(29)
    moved = bits + (hashed.astype(np.int32) % (2 * ulps + 1) - ulps)
    normal = np.isfinite(x) & (np.abs(x) >= 2 * np.finfo(np.float32).tiny) & (np.abs(x) < 1e38)
    return np.where(normal, moved, bits).view(np.float32)


def compare(operator: str, a: Array, b: Array) -> Array:
    """Ordered comparisons are false for NaN, those that end in "u" true."""
    plain = {
        "eq": np.equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "lo": np.less,
        "ls": np.less_equal,
        "hi": np.greater,
        "hs": np.greater_equal,
    }
    if a.dtype.kind != "f":
        return np.not_equal(a, b) if operator == "ne" else plain[operator](a, b)
    unordered = np.isnan(a) | np.isnan(b)
    if operator in ("nan", "num"):
        return unordered if operator == "nan" else ~unordered
    if operator in ("ne", "neu"):
        return (a != b) if operator == "neu" else (a != b) & ~unordered
    if operator.endswith("u"):
        return plain[operator[:-1]](a, b) | unordered
    return plain[operator](a, b)


def shift_left(a: Array, by: Array) -> Array:
    bits = a.dtype.itemsize * 8
    unsigned = a.view(np.dtype(f"u{a.dtype.itemsize}"))
    amount = np.minimum(by, bits - 1).astype(unsigned.dtype)
    return np.where(by >= bits, unsigned.dtype.type(0), unsigned << amount)


def shift_right(a: Array, by: Array) -> Array:
    """With the sign, if the type has one."""
    bits = a.dtype.itemsize * 8
    shifted = a >> np.minimum(by, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(by >= bits, a.dtype.type(0), shifted)


def quotient(a: Array, b: Array) -> Array:
    """Of integers, towards 0; of a division by 0 all bits are set."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        found = a // safe
    else:
        found = np.abs(a) // np.abs(safe)
        found = np.where((a < 0) != (b < 0), -found, found).astype(a.dtype)
    return np.where(b == 0, np.array(-1).astype(a.dtype), found)


def remainder(a: Array, b: Array) -> Array:
    return np.where(b == 0, a, a - quotient(a, b) * b).astype(a.dtype)


def high_product(a: Array, b: Array) -> Array:
    """The upper half of the product of two 32-bit integers."""
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    return ((a.astype(wide) * b.astype(wide)) >> wide(32)).astype(a.dtype)


def extract_bits(a: Array, position: Array, length: Array) -> Array:
    """bfe, for 32 bits: with the sign of the field's last bit, if the type is signed."""
    position, length = position & np.uint32(255), np.minimum(length & np.uint32(255), 32)
    wide = a.astype(np.int64 if a.dtype.kind == "i" else np.uint64)
    field = (wide >> np.minimum(position, 63).astype(wide.dtype)) & (
        (np.array(1, wide.dtype) << length.astype(wide.dtype)) - np.array(1, wide.dtype)
    )
    if a.dtype.kind == "i":
        sign = (wide >> np.minimum(position + length - 1, 31).astype(np.int64)) & 1
        field = np.where((sign == 1) & (length > 0), field - (np.int64(1) << length.astype(np.int64)), field)
    return field.astype(a.dtype)


def insert_bits(a: Array, b: Array, position: Array, length: Array) -> Array:
    """bfi, for 32 bits: the lowest of ``a`` over those of ``b``."""
    position = np.minimum(position & np.uint32(255), 63).astype(np.uint64)
    length = np.minimum(length & np.uint32(255), 32).astype(np.uint64)
    mask = (((np.uint64(1) << length) - np.uint64(1)) << position) & np.uint64(0xFFFFFFFF)
    return ((b & ~mask) | ((a.astype(np.uint64) << position) & mask)).astype(np.uint32)


def permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """prmt, in its general mode."""
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    result = np.zeros(np.broadcast_shapes(both.shape, selector.shape), np.uint32)
    for i in range(4):
        nibble = (selector >> np.uint32(4 * i)) & np.uint32(15)
        byte = (both >> (8 * (nibble & np.uint32(7))).astype(np.uint64)).astype(np.uint32) & np.uint32(255)
        sign = np.where(byte >= 128, np.uint32(255), np.uint32(0))
        result |= np.where(nibble >= 8, sign, byte) << np.uint32(8 * i)
    return result


def funnel_shift(left: bool, wrap: bool, low: Array, high: Array, by: Array) -> Array:
    amount = (by & np.uint32(31) if wrap else np.minimum(by, 32)).astype(np.uint64)
    both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    shifted = (both << amount) >> np.uint64(32) if left else both >> amount
    return shifted.astype(np.uint32)


def smaller_or_larger(pick: Callable, nan: bool) -> Callable[[Array, Array], Array]:
    """min or max: of a number and NaN the number, or NaN where the instruction says so."""
    exact = {np.minimum: np.fmin, np.maximum: np.fmax}[pick]

    def function(a: Array, b: Array) -> Array:
        return pick(a, b) if nan or a.dtype.kind != "f" else exact(a, b)

    return function


def convert(x: Array, source: str, target: str, modes: tuple[str, ...]) -> Array:
    """cvt from one type to another; ``x`` has the source's numpy type."""
    if source == "bf16":
        x = bfloat16_to_float(x)
    if target == "bf16":
        return float_to_bfloat16(x if x.dtype == np.float32 else x.astype(np.float32))
    to = TYPES[target]
    if x.dtype.kind == "f" and to.kind in "iu":
        rounding = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}
        (mode,) = (rounding[m] for m in modes if m in rounding)
        bounds = np.iinfo(to)
        whole = np.clip(np.nan_to_num(mode(x.astype(np.longdouble)), nan=0), bounds.min, bounds.max)
        return whole.astype(to)
    return x.astype(to)
