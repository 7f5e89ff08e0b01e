"""Operators whose results are as long as the numbers decide: cut on the host, at the end only."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Typed
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

INT64 = np.dtype(np.int64)


@converter("NonZero", since=9)
def nonzero(call: Call) -> Tensor:
    """Coordinates [axes, count] of the elements that are not zero."""
    return F.nonzero(call[0], columns=True)


@converter("Compress", since=9)
def compress(call: Call) -> Tensor:
    """Slices where a condition holds."""
    x, condition = call[0], call[1]
    known = call.constant(1)
    axis = call.get_int("axis") if call.has_attribute("axis") else None
    if known is not None:  # the length is known
        places = np.flatnonzero(known)
        flat = F.reshape(x, (-1,)) if axis is None else x
        return F.take(flat, call.constant_tensor(places, DType.I32), axis or 0)
    return F.compress(x, condition, axis)


@converter("Unique", since=11)
def unique(call: Call) -> list[Tensor | Typed]:
    """The different elements, their first places, which each one is, and how often they occur."""
    if call.has_attribute("axis") and call[0].ndim > 1:
        raise call.unsupported("slices are compared along an axis", "elements can be, without axis")
    found, *rest = F.unique(call[0], sorted=bool(call.get_int("sorted", 1)))
    return [found, *(Typed(each, INT64) for each in rest)]


@converter("NonMaxSuppression", since=10, statics=(2, 3, 4))
def non_max_suppression(call: Call) -> Any:
    """Which boxes are kept, [count, 3]: batch, class and box."""
    most = int(call.static(2, "the number of boxes").reshape(())) if call.has(2) else 0
    overlap = _number(call, 3, "the overlap")
    score = _number(call, 4, "the score")
    return Typed(
        F.non_max_suppression(
            call[0],
            call[1],
            most,
            0.0 if overlap is None else overlap,
            score,
            bool(call.get_int("center_point_box", 0)),
        ),
        INT64,
    )


def _number(call: Call, position: int, what: str) -> float | None:
    return float(call.static(position, what).reshape(())) if call.has(position) else None
