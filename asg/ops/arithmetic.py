"""Elementwise arithmetic: sums, products, quotients, rounding, the larger and the smaller."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.op import Array, BadSample, Elementwise, Example, Op, Sample, not_differentiable
from asg.ops import logic
from asg.ops.convert import cast
from asg.ops.rules import FLOAT, INTEGER, NUMBER, SIGNED, pointwise
from asg.tensor import Tensor
from asg.types import DType

neg = Op(
    name="neg",
    doc="Minus every element.",
    kind=Elementwise("-{0}"),
    shape=pointwise(1, SIGNED),
    numpy=np.negative,
    grad=lambda node, g, x: [-g],
    examples=[Example([[1.0, -2.5]], [-1.0, 2.5]), Example([[3]], [-3], dtypes=["i32"])],
    samples=[Sample(["f32[4, 3]"]), Sample(["i32[2]"]), Sample(["f32[]"])],
    errors=[BadSample(["u32[2]"], match="neg: needs a float or signed input, got u32[2]")],
)

abs_ = Op(
    name="abs",
    doc="Size of every element, without its sign.",
    kind=Elementwise("abs({0})"),
    shape=pointwise(1, SIGNED),
    numpy=np.absolute,
    grad=lambda node, g, x: [g * sign(x)],
    examples=[Example([[1.0, -2.5, 0.0]], [1.0, 2.5, 0.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["i32[5]"], low=-9, high=9)],
    errors=[BadSample(["bool[2]"], match="abs: needs a float or signed input, got bool[2]")],
)

sign: Op = Op(
    name="sign",
    doc="-1, 0 or 1 as every element is negative, zero or positive; NaN stays NaN.",
    kind=Elementwise({DType.F32: "asg_sign({0})", DType.I32: "sign({0})"}),
    shape=pointwise(1, SIGNED),
    numpy=np.sign,
    grad=not_differentiable("sign is flat almost everywhere"),
    examples=[Example([[3.0, -2.5, 0.0]], [1.0, -1.0, 0.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["i32[5]"], low=-9, high=9)],
    errors=[BadSample(["u32[2]"], match="sign: needs a float or signed input, got u32[2]")],
)

add = Op(
    name="add",
    doc="Sum of two elements.",
    kind=Elementwise("{0} + {1}", commutative=True),
    shape=pointwise(2, NUMBER),
    numpy=np.add,
    grad=lambda node, g, x, y: [g, g],
    examples=[Example([[1.0, 2.0], [10.0, 20.0]], [11.0, 22.0])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["u32[2]", "u32[2]"], low=0, high=9)],
    errors=[
        BadSample(["f32[2]", "f32[3]"], match="add: shapes [2] and [3] do not broadcast"),
        BadSample(["bool[2]", "bool[2]"], match="add: needs a number as input, got bool[2]"),
        BadSample(["i32[2]", "u32[2]"], match="add: i32 and u32 do not mix"),
    ],
    broadcasts=True,
    promotes=True,
)

sub = Op(
    name="sub",
    doc="Difference of two elements.",
    kind=Elementwise("{0} - {1}"),
    shape=pointwise(2, NUMBER),
    numpy=np.subtract,
    grad=lambda node, g, x, y: [g, -g],
    examples=[Example([[1.0, 2.0], [10.0, 0.5]], [-9.0, 1.5])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["i32[2]", "i32[2]"], low=-9, high=9)],
    errors=[BadSample(["bool[2]", "bool[2]"], match="sub: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

# d(x y) = y dx + x dy
mul = Op(
    name="mul",
    doc="Product of two elements.",
    kind=Elementwise("{0} * {1}", commutative=True),
    shape=pointwise(2, NUMBER),
    numpy=np.multiply,
    grad=lambda node, g, x, y: [g * y, g * x],
    examples=[Example([[1.5, 2.0], [2.0, -3.0]], [3.0, -6.0])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["i32[2]", "i32[2]"], low=-9, high=9)],
    errors=[BadSample(["bool[2]", "bool[2]"], match="mul: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

# d(x / y) = dx / y - (x / y) dy / y
div = Op(
    name="div",
    doc="Quotient of two floats.",
    kind=Elementwise("{0} / {1}", cost=4),
    shape=pointwise(2, FLOAT),
    numpy=np.divide,
    grad=lambda node, g, x, y: [g / y, -g * node / y],
    examples=[Example([[1.0, 3.0], [2.0, -4.0]], [0.5, -0.75])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"], lows=[-2, 0.5], highs=[2, 3])],
    errors=[BadSample(["i32[2]", "i32[2]"], match="div: needs a float input, got i32[2]")],
    broadcasts=True,
    promotes=True,
)


def true_divide(x: Any, y: Any) -> Tensor:
    """Return x / y as Python does: integers become floats first."""
    result: Tensor = div(*(_as_float(operand) for operand in (x, y)))
    return result


def _as_float(x: Any) -> Any:
    return float(x) if isinstance(x, (int, float)) else cast(x, DType.F32)


floor_divide = Op(
    name="floor_divide",
    doc="Integer quotient rounded down; 0 where the divisor is 0.",
    kind=Elementwise(
        {DType.I32: "asg_floor_div_i({0}, {1})", DType.U32: "asg_floor_div_u({0}, {1})"}, cost=8
    ),
    shape=pointwise(2, INTEGER),
    numpy=np.floor_divide,
    grad=not_differentiable("integers have no gradient"),
    examples=[
        Example([[7, -7, 7, -7, 5], [2, 2, -2, -2, 0]], [3, -4, -4, 3, 0], dtypes=["i32", "i32"]),
        Example([[7, 9], [2, 0]], [3, 0], dtypes=["u32", "u32"]),
    ],
    samples=[
        Sample(["i32[40]", "i32[40]"], low=-9, high=9),
        Sample(["u32[40]", "u32[40]"], low=0, high=9),
    ],
    errors=[BadSample(["f32[2]", "f32[2]"], match="floor_divide: needs an integer input")],
    broadcasts=True,
    promotes=True,
)


def _remainder(x: Array, y: Array) -> Array:
    """`np.remainder`, but for `INT_MIN % -1`, which traps on some machines: it is 0."""
    is_signed = x.dtype.kind == "i"
    result: Array = np.remainder(x, np.where(y == -1, 1, y) if is_signed else y)
    return result


# x mod y = x - y floor(x / y), so dy gets -floor(x / y) = (x mod y - x) / y
remainder = Op(
    name="remainder",
    doc="Remainder with the divisor's sign, as Python's `%`; for integers 0 where it is 0.",
    kind=Elementwise(
        {
            DType.F32: "asg_rem_f({0}, {1})",
            DType.I32: "asg_rem_i({0}, {1})",
            DType.U32: "asg_rem_u({0}, {1})",
        },
        cost=8,
    ),
    shape=pointwise(2, NUMBER),
    numpy=_remainder,
    grad=lambda node, g, x, y: [g, g * round_((node - x) / y)],
    examples=[
        Example([[7.5, -7.5, 7.5], [2.0, 2.0, -2.0]], [1.5, 0.5, -0.5]),
        Example([[7, -7, 7, 5], [3, 3, -3, 0]], [1, 2, -2, 0], dtypes=["i32", "i32"]),
    ],
    samples=[
        Sample(["f32[8]", "f32[8]"], lows=[3.1, 2.6], highs=[4.9, 2.9]),
        Sample(["i32[40]", "i32[40]"], low=-9, high=9),
        Sample(["u32[40]", "u32[40]"], low=0, high=9),
    ],
    errors=[BadSample(["bool[2]", "bool[2]"], match="remainder: needs a number as input")],
    broadcasts=True,
    promotes=True,
)


def _trunc_divide(x: Array, y: Array) -> Array:
    """The quotient of the sizes, with its sign; sizes are unsigned, since the least integer's
    is none of the signed ones."""
    if x.dtype.kind == "u":
        return np.floor_divide(x, y)
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    sizes = np.abs(x).view(unsigned), np.abs(y).view(unsigned)
    size: Array = np.floor_divide(*sizes).view(x.dtype)
    return np.where((x < 0) == (y < 0), size, -size)


def _fmod(x: Array, y: Array) -> Array:
    """`np.fmod`, but for `INT_MIN % -1`, which traps on some machines: it is 0."""
    is_signed = x.dtype.kind == "i"
    result: Array = np.fmod(x, np.where(y == -1, 1, y) if is_signed else y)
    return result


trunc_divide = Op(
    name="trunc_divide",
    doc="Integer quotient rounded towards zero; 0 where the divisor is 0.",
    kind=Elementwise(
        {DType.I32: "asg_trunc_div_i({0}, {1})", DType.U32: "asg_floor_div_u({0}, {1})"}, cost=8
    ),
    shape=pointwise(2, INTEGER),
    numpy=_trunc_divide,
    grad=not_differentiable("integers have no gradient"),
    examples=[
        Example([[7, -7, 7, -7, 5], [2, 2, -2, -2, 0]], [3, -3, -3, 3, 0], dtypes=["i32", "i32"]),
        Example([[7, 9], [2, 0]], [3, 0], dtypes=["u32", "u32"]),
    ],
    samples=[
        Sample(["i32[40]", "i32[40]"], low=-9, high=9),
        Sample(["u32[40]", "u32[40]"], low=0, high=9),
    ],
    errors=[BadSample(["f32[2]", "f32[2]"], match="trunc_divide: needs an integer input")],
    broadcasts=True,
    promotes=True,
)

# fmod(x, y) = x - y trunc(x / y), so dy gets -trunc(x / y) = (fmod(x, y) - x) / y
fmod = Op(
    name="fmod",
    doc="Remainder with the sign of x, as C's `fmod` and `%`; for integers 0 where y is 0.",
    kind=Elementwise(
        {
            DType.F32: "asg_fmod_f({0}, {1})",
            DType.I32: "asg_fmod_i({0}, {1})",
            DType.U32: "asg_rem_u({0}, {1})",
        },
        cost=8,
    ),
    shape=pointwise(2, NUMBER),
    numpy=_fmod,
    grad=lambda node, g, x, y: [g, g * round_((node - x) / y)],
    examples=[
        Example([[7.5, -7.5, 7.5], [2.0, 2.0, -2.0]], [1.5, -1.5, 1.5]),
        Example([[7, -7, 7, 5], [3, 3, -3, 0]], [1, -1, 1, 0], dtypes=["i32", "i32"]),
    ],
    samples=[
        Sample(["f32[8]", "f32[8]"], lows=[3.1, 2.6], highs=[4.9, 2.9]),
        Sample(["i32[40]", "i32[40]"], low=-9, high=9),
        Sample(["u32[40]", "u32[40]"], low=0, high=9),
    ],
    errors=[BadSample(["bool[2]", "bool[2]"], match="fmod: needs a number as input")],
    broadcasts=True,
    promotes=True,
)


def _share(g: Tensor, loses: tuple[Tensor, Tensor], ties: Tensor) -> list[Tensor]:
    """Give each operand nothing where it loses, half of `g` on ties, all of it elsewhere: where
    one is NaN, both have a part in the result. Nothing is subtracted, so `g` may be infinite."""
    part = logic.select(ties, 0.5 * g, g)
    return [logic.select(each, 0.0, part) for each in loses]


# Ties share the gradient equally, so that both orders of the operands agree.
maximum = Op(
    name="maximum",
    doc="The larger of two elements; NaN where either is.",
    kind=Elementwise(
        {
            DType.F32: "asg_maximum({0}, {1})",
            DType.I32: "max({0}, {1})",
            DType.U32: "max({0}, {1})",
        },
        commutative=True,
    ),
    shape=pointwise(2, NUMBER),
    numpy=np.maximum,
    grad=lambda node, g, x, y: _share(g, (logic.less(x, y), logic.less(y, x)), logic.equal(x, y)),
    examples=[Example([[1.0, 5.0], [3.0, -4.0]], [3.0, 5.0])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["i32[5]", "i32[5]"], low=-9, high=9)],
    errors=[BadSample(["bool[2]", "bool[2]"], match="maximum: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

minimum = Op(
    name="minimum",
    doc="The smaller of two elements; NaN where either is.",
    kind=Elementwise(
        {
            DType.F32: "asg_minimum({0}, {1})",
            DType.I32: "min({0}, {1})",
            DType.U32: "min({0}, {1})",
        },
        commutative=True,
    ),
    shape=pointwise(2, NUMBER),
    numpy=np.minimum,
    grad=lambda node, g, x, y: _share(g, (logic.less(y, x), logic.less(x, y)), logic.equal(x, y)),
    examples=[Example([[1.0, 5.0], [3.0, -4.0]], [1.0, -4.0])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["u32[5]", "u32[5]"], low=0, high=9)],
    errors=[BadSample(["bool[2]", "bool[2]"], match="minimum: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

floor = Op(
    name="floor",
    doc="Largest integer not above each element.",
    kind=Elementwise("floor({0})"),
    shape=pointwise(1, FLOAT),
    numpy=np.floor,
    grad=not_differentiable("floor is flat almost everywhere"),
    examples=[Example([[1.5, -1.5]], [1.0, -2.0])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="floor: needs a float input, got i32[3]")],
)

ceil = Op(
    name="ceil",
    doc="Smallest integer not below each element.",
    kind=Elementwise("ceil({0})"),
    shape=pointwise(1, FLOAT),
    numpy=np.ceil,
    grad=not_differentiable("ceil is flat almost everywhere"),
    examples=[Example([[1.5, -1.5]], [2.0, -1.0])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="ceil: needs a float input, got i32[3]")],
)

round_: Op = Op(
    name="round",
    doc="Nearest integer; halves go to the even one.",
    kind=Elementwise("round({0})"),
    shape=pointwise(1, FLOAT),
    numpy=np.rint,
    grad=not_differentiable("round is flat almost everywhere"),
    examples=[Example([[0.5, 1.5, 2.5, -1.5, 1.2]], [0.0, 2.0, 2.0, -2.0, 1.0])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="round: needs a float input, got i32[3]")],
)

trunc = Op(
    name="trunc",
    doc="The integer part, towards zero.",
    kind=Elementwise("trunc({0})"),
    shape=pointwise(1, FLOAT),
    numpy=np.trunc,
    grad=not_differentiable("trunc is flat almost everywhere"),
    examples=[Example([[1.7, -1.7]], [1.0, -1.0])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="trunc: needs a float input, got i32[3]")],
)

OPS = (
    neg, abs_, sign, add, sub, mul, div, floor_divide, remainder, trunc_divide, fmod, maximum,
    minimum, floor, ceil, round_, trunc,
)  # fmt: skip
