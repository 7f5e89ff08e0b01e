"""Softmax, its logarithm and standardisation: kept whole until gradients are taken.

The gradients need little but the result, so that little is kept for the backward pass, and forward
and backward become one row kernel each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Composite, Example, Op, Sample
from asg.ops.arithmetic import add, div, maximum, mul, sub
from asg.ops.convert import stop_gradient
from asg.ops.elementwise import exp, log, rsqrt
from asg.ops.movement import broadcast, reshape
from asg.ops.reduction import reduce_max, reduce_sum
from asg.ops.rules import FLOAT, accept, check_axes, check_axis, expect
from asg.tensor import Tensor
from asg.types import Shape, TensorType


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    accept(types[0], FLOAT)
    if check_axis(attrs["axis"], types[0].shape) != attrs["axis"]:
        raise ShapeError(f"an axis is given from 0, got {attrs['axis']}")
    return types[0]


def repeat(per_row: Tensor, shape: Shape, axis: int) -> Tensor:
    """Repeat what has one value per row along `axis`, so that it takes `shape`."""
    ones = (*shape[:axis], 1, *shape[axis + 1 :])
    result: Tensor = broadcast(reshape(per_row, shape=ones), shape=shape)
    return result


def _kept(reduce: Op, x: Tensor, axis: int) -> Tensor:
    """Reduce along `axis` and repeat the result along it."""
    return repeat(reduce(x, axes=(axis,)), x.shape, axis)


def shifted(x: Tensor, axis: int) -> Tensor:
    """Subtract the largest element, so that exp can't overflow."""
    result: Tensor = x if x.shape[axis] == 0 else sub(x, _kept(reduce_max, x, axis))
    return result


def _softmax(attrs: Attrs, x: Tensor) -> Tensor:
    powers = exp(shifted(x, attrs["axis"]))
    result: Tensor = div(powers, _kept(reduce_sum, powers, attrs["axis"]))
    return result


def _softmax_numpy(x: Array, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _softmax_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor | None]:
    """dx = y * (g - sum(g * y))."""
    return [mul(node, sub(g, _kept(reduce_sum, mul(g, node), node.attrs["axis"])))]


softmax = Op(
    name="softmax",
    doc="`exp(x) / sum(exp(x))` along `axis`; the largest element is subtracted first.",
    kind=Composite(_softmax),
    shape=_rule,
    numpy=_softmax_numpy,
    grad=_softmax_grad,
    examples=[Example([[0.0, 0.0]], [0.5, 0.5], {"axis": 0})],
    samples=[
        Sample(["f32[3, 5]"], {"axis": 1}),
        Sample(["f32[4, 3, 2]"], {"axis": 1}, low=-30, high=30),
        Sample(["f32[7]"], {"axis": 0}),
        Sample(["f32[2, 0]"], {"axis": 1}),
        Sample(["f32[1, 1]"], {"axis": 0}),
    ],
    errors=[
        BadSample(["i32[3]"], "softmax", {"axis": 0}),
        BadSample(["f32[3]"], "softmax: axis 1 is out of range", {"axis": 1}),
    ],
)


def _log_softmax(attrs: Attrs, x: Tensor) -> Tensor:
    below = shifted(x, attrs["axis"])
    total = reduce_sum(exp(below), axes=(attrs["axis"],))
    result: Tensor = sub(below, repeat(log(total), x.shape, attrs["axis"]))
    return result


def _log_softmax_numpy(x: Array, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def _log_softmax_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor | None]:
    """dx = g - exp(y) * sum(g)."""
    return [sub(g, mul(exp(node), _kept(reduce_sum, g, node.attrs["axis"])))]


log_softmax = Op(
    name="log_softmax",
    doc="`x - log(sum(exp(x)))` along `axis`; exact where softmax itself would underflow.",
    kind=Composite(_log_softmax),
    shape=_rule,
    numpy=_log_softmax_numpy,
    grad=_log_softmax_grad,
    examples=[Example([[0.0, 0.0]], [-0.6931472, -0.6931472], {"axis": 0})],
    samples=[
        Sample(["f32[3, 5]"], {"axis": 1}),
        Sample(["f32[4, 3, 2]"], {"axis": 1}, low=-30, high=30),
        Sample(["f32[2, 0]"], {"axis": 1}),
    ],
    errors=[
        BadSample(["i32[3]"], "log_softmax", {"axis": 0}),
        BadSample(["f32[3]"], "log_softmax: axis 1 is out of range", {"axis": 1}),
    ],
)


