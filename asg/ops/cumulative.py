"""Running sums, products and extremes along an axis, and first-order linear recurrences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import (
    Array,
    BadSample,
    Combine,
    Composite,
    Example,
    Op,
    Procedure,
    Sample,
    ShapeRule,
    no_gradient,
)
from asg.ops.arithmetic import mul
from asg.ops.bits import bitwise_or
from asg.ops.logic import equal, isnan, select
from asg.ops.movement import flip, pad
from asg.ops.rows import from_rows, to_rows
from asg.ops.rules import FLOAT, NUMBER, Accepts, accept, check_axis, expect, same_type
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType, TensorType


def _rule(count: int, accepts: Accepts) -> ShapeRule:
    def rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
        expect(types, count)
        accept(types[0], accepts)
        same_type(types)
        if check_axis(attrs["axis"], types[0].shape) != attrs["axis"]:
            raise ShapeError(f"an axis is given from 0, got {attrs['axis']}")
        return types[0]

    return rule


def _rows_rule(count: int, accepts: Accepts) -> ShapeRule:
    def rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
        expect(types, count)
        accept(types[0], accepts)
        same_type(types)
        if types[0].rank == 0:
            raise DTypeError(f"rows lie along the last axis, {types[0]} has none")
        return types[0]

    return rule


def _spelt_out(rows_op: Callable[..., Any]) -> Composite:
    """Return the kind of an op along an axis that is `rows_op` along the last one."""

    def expand(attrs: Attrs, *operands: Tensor) -> Tensor:
        axis = attrs["axis"]
        done = rows_op(*(to_rows(each, axis) for each in operands))
        return from_rows(done, operands[0].shape, axis)

    return Composite(expand)


def shifted(x: Tensor, axis: int, steps: int, fill: float) -> Tensor:
    """Return `x` moved along an axis by `steps`, the way in filled with `fill`."""
    low = tuple(steps if place == axis else 0 for place in range(x.ndim))
    high = tuple(-step for step in low)
    number = float(fill) if x.dtype.is_float else int(fill)
    result: Tensor = pad(x, low=low, high=high, fill=number)
    return result


def _cumsum_numpy(x: Array, axis: int) -> Array:
    result: Array = np.cumsum(x, axis, dtype=x.dtype)
    return result


def _cumprod_numpy(x: Array, axis: int) -> Array:
    result: Array = np.cumprod(x, axis, dtype=x.dtype)
    return result


_SCAN_SAMPLES = [Sample(["f32[3, 7]"]), Sample(["i32[2, 3, 5]"], low=-9, high=9)]
_SCAN_SAMPLES += [Sample(["u32[1]"], low=0), Sample(["f32[2, 0]"]), Sample(["f32[0, 3]"])]
_SPELT_ALREADY = no_gradient("gradients are taken before running sums are laid out in rows")


def _scan(name: str, combine: Combine, numpy: Callable[..., Any], row: list[float]) -> Op:
    return Op(
        name=name,
        doc=f"`{combine.value}` of every element of a row (the last axis) with those before it.",
        kind=Procedure("scan", combine),
        shape=_rows_rule(1, NUMBER),
        numpy=lambda x: numpy(x, x.ndim - 1),
        grad=_SPELT_ALREADY,
        examples=[Example([[[2.0, -1.0, 3.0]]], [row])],
        samples=_SCAN_SAMPLES,
        errors=[
            BadSample(["bool[3]"], f"{name}: needs a number as input"),
            BadSample(["f32[]"], f"{name}: rows lie along the last axis"),
        ],
    )


scan_sum = _scan("scan_sum", Combine.SUM, _cumsum_numpy, [2.0, 1.0, 4.0])
scan_prod = _scan("scan_prod", Combine.PROD, _cumprod_numpy, [2.0, -2.0, -6.0])
scan_max = _scan("scan_max", Combine.MAX, np.maximum.accumulate, [2.0, 2.0, 3.0])
scan_min = _scan("scan_min", Combine.MIN, np.minimum.accumulate, [2.0, -1.0, -1.0])


def _recur_numpy(a: Array, b: Array) -> Array:
    result = np.array(b)
    for k in range(1, b.shape[-1]):
        result[..., k] += a[..., k] * result[..., k - 1]
    return result


recur_rows = Op(
    name="recur_rows",
    doc="The y with y[0] = b[0] and y[k] = a[k] y[k - 1] + b[k] along the last axis.",
    kind=Procedure("recur", Combine.SUM),
    shape=_rows_rule(2, FLOAT),
    numpy=_recur_numpy,
    grad=_SPELT_ALREADY,
    examples=[Example([[[9.0, 2.0, -1.0]], [[1.0, 3.0, 4.0]]], [[1.0, 5.0, -1.0]])],
    samples=[
        Sample(["f32[3, 7]", "f32[3, 7]"]),
        Sample(["f32[1]", "f32[1]"]),
        Sample(["f32[2, 0]", "f32[2, 0]"]),
    ],
    errors=[
        BadSample(["f32[3]", "f32[4]"], "recur_rows: operands differ in shape"),
        BadSample(["i32[3]", "i32[3]"], "recur_rows: needs a float input"),
    ],
)


def _cumsum_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """An element counts in every sum from its own on."""
    axis = node.attrs["axis"]
    return [flip(cumsum(flip(g, axes=(axis,)), axis=axis), axes=(axis,))]


_AXIS_ERRORS = [
    BadSample(["f32[3]"], "axis 1 is out of range", {"axis": 1}),
    BadSample(["bool[3]"], "needs a number as input", {"axis": 0}),
]
_AXIS_SAMPLES = [
    Sample(["f32[3, 7]"], {"axis": 1}),
    Sample(["f32[5, 2, 3]"], {"axis": 0}),
    Sample(["i32[4, 3]"], {"axis": 0}, low=-9, high=9),
    Sample(["u32[37]"], {"axis": 0}, low=0, high=9),
    Sample(["f32[1]"], {"axis": 0}),
    Sample(["f32[0, 3]"], {"axis": 0}),
]

cumsum = Op(
    name="cumsum",
    doc="Sum of every element along `axis` with those before it.",
    kind=Composite(_spelt_out(scan_sum).expand, is_sum=True),
    shape=_rule(1, NUMBER),
    numpy=_cumsum_numpy,
    grad=_cumsum_grad,
    examples=[Example([[[1.0, 2.0], [3.0, 4.0]]], [[1.0, 2.0], [4.0, 6.0]], {"axis": 0})],
    samples=_AXIS_SAMPLES,
    errors=_AXIS_ERRORS,
)


def _reversed_recurrence(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Return y with y[k] = b[k] + a[k + 1] y[k + 1]."""
    ahead = flip(shifted(a, axis, -1, 0), axes=(axis,))
    result: Tensor = flip(linear_recurrence(ahead, flip(b, axes=(axis,)), axis=axis), axes=(axis,))
    return result


