"""Integers over hostile values: what docs/numerics.md says, by hand, interpreter and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.types import DType
from support.targets import on_targets

LOW, HIGH = -(2**31), 2**31 - 1
I32 = [0, 1, -1, 2, -2, 3, 7, -7, 31, 32, 33, -31, -32, HIGH, HIGH - 1, LOW, LOW + 1, 65536]
U32 = [0, 1, 2, 3, 7, 31, 32, 33, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32 - 2, 65536]

Binary = Callable[[int, int], int]


def _wrap(value: int, dtype: DType) -> int:
    low = value & 0xFFFFFFFF
    return low - 2**32 if dtype is DType.I32 and low >= 2**31 else low


def _is_shift(amount: int) -> bool:
    return 0 <= amount < 32


def _towards_zero(x: int, y: int) -> int:
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


# Python's own integers, which have no size.
RULES: dict[str, tuple[Callable[[Any, Any], Any], Binary]] = {
    "add": (asg.add, lambda x, y: x + y),
    "sub": (asg.sub, lambda x, y: x - y),
    "mul": (asg.mul, lambda x, y: x * y),
    "floor_divide": (asg.floor_divide, lambda x, y: x // y if y else 0),
    "remainder": (asg.remainder, lambda x, y: x % y if y else 0),
    "trunc_divide": (asg.trunc_divide, lambda x, y: _towards_zero(x, y) if y else 0),
    "fmod": (asg.fmod, lambda x, y: x - y * _towards_zero(x, y) if y else 0),
    "maximum": (asg.maximum, max),
    "minimum": (asg.minimum, min),
    "shift_left": (asg.shift_left, lambda x, y: x << y if _is_shift(y) else 0),
    "shift_right": (asg.shift_right, lambda x, y: x >> (y if _is_shift(y) else 32)),
    "bitwise_and": (asg.bitwise_and, lambda x, y: x & y),
    "bitwise_or": (asg.bitwise_or, lambda x, y: x | y),
    "bitwise_xor": (asg.bitwise_xor, lambda x, y: x ^ y),
}


def _run(function: Callable[..., Any], *operands: np.ndarray, target: str) -> np.ndarray:
    names = [f"a{i}" for i in range(len(operands))]
    kinds = {np.dtype(np.int32): "i32", np.dtype(np.uint32): "u32", np.dtype(np.float32): "f32"}
    tensors = [
        asg.input(name, x.shape, kinds[x.dtype]) for name, x in zip(names, operands, strict=True)
    ]
    graph = asg.graph(outputs={"y": function(*tensors)})
    with asg.compile(graph, target=target) as executable:
        return np.asarray(executable(dict(zip(names, operands, strict=True)))["y"])


@on_targets
@pytest.mark.parametrize("dtype", [DType.I32, DType.U32], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_pairs(name: str, dtype: DType, target: str) -> None:
    function, rule = RULES[name]
    values = I32 if dtype is DType.I32 else U32
    pairs = [(x, y) for x in values for y in values]
    expected = [_wrap(rule(x, y), dtype) for x, y in pairs]
    for count in (len(pairs) // 4 * 4, len(pairs) // 4 * 4 - 1):  # four at once, and one
        x, y = np.array(pairs[:count], dtype.numpy).T.copy()
        np.testing.assert_array_equal(_run(function, x, y, target=target), expected[:count])


@on_targets
@pytest.mark.parametrize("amount", [-33, -32, -1, 0, 1, 31, 32, 33, 64, HIGH, LOW])
def test_constant_shifts(amount: int, target: str) -> None:
    x = np.array(I32, np.int32)
    left = [_wrap(each << amount, DType.I32) if _is_shift(amount) else 0 for each in I32]
    right = [each >> (amount if _is_shift(amount) else 32) for each in I32]
    steps = asg.constant(np.int32(amount))
    found = _run(lambda x: asg.shift_left(x, steps), x, target=target)
    np.testing.assert_array_equal(found, left)
    found = _run(lambda x: asg.shift_right(x, steps), x, target=target)
    np.testing.assert_array_equal(found, right)


@on_targets
@pytest.mark.parametrize("divisor", [0, 1, -1, 2, -7, LOW, HIGH])
def test_constant_divisors(divisor: int, target: str) -> None:
    x = np.array(I32, np.int32)
    by = asg.constant(np.int32(divisor))
    quotients = [_wrap(each // divisor, DType.I32) if divisor else 0 for each in I32]
    rests = [each % divisor if divisor else 0 for each in I32]
    found = _run(lambda x: asg.floor_divide(x, by), x, target=target)
    np.testing.assert_array_equal(found, quotients)
    np.testing.assert_array_equal(_run(lambda x: asg.remainder(x, by), x, target=target), rests)
    quotients = [_wrap(_towards_zero(each, divisor), DType.I32) if divisor else 0 for each in I32]
    found = _run(lambda x: asg.trunc_divide(x, by), x, target=target)
    np.testing.assert_array_equal(found, quotients)
    rests = [each - divisor * _towards_zero(each, divisor) if divisor else 0 for each in I32]
    np.testing.assert_array_equal(_run(lambda x: asg.fmod(x, by), x, target=target), rests)


FLOATS = [
    (0.0, 0, 0), (-0.0, 0, 0), (0.99, 0, 0), (-0.99, 0, 0), (1.5, 1, 1), (-1.5, -1, 0),
    (16777217.0, 16777216, 16777216), (2147483520.0, 2147483520, 2147483520),
    (2147483648.0, HIGH, 2**31), (-2147483648.0, LOW, 0), (-2147483904.0, LOW, 0),
    (4294967040.0, HIGH, 4294967040), (4294967296.0, HIGH, 2**32 - 1), (1e30, HIGH, 2**32 - 1),
    (-1e30, LOW, 0), (np.inf, HIGH, 2**32 - 1), (-np.inf, LOW, 0), (np.nan, 0, 0), (-np.nan, 0, 0),
]  # fmt: skip


@on_targets
@pytest.mark.parametrize("count", [len(FLOATS), 16], ids=["scalar", "vec4"])
def test_casts_of_floats(count: int, target: str) -> None:
    x = np.array([case[0] for case in FLOATS[:count]], np.float32)
    signed = _run(lambda x: asg.cast(x, "i32"), x, target=target)
    np.testing.assert_array_equal(signed, [case[1] for case in FLOATS[:count]])
    unsigned = _run(lambda x: asg.cast(x, "u32"), x, target=target)
    np.testing.assert_array_equal(unsigned, np.array([case[2] for case in FLOATS[:count]], "u4"))


@on_targets
def test_casts_between_integers(target: str) -> None:
    x = np.array(I32, np.int32)
    found = _run(lambda x: asg.cast(x, "u32"), x, target=target)
    np.testing.assert_array_equal(found, [each % 2**32 for each in I32])
    u = np.array(U32, np.uint32)
    found = _run(lambda x: asg.cast(x, "i32"), u, target=target)
    np.testing.assert_array_equal(found, [_wrap(each, DType.I32) for each in U32])
    found = _run(lambda x: asg.cast(x, "f32"), u, target=target)
    np.testing.assert_array_equal(found, u.astype(np.float32))


@on_targets
def test_negation_and_size_of_the_least_integer(target: str) -> None:
    x = np.array([LOW, LOW + 1, -1, 0, HIGH], np.int32)
    np.testing.assert_array_equal(_run(lambda x: -x, x, target=target), [LOW, HIGH, 1, 0, -HIGH])
    np.testing.assert_array_equal(_run(asg.abs, x, target=target), [LOW, HIGH, 1, 0, HIGH])
    np.testing.assert_array_equal(_run(asg.sign, x, target=target), [-1, -1, -1, 0, 1])


@on_targets
def test_sums_wrap(target: str) -> None:
    x = np.array([[HIGH, 1, 5], [LOW, -1, 0], [HIGH, HIGH, HIGH]], np.int32)
    expected = [_wrap(sum(row), DType.I32) for row in x.tolist()]
    np.testing.assert_array_equal(_run(lambda x: asg.sum(x, axis=1), x, target=target), expected)
    small = np.array([[3, 5], [2, -9]], np.int32)
    found = _run(lambda x: asg.prod(x, axis=1), small, target=target)
    np.testing.assert_array_equal(found, [15, -18])
