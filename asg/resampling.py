"""Images at other sizes and places: resizing as ONNX and PyTorch have it, sampling along grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np

from asg.errors import ShapeError
from asg.op import Array
from asg.ops import movement
from asg.ops.arithmetic import abs_, add, floor, maximum, minimum, mul, remainder, round_, sub
from asg.ops.bits import bitwise_and
from asg.ops.convert import cast
from asg.ops.indexing import gather
from asg.ops.linear import matmul
from asg.ops.logic import greater, greater_equal, less_equal, select
from asg.ops.sources import constant, iota
from asg.tensor import Tensor, as_tensor, explain
from asg.types import DType

__all__ = ["affine_grid", "grid_sample", "resize"]

Mode = Literal["nearest", "linear", "cubic"]
MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MOST_TAPS = 4  # elements that a sum is spelt out for; for more it is a product with a matrix


@dataclass(frozen=True)
class Resampling:
    """How elements along an axis become others: the options of ONNX's Resize."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def resize(
    x: Any,
    shape: Sequence[int],
    *,
    mode: Mode = "nearest",
    coordinates: str = "half_pixel",
    nearest: str = "round_prefer_floor",
    cubic_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    scales: Sequence[float] | None = None,
    roi: Sequence[tuple[float, float]] | None = None,
    extrapolation: float = 0.0,
) -> Tensor:
    """Return `x` resampled to `shape`, axis by axis, by the formulas of ONNX's Resize.

    `scales` are the factors that the formulas use; those of the shapes unless told. `roi` has
    (start, end) for each axis, for `tf_crop_and_resize`.

    Raises:
        ShapeError: the shapes do not go together, or an option is unknown.
    """
    tensor = as_tensor(x)
    how = Resampling(mode, coordinates, nearest, cubic_a, exclude_outside, antialias)
    _check(tensor, tuple(shape), how)
    if mode != "nearest" and not tensor.dtype.is_float:
        tensor = cast(tensor, DType.F32)
    for axis, size in enumerate(shape):
        length = tensor.shape[axis]
        scale = size / length if scales is None and length else (scales or [1.0] * len(shape))[axis]
        ends = (0.0, 1.0) if roi is None else roi[axis]
        is_cropped = coordinates == "tf_crop_and_resize" and ends != (0.0, 1.0)
        if size == length and scale == 1.0 and not is_cropped:
            continue
        places = source_places(how, length, size, scale, ends)
        tensor = _along(tensor, axis, interpolation(how, length, places, scale))
        if coordinates == "tf_crop_and_resize":
            outside = (places < 0) | (places > length - 1)
            if outside.any():
                tensor = _filled(tensor, axis, outside, extrapolation)
    return tensor


def _check(x: Tensor, shape: tuple[int, ...], how: Resampling) -> None:
    known = how.mode in MODES and how.coordinates in COORDINATES and how.nearest in NEAREST
    if not known:
        raise _refused(f"resize knows no {how.mode}, {how.coordinates}, {how.nearest}", x)
    if len(shape) != x.ndim:
        raise _refused(f"resize: {list(shape)} is no size for {x.type}", x)
    if any(n == 0 and size for n, size in zip(x.shape, shape, strict=True)):
        raise _refused(f"resize: nothing of {x.type} becomes {list(shape)}", x)


def _refused(message: str, *tensors: Tensor) -> ShapeError:
    error = explain(ShapeError(message), gather, [tensor.value for tensor in tensors])
    assert isinstance(error, ShapeError)
    return error


def source_places(
    how: Resampling, length: int, size: int, scale: float, ends: tuple[float, float]
) -> Array:
    """Return where in the operand each element of the result lies."""
    i = np.arange(size, dtype=np.float64)
    exact = scale * length  # ONNX has the size before rounding here
    match how.coordinates:
        case "align_corners":
            return np.zeros(size) if exact == 1 else i * (length - 1) / (exact - 1)
        case "asymmetric":
            return i / scale
        case "pytorch_half_pixel" if exact == 1:
            return np.full(size, -0.5)
        case "half_pixel_symmetric":
            offset = length / 2 * (1 - size / exact)
            return offset + (i + 0.5) / scale - 0.5
        case "tf_crop_and_resize":
            start, end = ends
            if exact == 1:
                return np.full(size, 0.5 * (start + end) * (length - 1))
            return start * (length - 1) + i * (end - start) * (length - 1) / (exact - 1)
        case _:
            return (i + 0.5) / scale - 0.5


