"""Reductions along axes, which disappear from the shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.op import (
    ArgReduction,
    Array,
    BadSample,
    Combine,
    Example,
    Op,
    Reduction,
    Sample,
    ShapeRule,
    not_differentiable,
)
from asg.ops.convert import cast
from asg.ops.logic import equal, select
from asg.ops.movement import broadcast, permute, reshape
from asg.ops.rules import BOOL, NUMBER, Accepts, accept, check_axes, check_axis, expect
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType


def _rule(accepts: Accepts, *, has_identity: bool = True) -> ShapeRule:
    def rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
        expect(types, 1)
        accept(types[0], accepts)
        shape = types[0].shape
        axes = attrs["axes"]
        if check_axes(axes, shape) != tuple(axes):
            raise ShapeError(f"axes are listed in ascending order from 0, got {tuple(axes)}")
        for axis in axes:
            if shape[axis] == 0 and not has_identity:
                raise ShapeError(f"axis {axis} of {types[0]} is empty, so nothing can be chosen")
        kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
        return TensorType(kept, types[0].dtype)

    return rule


def spread(reduced: Tensor, axes: Sequence[int], shape: Shape) -> Tensor:
    """Return a reduction's result repeated along the axes that it lost."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    result: Tensor = broadcast(reshape(reduced, shape=kept), shape=shape)
    return result


def _sum_numpy(x: Array, axes: Sequence[int]) -> Array:
    result: Array = np.sum(x, axis=tuple(axes), dtype=x.dtype)
    return result


# Every element counts once: d sum(x) = sum(dx)
reduce_sum = Op(
    name="sum",
    doc="Sum along `axes`; 0 where there is nothing.",
    kind=Reduction(Combine.SUM),
    shape=_rule(NUMBER),
    numpy=_sum_numpy,
    grad=lambda node, g, x: [spread(g, node.attrs["axes"], x.shape)],
    examples=[
        Example([[[1.0, 2.0], [3.0, 4.0]]], [4.0, 6.0], {"axes": (0,)}),
        Example([[[1.0, 2.0], [3.0, 4.0]]], 10.0, {"axes": (0, 1)}),
    ],
    samples=[
        Sample(["f32[4, 3, 2]"], {"axes": (0, 2)}),
        Sample(["f32[5]"], {"axes": (0,)}),
        Sample(["f32[3]"], {"axes": ()}),
        Sample(["i32[4, 3]"], {"axes": (1,)}, low=-9, high=9),
        Sample(["f32[0, 3]"], {"axes": (0,)}),
    ],
    errors=[
        BadSample(["f32[4]"], "sum: axis 1 is out of range for [4], which has 1", {"axes": (1,)}),
        BadSample(["bool[4]"], "sum: needs a number as input, got bool[4]", {"axes": (0,)}),
        BadSample(["f32[4, 3]"], "sum: axes are listed in ascending order", {"axes": (1, 0)}),
    ],
)


def _prod_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """d prod(x) = sum over i of (product of all x_j with j != i) dx_i.

    The products of the others are computed as such, n² factors in all, never as prod(x) / x_i:
    zeros are no special case, and the formula can be differentiated again.
    """
    axes = node.attrs["axes"]
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    order = (*kept, *axes)
    lead = tuple(x.shape[axis] for axis in kept)
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    rows = reshape(permute(x, axes=order), shape=(*lead, 1, count))
    square = broadcast(rows, shape=(*lead, count, count))
    here = equal(
        iota(shape=(count, count), axis=0, dtype=DType.I32),
        iota(shape=(count, count), axis=1, dtype=DType.I32),
    )
    others = reduce_prod(select(here, 1.0, square), axes=(len(lead) + 1,))
    back = tuple(order.index(axis) for axis in range(x.ndim))
    shaped = reshape(others, shape=tuple(x.shape[axis] for axis in order))
    return [spread(g, axes, x.shape) * permute(shaped, axes=back)]


def _prod_numpy(x: Array, axes: Sequence[int]) -> Array:
    result: Array = np.prod(x, axis=tuple(axes), dtype=x.dtype)
    return result


reduce_prod = Op(
    name="prod",
    doc="Product along `axes`; 1 where there is nothing.",
    kind=Reduction(Combine.PROD),
    shape=_rule(NUMBER),
    numpy=_prod_numpy,
    grad=_prod_grad,
    examples=[Example([[[1.0, 2.0], [3.0, 4.0]]], [2.0, 12.0], {"axes": (1,)})],
    samples=[
        Sample(["f32[4, 3, 2]"], {"axes": (0, 2)}),
        Sample(["f32[5]"], {"axes": (0,)}),
        Sample(["i32[4, 3]"], {"axes": (1,)}, low=-9, high=9),
        Sample(["f32[0, 3]"], {"axes": (0,)}),
    ],
    errors=[BadSample(["bool[4]"], "prod: needs a number as input", {"axes": (0,)})],
)


def _extreme_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """The elements that equal the extreme share its gradient equally."""
    axes = node.attrs["axes"]
    chosen = equal(x, spread(node, axes, x.shape))
    count = reduce_sum(cast(chosen, DType.F32), axes=axes)
    return [select(chosen, spread(g / count, axes, x.shape), 0.0)]


