"""Bits: logic, shifts, random words, and the bits of floats, for which ONNX has no operator."""

from __future__ import annotations

import numpy as np

from asg.graph import Node
from asg.onnx.export_rules.elementwise import wrapped
from asg.onnx.writer import ELEMENT, FLOAT, I32, U32, Rule, Writer
from asg.ops.bits import ROTATIONS
from asg.types import DType

_LOGIC = {"bitwise_and": "And", "bitwise_or": "Or", "bitwise_xor": "Xor", "bitwise_not": "Not"}
_HALVES = (64, 32, 16, 8, 4, 2, 1)  # by which exponents are searched
_LEAST = np.float32(2.0**-126)  # the least normal number


def logic(to: Writer, node: Node, *x: str) -> str:
    """Of bits, or of truth values."""
    op = _LOGIC[node.op.name]
    return to(op if node.type.dtype is DType.BOOL else f"Bitwise{op}", *x)


def _word(to: Writer, x: str, dtype: DType) -> str:
    return x if dtype is DType.U32 else to.cast(x, U32)


def shift(to: Writer, node: Node, x: str, amount: str) -> str:
    """By more than 31 steps nothing is left, or the sign."""
    dtype = node.type.dtype
    word, steps = _word(to, x, dtype), _word(to, amount, dtype)
    near = to("BitwiseAnd", steps, to.constant(31, np.uint32))
    high = to("BitwiseAnd", steps, to.constant(0xFFFFFFE0, np.uint32))
    is_far = to("Not", to("Equal", to.cast(high, I32), to.constant(0, np.int32)))
    zero, ones = to.constant(0, np.uint32), to.constant(0xFFFFFFFF, np.uint32)
    if node.op.name == "shift_right" and dtype is DType.I32:
        most = to.where(is_far, to.constant(31, np.uint32), near, DType.U32)
        moved = to("BitShift", word, most, direction="RIGHT")
        signs = to("BitwiseNot", to("BitShift", ones, most, direction="RIGHT"))
        is_negative = to("Less", x, to.constant(0, np.int32))
        return to.cast(to("BitwiseOr", moved, to.where(is_negative, signs, zero, DType.U32)), I32)
    direction = "LEFT" if node.op.name == "shift_left" else "RIGHT"
    moved = to("BitShift", word, near, direction=direction)
    moved = to.where(is_far, zero, moved, DType.U32)
    return moved if dtype is DType.U32 else to.cast(moved, I32)


def bit_field(to: Writer, node: Node, word: str, first: str, mask: str) -> str:
    """Some bits of a word."""
    steps = to("BitwiseAnd", first, to.constant(31, np.uint32))
    return to("BitwiseAnd", to("BitShift", word, steps, direction="RIGHT"), mask)


def bitcast(to: Writer, node: Node, x: str) -> str:
    """Between integers a cast wraps around; the bits of floats are computed."""
    source, target = node.inputs[0].type.dtype, node.type.dtype
    if source is target:
        return x
    if target.is_float:
        return to.call("float_of_bits", [_word(to, x, source)], 1, _float_of_bits)[0]
    if source.is_float:
        bits = to.call("bits_of_float", [x], 1, _bits_of_float)[0]
        return bits if target is DType.U32 else to.cast(bits, I32)
    return to.cast(x, ELEMENT[target])


def _float_of_bits(to: Writer, bits: str) -> list[str]:
    """(1 + m / 2^23) 2^(e - 127), the power from a table; without the 1 where e is 0."""

    def field(first: int, mask: int) -> str:
        moved = to("BitShift", bits, to.constant(first, np.uint32), direction="RIGHT")
        return to.cast(to("BitwiseAnd", moved, to.constant(mask, np.uint32)), I32)

    zero, one = to.constant(0, np.int32), to.constant(1.0, np.float32)
    exponent, is_negative = field(23, 0xFF), to("Equal", field(31, 1), to.constant(1, np.int32))
    powers = [2.0 ** max(e - 127, -126) for e in range(255)]
    power = to("Gather", to.constant([*powers, np.inf], np.float32), exponent)
    part = to("Mul", to.cast(field(0, 0x7FFFFF), FLOAT), to.constant(2.0**-23, np.float32))
    is_small = to("Equal", exponent, zero)
    fraction = to("Where", is_small, part, to("Add", part, one))
    is_last = to("Equal", exponent, to.constant(255, np.int32))
    has_part = to("Greater", part, to.constant(0.0, np.float32))
    size = to("Mul", power, fraction)
    size = to("Where", to("And", is_last, has_part), to.constant(np.nan, np.float32), size)
    return [to("Where", is_negative, to("Neg", size), size)]