def _cumprod_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """dx[i] = (x[0] … x[i - 1]) times the sum over k >= i of g[k] x[i + 1] … x[k].

    The sum is a recurrence from the end. Nothing is divided, so zeros are no special case.
    """
    axis = node.attrs["axis"]
    before = cumprod(shifted(x, axis, 1, 1), axis=axis)
    return [mul(before, _reversed_recurrence(x, g, axis))]


cumprod = Op(
    name="cumprod",
    doc="Product of every element along `axis` with those before it.",
    kind=_spelt_out(scan_prod),
    shape=_rule(1, NUMBER),
    numpy=_cumprod_numpy,
    grad=_cumprod_grad,
    examples=[Example([[2.0, 0.0, 3.0]], [2.0, 0.0, 0.0], {"axis": 0})],
    samples=_AXIS_SAMPLES,
    errors=_AXIS_ERRORS,
)


def _recurrence_numpy(a: Array, b: Array, axis: int) -> Array:
    moved = _recur_numpy(np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1))
    return np.moveaxis(moved, -1, axis)


def _recurrence_grad(node: Tensor, g: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    axis = node.attrs["axis"]
    back = _reversed_recurrence(a, g, axis)
    return [mul(back, shifted(node, axis, 1, 0)), back]


linear_recurrence = Op(
    name="linear_recurrence",
    doc="The y along `axis` with y[0] = b[0] and y[k] = a[k] y[k - 1] + b[k].",
    kind=Composite(_spelt_out(recur_rows).expand, is_sum=True),
    shape=_rule(2, FLOAT),
    numpy=_recurrence_numpy,
    grad=_recurrence_grad,
    examples=[
        Example([[9.0, 2.0, -1.0], [1.0, 3.0, 4.0]], [1.0, 5.0, -1.0], {"axis": 0}),
    ],
    samples=[
        Sample(["f32[3, 7]", "f32[3, 7]"], {"axis": 1}),
        Sample(["f32[5, 2]", "f32[5, 2]"], {"axis": 0}),
        Sample(["f32[1]", "f32[1]"], {"axis": 0}),
    ],
    errors=[
        BadSample(["f32[3]", "f32[4]"], "operands differ in shape", {"axis": 0}),
        BadSample(["f32[3]", "f32[3]"], "axis 1 is out of range", {"axis": 1}),
    ],
)


def last_place(x: Tensor, extreme: Tensor, axis: int) -> Tensor:
    """Return where each running extreme was last seen; of NaN, the last NaN."""
    here = equal(x, extreme)
    if x.dtype.is_float:
        here = bitwise_or(here, isnan(x))
    place = iota(shape=x.shape, axis=axis, dtype=DType.I32)
    rows = scan_max(to_rows(select(here, place, 0), axis))
    return from_rows(rows, x.shape, axis)


def _extreme_expand(rows_op: Op) -> Callable[..., tuple[Tensor, Tensor]]:
    def expand(attrs: Attrs, x: Tensor) -> tuple[Tensor, Tensor]:
        found = from_rows(rows_op(to_rows(x, attrs["axis"])), x.shape, attrs["axis"])
        return found, last_place(x, found, attrs["axis"])

    return expand


def _extreme_numpy(accumulate: Callable[..., Any]) -> Callable[..., tuple[Array, Array]]:
    def numpy(x: Array, axis: int) -> tuple[Array, Array]:
        found = accumulate(x, axis)
        column = [1] * x.ndim
        column[axis] = x.shape[axis]
        places = np.arange(x.shape[axis], dtype=np.int32).reshape(column)
        here = (x == found) | (x != x)
        return found, np.maximum.accumulate(np.where(here, places, 0), axis).astype(np.int32)

    return numpy


def _extreme_rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    found = _rule(1, NUMBER)(types, attrs)
    assert isinstance(found, TensorType)
    return found, TensorType(found.shape, DType.I32)


def _extreme_grad(node: Tensor, g: Any, x: Tensor) -> list[Tensor]:
    """An element has the cotangents of all places that it was chosen for.

    These follow each other, so they are a running sum from the end that begins anew at each
    element that is an extreme.
    """
    axis = node.attrs["axis"]
    place = Tensor(node.node.values[1])
    is_chosen = equal(place, iota(shape=x.shape, axis=axis, dtype=DType.I32))
    goes_on = select(is_chosen, 0.0, 1.0)
    return [select(is_chosen, _reversed_recurrence(goes_on, g[0], axis), 0.0)]


def _extreme(name: str, rows_op: Op, numpy: Callable[..., Any], found: list[float]) -> Op:
    word = "largest" if name == "cummax" else "smallest"
    places = [0, 1, 1] if name == "cummin" else [0, 0, 2]
    return Op(
        name=name,
        doc=f"The {word} element along `axis` up to every place, and where it was last seen. NaN"
        " stays.",
        kind=Composite(_extreme_expand(rows_op)),
        shape=_extreme_rule,
        numpy=_extreme_numpy(numpy),
        grad=_extreme_grad,
        examples=[Example([[2.0, -1.0, 2.0]], (found, places), {"axis": 0})],
        samples=_AXIS_SAMPLES,
        errors=_AXIS_ERRORS,
    )


cummax = _extreme("cummax", scan_max, np.maximum.accumulate, [2.0, 2.0, 2.0])
cummin = _extreme("cummin", scan_min, np.minimum.accumulate, [2.0, -1.0, -1.0])

OPS = (
    cumsum, cumprod, cummax, cummin, linear_recurrence,
    scan_sum, scan_prod, scan_max, scan_min, recur_rows,
)  # fmt: skip
