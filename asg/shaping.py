"""Shapes: reshaping, joining, cutting, indexing, and tensors made from a shape alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.op import Op
from asg.ops import movement
from asg.ops.bits import bitwise_and
from asg.ops.convert import cast
from asg.ops.indexing import gather
from asg.ops.indexing import scatter_add as scatter_add_
from asg.ops.join import concatenate as concatenate_
from asg.ops.logic import equal, greater_equal, select
from asg.ops.overwriting import dynamic_slice as dynamic_slice_
from asg.ops.overwriting import dynamic_update_slice as dynamic_update_slice_
from asg.ops.reduction import reduce_any, reduce_sum
from asg.ops.rules import check_axes, check_axis
from asg.ops.sources import constant, convert_array, iota
from asg.tensor import Tensor, as_tensor, explain
from asg.types import DType, as_dtype, as_shape


def normal_axes(op: Op, x: Tensor, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the axes that an argument `axis` of `op` means; None means all.

    Raises:
        ShapeError: an axis does not exist or occurs twice; the message names `op` and `x`.
    """
    if axis is None:
        return tuple(range(x.ndim))
    listed = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    try:
        return check_axes(listed, x.shape)
    except ShapeError as error:
        raise explain(error, op, [x.value]) from None


def normal_axis(op: Op, x: Tensor, axis: int) -> int:
    """Return `axis` counted from 0.

    Raises:
        ShapeError: it does not exist; the message names `op` and `x`.
    """
    return normal_axes(op, x, axis)[0]


