"""Functions that read and write at positions known at run time."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from asg.errors import DTypeError, ShapeError
from asg.ops import placing, sorting
from asg.ops.arithmetic import add, maximum, minimum, mul
from asg.ops.bits import bitwise_and
from asg.ops.convert import cast
from asg.ops.indexing import gather as gather_
from asg.ops.logic import greater_equal, less, select
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.sources import constant, iota
from asg.shaping import normal_axis
from asg.tensor import Tensor, as_tensor, explain, promoted
from asg.types import DType, Shape

__all__ = ["gather_elements", "gather_nd", "scatter", "scatter_nd", "searchsorted"]


def _index(index: Any) -> Tensor:
    """Return positions as i32; what only u32 can hold stays beyond every end."""
    tensor = as_tensor(index)
    if not tensor.dtype.is_integer:
        error = DTypeError(f"an index must be i32 or u32, got {tensor.type}")
        raise explain(error, placing.scatter_rows, [tensor.value])
    if tensor.dtype is DType.U32:
        tensor = minimum(tensor, constant(2**31 - 1, DType.U32))
    return cast(tensor, DType.I32)


def _wrapped(index: Tensor, size: int) -> Tensor:
    """Count negative positions from the end."""
    result: Tensor = select(less(index, 0), add(index, size), index)
    return result


def _flat_positions(index: Tensor, axis: int, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return for each element of `index` the row-major position in `shape` that it means with its
    own coordinates along the other axes, and whether it is one."""
    place = _wrapped(index, shape[axis])
    inside = bitwise_and(greater_equal(place, 0), less(place, shape[axis]))
    flat: Tensor = mul(place, prod(shape[axis + 1 :]))
    for other in range(len(shape)):
        if other != axis:
            here = iota(shape=index.shape, axis=other, dtype=DType.I32)
            flat = add(flat, mul(here, prod(shape[other + 1 :])))
    return flat, inside


def _check_elements(x: Tensor, index: Tensor, axis: int, what: str) -> None:
    fits = index.ndim == x.ndim and all(
        small <= large
        for place, (small, large) in enumerate(zip(index.shape, x.shape, strict=True))
        if place != axis
    )
    if not fits:
        raise explain(
            ShapeError(f"{what} of {x.type} along axis {axis} by {index.type} is not inside it"),
            placing.scatter_rows,
            [x.value, index.value],
        )


def gather_elements(x: Any, index: Any, axis: int = 0) -> Tensor:
    """Return the elements of `x` at `index` along an axis, with equal coordinates along the others
    (`torch.gather`, ONNX GatherElements).

    Negative positions count from the end; beyond either end the nearest element is read.
    """
    tensor, places = as_tensor(x), _index(index)
    along = normal_axis(gather_, tensor, axis)
    _check_elements(tensor, places, along, "gather")
    if places.size == 0:
        return _nothing(places.shape, tensor.dtype)
    size = tensor.shape[along]
    near = minimum(maximum(_wrapped(places, size), 0), size - 1)
    flat, _ = _flat_positions(near, along, tensor.shape)
    result: Tensor = gather_(reshape(tensor, shape=(tensor.size,)), flat, axis=0)
    return result


def _nothing(shape: Shape, dtype: DType) -> Tensor:
    result: Tensor = broadcast(constant(0, dtype), shape=shape)
    return result


def scatter(x: Any, index: Any, updates: Any, axis: int = 0, combine: str = "none") -> Tensor:
    """Return `x` with `updates` put where `gather_elements(x, index, axis)` would read
    (`torch.scatter`, ONNX ScatterElements).

    `combine`: `none` (the last update of an element replaces it), `add`, `mul`, `max` or `min`, in
    the order of the updates. Positions beyond either end are left out.
    """
    tensor, places = as_tensor(x), _index(index)
    along = normal_axis(placing.scatter_rows, tensor, axis)
    given = as_tensor(updates, tensor.dtype)
    _check_elements(tensor, places, along, "scatter")
    if given.shape != places.shape:
        given = broadcast(given, shape=places.shape)
    flat, inside = _flat_positions(places, along, tensor.shape)
    column = reshape(tensor, shape=(tensor.size, 1))
    rows = reshape(select(inside, flat, -1), shape=(places.size,))
    done = placing.scatter_rows(
        column, rows, reshape(given, shape=(places.size, 1)), combine=combine
    )
    result: Tensor = reshape(done, shape=tensor.shape)
    return result


