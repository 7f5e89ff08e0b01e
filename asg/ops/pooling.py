"""The maximum whose gradient goes to the first of equals, as pooling has it."""

from __future__ import annotations

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.op import BadSample, Composite, Example, Op, Sample
from asg.ops.logic import equal, select
from asg.ops.movement import broadcast, reshape
from asg.ops.reduction import argmax, reduce_max
from asg.ops.rules import FLOAT, accept, check_axis, expect
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType, TensorType


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    accept(types[0], FLOAT)
    axis, shape = attrs["axis"], types[0].shape
    if check_axis(axis, shape) != axis:
        raise ShapeError(f"an axis is given from 0, got {axis}")
    if shape[axis] == 0:
        raise ShapeError(f"axis {axis} of {types[0]} is empty, so nothing is the largest")
    return TensorType((*shape[:axis], *shape[axis + 1 :]), types[0].dtype)


def _grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    axis = node.attrs["axis"]
    ones = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    chosen = broadcast(reshape(argmax(x, axis=axis), shape=ones), shape=x.shape)
    place = iota(shape=x.shape, axis=axis, dtype=DType.I32)
    return [select(equal(place, chosen), broadcast(reshape(g, shape=ones), shape=x.shape), 0.0)]


first_max: Op = Op(
    name="first_max",
    doc="Largest element along `axis`; the first among equals, or the first NaN, has the gradient.",
    kind=Composite(lambda attrs, x: reduce_max(x, axes=(attrs["axis"],))),
    shape=_rule,
    numpy=lambda x, axis: np.max(x, axis=axis),
    grad=_grad,
    examples=[Example([[[1.0, 5.0, 5.0], [3.0, -4.0, 0.0]]], [5.0, 3.0], {"axis": 1})],
    samples=[
        Sample(["f32[4, 3, 2]"], {"axis": 1}),
        Sample(["f32[5]"], {"axis": 0}),
        Sample(["f32[0, 3]"], {"axis": 1}),
    ],
    errors=[
        BadSample(["f32[0, 3]"], "first_max: axis 0 of f32[0, 3] is empty", {"axis": 0}),
        BadSample(["i32[3]"], "first_max: needs a float input", {"axis": 0}),
        BadSample(["f32[3]"], "an axis is given from 0", {"axis": -1}),
    ],
)

OPS = (first_max,)
