"""PTX's arithmetic against Python's exact integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from bench.ptx import arithmetic


def _floats(count: int, seed: int = 0) -> np.ndarray:
    """Of all magnitudes, denormal ones among them, and few digits, so that sums often fall in the middle."""
    generator = np.random.default_rng(seed)
    digits = generator.integers(-(2**24), 2**24, count) >> generator.integers(0, 24, count)
    return np.ldexp(digits.astype(np.float64), generator.integers(-160, 40, count)).astype(np.float32)


def _nearest(exact: Fraction) -> float:
    """The float32 next to a fraction, ties to even, by its definition."""
    if exact == 0:
        return 0.0
    exponent = max(math.floor(math.log2(abs(exact))) + 1 - 24, -149)
    while abs(exact) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    while exponent > -149 and abs(exact) < Fraction(2) ** (exponent + 23):
        exponent -= 1
    return math.ldexp(round(exact / Fraction(2) ** exponent), exponent)


def test_fused_multiply_add_rounds_once():
    a, b = _floats(4000, 1), _floats(4000, 2)
    near = (-a.astype(np.float64) * b).astype(np.float32)  # so that the sum cancels
    with np.errstate(all="ignore"):
        for c in (
            _floats(4000, 3),
            near,
            np.nextafter(near, np.float32(1)),
            (near * 2.0**-24).astype(np.float32),
        ):
            found = arithmetic.fused_multiply_add(a, b, c)
            for x, y, z, got in zip(a, b, c, found, strict=True):
                exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
                if abs(exact) < Fraction(2) ** 127:
                    assert float(got) == _nearest(exact), (x, y, z)


def test_a_sum_halfway_between_two_numbers_is_decided_by_what_is_cut_off():
    one, tiny = np.float32(1), np.float32(2.0**-60)
    half = np.float32(2.0**-24)
    cases = [(one, one + 2 * half, half), (tiny, tiny, one + 2 * half), (-tiny, tiny, one)]
    a, b, c = (np.array(x, np.float32) for x in zip(*cases, strict=True))
    expected = [_nearest(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))) for x, y, z in cases]
    assert arithmetic.fused_multiply_add(a, b, c).tolist() == expected
    # 1 + 2^-24 lies in the middle; (2^-12)(2^-12)(1 + 2^-20) is just above it.
    a = np.array([2.0**-12 * (1 + 2.0**-20)], np.float32)
    b = np.array([2.0**-12], np.float32)
    assert arithmetic.fused_multiply_add(a, b, np.ones(1, np.float32))[0] == np.float32(1 + 2.0**-23)
    a = np.array([2.0**-12 * (1 - 2.0**-20)], np.float32)
    assert arithmetic.fused_multiply_add(a, b, np.ones(1, np.float32))[0] == 1


def test_bfloat16_is_rounded_as_torch_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    expected = torch.from_numpy(x.copy()).bfloat16()
    found = arithmetic.float_to_bfloat16(x)
    back = torch.from_numpy(arithmetic.bfloat16_to_float(found).copy())
    torch.testing.assert_close(back, expected.float(), rtol=0, atol=0, equal_nan=True)


def test_comparisons_with_nan():
    a, b = np.array([1.0, 2.0, np.nan], np.float32), np.array([1.0, 1.0, 1.0], np.float32)
    expected = {"eq": [1, 0, 0], "ne": [0, 1, 0], "equ": [1, 0, 1], "neu": [0, 1, 1], "gt": [0, 1, 0]}
    expected |= {"gtu": [0, 1, 1], "leu": [1, 0, 1], "nan": [0, 0, 1], "num": [1, 1, 0]}
    for operator, wanted in expected.items():
        assert arithmetic.compare(operator, a, b).tolist() == [bool(x) for x in wanted], operator


@pytest.mark.parametrize("kind", ["i4", "u4"])
def test_whole_numbers(kind):
    generator = np.random.default_rng(1)
    a = generator.integers(0, 2**32, 500, dtype=np.uint64).astype(np.uint32).view(kind)
    b = generator.integers(0, 2**32, 500, dtype=np.uint64) >> generator.integers(0, 31, 500).astype(np.uint64)
    b = b.astype(np.uint32).view(kind)
    quotients, products = arithmetic.quotient(a, b), arithmetic.high_product(a, b)
    rest = arithmetic.remainder(a, b)
    shift = generator.integers(0, 40, 500).astype(np.uint32)
    right, left = arithmetic.shift_right(a, shift), arithmetic.shift_left(a, shift)
    position, length = (generator.integers(0, 33, 500).astype(np.uint32) for _ in range(2))
    fields = arithmetic.extract_bits(a, position, length)
    for i in range(500):
        x, y, s, p, n = int(a[i]), int(b[i]), int(shift[i]), int(position[i]), int(length[i])
        if y:
            towards_0 = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
            assert int(quotients[i]) == np.array([towards_0]).astype(kind)[0]
            assert int(rest[i]) == np.array([x - towards_0 * y]).astype(kind)[0]
        assert int(products[i]) == (x * y) >> 32
        assert int(right[i]) == x >> min(s, 31 if x < 0 else 32)
        assert int(left[i]) == (x << s) & 0xFFFFFFFF if s < 32 else int(left[i]) == 0
        field = (x >> p) & ((1 << n) - 1)
        if kind == "i4" and n:
            # Beyond the number's end stands its sign.
            sign = (x >> min(p + n - 1, 31)) & 1
            field = field - (1 << n) if sign and field >> (n - 1) & 1 else field
        else:
            field = ((x & 0xFFFFFFFF) >> p) & ((1 << n) - 1)
        assert int(fields[i]) == field


def test_bytes_are_permuted():
    a, b = np.array([0x83828180], np.uint32), np.array([0x07060504], np.uint32)
    for selector, expected in (
        (0x3210, 0x83828180),
        (0x7654, 0x07060504),
        (0x5410, 0x05048180),
        (0x8C0B, 0xFF0080FF),
    ):
        assert arithmetic.permute_bytes(a, b, np.array([selector], np.uint32))[0] == expected


def test_approximations_stray_within_their_bounds():
    x = np.abs(_floats(5000)) + np.float32(1e-30)
    moved = arithmetic.off_by(x, 2)
    distance = np.abs(moved.view(np.int32) - x.view(np.int32))
    assert distance.max() == 2 and (distance == 0).any()
