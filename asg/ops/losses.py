"""The loss of classification: kept whole until gradients are taken.

Its gradient, softmax minus the label, needs the operands only, and is left a factor apart from
the cotangent: so the kernel of the loss can compute it before the cotangent is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Composite, Example, Op, Sample
from asg.ops.arithmetic import add, mul, sub
from asg.ops.elementwise import exp, log
from asg.ops.logic import equal, select
from asg.ops.normalizing import repeat, shifted, softmax
from asg.ops.reduction import reduce_sum
from asg.ops.rules import FLOAT, accept, check_axis, expect
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import TensorType


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 2)
    x, label = types
    accept(x, FLOAT)
    axis = attrs["axis"]
    if check_axis(axis, x.shape) != axis:
        raise ShapeError(f"an axis is given from 0, got {axis}")
    wanted = (*x.shape[:axis], *x.shape[axis + 1 :])
    if label.shape != wanted:
        raise ShapeError(f"labels of {x} along axis {axis} need shape {list(wanted)}, got {label}")
    if not label.dtype.is_integer:
        raise DTypeError(f"labels are integers, got {label}")
    return TensorType(wanted, x.dtype)


def _is_label(x: Tensor, label: Tensor, axis: int) -> Tensor:
    """Tell for every element of `x` whether it is that of its row's label."""
    classes = iota(shape=x.shape, axis=axis, dtype=label.dtype)
    result: Tensor = equal(classes, repeat(label, x.shape, axis))
    return result


def _expand(attrs: Attrs, x: Tensor, label: Tensor) -> Tensor:
    axis, smoothing = attrs["axis"], attrs["smoothing"]
    below = shifted(x, axis)
    log_sum = log(reduce_sum(exp(below), axes=(axis,)))
    # A compare and a sum fuse where a gather would not.
    own = reduce_sum(select(_is_label(x, label, axis), below, 0.0), axes=(axis,))
    loss: Tensor = sub(log_sum, own)
    if smoothing:
        even = sub(log_sum, mul(reduce_sum(below, axes=(axis,)), 1.0 / x.shape[axis]))
        loss = add(mul(loss, 1.0 - smoothing), mul(even, smoothing))
    return loss


def _numpy(x: Array, label: Array, axis: int, smoothing: float) -> Any:
    below = x - x.max(axis, keepdims=True) if x.shape[axis] else x
    log_sum = np.log(np.exp(below).sum(axis))
    column = [-1 if position == axis else 1 for position in range(x.ndim)]
    is_label = np.arange(x.shape[axis]).reshape(column) == np.expand_dims(label, axis)
    loss = log_sum - np.where(is_label, below, 0).sum(axis)
    if not smoothing:
        return loss
    return loss * (1 - smoothing) + (log_sum - below.mean(axis)) * smoothing


def _grad(node: Tensor, g: Tensor, x: Tensor, label: Tensor) -> list[Tensor | None]:
    """dx = (softmax(x) - (1 - e) onehot(label) - e / C) g."""
    axis, smoothing = node.attrs["axis"], node.attrs["smoothing"]
    wanted = select(_is_label(x, label, axis), 1.0 - smoothing, 0.0)
    if smoothing:
        wanted = add(wanted, smoothing / x.shape[axis])
    difference = sub(softmax(x, axis=axis), wanted)
    return [mul(difference, repeat(g, x.shape, axis)), None]


cross_entropy = Op(
    name="cross_entropy",
    doc="`-log softmax(x)` along `axis` at the label of each row, mixed with its mean over the"
    " classes by `smoothing`. Labels must be classes: rows with others are to be masked.",
    kind=Composite(_expand),
    shape=_rule,
    numpy=_numpy,
    grad=_grad,
    examples=[
        Example(
            [[[0.0, 0.0], [0.0, 1.0986123]], [0, 1]],
            [0.6931472, 0.2876821],
            {"axis": 1, "smoothing": 0.0},
            ["f32", "i32"],
        )
    ],
    samples=[
        Sample(["f32[3, 5]", "i32[3]"], {"axis": 1, "smoothing": 0.0}, lows=[-3, 0], highs=[3, 4]),
        Sample(["f32[4, 3, 2]", "u32[4, 2]"], {"axis": 1, "smoothing": 0.1}, lows=[-30, 0]),
        Sample(["f32[7]", "i32[]"], {"axis": 0, "smoothing": 0.0}, lows=[-2, 0], highs=[2, 6]),
        Sample(["f32[0, 4]", "i32[0]"], {"axis": 1, "smoothing": 0.0}),
        Sample(["f32[2, 1]", "i32[2]"], {"axis": 1, "smoothing": 0.5}, highs=[2, 0], lows=[0, 0]),
    ],
    errors=[
        BadSample(
            ["f32[3, 5]", "i32[5]"],
            "cross_entropy: labels of f32[3, 5] along axis 1 need shape [3], got i32[5]",
            {"axis": 1, "smoothing": 0.0},
        ),
        BadSample(["f32[3, 5]", "f32[3]"], "labels are integers", {"axis": 1, "smoothing": 0.0}),
    ],
)
OPS = (cross_entropy,)
