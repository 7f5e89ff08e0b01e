"""Functions whose results have a length that the numbers decide.

They are computed in the greatest size that they can have, together with a count, and cut to it
when the graph has run. So they are outputs of a graph and nothing else; what is refused otherwise
says so.
"""

from __future__ import annotations

from math import prod
from typing import Any

from asg import shaping
from asg.errors import ShapeError
from asg.ops import sorting
from asg.ops.arithmetic import add, floor_divide, maximum, minimum, mul, remainder, sub
from asg.ops.bits import bitwise_not
from asg.ops.convert import cast
from asg.ops.cumulative import cumsum, shifted
from asg.ops.cutting import cut
from asg.ops.indexing import gather
from asg.ops.logic import equal, greater, isnan, less, not_equal, select
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.placing import search_rows
from asg.ops.reduction import reduce_sum
from asg.ops.sources import constant, iota
from asg.ops.suppressing import suppress_rows
from asg.tensor import Tensor, as_tensor, broadcast_shapes, explain
from asg.types import DType

__all__ = ["compress", "masked_select", "non_max_suppression", "nonzero", "unique"]

_LARGEST = 3.4028234663852886e38  # of the finite f32


def _positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return where truth values stand in a row, those first that are true, and how many are.

    What comes after them is the row's length.
    """
    size = mask.shape[0]
    if size == 0:
        return broadcast(constant(0), shape=(0,)), constant(0)
    running = cumsum(cast(mask, DType.I32), axis=0)
    wanted = add(iota(shape=(size,), axis=0, dtype=DType.U32), 1)
    found = search_rows(cast(running, DType.U32), wanted, right=False)
    return found, gather(running, size - 1, axis=0)


def _cut(x: Tensor, count: Tensor, axis: int = 0) -> Tensor:
    result: Tensor = cut(x, count, axis=axis)
    return result


def _truth(x: Any) -> Tensor:
    """Return which elements are not zero."""
    tensor = as_tensor(x)
    result: Tensor = tensor if tensor.dtype is DType.BOOL else not_equal(tensor, 0)
    return result


def _near(places: Tensor, size: int) -> Tensor:
    result: Tensor = minimum(places, max(size - 1, 0))
    return result


def nonzero(x: Any, columns: bool = False) -> Tensor:
    """Return the coordinates `[count, axes]` of all elements that are not zero, in row-major order
    (`torch.nonzero`); with `columns` as `[axes, count]` (ONNX NonZero)."""
    tensor = as_tensor(x)
    mask = _truth(tensor)
    found, count = _positions(reshape(mask, shape=(tensor.size,)))
    places = _near(found, tensor.size)
    parts = []
    for axis, size in enumerate(tensor.shape):
        step = max(prod(tensor.shape[axis + 1 :]), 1)
        parts.append(remainder(floor_divide(places, step), max(size, 1)))
    along = 1 if columns else 0
    if not parts:
        shape = (0, tensor.size) if columns else (tensor.size, 0)
        return _cut(broadcast(constant(0), shape=shape), count, along)
    return _cut(shaping.stack(parts, 0 if columns else 1), count, along)


def compress(x: Any, condition: Any, axis: int | None = None) -> Tensor:
    """Return the slices of `x` along an axis at which `condition` is true (`numpy.compress`).

    Without an axis, elements in row-major order. What has no condition is left out.
    """
    tensor, mask = as_tensor(x), _truth(condition)
    if axis is None:
        tensor, along = reshape(tensor, shape=(tensor.size,)), 0
    else:
        along = shaping.normal_axis(gather, tensor, axis)
    size = tensor.shape[along]
    if mask.ndim != 1 or mask.shape[0] > size:
        error = ShapeError(f"compress: {mask.type} are no conditions for axis {along}")
        raise explain(error, gather, [tensor.value, mask.value])
    places, count = _positions(mask)
    return _cut(gather(tensor, _near(places, mask.shape[0]), axis=along), count, along)


def masked_select(x: Any, mask: Any) -> Tensor:
    """Return the elements of `x` at which `mask` is true, in row-major order."""
    tensor, chosen = as_tensor(x), _truth(mask)
    shape = broadcast_shapes(tensor.shape, chosen.shape)
    tensor, chosen = (shaping.broadcast_to(each, shape) for each in (tensor, chosen))
    flat = reshape(tensor, shape=(tensor.size,))
    return compress(flat, reshape(chosen, shape=(tensor.size,)), 0)


def non_max_suppression(
    boxes: Any,
    scores: Any,
    most: int,
    iou_threshold: float = 0.0,
    score_threshold: float | None = None,
    center: bool = False,
) -> Tensor:
    """Return which boxes are kept, `[count, 3]`: batch, class and box (ONNX NonMaxSuppression).

    `boxes` `[b, n, 4]` are two corners each, or with `center` a centre and a size; `scores` are
    `[b, c, n]`. For each class boxes are taken by falling scores above `score_threshold`, `most` at
    most, unless they share more than `iou_threshold` of their area with one taken before. NaN is
    no score.
    """
    corners, given = as_tensor(boxes), as_tensor(scores)
    fits = corners.ndim == 3 and corners.shape[2] == 4 and given.ndim == 3
    if not fits or given.shape != (corners.shape[0], given.shape[1], corners.shape[1]):
        error = ShapeError(f"{given.type} are no scores [b, c, n] for boxes {corners.type}")
        raise explain(error, suppress_rows, [corners.value, given.value])
    batches, classes, size = given.shape
    limit = max(min(int(most), size), 0)
    low = float("-inf")
    clean = select(isnan(given), low, given)
    is_wanted = (
        bitwise_not(isnan(given)) if score_threshold is None else greater(clean, score_threshold)
    )
    number = shaping.broadcast_to(constant(0), given.shape[:2])
    if size and limit:
        # A wanted score of -inf comes before what is no score.
        least = maximum(cast(clean, DType.F32), -_LARGEST)
        ranked = select(is_wanted, least, low)
        _, order = sorting.sort(ranked, axis=2, descending=True, count=size)
        count = reduce_sum(cast(is_wanted, DType.I32), axes=(2,))
        chosen, number = suppress_rows(
            _corners(corners, center), order, count, most=limit, threshold=float(iou_threshold)
        )
    else:
        chosen = shaping.broadcast_to(constant(0), (batches, classes, limit))
    shape = (batches, classes, limit)
    rank = iota(shape=shape, axis=2, dtype=DType.I32)
    held = broadcast(reshape(number, shape=(batches, classes, 1)), shape=shape)
    found, total = _positions(reshape(less(rank, held), shape=(prod(shape),)))
    places = _near(found, prod(shape))
    columns = [
        iota(shape=shape, axis=0, dtype=DType.I32),
        iota(shape=shape, axis=1, dtype=DType.I32),
        chosen,
    ]
    flat = [reshape(column, shape=(prod(shape), 1)) for column in columns]
    return _cut(gather(shaping.concatenate(flat, 1), places, axis=0), total)


def _corners(boxes: Tensor, center: bool) -> Tensor:
    """Return boxes as low and high corners."""
    first = slice_(boxes, starts=(0, 0, 0), stops=(*boxes.shape[:2], 2), steps=(1, 1, 1))
    second = slice_(boxes, starts=(0, 0, 2), stops=boxes.shape, steps=(1, 1, 1))
    if center:
        half = mul(second, 0.5)
        return shaping.concatenate([sub(first, half), add(first, half)], 2)
    return shaping.concatenate([minimum(first, second), maximum(first, second)], 2)


def unique(x: Any, sorted: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the different elements of `x`, the first place of each, which of them each element
    is, and how often each occurs (ONNX Unique).

    Places count in row-major order. The elements come in ascending order, or with `sorted` off in
    that of their first places. All NaN are one, and so are zeros.
    """
    tensor = as_tensor(x)
    size = tensor.size
    flat = reshape(tensor, shape=(size,))
    if size == 0:
        none = broadcast(constant(0), shape=(0,))
        zero = constant(0)
        return _cut(flat, zero), _cut(none, zero), none, _cut(none, zero)
    keys, order = sorting.sort_rows(sorting.ascending_key(flat), count=size)
    number = iota(shape=(size,), axis=0, dtype=DType.I32)
    same = equal(keys, shifted(keys, 0, 1, 0))
    is_first = select(equal(number, 0), True, bitwise_not(same))
    starts, count = _positions(is_first)
    group = sub(cumsum(cast(is_first, DType.I32), axis=0), 1)
    first = gather(order, _near(starts, size), axis=0)
    often = sub(shifted(starts, 0, -1, size), starts)
    which = gather(group, _inverse(order), axis=0)
    if not sorted:
        wanted = select(less(number, count), first, size)
        _, turn = sorting.sort_rows(cast(wanted, DType.U32), count=size)
        first, often = gather(first, turn, axis=0), gather(often, turn, axis=0)
        which = gather(_inverse(turn), which, axis=0)
    values = gather(flat, first, axis=0)
    return _cut(values, count), _cut(first, count), which, _cut(often, count)


def _inverse(order: Tensor) -> Tensor:
    """Return where each number stands in a permutation."""
    _, places = sorting.sort_rows(cast(order, DType.U32), count=order.size)
    result: Tensor = places
    return result


METHODS = (masked_select, nonzero, unique)
