"""Rewrites of elementwise ops.

What is not here, because it changes meaning: sums or products in another order (rounding). A zero
may change its sign. `x * 0` and `x - x` of floats are 0 or, where x is infinite or NaN, NaN;
compilers of shaders fold both to 0, so they are spelt out here by the bits of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from asg.graph import Node
from asg.op import Elementwise, Op
from asg.ops.arithmetic import abs_, add, div, maximum, minimum, mul, neg, sub
from asg.ops.bits import bitcast, bitwise_and, bitwise_not, bitwise_or, bitwise_xor
from asg.ops.convert import cast, cast_
from asg.ops.elementwise import pow_, reciprocal, rsqrt, sqrt
from asg.ops.logic import not_equal, select
from asg.ops.movement import broadcast
from asg.passes.fold_constants import known
from asg.passes.rewriting import (
    Captures,
    Rule,
    full,
    is_uniform,
    made_by,
    operand,
    spread,
    uniform,
)
from asg.tensor import Tensor, build
from asg.types import DType, Shape, TensorType

Pattern = Callable[[Node], Captures | None]


def _constant_left(node: Node) -> Captures | None:
    kind = node.op.kind
    if not isinstance(kind, Elementwise) or not kind.commutative:
        return None
    left, right = node.inputs
    return (node, left, right) if known(left) is not None and known(right) is None else None


def _shared_broadcast(node: Node) -> Captures | None:
    """Operands that all repeat values of one smaller shape, or are uniform."""
    if not isinstance(node.op.kind, Elementwise) or len(node.types) > 1 or not node.type.shape:
        return None
    shape: Shape | None = None
    for value in node.inputs:
        if uniform(value) is not None:
            continue
        source = made_by(value, broadcast)
        if source is None or shape not in (None, source.inputs[0].type.shape):
            return None
        shape = source.inputs[0].type.shape
    inner = shape or ()
    return (node, inner) if math.prod(inner) < node.type.size else None


def _compute_before_broadcast(node: Node, shape: Shape) -> Tensor:
    inner: list[Tensor] = []
    for value in node.inputs:
        number = uniform(value)
        if number is not None:
            inner.append(full(number, TensorType(shape, value.type.dtype)))
        else:
            inner.append(operand(value.node, 0))
    small: Tensor = build(node.op, [tensor.value for tensor in inner], node.attrs)
    return spread(small, node.type.shape)


def _right_is(number: float) -> Pattern:
    """Match nodes whose second operand is `number` everywhere; capture the first."""

    def pattern(node: Node) -> Captures | None:
        return (operand(node, 0),) if is_uniform(node.inputs[1], number) else None

    return pattern


def _negated(position: int) -> Pattern:
    """Match nodes with a negated operand; capture what is negated, then the other operand."""

    def pattern(node: Node) -> Captures | None:
        negation = made_by(node.inputs[position], neg)
        if negation is None:
            return None
        return operand(negation, 0), operand(node, 1 - position)

    return pattern


def _both_negated(node: Node) -> Captures | None:
    left, right = (made_by(value, neg) for value in node.inputs)
    if left is None or right is None:
        return None
    return operand(left, 0), operand(right, 0)


def _negated_times_constant(node: Node) -> Captures | None:
    negation, number = made_by(node.inputs[0], neg), uniform(node.inputs[1])
    if negation is None or number is None or not node.type.dtype.is_float:
        return None
    return operand(negation, 0), full(-float(number), node.type)


def _power_of_two(node: Node) -> Captures | None:
    """Match a division whose reciprocal is exact."""
    number = uniform(node.inputs[1])
    if number is None or not np.isfinite(number) or number == 0:
        return None
    mantissa, exponent = math.frexp(float(number))
    if abs(mantissa) != 0.5 or abs(exponent) > 100:
        return None
    return operand(node, 0), full(1.0 / float(number), node.type)


def _one_over(node: Node) -> Captures | None:
    return (operand(node, 1),) if is_uniform(node.inputs[0], 1) else None


def _twice(node: Node) -> Captures | None:
    """Match an op applied to its own result; capture the innermost operand."""
    inner = made_by(node.inputs[0], node.op)
    return None if inner is None else (operand(inner, 0),)


def _again(node: Node) -> Captures | None:
    """Match an op applied to its own result; capture that result."""
    return None if made_by(node.inputs[0], node.op) is None else (operand(node, 0),)


def _difference(node: Node) -> Captures | None:
    """Match an op over a difference; capture both operands of the latter."""
    inner = made_by(node.inputs[0], sub)
    return None if inner is None else (operand(inner, 0), operand(inner, 1))


def _of(inner: Op) -> Pattern:
    """Match an op over the op `inner`; capture the operand of the latter."""

    def pattern(node: Node) -> Captures | None:
        found = made_by(node.inputs[0], inner)
        return None if found is None else (operand(found, 0),)

    return pattern


def _same_operands(node: Node) -> Captures | None:
    return (operand(node, 0),) if node.inputs[0] == node.inputs[1] else None


def _same_integers(node: Node) -> Captures | None:
    is_same = node.inputs[0] == node.inputs[1]
    return (node,) if is_same and not node.type.dtype.is_float else None


def _integer_times_zero(node: Node) -> Captures | None:
    if node.type.dtype.is_float or not is_uniform(node.inputs[1], 0):
        return None
    return (operand(node, 1),)


def _same_floats(node: Node) -> Captures | None:
    is_same = node.inputs[0] == node.inputs[1]
    return (operand(node, 0),) if is_same and node.type.dtype.is_float else None


def _float_times_zero(node: Node) -> Captures | None:
    is_float = node.type.dtype.is_float and is_uniform(node.inputs[1], 0)
    return (operand(node, 0),) if is_float and known(node.inputs[0]) is None else None


def _zero_or_nan(x: Tensor) -> Tensor:
    """Return 0 where x is finite, NaN elsewhere."""
    exponent = bitwise_and(bitcast(x, dtype=DType.U32), np.uint32(0x7F800000))
    is_finite = not_equal(exponent, np.uint32(0x7F800000))
    result: Tensor = select(is_finite, 0.0, math.nan)
    return result


def _zero(node: Node) -> Tensor:
    return full(0, node.type)


def _same_dtype(node: Node) -> Captures | None:
    return (operand(node, 0),) if node.inputs[0].type.dtype is node.type.dtype else None


def _lossless_cast(node: Node) -> Captures | None:
    """Match a cast of a cast where the first one loses nothing that the second one wants."""
    inner = made_by(node.inputs[0], cast_)
    if inner is None:
        return None
    source, between, target = inner.inputs[0].type.dtype, inner.type.dtype, node.type.dtype
    keeps_bits = source.is_integer and between.is_integer and not target.is_float
    most = source if target is DType.BOOL else target  # bits that are wanted
    keeps_bits &= between.itemsize >= most.itemsize
    is_lossless = between.holds(source) or keeps_bits
    return (operand(inner, 0), target) if is_lossless else None


def _chosen(node: Node) -> Captures | None:
    """Match a choice that is known, or between equal values."""
    condition = uniform(node.inputs[0])
    if condition is not None:
        return (operand(node, 1 if condition else 2),)
    return (operand(node, 1),) if node.inputs[1] == node.inputs[2] else None


def _denied_condition(node: Node) -> Captures | None:
    denial = made_by(node.inputs[0], bitwise_not)
    return None if denial is None else (operand(denial, 0), operand(node, 1), operand(node, 2))


def _with_all_ones(position: int) -> Pattern:
    """Match an op of bits whose second operand is all ones; capture the operand at `position`."""

    def pattern(node: Node) -> Captures | None:
        number = uniform(node.inputs[1])
        if number is None:
            return None
        is_ones = bool(number) if node.type.dtype is DType.BOOL else int(number) in (-1, 2**32 - 1)
        return (operand(node, position),) if is_ones else None

    return pattern


def _right_is_zero(position: int) -> Pattern:
    """Match an op whose second operand is zero or false; capture the operand at `position`."""

    def pattern(node: Node) -> Captures | None:
        return (operand(node, position),) if is_uniform(node.inputs[1], 0) else None

    return pattern


def _itself(x: Tensor) -> Tensor:
    return x


ARITHMETIC: tuple[Rule, ...] = (
    Rule("compute before broadcast", (), _shared_broadcast, _compute_before_broadcast),
    Rule(
        "constant to the right", (), _constant_left,
        lambda node, left, right: build(node.op, [right, left], node.attrs),
    ),
    Rule("x + 0 = x", (add, sub), _right_is(0), _itself),
    Rule("x * 1 = x", (mul, div, pow_), _right_is(1), _itself),
    Rule("x * -1 = -x", (mul, div), _right_is(-1), neg),
    Rule("integer x * 0 = 0", (mul,), _integer_times_zero, _itself),
    Rule("integer x - x = 0", (sub, bitwise_xor), _same_integers, _zero),
    Rule("float x * 0 = 0 or NaN", (mul,), _float_times_zero, _zero_or_nan),
    Rule("float x - x = 0 or NaN", (sub,), _same_floats, _zero_or_nan),
    Rule("-(-x) = x", (neg, bitwise_not), _twice, _itself),
    Rule("-(x - y) = y - x", (neg,), _difference, lambda x, y: sub(y, x)),
    Rule("x + -y = x - y", (add,), _negated(1), lambda y, x: sub(x, y)),
    Rule("-x + y = y - x", (add,), _negated(0), lambda x, y: sub(y, x)),
    Rule("x - -y = x + y", (sub,), _negated(1), lambda y, x: add(x, y)),
    Rule("-x * -y = x * y", (mul,), _both_negated, mul),
    Rule("-x / -y = x / y", (div,), _both_negated, div),
    Rule("-x * c = x * -c", (mul,), _negated_times_constant, mul),
    Rule("x / 2^n = x * 2^-n", (div,), _power_of_two, mul),
    Rule("1 / x = reciprocal x", (div,), _one_over, reciprocal),
    Rule("1 / sqrt(x) = rsqrt(x)", (reciprocal,), _of(sqrt), rsqrt),
    Rule("x^2 = x * x", (pow_,), _right_is(2), lambda x: mul(x, x)),
    Rule("x^3 = x * x * x", (pow_,), _right_is(3), lambda x: mul(mul(x, x), x)),
    Rule("x^0.5 = sqrt(x)", (pow_,), _right_is(0.5), sqrt),
    Rule("x^-0.5 = rsqrt(x)", (pow_,), _right_is(-0.5), rsqrt),
    Rule("x^-1 = 1 / x", (pow_,), _right_is(-1), reciprocal),
    Rule("x^0 = 1", (pow_,), _right_is(0), lambda x: full(1, x.type)),
    Rule("|-x| = |x|", (abs_,), _of(neg), abs_),
    Rule("||x|| = |x|", (abs_,), _again, _itself),
    Rule("x max x = x", (maximum, minimum, bitwise_and, bitwise_or), _same_operands, _itself),
    Rule("x and 1 = x", (bitwise_and,), _with_all_ones(0), _itself),
    Rule("x or 1 = 1", (bitwise_or,), _with_all_ones(1), _itself),
    Rule("x and 0 = 0", (bitwise_and,), _right_is_zero(1), _itself),
    Rule("x or 0 = x", (bitwise_or, bitwise_xor), _right_is_zero(0), _itself),
    Rule("cast to the same", (cast_,), _same_dtype, _itself),
    Rule("cast of a lossless cast", (cast_,), _lossless_cast, cast),
    Rule("known choice", (select,), _chosen, _itself),
    Rule(
        "choice by a denial", (select,), _denied_condition,
        lambda condition, x, y: select(condition, y, x),
    ),
)  # fmt: skip
