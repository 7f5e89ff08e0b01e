"""Bits: and, or, not, shifts, reinterpretation, and the counter-based random generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import DTypeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Elementwise, Example, Op, Sample, not_differentiable
from asg.ops.rules import BITS, INTEGER, expect, pointwise, same_type
from asg.types import DType, TensorType

_INTEGERS = not_differentiable("integers and truth values have no gradient")

bitwise_and = Op(
    name="bitwise_and",
    doc="And of two integers bit by bit, or of two truth values.",
    kind=Elementwise("{0} & {1}", commutative=True),
    shape=pointwise(2, BITS),
    numpy=np.bitwise_and,
    grad=_INTEGERS,
    examples=[
        Example([[6, 5], [3, 8]], [2, 0], dtypes=["i32", "i32"]),
        Example([[True, True], [False, True]], [False, True], dtypes=["bool", "bool"]),
    ],
    samples=[Sample(["i32[9]", "i32[9]"], low=-9, high=9), Sample(["bool[2, 3]", "bool[2, 3]"])],
    errors=[BadSample(["f32[2]", "f32[2]"], match="bitwise_and: needs an integer or bool input")],
    broadcasts=True,
    promotes=True,
)

bitwise_or = Op(
    name="bitwise_or",
    doc="Or of two integers bit by bit, or of two truth values.",
    kind=Elementwise("{0} | {1}", commutative=True),
    shape=pointwise(2, BITS),
    numpy=np.bitwise_or,
    grad=_INTEGERS,
    examples=[
        Example([[6, 5], [3, 8]], [7, 13], dtypes=["u32", "u32"]),
        Example([[False, True], [False, True]], [False, True], dtypes=["bool", "bool"]),
    ],
    samples=[Sample(["i32[9]", "i32[9]"], low=-9, high=9), Sample(["bool[2, 3]", "bool[2, 3]"])],
    errors=[BadSample(["f32[2]", "f32[2]"], match="bitwise_or: needs an integer or bool input")],
    broadcasts=True,
    promotes=True,
)

bitwise_xor = Op(
    name="bitwise_xor",
    doc="Exclusive or of two integers bit by bit, or of two truth values.",
    kind=Elementwise(
        {DType.I32: "{0} ^ {1}", DType.U32: "{0} ^ {1}", DType.BOOL: "{0} != {1}"},
        commutative=True,
    ),
    shape=pointwise(2, BITS),
    numpy=np.bitwise_xor,
    grad=_INTEGERS,
    examples=[
        Example([[6, 5], [3, 8]], [5, 13], dtypes=["u32", "u32"]),
        Example([[False, True], [True, True]], [True, False], dtypes=["bool", "bool"]),
    ],
    samples=[Sample(["i32[9]", "i32[9]"], low=-9, high=9), Sample(["bool[2, 3]", "bool[2, 3]"])],
    errors=[BadSample(["f32[2]", "f32[2]"], match="bitwise_xor: needs an integer or bool input")],
    broadcasts=True,
    promotes=True,
)

bitwise_not = Op(
    name="bitwise_not",
    doc="Every bit of an integer flipped, or a truth value denied.",
    kind=Elementwise({DType.I32: "~{0}", DType.U32: "~{0}", DType.BOOL: "!{0}"}),
    shape=pointwise(1, BITS),
    numpy=np.invert,
    grad=_INTEGERS,
    examples=[
        Example([[0, 5, -1]], [-1, -6, 0], dtypes=["i32"]),
        Example([[True, False]], [False, True], dtypes=["bool"]),
    ],
    samples=[Sample(["u32[9]"], low=0, high=9), Sample(["bool[2, 3]"])],
    errors=[BadSample(["f32[2]"], match="bitwise_not: needs an integer or bool input, got f32[2]")],
)


def _shift_left(x: Array, amount: Array) -> Array:
    steps = amount.astype(np.uint32)
    moved = x.astype(np.uint32) << (steps & 31)
    return np.where(steps > 31, np.uint32(0), moved).astype(x.dtype)


def _shift_right(x: Array, amount: Array) -> Array:
    steps = amount.astype(np.uint32)
    moved = x >> (steps & 31).astype(x.dtype)
    return np.where(steps > 31, x >> x.dtype.type(31) if x.dtype.kind == "i" else 0, moved)


shift_left = Op(
    name="shift_left",
    doc="Bits moved up; 0 where the amount is no number from 0 to 31.",
    kind=Elementwise(
        {DType.I32: "asg_shift_left_i({0}, {1})", DType.U32: "asg_shift_left_u({0}, {1})"}, cost=3
    ),
    shape=pointwise(2, INTEGER),
    numpy=_shift_left,
    grad=_INTEGERS,
    examples=[
        Example([[1, 3, -1, 7], [4, 0, 31, 32]], [16, 3, -(2**31), 0], dtypes=["i32", "i32"]),
        Example([[1, 3, 9], [31, 33, 2]], [2**31, 0, 36], dtypes=["u32", "u32"]),
    ],
    samples=[
        Sample(["i32[40]", "i32[40]"], low=-3, high=40),
        Sample(["u32[40]", "u32[40]"], low=0, high=40),
    ],
    errors=[BadSample(["f32[2]", "f32[2]"], match="shift_left: needs an integer input")],
    broadcasts=True,
    promotes=True,
)

shift_right = Op(
    name="shift_right",
    doc="Bits moved down, the sign kept for i32; 0 or -1 where the amount is not in 0 … 31.",
    kind=Elementwise(
        {DType.I32: "asg_shift_right_i({0}, {1})", DType.U32: "asg_shift_right_u({0}, {1})"},
        cost=3,
    ),
    shape=pointwise(2, INTEGER),
    numpy=_shift_right,
    grad=_INTEGERS,
    examples=[
        Example([[16, -16, -1, 7], [2, 2, 40, 32]], [4, -4, -1, 0], dtypes=["i32", "i32"]),
        Example([[2**31, 3, 9], [31, 33, 2]], [1, 0, 2], dtypes=["u32", "u32"]),
    ],
    samples=[
        Sample(["i32[40]", "i32[40]"], low=-3, high=40),
        Sample(["u32[40]", "u32[40]"], low=0, high=40),
    ],
    errors=[BadSample(["f32[2]", "f32[2]"], match="shift_right: needs an integer input")],
    broadcasts=True,
    promotes=True,
)


def _bitcast_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    if DType.BOOL in (types[0].dtype, attrs["dtype"]):
        raise DTypeError(f"a bool has no bits to reinterpret, got {types[0]} to {attrs['dtype']}")
    if types[0].dtype.itemsize != attrs["dtype"].itemsize:
        raise DTypeError(f"sizes differ, got {types[0]} to {attrs['dtype']}")
    return TensorType(types[0].shape, attrs["dtype"])


def _bitcast_numpy(x: Array, dtype: DType) -> Array:
    """The bits are those of f32 even where the interpreter computes in float64."""
    single = x.astype(np.float32) if x.dtype == np.float64 and dtype.itemsize == 4 else x
    return np.ascontiguousarray(single).view(dtype.numpy).reshape(x.shape)


def _bitcast_text(source: DType, target: DType) -> str:
    """Narrow floats are held as f32, whose bits are others."""
    if not source.is_narrow:
        return "bitcast<{R}>({0})"
    bits = f"asg_{source}_bits({{0}})" if source.is_float else "{U}({0})"
    return f"asg_bits_to_{target}({bits})"


bitcast = Op(
    name="bitcast",
    doc="The same bits read as another element type of the same size.",
    kind=Elementwise(_bitcast_text, cost=0),
    shape=_bitcast_rule,
    numpy=_bitcast_numpy,
    grad=not_differentiable("bits have no gradient"),
    examples=[
        Example([[1.0, -0.0]], [0x3F800000, 0x80000000], {"dtype": DType.U32}),
        Example([[0x40000000]], [2.0], {"dtype": DType.F32}, dtypes=["u32"]),
        Example([[-1]], [0xFFFFFFFF], {"dtype": DType.U32}, dtypes=["i32"]),
    ],
    samples=[Sample(["f32[4, 3]"], {"dtype": DType.I32}), Sample(["f32[]"], {"dtype": DType.U32})],
    errors=[
        BadSample(["bool[2]"], match="bitcast: a bool has no bits", attrs={"dtype": DType.U32})
    ],
)


def _bit_field_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 3)
    if types[0].dtype is not DType.U32:
        raise DTypeError(f"needs u32 inputs, got {types[0]}")
    same_type(types)
    return types[0]


bit_field = Op(
    name="bit_field",
    doc="`(word >> first) & mask` with `first` modulo 32: one of several numbers in a word. Without"
    " the tests of `shift_right`, since it unpacks the operands of products.",
    kind=Elementwise("({0} >> ({1} & {U}(31u))) & {2}", cost=2),
    shape=_bit_field_rule,
    numpy=lambda word, first, mask: (word >> (first & np.uint32(31))) & mask,
    grad=_INTEGERS,
    examples=[Example([[0xABCD, 0xABCD, 7], [4, 40, 0], [15, 255, 2]], [0xC, 0xAB, 2],
                      dtypes=["u32"] * 3)],
    samples=[Sample(["u32[4, 3]"] * 3, low=0, high=2**32 - 1)],
    errors=[BadSample(["i32[2]"] * 3, match="bit_field: needs u32 inputs, got i32[2]")],
    broadcasts=True,
    promotes=True,
)  # fmt: skip

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry_rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    expect(types, 4)
    if types[0].dtype is not DType.U32:
        raise DTypeError(f"needs u32 inputs, got {types[0]}")
    same_type(types)
    return types[0], types[0]


def _threefry_numpy(k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Twenty rounds, a key added after each four (Salmon et al., SC 2011)."""
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x0, x1 = x0 + keys[0], x1 + keys[1]
        for group in range(5):
            for rotation in ROTATIONS[group % 2]:
                x0 = x0 + x1
                x1 = x1 << np.uint32(rotation) | x1 >> np.uint32(32 - rotation)
                x1 = x0 ^ x1
            x0 = x0 + keys[(group + 1) % 3]
            x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def _threefry_example(key: Any, counter: Any, result: Any) -> Example:
    inputs = [[key[0]], [key[1]], [counter[0]], [counter[1]]]
    return Example(inputs, ([result[0]], [result[1]]), dtypes=["u32"] * 4)


# The examples are the known answers that the Random123 library is published with.
threefry2x32 = Op(
    name="threefry2x32",
    doc="Two random words from a key of two words and a counter of two (20 rounds).",
    kind=Elementwise("asg_threefry2x32({0}, {1}, {2}, {3})", cost=90),
    shape=_threefry_rule,
    numpy=_threefry_numpy,
    grad=_INTEGERS,
    examples=[
        _threefry_example((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        _threefry_example((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        _threefry_example(
            (0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)
        ),
    ],
    samples=[Sample(["u32[4, 3]"] * 4, low=0, high=2**32 - 1)],
    errors=[BadSample(["i32[2]"] * 4, match="threefry2x32: needs u32 inputs, got i32[2]")],
    broadcasts=True,
    promotes=True,
)

OPS = (
    bitwise_and, bitwise_or, bitwise_xor, bitwise_not, shift_left, shift_right, bitcast,
    bit_field, threefry2x32,
)  # fmt: skip