reduce_max = Op(
    name="max",
    doc="Largest element along `axes`; NaN where there is one. Ties share the gradient.",
    kind=Reduction(Combine.MAX),
    shape=_rule(NUMBER, has_identity=False),
    numpy=lambda x, axes: np.max(x, axis=tuple(axes)),
    grad=_extreme_grad,
    examples=[Example([[[1.0, 5.0], [3.0, -4.0]]], [5.0, 3.0], {"axes": (1,)})],
    samples=[
        Sample(["f32[4, 3, 2]"], {"axes": (0, 2)}),
        Sample(["f32[5]"], {"axes": (0,)}),
        Sample(["u32[4, 3]"], {"axes": (1,)}, low=0, high=9),
        Sample(["f32[0, 3]"], {"axes": (1,)}),
    ],
    errors=[
        BadSample(["f32[0, 3]"], "max: axis 0 of f32[0, 3] is empty", {"axes": (0,)}),
        BadSample(["bool[3]"], "max: needs a number as input", {"axes": (0,)}),
    ],
)

reduce_min = Op(
    name="min",
    doc="Smallest element along `axes`; NaN where there is one. Ties share the gradient.",
    kind=Reduction(Combine.MIN),
    shape=_rule(NUMBER, has_identity=False),
    numpy=lambda x, axes: np.min(x, axis=tuple(axes)),
    grad=_extreme_grad,
    examples=[Example([[[1.0, 5.0], [3.0, -4.0]]], [1.0, -4.0], {"axes": (1,)})],
    samples=[
        Sample(["f32[4, 3, 2]"], {"axes": (0, 2)}),
        Sample(["i32[4, 3]"], {"axes": (1,)}, low=-9, high=9),
    ],
    errors=[BadSample(["f32[0, 3]"], "min: axis 0 of f32[0, 3] is empty", {"axes": (0,)})],
)

_TRUTH = not_differentiable("a truth value has no gradient")

reduce_any = Op(
    name="any",
    doc="Whether one element along `axes` is true.",
    kind=Reduction(Combine.ANY),
    shape=_rule(BOOL),
    numpy=lambda x, axes: np.any(x, axis=tuple(axes)),
    grad=_TRUTH,
    examples=[
        Example([[[True, False], [False, False]]], [True, False], {"axes": (1,)}, dtypes=["bool"])
    ],
    samples=[Sample(["bool[4, 3]"], {"axes": (0, 1)}), Sample(["bool[0, 3]"], {"axes": (0,)})],
    errors=[BadSample(["f32[3]"], "any: needs a bool input, got f32[3]", {"axes": (0,)})],
)

reduce_all = Op(
    name="all",
    doc="Whether every element along `axes` is true.",
    kind=Reduction(Combine.ALL),
    shape=_rule(BOOL),
    numpy=lambda x, axes: np.all(x, axis=tuple(axes)),
    grad=_TRUTH,
    examples=[
        Example([[[True, True], [True, False]]], [True, False], {"axes": (1,)}, dtypes=["bool"])
    ],
    samples=[Sample(["bool[4, 3]"], {"axes": (1,)}), Sample(["bool[0, 3]"], {"axes": (0,)})],
    errors=[BadSample(["i32[3]"], "all: needs a bool input, got i32[3]", {"axes": (0,)})],
)


def _arg_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    accept(types[0], NUMBER)
    axis, shape = check_axis(attrs["axis"], types[0].shape), types[0].shape
    if axis != attrs["axis"]:
        raise ShapeError(f"an axis is given from 0, got {attrs['axis']}")
    if shape[axis] == 0:
        raise ShapeError(f"axis {axis} of {types[0]} is empty, so nothing can be chosen")
    return TensorType((*shape[:axis], *shape[axis + 1 :]), DType.I32)


def _arg_numpy(function: Any) -> Any:
    return lambda x, axis: function(x, axis=axis).astype(np.int32)


_POSITION = not_differentiable("a position has no gradient")

argmax = Op(
    name="argmax",
    doc="Position of the largest element along `axis`: the first among equals, or the first NaN.",
    kind=ArgReduction(largest=True),
    shape=_arg_rule,
    numpy=_arg_numpy(np.argmax),
    grad=_POSITION,
    examples=[
        Example([[[1.0, 5.0, 5.0], [3.0, float("nan"), 9.0]]], [1, 1], {"axis": 1}),
    ],
    samples=[Sample(["f32[4, 3]"], {"axis": 0}), Sample(["i32[9]"], {"axis": 0})],
    errors=[
        BadSample(["f32[3, 0]"], "argmax: axis 1 of f32[3, 0] is empty", {"axis": 1}),
        BadSample(["bool[3]"], "argmax: needs a number as input", {"axis": 0}),
    ],
)

argmin = Op(
    name="argmin",
    doc="Position of the smallest element along `axis`: the first among equals, or the first NaN.",
    kind=ArgReduction(largest=False),
    shape=_arg_rule,
    numpy=_arg_numpy(np.argmin),
    grad=_POSITION,
    examples=[Example([[[1.0, 5.0, 1.0], [3.0, -4.0, 9.0]]], [0, 1], {"axis": 1})],
    samples=[Sample(["f32[4, 3]"], {"axis": 1}), Sample(["u32[9]"], {"axis": 0}, low=0)],
    errors=[BadSample(["f32[3]"], "argmin: axis 1 is out of range", {"axis": 1})],
)

OPS = (
    reduce_sum, reduce_prod, reduce_max, reduce_min, reduce_any, reduce_all, argmax, argmin,
)  # fmt: skip
