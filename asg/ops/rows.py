"""Axes laid out as rows: what ops that go along one axis share."""

from __future__ import annotations

import math

from asg.ops.arithmetic import add, mul
from asg.ops.indexing import gather
from asg.ops.movement import broadcast, permute, reshape
from asg.ops.sources import constant, iota
from asg.tensor import Tensor
from asg.types import DType, Shape


def to_rows(x: Tensor, axis: int) -> Tensor:
    """Return `x` as a matrix whose rows are what lies along `axis`."""
    order = (*(other for other in range(x.ndim) if other != axis), axis)
    size = x.shape[axis]
    moved = permute(x, axes=order)
    rows = math.prod(moved.shape[:-1])
    result: Tensor = reshape(moved, shape=(rows, size))
    return result


def from_rows(rows: Tensor, shape: Shape, axis: int) -> Tensor:
    """Return rows laid along `axis` again; `shape` is that of the whole but for their length."""
    rest = [other for other in range(len(shape)) if other != axis]
    length = rows.shape[-1]
    moved = reshape(rows, shape=(*(shape[other] for other in rest), length))
    order = [*rest, axis]
    result: Tensor = permute(moved, axes=tuple(order.index(place) for place in range(len(shape))))
    return result


def pick(rows: Tensor, places: Tensor) -> Tensor:
    """Return from each row of a matrix the elements at that row of `places`."""
    count, length = rows.shape
    if places.size == 0:
        nothing: Tensor = broadcast(constant(0, rows.dtype), shape=places.shape)
        return nothing
    start = mul(iota(shape=places.shape, axis=0, dtype=DType.I32), length)
    result: Tensor = gather(reshape(rows, shape=(count * length,)), add(start, places), axis=0)
    return result
