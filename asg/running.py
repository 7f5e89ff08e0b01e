"""Functions of all elements up to each one, under NumPy's, PyTorch's and ONNX's names."""

from __future__ import annotations

from typing import Any

from asg.op import Op
from asg.ops import cumulative
from asg.ops.convert import cast
from asg.ops.movement import flip
from asg.shaping import normal_axis
from asg.tensor import Tensor, as_tensor
from asg.types import DType

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "linear_recurrence"]


def _running(op: Op, x: Any, axis: int, exclusive: bool, reverse: bool, first: int) -> Tensor:
    tensor = as_tensor(x)
    if tensor.dtype is DType.BOOL:
        tensor = cast(tensor, DType.I32)
    place = normal_axis(op, tensor, axis)
    if reverse:
        tensor = flip(tensor, axes=(place,))
    if exclusive and tensor.shape[place]:
        tensor = cumulative.shifted(tensor, place, 1, first)
    result: Tensor = op(tensor, axis=place)
    return flip(result, axes=(place,)) if reverse else result


def cumsum(x: Any, axis: int = -1, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Return sums of elements along an axis up to each one; truth values count as 1.

    `exclusive` leaves the element itself out, `reverse` goes from the end.
    """
    return _running(cumulative.cumsum, x, axis, exclusive, reverse, 0)


def cumprod(x: Any, axis: int = -1, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Return products of elements along an axis up to each one.

    `exclusive` leaves the element itself out, `reverse` goes from the end.
    """
    return _running(cumulative.cumprod, x, axis, exclusive, reverse, 1)


def _extreme(op: Op, x: Any, axis: int) -> tuple[Tensor, Tensor]:
    tensor = as_tensor(x)
    found: tuple[Tensor, Tensor] = op(tensor, axis=normal_axis(op, tensor, axis))
    return found


def cummax(x: Any, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Return the largest element along an axis up to each one, and where it was last seen."""
    return _extreme(cumulative.cummax, x, axis)


def cummin(x: Any, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Return the smallest element along an axis up to each one, and where it was last seen."""
    return _extreme(cumulative.cummin, x, axis)


def linear_recurrence(a: Any, b: Any, axis: int = -1) -> Tensor:
    """Return y along an axis with y[0] = b[0] and y[k] = a[k] y[k - 1] + b[k]."""
    factors, terms = as_tensor(a), as_tensor(b)
    place = normal_axis(cumulative.linear_recurrence, terms, axis)
    result: Tensor = cumulative.linear_recurrence(factors, terms, axis=place)
    return result


METHODS = (cummax, cummin, cumprod, cumsum)