def _bits_of_float(to: Writer, x: str) -> list[str]:
    """Scale the size into 1 … 2 by powers of two, which is exact, and count them."""
    zero, one = to.constant(0.0, np.float32), to.constant(1.0, np.float32)
    size = to("Abs", x)
    scaled, exponent = size, to("Mul", to.cast(to("IsNaN", x), I32), to.constant(0, np.int32))
    for step in _HALVES:
        power, inverse = (to.constant(2.0**n, np.float32) for n in (step, -step))
        is_large = to("GreaterOrEqual", scaled, power)
        is_small = to("Less", scaled, to.constant(2.0 ** (1 - step), np.float32))
        factor = to("Where", is_large, inverse, to("Where", is_small, power, one))
        scaled = to("Mul", scaled, factor)
        moved = to("Sub", to.cast(is_large, I32), to.cast(is_small, I32))
        exponent = to("Add", exponent, to("Mul", moved, to.constant(step, np.int32)))
    part = to("Mul", to("Sub", scaled, one), to.constant(2.0**23, np.float32))
    part = to.cast(to("Where", to("Less", scaled, to.constant(2.0, np.float32)), part, zero), I32)
    biased = to("Add", exponent, to.constant(127, np.int32))
    bits = to("Add", to("Mul", biased, to.constant(1 << 23, np.int32)), part)
    tiny = to("Mul", to("Mul", size, to.constant(2.0**75, np.float32)),
              to.constant(2.0**74, np.float32))  # fmt: skip
    is_tiny = to("Less", size, to.constant(_LEAST, np.float32))
    known = to("Where", is_tiny, tiny, zero)
    bits = to("Where", is_tiny, to.cast(known, I32), bits)
    bits = to("Where", to("IsInf", x), to.constant(0x7F800000, np.int32), bits)
    below = to("Less", x, zero)
    is_minus_zero = to("And", to("Equal", x, zero), to("Less", to("Reciprocal", x), zero))
    bits = to("Where", to("IsNaN", x), to.constant(0x7FC00000, np.int32), bits)
    is_negative = to("Or", below, is_minus_zero)
    sign = to("Where", is_negative, to.constant(-(1 << 31), np.int32), to.constant(0, np.int32))
    return [to("BitwiseOr", to.cast(bits, U32), to.cast(sign, U32))]


def threefry(to: Writer, node: Node, *x: str) -> tuple[str, ...]:
    """Twenty rounds on words."""
    return to.call("threefry2x32", x, 2, _threefry)


def _threefry(to: Writer, key0: str, key1: str, x0: str, x1: str) -> list[str]:
    def plus(x: str, y: str) -> str:
        return wrapped(to, "Add", x, y, DType.U32)

    parity = to("BitwiseXor", key0, key1)
    keys = [key0, key1, to("BitwiseXor", parity, to.constant(0x1BD11BDA, np.uint32))]
    x0, x1 = plus(x0, keys[0]), plus(x1, keys[1])
    for group in range(5):
        for step in ROTATIONS[group % 2]:
            x0 = plus(x0, x1)
            left = to("BitShift", x1, to.constant(step, np.uint32), direction="LEFT")
            right = to("BitShift", x1, to.constant(32 - step, np.uint32), direction="RIGHT")
            x1 = to("BitwiseXor", to("BitwiseOr", left, right), x0)
        x0 = plus(x0, keys[(group + 1) % 3])
        x1 = plus(plus(x1, keys[(group + 2) % 3]), to.constant(group + 1, np.uint32))
    return [x0, x1]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_LOGIC, logic),
    "shift_left": shift,
    "shift_right": shift,
    "bit_field": bit_field,
    "bitcast": bitcast,
    "threefry2x32": threefry,
}
