"""Putting a slice in place at a position that is known only at run time, and taking one out.

A cache that fills up (of keys and values, say) is a state that becomes its own update: where
nobody reads the old contents afterwards, the kernel writes the slice only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Example, Op, Sample, Scatter
from asg.ops.arithmetic import add, maximum, minimum, mul
from asg.ops.convert import cast_
from asg.ops.indexing import gather
from asg.ops.movement import broadcast, permute, reshape
from asg.ops.rules import INTEGER, check_axis, expect
from asg.ops.sources import constant, iota
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType


def _check(x: TensorType, start: TensorType, attrs: Attrs) -> int:
    """Check where slices of `x` begin; return their axis."""
    axis = check_axis(attrs["axis"], x.shape)
    if axis != attrs["axis"]:
        raise ShapeError(f"an axis is given from 0, got {attrs['axis']}")
    if start.dtype not in INTEGER:
        raise DTypeError(f"the start must be i32 or u32, got {start}")
    if start.rank > axis or start.shape != x.shape[: start.rank]:
        raise ShapeError(
            f"the start is one number, or one for each of the first axes of {list(x.shape)} "
            f"before axis {axis}, got {start}"
        )
    return axis


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 3)
    x, start, update = types
    axis = _check(x, start, attrs)
    if update.dtype is not x.dtype:
        raise DTypeError(f"the update must be {x.dtype} like x, got {update}")
    fits = update.rank == x.rank and update.shape[axis] <= x.shape[axis]
    if not fits or _without(update.shape, axis) != _without(x.shape, axis):
        raise ShapeError(f"the update must be a slice of {x} along axis {axis}, got {update}")
    return x


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def _numpy(x: Array, start: Array, update: Array, axis: int) -> Array:
    result, length = np.array(x), update.shape[axis]
    for lead in np.ndindex(start.shape):
        first = int(np.clip(start[lead].astype(np.int64), 0, x.shape[axis] - length))
        inner = (slice(None),) * (axis - start.ndim)
        result[(*lead, *inner, slice(first, first + length))] = update[lead]
    return result


def _grad(
    node: Tensor, g: Tensor, x: Tensor, start: Tensor, update: Tensor
) -> Sequence[Tensor | None]:
    axis = node.attrs["axis"]
    zeros = broadcast(constant(0.0), shape=update.shape)
    rest = dynamic_update_slice(g, start, zeros, axis=axis)
    return [rest, None, dynamic_slice(g, start, update.shape[axis], axis)]


def dynamic_slice(x: Tensor, start: Tensor, length: int, axis: int) -> Tensor:
    """Return `length` elements of `x` along `axis` from `start` on, which is held inside; there
    may be a start for each of the first axes.

    Raises:
        ShapeError: `x` is shorter than that, or the starts don't fit its first axes.
    """
    _check(x.type, start.type, {"axis": axis})
    size, lead = x.shape[axis], start.shape
    if not 0 <= length <= size:
        raise ShapeError(f"axis {axis} of {x.type} has no {length} elements in a row")
    starts = cast_(minimum(start, size - length), dtype=DType.I32)
    starts = maximum(starts, 0)
    if 0 in (prod(lead), length, size):
        shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
        empty: Tensor = broadcast(constant(0, dtype=x.dtype), shape=shape)
        return empty
    steps = iota(shape=(*lead, length), axis=len(lead), dtype=DType.I32)
    places = add(broadcast(reshape(starts, shape=(*lead, 1)), shape=steps.shape), steps)
    if not lead:
        found: Tensor = gather(x, reshape(places, shape=(length,)), axis=axis)
        return found
    # Rows of all the first axes, one after the other, with the axis next to them.
    rank, count = x.ndim, len(lead)
    between, after = tuple(range(count, axis)), tuple(range(axis + 1, rank))
    moved = permute(x, axes=(*range(count), axis, *between, *after))
    rows = reshape(moved, shape=(prod(lead) * size, *moved.shape[count + 1 :]))
    base = iota(shape=(prod(lead), length), axis=0, dtype=DType.I32)
    flat = add(reshape(places, shape=(prod(lead), length)), mul(base, size))
    taken = reshape(gather(rows, flat, axis=0), shape=(*lead, length, *moved.shape[count + 1 :]))
    back = (*range(count), *(each + 1 for each in between), count, *after)
    result: Tensor = permute(taken, axes=back)
    return result


dynamic_update_slice = Op(
    name="dynamic_update_slice",
    doc="`x` with `update` in the place of a slice along `axis` that begins at `start`, one"
    " integer or one for each of the first axes. A slice that would reach beyond either end is"
    " moved inside. Where nobody reads `x` afterwards, only the slice is written.",
    kind=Scatter(adds=False),
    shape=_rule,
    numpy=_numpy,
    grad=_grad,
    examples=[
        Example(
            [[1.0, 2.0, 3.0, 4.0], 1, [8.0, 9.0]],
            [1.0, 8.0, 9.0, 4.0],
            {"axis": 0},
            dtypes=["f32", "i32", "f32"],
        ),
        # The first row's slice is moved inside, to position 1.
        Example(
            [[[1, 2, 3], [4, 5, 6]], [7, -1], [[8, 9], [10, 11]]],
            [[1, 8, 9], [10, 11, 6]],
            {"axis": 1},
            dtypes=["i32", "i32", "i32"],
        ),
    ],
    samples=[
        Sample(["f32[5]", "i32[]", "f32[2]"], {"axis": 0}, lows=[-2, 0, -2], highs=[2, 3, 2]),
        Sample(
            ["f32[2, 3, 5, 4]", "u32[2]", "f32[2, 3, 2, 4]"],
            {"axis": 2},
            lows=[-2, 0, -2],
            highs=[2, 3, 2],
        ),
        Sample(
            ["f32[2, 3, 7]", "i32[2, 3]", "f32[2, 3, 3]"],
            {"axis": 2},
            lows=[-2, -3, -2],
            highs=[2, 9, 2],
        ),
        Sample(["i32[2, 6, 8]", "i32[]", "i32[2, 6, 8]"], {"axis": 1}, low=-3, high=3),
        Sample(["f32[2, 3]", "i32[2]", "f32[2, 0]"], {"axis": 1}),
        Sample(["f32[0, 3]", "i32[0]", "f32[0, 2]"], {"axis": 1}),
    ],
    errors=[
        BadSample(
            ["f32[5]", "f32[]", "f32[2]"],
            "dynamic_update_slice: the start must be i32 or u32",
            {"axis": 0},
        ),
        BadSample(
            ["f32[2, 5]", "i32[5]", "f32[2, 2]"],
            "dynamic_update_slice: the start is one number, or one for each of the first axes",
            {"axis": 1},
        ),
        BadSample(
            ["f32[2, 5]", "i32[]", "f32[2, 6]"],
            "dynamic_update_slice: the update must be a slice of f32[2, 5] along axis 1",
            {"axis": 1},
        ),
        BadSample(
            ["f32[5]", "i32[]", "i32[2]"],
            "dynamic_update_slice: the update must be f32 like x",
            {"axis": 0},
        ),
    ],
)

OPS = (dynamic_update_slice,)