def interpolation(how: Resampling, length: int, places: Array, scale: float) -> Array:
    """Return the matrix that makes elements at `places` of those of an axis."""
    matrix = np.zeros((places.size, length))
    rows = np.arange(places.size)
    if how.mode == "nearest":
        matrix[rows, np.clip(_nearest(how.nearest, places), 0, length - 1)] = 1.0
        return matrix
    shrink = min(scale, 1.0) if how.antialias else 1.0
    reach = 1 if how.mode == "linear" else 2
    start = math.floor(-reach / shrink) + 1
    base = np.ceil(places) - 1  # so that an integer lies one beyond it
    taps = np.arange(start, 2 - start)
    distance = np.abs(taps[None, :] - (places - base)[:, None]) * shrink
    weights = _hat(distance) if how.mode == "linear" else _cubic(distance, how.cubic_a)
    columns = base[:, None].astype(np.int64) + taps[None, :]
    if how.exclude_outside:
        weights = np.where((columns < 0) | (columns >= length), 0.0, weights)
    if how.antialias or how.exclude_outside:
        weights = weights / weights.sum(1, keepdims=True)
    np.add.at(matrix, (rows[:, None], np.clip(columns, 0, length - 1)), weights)
    return matrix


def _nearest(rule: str, places: Array) -> Array:
    found = {
        "round_prefer_floor": lambda: np.ceil(places - 0.5),
        "round_prefer_ceil": lambda: np.floor(places + 0.5),
        "floor": lambda: np.floor(places),
        "ceil": lambda: np.ceil(places),
    }[rule]()
    return found.astype(np.int64)


def _hat(distance: Array) -> Array:
    return np.maximum(1.0 - distance, 0.0)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel: two cubics that meet smoothly at 1 and end at 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _along(x: Tensor, axis: int, matrix: Array) -> Tensor:
    """Return `x` times a matrix along an axis; sums of few elements are spelt out."""
    taps = int((matrix != 0).sum(1).max(initial=0))
    if taps > MOST_TAPS:
        moved = movement.permute(x, axes=_to_last(x.ndim, axis))
        done = matmul(
            movement.reshape(moved, shape=(prod(moved.shape[:-1]), x.shape[axis])),
            constant(np.ascontiguousarray(matrix.T).astype(np.float32)),
        )
        wide = movement.reshape(done, shape=(*moved.shape[:-1], matrix.shape[0]))
        order = _to_last(x.ndim, axis)
        back: Tensor = movement.permute(wide, axes=tuple(order.index(n) for n in range(x.ndim)))
        return back
    # The largest weights first, so that what fills a row up is an element that it has anyway.
    places = np.argsort(-np.abs(matrix), axis=1, kind="stable")
    total: Tensor | None = None
    for tap in range(max(taps, 1)):
        weights = np.take_along_axis(matrix, places[:, tap : tap + 1], 1)[:, 0]
        columns = np.where(weights != 0, places[:, tap], places[:, 0]).astype(np.int32)
        part = gather(x, constant(columns), axis=axis)
        if not (weights == 1).all():
            column = constant(weights.astype(np.float32))
            part = mul(part, _as_axis(column, axis, part.shape))
        total = part if total is None else add(total, part)
    assert total is not None
    return total


def _to_last(rank: int, axis: int) -> tuple[int, ...]:
    return (*(other for other in range(rank) if other != axis), axis)