def _sizes(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Read sizes given one by one or as one sequence."""
    if len(sizes) == 1 and not isinstance(sizes[0], (int, np.integer)):
        return tuple(sizes[0])
    return sizes


def reshape(x: Any, *shape: Any) -> Tensor:
    """Return the same elements in another shape; one size may be -1.

    Raises:
        ShapeError: the number of elements would change.
    """
    tensor, sizes = as_tensor(x), list(_sizes(shape))
    if sizes.count(-1) == 1:
        others = prod(size for size in sizes if size != -1)
        if others > 0 and tensor.size % others == 0:
            sizes[sizes.index(-1)] = tensor.size // others
        else:
            message = f"{tensor.type} has {tensor.size} elements, no -1 makes that {sizes}"
            raise explain(ShapeError(message), movement.reshape, [tensor.value])
    wanted = as_shape(sizes)
    if wanted == tensor.shape:
        return tensor
    result: Tensor = movement.reshape(tensor, shape=wanted)
    return result


def permute(x: Any, *axes: Any) -> Tensor:
    """Return `x` with its axes in another order, as PyTorch does."""
    tensor = as_tensor(x)
    order = tuple(_sizes(axes))
    rank = tensor.ndim
    order = tuple(int(axis) + rank if -rank <= axis < 0 else int(axis) for axis in order)
    if order == tuple(range(rank)):
        return tensor
    result: Tensor = movement.permute(tensor, axes=order)
    return result


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Return `x` with its axes in the order `axes`, or in opposite order, as NumPy does."""
    tensor = as_tensor(x)
    return permute(tensor, tuple(reversed(range(tensor.ndim))) if axes is None else tuple(axes))


def swapaxes(x: Any, first: int, second: int) -> Tensor:
    """Return `x` with two axes swapped."""
    tensor = as_tensor(x)
    order = list(range(tensor.ndim))
    i, j = (normal_axis(movement.permute, tensor, axis) for axis in (first, second))
    order[i], order[j] = j, i
    return permute(tensor, order)


def flatten(x: Any, start: int = 0, end: int = -1) -> Tensor:
    """Return `x` with the axes from `start` to `end` (inclusive) made one."""
    tensor = as_tensor(x)
    if not tensor.ndim:
        return reshape(tensor, 1)
    i, j = (normal_axis(movement.reshape, tensor, axis) for axis in (start, end))
    return reshape(
        tensor, (*tensor.shape[:i], prod(tensor.shape[i : j + 1]), *tensor.shape[j + 1 :])
    )


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Return `x` without axes of size 1: all of them, or those told.

    Raises:
        ShapeError: an axis told has another size.
    """
    tensor = as_tensor(x)
    if axis is None:
        axes = tuple(i for i, size in enumerate(tensor.shape) if size == 1)
    else:
        axes = normal_axes(movement.reshape, tensor, axis)
    for i in axes:
        if tensor.shape[i] != 1:
            message = f"axis {i} of {tensor.type} has size {tensor.shape[i]}, not 1"
            raise explain(ShapeError(message), movement.reshape, [tensor.value])
    return reshape(tensor, [size for i, size in enumerate(tensor.shape) if i not in axes])


def unsqueeze(x: Any, axis: int) -> Tensor:
    """Return `x` with an axis of size 1 added at `axis`."""
    tensor = as_tensor(x)
    place = check_axis(axis, (*tensor.shape, 1))
    return reshape(tensor, (*tensor.shape[:place], 1, *tensor.shape[place:]))


expand_dims = unsqueeze


def broadcast_to(x: Any, *shape: Any) -> Tensor:
    """Return `x` repeated along new axes and axes of size 1, as NumPy does."""
    return movement.broadcast_to(x, _sizes(shape))


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Return `x` in opposite order along the axes told (all of them by default)."""
    tensor = as_tensor(x)
    axes = normal_axes(movement.flip, tensor, axis)
    result: Tensor = movement.flip(tensor, axes=axes) if axes else tensor
    return result


def pad(x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Return `x` with `value` around it; `widths` has (before, after) for each axis.

    A negative width cuts off.

    Raises:
        DTypeError: `value` does not fit the dtype of `x`.
    """
    tensor = as_tensor(x)
    fill = convert_array(np.asarray(value), tensor.dtype).item()
    low, high = (tuple(int(pair[side]) for pair in widths) for side in (0, 1))
    if not any((*low, *high)) and len(low) == tensor.ndim:
        return tensor
    result: Tensor = movement.pad(tensor, low=low, high=high, fill=fill)
    return result


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Return tensors one after the other along an axis."""
    operands = [as_tensor(tensor) for tensor in tensors]
    if len(operands) == 1:
        return operands[0]
    place = normal_axis(concatenate_, operands[0], axis) if operands else 0
    result: Tensor = concatenate_(*operands, axis=place)
    return result


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Return tensors of one shape side by side along a new axis."""
    return concatenate([unsqueeze(tensor, axis) for tensor in tensors], axis)


def split(x: Any, parts: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Return `x` cut along an axis, into that many equal parts or into parts of those sizes.

    Raises:
        ShapeError: the parts do not make up the axis.
    """
    tensor = as_tensor(x)
    place = normal_axis(movement.slice_, tensor, axis)
    size = tensor.shape[place]
    if isinstance(parts, (int, np.integer)):
        count = int(parts)
        sizes: Sequence[int] = [size // count] * count if count > 0 else []
    else:
        sizes = list(parts)
    if sum(sizes) != size or min(sizes, default=0) < 0:
        message = f"axis {place} of {tensor.type} can't be split into {parts}"
        raise explain(ShapeError(message), movement.slice_, [tensor.value])
    ends = np.cumsum([0, *sizes]).tolist()
    lead = (slice(None),) * place
    return [getitem(tensor, (*lead, slice(a, b))) for a, b in pairwise(ends)]


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return `x[index]`: integers, slices, None, `...`, and one integer tensor.

    Raises:
        ShapeError: too many indexes, or one out of range.
        DTypeError: an index is of another kind.
    """
    try:
        return _getitem(x, index)
    except (ShapeError, DTypeError) as error:
        if "\n" in str(error):
            raise
        raise explain(error, movement.slice_, [x.value]) from None


def _getitem(x: Tensor, index: Any) -> Tensor:
    parts = _expand(index if isinstance(index, tuple) else (index,), x.ndim)
    _check_adjacent(parts)
    ranges: list[tuple[int, int, int]] = []
    flips: list[int] = []
    shape: list[int] = []
    picked: tuple[int, Tensor] | None = None
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        size = x.shape[len(ranges)]
        if isinstance(part, int):
            start = check_position(part, len(ranges), size)
            ranges.append((start, start + 1, 1))
        elif isinstance(part, slice):
            start, stop, step, is_backward = _range(part, size)
            flips += [len(ranges)] if is_backward else []
            ranges.append((start, stop, step))
            shape.append(-(-(stop - start) // step))
        else:
            picked = (len(shape), part)
            ranges.append((0, size, 1))
            shape.append(size)
    result = _cut(x, ranges)
    if flips:
        result = flip(result, flips)
    result = reshape(result, shape)
    if picked is not None:
        result = gather(result, picked[1], axis=picked[0])
    return result


def _cut(x: Tensor, ranges: Sequence[tuple[int, int, int]]) -> Tensor:
    """Slice, unless everything is kept."""
    if all(bounds == (0, size, 1) for bounds, size in zip(ranges, x.shape, strict=True)):
        return x
    starts, stops, steps = (tuple(bounds[i] for bounds in ranges) for i in range(3))
    result: Tensor = movement.slice_(x, starts=starts, stops=stops, steps=steps)
    return result


def _expand(index: tuple[Any, ...], rank: int) -> list[Any]:
    """Return an index per axis: `...` and what is missing become full slices."""
    parts = [_as_part(part) for part in index]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > rank:
        raise ShapeError(f"{used} indexes for {rank} axes")
    if sum(part is Ellipsis for part in parts) > 1:
        raise ShapeError("an index holds one '...' at most")
    rest = [slice(None)] * (rank - used)
    if not any(part is Ellipsis for part in parts):
        return [*parts, *rest]
    place = next(i for i, part in enumerate(parts) if part is Ellipsis)
    return [*parts[:place], *rest, *parts[place + 1 :]]


def _as_part(part: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return int(part)
    if isinstance(part, bool):
        raise DTypeError("a bool is no index; fix: use asg.where")
    tensor = as_tensor(part)
    if tensor.dtype is DType.BOOL:
        raise DTypeError("a mask gives no fixed shape; fix: use asg.where")
    if not tensor.dtype.is_integer:
        raise DTypeError(f"an index is an integer, got {tensor.type}")
    return tensor


def _check_adjacent(parts: Sequence[Any]) -> None:
    """NumPy moves axes to the front where integers and tensors stand apart; that is refused."""
    if sum(isinstance(part, Tensor) for part in parts) > 1:
        raise ShapeError("one integer tensor at most in an index; fix: index in two steps")
    if not any(isinstance(part, Tensor) for part in parts):
        return
    places = [i for i, part in enumerate(parts) if isinstance(part, (int, Tensor))]
    if places[-1] - places[0] != len(places) - 1:
        raise ShapeError("an integer and a tensor stand apart; fix: index in two steps")


def check_position(position: int, axis: int, size: int) -> int:
    """Return an integer index counted from 0.

    Raises:
        ShapeError: it is out of range.
    """
    if not -size <= position < size:
        raise ShapeError(f"index {position} is out of range for axis {axis}, which has {size}")
    return position % size


def _range(part: slice, size: int) -> tuple[int, int, int, bool]:
    """Return start, stop, positive step, and whether the order is to be turned."""
    numbers = range(*part.indices(size))
    if not numbers:
        return 0, 0, 1, False
    low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
    return low, high + 1, abs(numbers.step), numbers.step < 0


def take(x: Any, index: Any, axis: int = 0) -> Tensor:
    """Return slices of `x` at `index` along an axis, as `numpy.take`.

    Negative positions count from the end; beyond either end the nearest slice is read.
    """
    tensor = as_tensor(x)
    result: Tensor = gather(tensor, index, axis=normal_axis(gather, tensor, axis))
    return result


def scatter_add(x: Any, index: Any, updates: Any, axis: int = 0) -> Tensor:
    """Return `x` with `updates` added where `take(x, index, axis)` would read.

    Positions beyond either end are dropped.
    """
    tensor = as_tensor(x)
    place = normal_axis(scatter_add_, tensor, axis)
    result: Tensor = scatter_add_(tensor, index, updates, axis=place)
    return result


def dynamic_slice(x: Any, start: Any, length: int, axis: int = 0) -> Tensor:
    """Return `length` elements of `x` along an axis, from `start` on, known at run time.

    `start` is one integer, or one for each of the first axes; it is held where all is inside.
    """
    tensor = as_tensor(x)
    place = normal_axis(dynamic_update_slice_, tensor, axis)
    return dynamic_slice_(tensor, as_tensor(start), length, place)


def dynamic_update_slice(x: Any, update: Any, start: Any, axis: int = 0) -> Tensor:
    """Return `x` with `update` where `dynamic_slice(x, start, …, axis)` would read.

    A state that becomes its own update is written in place, and only there.
    """
    tensor = as_tensor(x)
    place = normal_axis(dynamic_update_slice_, tensor, axis)
    result: Tensor = dynamic_update_slice_(tensor, start, update, axis=place)
    return result


def take_along_axis(x: Any, index: Any, axis: int = -1) -> Tensor:
    """Return `x[..., index, ...]` element by element, as NumPy does; 0 where out of range.

    Made of comparisons and a sum, so that picking one element per row (the logit of a label)
    becomes part of the kernel that reads the row.
    """
    tensor, places = as_tensor(x), as_tensor(index)
    place = normal_axis(gather, tensor, axis)
    size = tensor.shape[place]
    wide_shape = (*places.shape[:place], size, *places.shape[place:])
    positions = iota(shape=wide_shape, axis=place, dtype=places.dtype)
    wanted = broadcast_to(unsqueeze(places, place), wide_shape)
    if places.dtype is DType.I32:
        wanted = select(wanted < 0, wanted + size, wanted)
    values = broadcast_to(unsqueeze(tensor, place + 1), wide_shape)
    is_here = equal(positions, wanted)
    result: Tensor
    if tensor.dtype is DType.BOOL:
        result = reduce_any(bitwise_and(is_here, values), axes=(place,))
    else:
        result = reduce_sum(select(is_here, values, 0), axes=(place,))
    return result


def full(shape: Any, value: Any, dtype: object = None) -> Tensor:
    """Return `value` everywhere."""
    return broadcast_to(constant(value, dtype), as_shape(shape))


def zeros(shape: Any, dtype: object = "f32") -> Tensor:
    """Return zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: object = "f32") -> Tensor:
    """Return ones."""
    return full(shape, 1, dtype)


def zeros_like(x: Any) -> Tensor:
    """Return zeros of the same shape and dtype."""
    tensor = as_tensor(x)
    return zeros(tensor.shape, tensor.dtype)


def ones_like(x: Any) -> Tensor:
    """Return ones of the same shape and dtype."""
    tensor = as_tensor(x)
    return ones(tensor.shape, tensor.dtype)


def full_like(x: Any, value: Any) -> Tensor:
    """Return `value` everywhere, in the same shape and dtype."""
    tensor = as_tensor(x)
    return full(tensor.shape, value, tensor.dtype)


def arange(
    start: float, stop: float | None = None, step: float = 1, dtype: object = None
) -> Tensor:
    """Return evenly spaced numbers from `start` to before `stop`; i32 or, with floats, f32.

    Raises:
        ShapeError: there is no end of them.
    """
    low, high = (0, start) if stop is None else (start, stop)
    if step == 0 or not np.isfinite([low, high, step]).all():
        raise ShapeError(f"arange: from {low} to {high} by {step} is no finite number of steps")
    is_float = any(isinstance(number, (float, np.floating)) for number in (low, high, step))
    target = as_dtype(dtype) if dtype is not None else DType.F32 if is_float else DType.I32
    count = max(0, int(np.ceil((high - low) / step)))
    numbers: Tensor = iota(shape=(count,), axis=0, dtype=DType.F32 if is_float else target)
    if step != 1:
        numbers = numbers * step
    if low != 0:
        numbers = numbers + low
    return cast(numbers, target)


def tri(rows: int, columns: int | None = None, k: int = 0) -> Tensor:
    """Return a bool matrix that is true on and below the k-th diagonal."""
    shape = (rows, rows if columns is None else columns)
    row = iota(shape=shape, axis=0, dtype=DType.I32)
    column = iota(shape=shape, axis=1, dtype=DType.I32)
    result: Tensor = greater_equal(row + k if k else row, column)
    return result


def tril(x: Any, k: int = 0) -> Tensor:
    """Return `x` with zeros above the k-th diagonal of its last two axes."""
    tensor = as_tensor(x)
    result: Tensor = select(_last_tri(tensor, k), tensor, 0)
    return result


def triu(x: Any, k: int = 0) -> Tensor:
    """Return `x` with zeros below the k-th diagonal of its last two axes."""
    tensor = as_tensor(x)
    result: Tensor = select(_last_tri(tensor, k - 1), 0, tensor)
    return result


def _last_tri(x: Tensor, k: int) -> Tensor:
    if x.ndim < 2:
        raise explain(ShapeError(f"{x.type} has no diagonal; it needs 2 axes"), select, [x.value])
    return tri(x.shape[-2], x.shape[-1], k)


def eye(rows: int, columns: int | None = None, dtype: object = "f32") -> Tensor:
    """Return a matrix with ones on its diagonal."""
    return cast(bitwise_and(tri(rows, columns), ~tri(rows, columns, -1)), dtype)


def one_hot(index: Any, classes: int, dtype: object = "f32") -> Tensor:
    """Return 1 at `index` along a new last axis of `classes`, 0 elsewhere."""
    tensor = as_tensor(index)
    shape = (*tensor.shape, classes)
    positions = iota(shape=shape, axis=tensor.ndim, dtype=tensor.dtype)
    return cast(equal(positions, unsqueeze(tensor, -1)), dtype)
