"""What the type rules of several families share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import ShapeRule
from asg.types import DType, Shape, TensorType

Accepts = tuple[DType, ...]

FLOAT: Accepts = tuple(dtype for dtype in DType if dtype.is_float)
INTEGER: Accepts = tuple(dtype for dtype in DType if dtype.is_integer)
SIGNED: Accepts = tuple(dtype for dtype in DType if dtype.is_signed)
NUMBER: Accepts = tuple(dtype for dtype in DType if dtype is not DType.BOOL)
BITS: Accepts = (*INTEGER, DType.BOOL)
BOOL: Accepts = (DType.BOOL,)
ANY: Accepts = tuple(DType)

_WORDS = {
    FLOAT: "a float input",
    INTEGER: "an integer input",
    SIGNED: "a float or signed input",
    NUMBER: "a number as input",
    BITS: "an integer or bool input",
    BOOL: "a bool input",
}


def expect(types: Sequence[TensorType], count: int) -> None:
    """Check how many operands there are.

    Raises:
        ShapeError: too few or too many.
    """
    if len(types) != count:
        plural = "" if count == 1 else "s"
        raise ShapeError(f"takes {count} operand{plural}, got {len(types)}")


def accept(type_: TensorType, accepts: Accepts) -> None:
    """Check an operand's element type.

    Raises:
        DTypeError: it is none of `accepts`.
    """
    if type_.dtype in accepts:
        return
    fix = '; fix: convert it with .cast("f32")' if accepts is FLOAT else ""
    raise DTypeError(f"needs {_WORDS[accepts]}, got {type_}{fix}")


def pointwise(count: int, accepts: Accepts, result: DType | None = None) -> ShapeRule:
    """Return the rule of ops whose `count` operands have one type; the result has its shape."""

    def rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
        expect(types, count)
        first = types[0]
        accept(first, accepts)
        same_type(types)
        return TensorType(first.shape, result or first.dtype)

    return rule


def same_dtype(types: Sequence[TensorType]) -> None:
    """Check that operands have one element type.

    Raises:
        DTypeError: two of them differ.
    """
    for other in types[1:]:
        if other.dtype is not types[0].dtype:
            raise DTypeError(f"operands differ in dtype: {types[0]} and {other}")


def same_type(types: Sequence[TensorType]) -> None:
    """Check that operands have one shape and one element type.

    Raises:
        ShapeError, DTypeError: two of them differ.
    """
    same_dtype(types)
    first = types[0]
    for other in types[1:]:
        if other.shape != first.shape:
            raise ShapeError(f"operands differ in shape: {first} and {other}")


def check_axis(axis: object, shape: Shape) -> int:
    """Return a non-negative axis of `shape`.

    Raises:
        ShapeError: there is no such axis.
    """
    rank = len(shape)
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
        raise ShapeError(f"an axis is an integer, got {axis!r}")
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is out of range for {list(shape)}, which has {rank} axes")
    return int(axis) % rank


def check_axes(axes: Sequence[int], shape: Shape) -> tuple[int, ...]:
    """Return distinct non-negative axes of `shape` in ascending order.

    Raises:
        ShapeError: an axis does not exist or occurs twice.
    """
    found = sorted(check_axis(axis, shape) for axis in axes)
    if len(set(found)) != len(found):
        raise ShapeError(f"an axis occurs twice in {tuple(axes)}")
    return tuple(found)