def _nd_positions(index: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the row-major positions in `shape` of coordinates along the last axis of `index`, the
    nearest one where they lie outside, and whether they lie inside."""
    lead, depth = index.shape[:-1], index.shape[-1]
    flat: Tensor = broadcast(constant(0), shape=lead)
    inside: Tensor = broadcast(constant(True), shape=lead)
    for axis in range(depth):
        starts = (*(0 for _ in lead), axis)
        stops = (*lead, axis + 1)
        part = slice_(index, starts=starts, stops=stops, steps=(1,) * index.ndim)
        place = _wrapped(reshape(part, shape=lead), shape[axis])
        fits = bitwise_and(greater_equal(place, 0), less(place, shape[axis]))
        inside = bitwise_and(inside, fits)
        near = minimum(maximum(place, 0), max(shape[axis] - 1, 0))
        flat = add(mul(flat, shape[axis]), near)
    return flat, inside


def _check_nd(x: Tensor, index: Tensor, batch_dims: int) -> None:
    depth = index.shape[-1] if index.ndim else 0
    is_batch = index.ndim > batch_dims and x.shape[:batch_dims] == index.shape[:batch_dims]
    if not is_batch or batch_dims + depth > x.ndim:
        raise explain(
            ShapeError(f"the last axis of {index.type} holds no coordinates in {x.type}"),
            placing.scatter_rows,
            [x.value, index.value],
        )


def gather_nd(x: Any, index: Any, batch_dims: int = 0) -> Tensor:
    """Return slices of `x` at the coordinates along the last axis of `index` (ONNX GatherND).

    Negative coordinates count from the end; beyond either end the nearest slice is read. The
    first `batch_dims` axes of both are the same.
    """
    tensor, places = as_tensor(x), _index(index)
    _check_nd(tensor, places, batch_dims)
    depth = places.shape[-1]
    batch, inner = tensor.shape[:batch_dims], tensor.shape[batch_dims : batch_dims + depth]
    rest = tensor.shape[batch_dims + depth :]
    shape = (*places.shape[:-1], *rest)
    if prod(shape) == 0 or tensor.size == 0:
        return _nothing(shape, tensor.dtype)
    flat, _ = _nd_positions(places, inner)
    if batch_dims:
        number = _batch_number(flat.shape, batch)
        flat = add(mul(number, prod(inner)), flat)
    rows = reshape(tensor, shape=(prod(batch) * prod(inner), *rest))
    result: Tensor = gather_(rows, flat, axis=0)
    return result


def _batch_number(shape: Shape, batch: Shape) -> Tensor:
    number: Tensor = broadcast(constant(0), shape=shape)
    for axis, size in enumerate(batch):
        number = add(mul(number, size), iota(shape=shape, axis=axis, dtype=DType.I32))
    return number


def scatter_nd(x: Any, index: Any, updates: Any, combine: str = "none") -> Tensor:
    """Return `x` with `updates` put where `gather_nd(x, index)` would read (ONNX ScatterND).

    `combine` is that of `scatter`. Coordinates beyond either end are left out.
    """
    tensor, places = as_tensor(x), _index(index)
    _check_nd(tensor, places, 0)
    depth = places.shape[-1]
    inner, rest = tensor.shape[:depth], tensor.shape[depth:]
    given = as_tensor(updates, tensor.dtype)
    wanted = (*places.shape[:-1], *rest)
    if given.shape != wanted:
        raise explain(
            ShapeError(f"updates must have the shape {list(wanted)}, got {given.type}"),
            placing.scatter_rows,
            [tensor.value, places.value, given.value],
        )
    flat, inside = _nd_positions(places, inner)
    count, width = prod(places.shape[:-1]), prod(rest)
    rows = reshape(select(inside, flat, -1), shape=(count,))
    done = placing.scatter_rows(
        reshape(tensor, shape=(prod(inner), width)),
        rows,
        reshape(given, shape=(count, width)),
        combine=combine,
    )
    result: Tensor = reshape(done, shape=tensor.shape)
    return result


def searchsorted(sorted_sequence: Any, values: Any, right: bool = False) -> Tensor:
    """Return where values would go in a sequence that is sorted along its last axis: before their
    equals, or with `right` behind them. NaN is larger than all numbers.

    A sequence of one axis serves all values; otherwise all axes but the last are the same.
    """
    keys = as_tensor(sorted_sequence)
    wanted = values if isinstance(values, Tensor) else as_tensor(values, keys.dtype)
    if keys.dtype is not wanted.dtype:
        common = promoted(keys.dtype, wanted.dtype)
        keys, wanted = cast(keys, common), cast(wanted, common)
    shape = wanted.shape
    queries = sorting.ascending_key(wanted)
    if keys.ndim == 1:
        queries = reshape(queries, shape=(wanted.size,))
    found = placing.search_rows(sorting.ascending_key(keys), queries, right=bool(right))
    result: Tensor = reshape(found, shape=shape)
    return result


METHODS = ()
