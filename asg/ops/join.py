"""Ops that put tensors side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Example, Join, Op, Sample
from asg.ops.movement import reshape, slice_
from asg.ops.rules import check_axis
from asg.tensor import Tensor
from asg.types import TensorType


def _same_dtype(types: Sequence[TensorType]) -> None:
    if not types:
        raise ShapeError("takes at least 1 operand, got 0")
    for other in types[1:]:
        if other.dtype is not types[0].dtype:
            raise DTypeError(f"operands differ in dtype: {types[0]} and {other}")


def _concatenate_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    _same_dtype(types)
    first = types[0]
    axis = check_axis(attrs["axis"], first.shape)
    for other in types[1:]:
        if _without(other.shape, axis) != _without(first.shape, axis) or other.rank != first.rank:
            raise ShapeError(f"{first} and {other} differ outside axis {axis}")
    total = sum(type_.shape[axis] for type_ in types)
    return TensorType((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _concatenate_starts(attrs: Attrs, types: tuple[TensorType, ...]) -> tuple[int, ...]:
    return tuple(accumulate((type_.shape[attrs["axis"]] for type_ in types[:-1]), initial=0))


def _concatenate_grad(node: Tensor, g: Tensor, *operands: Tensor) -> list[Tensor]:
    axis = node.attrs["axis"]
    parts: list[Tensor] = []
    start = 0
    for operand in operands:
        stop = start + operand.shape[axis]
        bounds = {axis: (start, stop)}
        ranges = [bounds.get(other, (0, size)) for other, size in enumerate(g.shape)]
        starts, stops = tuple(low for low, _ in ranges), tuple(high for _, high in ranges)
        parts.append(slice_(g, starts=starts, stops=stops, steps=(1,) * g.ndim))
        start = stop
    return parts


concatenate = Op(
    name="concatenate",
    doc="Tensors one after the other along `axis`.",
    kind=Join(axis=lambda attrs: int(attrs["axis"]), starts=_concatenate_starts),
    shape=_concatenate_rule,
    numpy=lambda *arrays, axis: np.concatenate(arrays, axis),
    grad=_concatenate_grad,
    examples=[Example([[1.0], [2.0, 3.0]], [1.0, 2.0, 3.0], {"axis": 0})],
    samples=[
        Sample(["f32[2, 3]", "f32[2, 1]", "f32[2, 4]"], {"axis": 1}),
        Sample(["i32[2, 3]", "i32[0, 3]"], {"axis": 0}),
        Sample(["bool[2]"], {"axis": 0}),
    ],
    errors=[
        BadSample(
            ["f32[2, 3]", "f32[3, 3]"],
            "concatenate: f32[2, 3] and f32[3, 3] differ outside axis 1",
            {"axis": 1},
        ),
        BadSample(["f32[2]", "i32[2]"], "operands differ in dtype: f32[2] and i32[2]", {"axis": 0}),
        BadSample(["f32[2]", "f32[2]"], "axis 1 is out of range", {"axis": 1}),
    ],
)


def _pack_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    _same_dtype(types)
    offsets, total = attrs["offsets"], attrs["total"]
    if len(offsets) != len(types):
        raise ShapeError(f"{len(types)} operands need as many offsets, got {len(offsets)}")
    end = 0
    for offset, type_ in zip(offsets, types, strict=True):
        if offset < end:
            raise ShapeError(f"offset {offset} lies before {end}, where the operand before ends")
        end = offset + type_.size
    if end > total:
        raise ShapeError(f"operands end at {end}, after the total of {total}")
    return TensorType((total,), types[0].dtype)


def _pack_numpy(*arrays: Array, offsets: Sequence[int], total: int) -> Array:
    result = np.zeros(total, arrays[0].dtype)
    for array, offset in zip(arrays, offsets, strict=True):
        result[offset : offset + array.size] = array.reshape(-1)
    return result


def _pack_grad(node: Tensor, g: Tensor, *operands: Tensor) -> list[Tensor]:
    parts: list[Tensor] = []
    for offset, operand in zip(node.attrs["offsets"], operands, strict=True):
        stop = offset + math.prod(operand.shape)
        flat = slice_(g, starts=(offset,), stops=(stop,), steps=(1,))
        parts.append(reshape(flat, shape=operand.shape))
    return parts


pack = Op(
    name="pack",
    doc="The elements of each operand at its offset in a vector of `total` elements, zeros between."
    " Laid out so, many tensors are updated by one kernel.",
    kind=Join(
        axis=lambda attrs: 0,
        starts=lambda attrs, types: tuple(attrs["offsets"]),
        flat=True,
    ),
    shape=_pack_rule,
    numpy=_pack_numpy,
    grad=_pack_grad,
    examples=[
        Example([[[1.0, 2.0]], [3.0]], [1.0, 2.0, 0.0, 3.0, 0.0], {"offsets": (0, 3), "total": 5})
    ],
    samples=[
        Sample(["f32[2, 3]", "f32[]", "f32[4]"], {"offsets": (0, 8, 12), "total": 16}),
        Sample(["i32[3]"], {"offsets": (2,), "total": 5}),
    ],
    errors=[
        BadSample(["f32[3]", "f32[2]"], "pack: offset 2 lies before 3",
                  {"offsets": (0, 2), "total": 9}),
        BadSample(["f32[3]"], "operands end at 4, after the total of 3",
                  {"offsets": (1,), "total": 3}),
        BadSample(["f32[3]"], "1 operands need as many offsets, got 0",
                  {"offsets": (), "total": 3}),
    ],
)  # fmt: skip

OPS = (concatenate, pack)
