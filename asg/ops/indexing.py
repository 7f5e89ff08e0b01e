"""Reading and adding at positions that are known only at run time."""

from __future__ import annotations

from math import prod

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Example, Gather, Op, Sample, Scatter
from asg.ops.logic import greater_equal, less, select
from asg.ops.movement import broadcast, reshape
from asg.ops.rules import INTEGER, NUMBER, accept, check_axis, expect
from asg.ops.sources import constant
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType


def _gathered(x: TensorType, index: TensorType, attrs: Attrs) -> Shape:
    """Return the shape of what `index` picks from `x`: its shape stands in for the axis."""
    if index.dtype not in INTEGER:
        raise DTypeError(f"the index must be i32 or u32, got {index}")
    axis = check_axis(attrs["axis"], x.shape)
    if axis != attrs["axis"]:
        raise ShapeError(f"an axis is given from 0, got {attrs['axis']}")
    return (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 2)
    x, index = types
    result = TensorType(_gathered(x, index, attrs), x.dtype)
    if x.shape[attrs["axis"]] == 0 and result.size:
        raise ShapeError(f"axis {attrs['axis']} of {x} is empty, so nothing can be picked")
    return result


def _wrapped(index: Array, size: int) -> Array:
    """Count negative positions from the end."""
    wide = index.astype(np.int64)
    return np.where(wide < 0, wide + size, wide)


def _gather_numpy(x: Array, index: Array, axis: int) -> Array:
    size = x.shape[axis]
    if size == 0:
        shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
        return np.zeros(shape, x.dtype)
    return np.take(x, np.clip(_wrapped(index, size), 0, size - 1), axis)


def _gather_grad(node: Tensor, g: Tensor, x: Tensor, index: Tensor) -> list[Tensor | None]:
    zeros = broadcast(constant(0, g.dtype), shape=x.shape)
    return [scatter_add(zeros, index, g, axis=node.attrs["axis"]), None]


gather = Op(
    name="gather",
    doc="Slices of `x` at `index` along `axis`, as `numpy.take`. Negative positions count from the"
    " end; beyond either end the nearest slice is read, and no gradient flows back to it.",
    kind=Gather(),
    shape=_gather_rule,
    numpy=_gather_numpy,
    grad=_gather_grad,
    examples=[
        Example(
            [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [2, 0, -1]],
            [[5.0, 6.0], [1.0, 2.0], [5.0, 6.0]],
            {"axis": 0},
            dtypes=["f32", "i32"],
        ),
        Example([[1.0, 2.0, 3.0], [7, -9]], [3.0, 1.0], {"axis": 0}, dtypes=["f32", "i32"]),
    ],
    samples=[
        Sample(["f32[5, 3]", "i32[4]"], {"axis": 0}, lows=[-2, -5], highs=[2, 4]),
        Sample(["f32[2, 5, 3]", "u32[2, 2]"], {"axis": 1}, lows=[-2, 0], highs=[2, 4]),
        Sample(["i32[5]", "i32[]"], {"axis": 0}, lows=[-2, 0], highs=[2, 4]),
        Sample(["i32[5]", "i32[9]"], {"axis": 0}, lows=[-2, -9], highs=[2, 9]),
        Sample(["f32[0, 3]", "i32[0]"], {"axis": 0}),
    ],
    errors=[
        BadSample(["f32[5]", "f32[2]"], "gather: the index must be i32 or u32", {"axis": 0}),
        BadSample(["f32[5]", "i32[2]"], "gather: axis 1 is out of range", {"axis": 1}),
        BadSample(["f32[0]", "i32[2]"], "gather: axis 0 of f32[0] is empty", {"axis": 0}),
    ],
)


def _scatter_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 3)
    x, index, updates = types
    accept(x, NUMBER)
    if updates.dtype is not x.dtype:
        raise DTypeError(f"updates must be {x.dtype} like x, got {updates}")
    wanted = _gathered(x, index, attrs)
    if updates.shape != wanted:
        raise ShapeError(f"updates must have the shape {list(wanted)}, got {updates}")
    return x


def _scatter_numpy(x: Array, index: Array, updates: Array, axis: int) -> Array:
    result = np.array(x)
    rows = np.moveaxis(result, axis, 0)
    places = _wrapped(index, x.shape[axis]).reshape(-1)
    others = [size for position, size in enumerate(x.shape) if position != axis]
    leading = np.moveaxis(updates, range(axis, axis + index.ndim), range(index.ndim))
    added = leading.reshape(places.size, *others)
    is_inside = (places >= 0) & (places < x.shape[axis])
    np.add.at(rows, places[is_inside], added[is_inside])
    return result


def _scatter_grad(
    node: Tensor, g: Tensor, x: Tensor, index: Tensor, updates: Tensor
) -> list[Tensor | None]:
    """Updates that were dropped get no gradient, though `gather` would read the nearest slice."""
    axis = node.attrs["axis"]
    size = x.shape[axis]
    if prod(updates.shape) == 0 or size == 0:
        return [g, None, broadcast(constant(0.0), shape=updates.shape)]
    is_inside = less(index, size)
    if index.dtype is DType.I32:
        is_inside = is_inside & greater_equal(index, -size)
    after = x.ndim - axis - 1
    aligned = reshape(is_inside, shape=(*index.shape, *(1,) * after))
    return [g, None, select(aligned, gather(g, index, axis=axis), 0.0)]


scatter_add = Op(
    name="scatter_add",
    doc="`x` with `updates` added at `index` along `axis`, laid out as `gather` would read them."
    " Updates beyond either end are dropped. Sums run in the order of the index: deterministic.",
    kind=Scatter(),
    shape=_scatter_rule,
    numpy=_scatter_numpy,
    grad=_scatter_grad,
    examples=[
        Example(
            [[1.0, 1.0, 1.0], [2, 0, 2, -2, 7], [10.0, 20.0, 30.0, 40.0, 50.0]],
            [21.0, 41.0, 41.0],
            {"axis": 0},
            dtypes=["f32", "i32", "f32"],
        ),
    ],
    samples=[
        Sample(
            ["f32[5, 3]", "i32[8]", "f32[8, 3]"], {"axis": 0}, lows=[-2, -7, -2], highs=[2, 6, 2]
        ),
        Sample(
            ["f32[2, 5]", "u32[3, 2]", "f32[2, 3, 2]"],
            {"axis": 1},
            lows=[-2, 0, -2],
            highs=[2, 4, 2],
        ),
        Sample(["i32[4]", "i32[]", "i32[]"], {"axis": 0}, low=0, high=3),
    ],
    errors=[
        BadSample(
            ["f32[5]", "i32[2]", "f32[3]"],
            "updates must have the shape [2], got f32[3]",
            {"axis": 0},
        ),
        BadSample(["f32[5]", "i32[2]", "i32[2]"], "updates must be f32 like x", {"axis": 0}),
    ],
)

OPS = (gather, scatter_add)
