"""Sorting: keys that compare as numbers do, rows in order, sorted rows merged.

Floats become u32 keys whose order is theirs, with every NaN above infinity and -0 equal to 0. Keys
are sorted together with their positions, which makes the order stable; elements are then picked
by position, so that what comes out are the operand's own bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import (
    Array,
    BadSample,
    Composite,
    Example,
    Op,
    Procedure,
    Sample,
    not_differentiable,
)
from asg.ops.bits import bitcast, bitwise_and, bitwise_not, bitwise_or, bitwise_xor
from asg.ops.convert import cast
from asg.ops.logic import equal, greater, greater_equal, less, select
from asg.ops.rows import from_rows, pick, to_rows
from asg.ops.rules import check_axis, expect
from asg.ops.sources import constant
from asg.tensor import Tensor
from asg.types import DType, TensorType

SIGN = 0x8000_0000
INFINITY = 0x7F80_0000
LAST = 0xFFFF_FFFF  # the key of every NaN, and of what is no element


def _u32(number: int) -> Tensor:
    return constant(number, DType.U32)


def ascending_key(x: Tensor) -> Tensor:
    """Return u32 keys that are ordered as `x` is: NaN last, zeros equal."""
    result: Tensor
    if x.dtype.is_narrow:
        whole = DType.I32 if x.dtype.is_signed else DType.U32
        return ascending_key(cast(x, DType.F32 if x.dtype.is_float else whole))
    if x.dtype is DType.U32:
        return x
    if x.dtype is DType.BOOL:
        return cast(x, DType.U32)
    if x.dtype is DType.I32:
        result = bitwise_xor(bitcast(x, dtype=DType.U32), _u32(SIGN))
        return result
    bits = bitcast(x, dtype=DType.U32)
    bits = select(equal(bits, _u32(SIGN)), _u32(0), bits)
    ordered = select(
        greater_equal(bits, _u32(SIGN)), bitwise_not(bits), bitwise_or(bits, _u32(SIGN))
    )
    is_nan = greater(bitwise_and(bits, _u32(SIGN - 1)), _u32(INFINITY))
    result = select(is_nan, _u32(LAST), ordered)
    return result


def _sort_rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    expect(types, 1)
    shape, axis = types[0].shape, attrs["axis"]
    if check_axis(axis, shape) != axis:
        raise ShapeError(f"an axis is given from 0, got {axis}")
    if not 0 <= attrs["count"] <= shape[axis]:
        raise ShapeError(f"axis {axis} of {types[0]} has no {attrs['count']} elements")
    result = (*shape[:axis], attrs["count"], *shape[axis + 1 :])
    return TensorType(result, types[0].dtype), TensorType(result, DType.I32)


def order_of(x: Array, axis: int, *, descending: bool) -> Array:
    """Return the stable order of elements along an axis; NaN counts as the largest."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    size = x.shape[axis]
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    order: Array = size - 1 - np.flip(backwards, axis)
    return order


def _sort_numpy(x: Array, axis: int, descending: bool, count: int) -> tuple[Array, Array]:
    order = np.take(order_of(x, axis, descending=descending), range(count), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int32)


def _sort_expand(attrs: Attrs, x: Tensor) -> tuple[Tensor, Tensor]:
    axis = attrs["axis"]
    rows = to_rows(x, axis)
    key = ascending_key(rows)
    key = bitwise_not(key) if attrs["descending"] else key
    _, order = sort_rows(key, count=attrs["count"])
    found = from_rows(pick(rows, order), x.shape, axis)
    return found, from_rows(order, x.shape, axis)


def _sort_grad(node: Tensor, g: Any, x: Tensor) -> list[Tensor]:
    """Each cotangent goes back to where its element was.

    The whole order, sorted, says at which rank an element stands.
    """
    axis, count = node.attrs["axis"], node.attrs["count"]
    if count == 0:
        return [select(constant(False), x, 0.0)]
    whole = {**node.attrs, "count": x.shape[axis]}
    order = sort(x, **whole)[1]
    _, rank = sort(order, axis=axis, descending=False, count=x.shape[axis])
    ranks = to_rows(rank, axis)
    found = pick(to_rows(g[0], axis), select(less(ranks, count), ranks, 0))
    return [from_rows(select(less(ranks, count), found, 0.0), x.shape, axis)]