def mean_along(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the mean; the axes are kept as 1."""
    count = math.prod(x.shape[axis] for axis in axes)
    ones = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    result: Tensor = mul(reshape(reduce_sum(x, axes=axes), shape=ones), 1.0 / count)
    return result


def moments(
    x: Tensor, axes: tuple[int, ...], *, is_expansion: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean, `x` less its mean, and the variance; the axes are kept as 1."""
    mean, centred, square = raw_moments(x, axes, is_expansion=is_expansion)
    return mean, centred, maximum(square, 0.0)


def raw_moments(
    x: Tensor, axes: tuple[int, ...], *, is_expansion: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `moments` does, with a variance that rounding may bring below 0.

    The mean of large numbers is off by some of their roundings, which may be more than `x`
    spreads. So what it is off by is the mean of `x` less the first mean, and is taken off again.
    Gradients need not flow through the first mean, since any number would do in its place; an
    expansion comes when gradients are taken already.
    """
    first = mean_along(x, axes) if is_expansion else stop_gradient(mean_along(x, axes))
    near = sub(x, broadcast(first, shape=x.shape))
    rest = mean_along(near, axes)
    square = sub(mean_along(mul(near, near), axes), mul(rest, rest))
    centred: Tensor = sub(near, broadcast(rest, shape=x.shape))
    return add(first, rest), centred, square


def _standardize(attrs: Attrs, x: Tensor) -> Tensor:
    if x.size == 0:
        return x
    _, centred, variance = moments(x, attrs["axes"], is_expansion=True)
    result: Tensor = mul(centred, broadcast(rsqrt(add(variance, attrs["eps"])), shape=x.shape))
    return result


def _standardize_numpy(x: Array, axes: tuple[int, ...], eps: float) -> Any:
    if x.size == 0:
        return x
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axes, keepdims=True) + x.dtype.type(eps))


def _standardize_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor | None]:
    """dx = (g - mean(g) - y * mean(g * y)) / sqrt(var + eps); the variance is that of the forward
    pass, since equal nodes are one."""
    if x.size == 0:
        return [g]
    axes = node.attrs["axes"]
    _, _, variance = moments(x, axes)
    without_mean = sub(g, broadcast(mean_along(g, axes), shape=x.shape))
    along = mean_along(mul(g, node), axes)
    rest = sub(without_mean, mul(node, broadcast(along, shape=x.shape)))
    return [mul(rest, broadcast(rsqrt(add(variance, node.attrs["eps"])), shape=x.shape))]


def _standardize_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    accept(types[0], FLOAT)
    if check_axes(attrs["axes"], types[0].shape) != tuple(attrs["axes"]):
        raise ShapeError(f"axes ascend from 0, got {attrs['axes']}")
    return types[0]


standardize = Op(
    name="standardize",
    doc="`(x - mean) / sqrt(var + eps)` with the mean and the variance along `axes`.",
    kind=Composite(_standardize),
    shape=_standardize_rule,
    numpy=_standardize_numpy,
    grad=_standardize_grad,
    examples=[
        Example([[[1.0, 3.0], [5.0, 5.0]]], [[-0.5, 0.5], [0.0, 0.0]], {"axes": (1,), "eps": 3.0})
    ],
    samples=[
        Sample(["f32[3, 5]"], {"axes": (1,), "eps": 1e-3}),
        Sample(["f32[4, 3, 2]"], {"axes": (0, 2), "eps": 1e-5}, low=-30, high=30),
        Sample(["f32[7]"], {"axes": (0,), "eps": 0.1}),
        Sample(["f32[2, 0]"], {"axes": (1,), "eps": 1e-5}),
    ],
    errors=[
        BadSample(["i32[3]"], "standardize: needs a float input", {"axes": (0,), "eps": 0.1}),
        BadSample(["f32[3]"], "standardize: axis 1 is out of range", {"axes": (1,), "eps": 0.1}),
        BadSample(["f32[3]"], "axes ascend from 0", {"axes": (-1,), "eps": 0.1}),
    ],
)

OPS = (softmax, log_softmax, standardize)
