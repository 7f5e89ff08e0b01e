"""Boxes chosen by their scores, one after the other, unless they overlap one that was chosen."""

from __future__ import annotations

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Example, Op, Procedure, Sample, not_differentiable
from asg.ops.rules import expect
from asg.types import DType, TensorType


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    expect(types, 3)
    boxes, order, count = types
    if boxes.dtype is not DType.F32 or order.dtype is not DType.I32 or count.dtype is not DType.I32:
        raise DTypeError(f"takes f32 boxes and i32 places, got {boxes}, {order} and {count}")
    fits = boxes.rank == 3 and boxes.shape[2] == 4 and order.rank == 3
    if not fits or order.shape != (boxes.shape[0], count.shape[-1], order.shape[-1]):
        raise ShapeError(f"boxes [b, n, 4] need an order [b, c, n] and counts [b, c], got {order}")
    if count.shape != order.shape[:2]:
        raise ShapeError(f"{count} are no counts for {order}")
    chosen = (*order.shape[:2], attrs["most"])
    return TensorType(chosen, DType.I32), TensorType(order.shape[:2], DType.I32)


def overlap(first: Array, second: Array) -> float:
    """Return the area that two boxes (low and high corners) share, by the area of both."""
    one = np.float32
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[2:], second[2:])
    width = np.maximum(high - low, one(0))
    shared = width[0] * width[1]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    whole = areas[0] + areas[1] - shared
    return float(shared / whole) if whole > 0 else 0.0


def _numpy(
    boxes: Array, order: Array, count: Array, most: int, threshold: float
) -> tuple[Array, Array]:
    chosen = np.zeros((*order.shape[:2], most), np.int32)
    number = np.zeros(order.shape[:2], np.int32)
    for batch, row in np.ndindex(*order.shape[:2]):
        kept: list[int] = []
        for place in order[batch, row, : count[batch, row]]:
            if len(kept) == most:
                break
            box = boxes[batch, place]
            if all(overlap(box, boxes[batch, each]) <= threshold for each in kept):
                kept.append(int(place))
        chosen[batch, row, : len(kept)] = kept
        number[batch, row] = len(kept)
    return chosen, number


suppress_rows = Op(
    name="suppress_rows",
    doc="For rows `order[b, c]` of boxes `[b, n, 4]` (low and high corners), of which `count`"
    " matter: the first `most` that share no more than `threshold` of their area with one taken"
    " before, and how many there are; 0 behind these.",
    kind=Procedure("suppress"),
    shape=_rule,
    numpy=_numpy,
    grad=not_differentiable("a choice has no gradient"),
    examples=[
        Example(
            [
                [[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.8], [5.0, 5.0, 6.0, 6.0]]],
                [[[1, 0, 2], [0, 1, 2]]],
                [[3, 2]],
            ],
            ([[[1, 2], [0, 0]]], [[2, 1]]),
            {"most": 2, "threshold": 0.5},
            dtypes=["f32", "i32", "i32"],
        )
    ],
    samples=[
        Sample(
            ["f32[2, 7, 4]", "i32[2, 3, 7]", "i32[2, 3]"],
            {"most": 4, "threshold": 0.25},
            lows=[0, 0, 0],
            highs=[5, 6, 7],
        ),
    ],
    errors=[
        BadSample(
            ["f32[2, 7, 4]", "f32[2, 3, 7]", "i32[2, 3]"],
            "suppress_rows: takes f32 boxes",
            {"most": 4, "threshold": 0.5},
        ),
        BadSample(
            ["f32[2, 7]", "i32[2, 3, 7]", "i32[2, 3]"],
            "suppress_rows: boxes [b, n, 4] need",
            {"most": 4, "threshold": 0.5},
        ),
    ],
)

OPS = (suppress_rows,)