sort = Op(
    name="sort",
    doc="The first `count` elements in order along `axis`, and where they stood. Among equals the"
    " one that came first stays first; NaN is larger than all numbers.",
    kind=Composite(_sort_expand),
    shape=_sort_rule,
    numpy=_sort_numpy,
    grad=_sort_grad,
    examples=[
        Example(
            [[3.0, 1.0, 2.0, 1.0]],
            ([1.0, 1.0, 2.0], [1, 3, 2]),
            {"axis": 0, "descending": False, "count": 3},
        ),
        Example(
            [[3.0, float("nan"), float("inf"), 3.0]],
            ([float("nan"), float("inf"), 3.0, 3.0], [1, 2, 0, 3]),
            {"axis": 0, "descending": True, "count": 4},
        ),
        Example(
            [[[2, -1], [-5, 7]]],
            ([[-5, -1], [2, 7]], [[1, 0], [0, 1]]),
            {"axis": 0, "descending": False, "count": 2},
            dtypes=["i32"],
        ),
        Example(
            [[0.0, -0.0, -1.0]],
            ([-1.0, 0.0, 0.0], [2, 0, 1]),
            {"axis": 0, "descending": False, "count": 3},
        ),
    ],
    samples=[
        Sample(["f32[3, 7]"], {"axis": 1, "descending": False, "count": 7}),
        Sample(["f32[5, 2, 3]"], {"axis": 0, "descending": True, "count": 2}),
        Sample(["f32[41]"], {"axis": 0, "descending": True, "count": 41}),
        Sample(["i32[4, 37]"], {"axis": 1, "descending": False, "count": 20}, low=-9, high=9),
        Sample(["u32[2, 5]"], {"axis": 1, "descending": True, "count": 5}, low=0, high=9),
        Sample(["bool[6]"], {"axis": 0, "descending": True, "count": 3}),
        Sample(["f32[3, 1]"], {"axis": 1, "descending": False, "count": 1}),
        Sample(["f32[0, 3]"], {"axis": 0, "descending": False, "count": 0}),
        Sample(["f32[0, 3]"], {"axis": 1, "descending": False, "count": 2}),
    ],
    errors=[
        BadSample(["f32[3]"], "axis 1 is out", {"axis": 1, "descending": False, "count": 3}),
        BadSample(["f32[3]"], "has no 4 elements", {"axis": 0, "descending": False, "count": 4}),
    ],
)


_POSITIONS = not_differentiable("keys and positions have no gradient")


def _sort_rows_rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    expect(types, 1)
    if types[0].dtype is not DType.U32 or types[0].rank == 0:
        raise DTypeError(f"keys must be u32 with rows along the last axis, got {types[0]}")
    *lead, length = types[0].shape
    if not 0 <= attrs["count"] <= length:
        raise ShapeError(f"a row of {types[0]} has no {attrs['count']} elements")
    result = (*lead, attrs["count"])
    return TensorType(result, DType.U32), TensorType(result, DType.I32)


def _sort_rows_numpy(keys: Array, count: int) -> tuple[Array, Array]:
    order = np.argsort(keys, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(keys, order, -1), order.astype(np.int32)


sort_rows = Op(
    name="sort_rows",
    doc="The first `count` of u32 keys in ascending order along the last axis, and where they"
    " stood; equals stay in order.",
    kind=Procedure("sort"),
    shape=_sort_rows_rule,
    numpy=_sort_rows_numpy,
    grad=_POSITIONS,
    examples=[
        Example([[[7, 2, 7, 0]]], ([[0, 2, 7]], [[3, 1, 0]]), {"count": 3}, dtypes=["u32"]),
    ],
    samples=[
        Sample(["u32[3, 7]"], {"count": 7}, low=0, high=5),
        Sample(["u32[2, 3, 17]"], {"count": 11}, low=0, high=2**32 - 1),
        Sample(["u32[1]"], {"count": 1}, low=0),
        Sample(["u32[0, 4]"], {"count": 4}, low=0),
    ],
    errors=[
        BadSample(["i32[3]"], "sort_rows: keys must be u32", {"count": 3}),
        BadSample(["u32[3]"], "has no 4 elements", {"count": 4}),
    ],
)


def _merge_rows_rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    expect(types, 2)
    keys, order = types
    if keys.dtype is not DType.U32 or order.dtype is not DType.I32:
        raise DTypeError(f"keys must be u32 and places i32, got {keys} and {order}")
    if keys.shape != order.shape or keys.rank < 2 or keys.shape[-2] != 2:
        raise ShapeError(f"rows lie in pairs along the axis before the last, got {keys}")
    if not 0 <= attrs["count"] <= 2 * keys.shape[-1]:
        raise ShapeError(f"two rows of {keys} have no {attrs['count']} elements")
    result = (*keys.shape[:-2], attrs["count"])
    return TensorType(result, DType.U32), TensorType(result, DType.I32)


def _merge_rows_numpy(keys: Array, order: Array, count: int) -> tuple[Array, Array]:
    flat = (*keys.shape[:-2], 2 * keys.shape[-1])
    both, places = keys.reshape(flat), order.reshape(flat)
    merged = np.argsort(both, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(both, merged, -1), np.take_along_axis(places, merged, -1)


merge_rows = Op(
    name="merge_rows",
    doc="Two sorted rows `[…, 2, n]` as one, cut to `count`, with the places that go with the"
    " keys; among equals those of the first row come first.",
    kind=Procedure("merge"),
    shape=_merge_rows_rule,
    numpy=_merge_rows_numpy,
    grad=_POSITIONS,
    examples=[
        Example(
            [[[1, 4, 9], [1, 2, 9]], [[0, 1, 2], [3, 4, 5]]],
            ([1, 1, 2, 4, 9], [0, 3, 4, 1, 2]),
            {"count": 5},
            dtypes=["u32", "i32"],
        )
    ],
    samples=[Sample(["u32[3, 2, 1]", "i32[3, 2, 1]"], {"count": 2}, low=0, high=9)],
    errors=[
        BadSample(["u32[2, 3]", "u32[2, 3]"], "keys must be u32 and places i32", {"count": 3}),
        BadSample(["u32[3]", "i32[3]"], "merge_rows: rows lie in pairs", {"count": 3}),
        BadSample(["u32[2, 3]", "i32[2, 3]"], "have no 7 elements", {"count": 7}),
    ],
)

OPS = (sort, sort_rows, merge_rows)