def _as_axis(column: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    ones = tuple(size if place == axis else 1 for place, size in enumerate(shape))
    result: Tensor = movement.broadcast(movement.reshape(column, shape=ones), shape=shape)
    return result


def _filled(x: Tensor, axis: int, outside: Array, value: float) -> Tensor:
    result: Tensor = select(_as_axis(constant(outside), axis, x.shape), value, x)
    return result


# -- grids ----------------------------------------------------------------------------------------


def affine_grid(theta: Any, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Return the grid `[n, …, d]` that `theta` `[n, d, d + 1]` makes of the places of an image.

    `size` is the image's, `[n, c, …]`; places run from −1 to 1 (PyTorch, ONNX AffineGrid).
    """
    matrices = as_tensor(theta)
    spatial = tuple(size[2:])
    rank = len(spatial)
    if matrices.shape != (size[0], rank, rank + 1):
        raise _refused(f"affine_grid: {matrices.type} has no matrices for {list(size)}", matrices)
    columns = []
    for axis in reversed(range(rank)):
        number = iota(shape=spatial, axis=axis, dtype=DType.F32)
        columns.append(
            movement.reshape(_unit(number, spatial[axis], align_corners), shape=(prod(spatial), 1))
        )
    columns.append(movement.broadcast(constant(1.0), shape=(prod(spatial), 1)))
    total: Tensor | None = None
    for position, column in enumerate(columns):
        part = movement.slice_(
            matrices,
            starts=(0, 0, position),
            stops=(size[0], rank, position + 1),
            steps=(1, 1, 1),
        )
        row = movement.reshape(part, shape=(size[0], 1, rank))
        wide = (size[0], prod(spatial), rank)
        each = mul(
            movement.broadcast(movement.reshape(column, shape=(1, prod(spatial), 1)), shape=wide),
            movement.broadcast(row, shape=wide),
        )
        total = each if total is None else add(total, each)
    assert total is not None
    result: Tensor = movement.reshape(total, shape=(size[0], *spatial, rank))
    return result


def _unit(number: Tensor, size: int, align_corners: bool) -> Tensor:
    """Return places in −1 … 1 of element numbers: of the outermost centres, or of the borders."""
    if align_corners:
        if size == 1:
            return mul(number, 0.0)  # type: ignore[no-any-return]
        return sub(mul(number, 2.0 / (size - 1)), 1.0)  # type: ignore[no-any-return]
    return sub(mul(add(number, 0.5), 2.0 / size), 1.0)  # type: ignore[no-any-return]


def grid_sample(
    x: Any,
    grid: Any,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Return `x` `[n, c, …]` at the places `grid` `[n, …, d]` (PyTorch, ONNX GridSample).

    Coordinates run from −1 to 1; the first is along the image's last axis.

    Raises:
        ShapeError: shapes do not go together, or an option is unknown.
    """
    image, places = as_tensor(x), as_tensor(grid)
    rank = image.ndim - 2
    known = mode in ("bilinear", "linear", "nearest", "bicubic", "cubic")
    if not known or padding_mode not in ("zeros", "border", "reflection"):
        raise _refused(f"grid_sample knows no {mode}, {padding_mode}", image, places)
    fits = places.ndim == image.ndim and places.shape[-1] == rank
    if rank < 1 or not fits or places.shape[0] != image.shape[0]:
        raise _refused(f"grid_sample: {places.type} has no places in {image.type}", image, places)
    out = places.shape[1:-1]
    n, channels, *sizes = image.shape
    flat_image = movement.reshape(
        movement.permute(image, axes=(0, *range(2, image.ndim), 1)),
        shape=(n * prod(sizes), channels),
    )
    axes = []
    for axis, size in enumerate(sizes):
        column = rank - 1 - axis
        part = movement.slice_(
            places,
            starts=(*(0 for _ in places.shape[:-1]), column),
            stops=(*places.shape[:-1], column + 1),
            steps=(1,) * places.ndim,
        )
        unit = movement.reshape(part, shape=(n, prod(out)))
        axes.append(_axis_taps(unit, size, mode, padding_mode, align_corners))
    total = _sum_of_taps(flat_image, axes, sizes, (n, prod(out), channels))
    back = movement.permute(total, axes=(0, 2, 1))
    result: Tensor = movement.reshape(back, shape=(n, channels, *out))
    return result


WHOLE = 2.0**20  # places beyond this have hardly a fraction
Tap = tuple[Tensor, Tensor, Tensor]  # the element's number, whether it exists, its weight


def _axis_taps(unit: Tensor, size: int, mode: str, padding: str, align: bool) -> list[Tap]:
    """Return the elements along one axis that a place is made of."""
    if align:
        place = mul(add(unit, 1.0), (size - 1) / 2)
    else:
        place = sub(mul(add(unit, 1.0), size / 2), 0.5)
    is_cubic = mode in ("bicubic", "cubic")
    if not is_cubic:
        place = _inside(place, size, padding, align)
    if mode == "nearest":
        return [_tap(round_(place), size, constant(1.0))]
    base = floor(place)
    # A driver may compute a place twice and round it differently; far out, by more than 1.
    part = select(greater(abs_(place), WHOLE), 0.0, sub(place, base))
    if not is_cubic:
        return [_tap(base, size, sub(1.0, part)), _tap(add(base, 1.0), size, part)]
    taps = []
    for step in (-1, 0, 1, 2):
        where = add(base, float(step))
        weight = _cubic_weight(abs_(sub(part, float(step))), step in (0, 1))
        taps.append(_tap(_inside(where, size, padding, align), size, weight))
    return taps


def _cubic_weight(distance: Tensor, is_near: bool) -> Tensor:
    a = -0.75
    if is_near:
        square = mul(distance, distance)
        result: Tensor = add(mul(sub(mul(distance, a + 2), a + 3), square), 1.0)
        return result
    inner = add(mul(sub(mul(distance, a), 5 * a), distance), 8 * a)
    result = sub(mul(inner, distance), 4 * a)
    return result


def _inside(place: Tensor, size: int, padding: str, align: bool) -> Tensor:
    """Return a place beyond the image moved to its border, or mirrored into it."""
    if padding == "zeros":
        return place
    if padding == "reflection":
        low, high = (0.0, float(size - 1)) if align else (-0.5, size - 0.5)
        span = high - low
        if span == 0:
            place = mul(place, 0.0)
        else:
            moved = abs_(sub(place, low))
            turned = remainder(moved, 2 * span)
            place = add(minimum(turned, sub(2 * span, turned)), low)
    result: Tensor = minimum(maximum(place, 0.0), float(size - 1))
    return result


def _tap(where: Tensor, size: int, weight: Tensor) -> Tap:
    exists = bitwise_and(greater_equal(where, 0.0), less_equal(where, float(size - 1)))
    near = cast(minimum(maximum(where, 0.0), float(size - 1)), DType.I32)
    if weight.shape != where.shape:
        weight = movement.broadcast(weight, shape=where.shape)
    return near, exists, weight


def _sum_of_taps(
    image: Tensor, axes: Sequence[Sequence[Tap]], sizes: Sequence[int], shape: tuple[int, int, int]
) -> Tensor:
    """Return the weighted sum over all combinations of the axes' elements: `[n, count, c]`."""
    n, count, _ = shape
    start = mul(iota(shape=(n, count), axis=0, dtype=DType.I32), prod(sizes))
    total: Tensor | None = None
    for corner in product(*axes):
        flat: Tensor = movement.broadcast(constant(0), shape=(n, count))
        exists: Tensor = movement.broadcast(constant(True), shape=(n, count))
        weight: Tensor = movement.broadcast(constant(1.0), shape=(n, count))
        for (near, fits, share), size in zip(corner, sizes, strict=True):
            flat = add(mul(flat, size), near)
            exists, weight = bitwise_and(exists, fits), mul(weight, share)
        found = gather(image, add(start, flat), axis=0)
        column = (n, count, 1)
        share = movement.broadcast(movement.reshape(weight, shape=column), shape=shape)
        fits = movement.broadcast(movement.reshape(exists, shape=column), shape=shape)
        part = select(fits, mul(found, share), 0.0)
        total = part if total is None else add(total, part)
    assert total is not None
    return total


METHODS: tuple[Callable[..., Any], ...] = ()
