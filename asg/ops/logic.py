"""Comparisons and choice."""

from __future__ import annotations

import numpy as np

from asg.errors import DTypeError
from asg.graph import Attrs
from asg.op import BadSample, Elementwise, Example, Op, Sample, not_differentiable
from asg.ops.rules import ANY, FLOAT, NUMBER, expect, pointwise, same_type
from asg.types import DType, TensorType

_FLAT = not_differentiable("a truth value has no gradient")

equal = Op(
    name="equal",
    doc="Whether two elements are equal; never where one is NaN.",
    kind=Elementwise("{0} == {1}", commutative=True),
    shape=pointwise(2, ANY, DType.BOOL),
    numpy=np.equal,
    grad=_FLAT,
    examples=[Example([[1.0, 2.0], [1.0, 3.0]], [True, False])],
    samples=[
        Sample(["f32[4, 3]", "f32[4, 3]"]),
        Sample(["i32[9]", "i32[9]"]),
        Sample(["bool[5]", "bool[5]"]),
    ],
    errors=[BadSample(["f32[2]", "f32[3]"], match="equal: shapes [2] and [3] do not broadcast")],
    broadcasts=True,
    promotes=True,
)

not_equal = Op(
    name="not_equal",
    doc="Whether two elements differ; always where one is NaN.",
    # Drivers compare floats by `!=` as if none were NaN: false where one is.
    kind=Elementwise(
        {
            DType.F32: "!({0} == {1})",
            DType.I32: "{0} != {1}",
            DType.U32: "{0} != {1}",
            DType.BOOL: "{0} != {1}",
        },
        commutative=True,
    ),
    shape=pointwise(2, ANY, DType.BOOL),
    numpy=np.not_equal,
    grad=_FLAT,
    examples=[
        Example([[1.0, 2.0], [1.0, 3.0]], [False, True]),
        Example([[float("nan")] * 2, [float("nan"), 3.0]], [True, True]),
    ],
    samples=[Sample(["u32[9]", "u32[9]"], low=0), Sample(["bool[5]", "bool[5]"])],
    errors=[BadSample(["i32[2]", "u32[2]"], match="not_equal: i32 and u32 do not mix")],
    broadcasts=True,
    promotes=True,
)

less = Op(
    name="less",
    doc="Whether the first element is below the second.",
    kind=Elementwise("{0} < {1}"),
    shape=pointwise(2, NUMBER, DType.BOOL),
    numpy=np.less,
    grad=_FLAT,
    examples=[Example([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], [False, True, False])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["i32[9]", "i32[9]"])],
    errors=[BadSample(["bool[2]", "bool[2]"], match="less: needs a number as input, got bool[2]")],
    broadcasts=True,
    promotes=True,
)

less_equal = Op(
    name="less_equal",
    doc="Whether the first element is at most the second.",
    kind=Elementwise("{0} <= {1}"),
    shape=pointwise(2, NUMBER, DType.BOOL),
    numpy=np.less_equal,
    grad=_FLAT,
    examples=[Example([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], [True, True, False])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["i32[9]", "i32[9]"])],
    errors=[BadSample(["bool[2]", "bool[2]"], match="less_equal: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

greater = Op(
    name="greater",
    doc="Whether the first element is above the second.",
    kind=Elementwise("{0} > {1}"),
    shape=pointwise(2, NUMBER, DType.BOOL),
    numpy=np.greater,
    grad=_FLAT,
    examples=[Example([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], [False, False, True])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["u32[9]", "u32[9]"], low=0)],
    errors=[BadSample(["bool[2]", "bool[2]"], match="greater: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

greater_equal = Op(
    name="greater_equal",
    doc="Whether the first element is at least the second.",
    kind=Elementwise("{0} >= {1}"),
    shape=pointwise(2, NUMBER, DType.BOOL),
    numpy=np.greater_equal,
    grad=_FLAT,
    examples=[Example([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], [True, False, True])],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"]), Sample(["u32[9]", "u32[9]"], low=0)],
    errors=[BadSample(["bool[2]", "bool[2]"], match="greater_equal: needs a number as input")],
    broadcasts=True,
    promotes=True,
)

isnan = Op(
    name="isnan",
    doc="Whether an element is NaN. An op, since compilers of shaders fold `x != x` to false.",
    kind=Elementwise("asg_isnan({0})", cost=2),
    shape=pointwise(1, FLOAT, DType.BOOL),
    numpy=np.isnan,
    grad=_FLAT,
    examples=[Example([[1.0, float("nan"), float("inf")]], [False, True, False])],
    samples=[Sample(["f32[4, 3]"])],
    errors=[BadSample(["i32[2]"], match="isnan: needs a float input, got i32[2]")],
)


def _select_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 3)
    condition, first, second = types
    if condition.dtype is not DType.BOOL:
        raise DTypeError(f"needs a bool condition, got {condition}")
    same_type((first, second))
    same_type((condition, TensorType(first.shape, DType.BOOL)))
    return first


select: Op = Op(
    name="select",
    doc="`select(condition, x, y)`: x where the condition holds, y elsewhere.",
    kind=Elementwise("select({2}, {1}, {0})"),
    shape=_select_rule,
    numpy=np.where,
    grad=lambda node, g, condition, x, y: [
        None,
        select(condition, g, 0.0),
        select(condition, 0.0, g),
    ],
    examples=[
        Example([[True, False], [1.0, 2.0], [3.0, 4.0]], [1.0, 4.0], dtypes=["bool", "f32", "f32"])
    ],
    samples=[
        Sample(["bool[4, 3]", "f32[4, 3]", "f32[4, 3]"]),
        Sample(["bool[5]", "i32[5]", "i32[5]"]),
        Sample(["bool[5]", "bool[5]", "bool[5]"]),
    ],
    errors=[
        BadSample(
            ["f32[2]", "f32[2]", "f32[2]"], match="select: needs a bool condition, got f32[2]"
        ),
        BadSample(["bool[2]", "i32[2]", "u32[2]"], match="select: i32 and u32 do not mix"),
        BadSample(["bool[3]", "f32[2]", "f32[2]"], match="do not broadcast: axis -1 has 2 and 3"),
    ],
    broadcasts=True,
    promotes=True,
    promotes_from=1,
)

OPS = (equal, not_equal, less, less_equal, greater, greater_equal, isnan, select)
