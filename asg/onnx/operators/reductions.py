"""Operators that sum, or find the largest, along axes."""

from __future__ import annotations

import math

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Typed
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

_NEIGHBOURS = 8  # summed before others, as NumPy does
_REDUCTIONS = {
    "ReduceSum": F.sum,
    "ReduceMean": F.mean,
    "ReduceProd": F.prod,
    "ReduceL1": lambda x, *rest: F.sum(_size(x), *rest),
    "ReduceL2": lambda x, *rest: _like(F.sqrt(F.sum(F.square(_wide(x)), *rest)), x),
    "ReduceLogSum": lambda x, *rest: _like(F.log(F.sum(_wide(x), *rest)), x),
    "ReduceLogSumExp": lambda x, *rest: _like(F.logsumexp(_wide(x), *rest), x),
    "ReduceSumSquare": lambda x, *rest: F.sum(F.square(x), *rest),
}


def _size(x: Tensor) -> Tensor:
    return x if x.dtype.name.startswith("U") else F.abs(x)


def _wide(x: Tensor) -> Tensor:
    return F.cast(x, DType.F32) if x.dtype.is_integer else x


def _like(result: Tensor, x: Tensor) -> Tensor:
    return F.cast(result, x.dtype)


def axes_of(call: Call, position: int = 1) -> tuple[int, ...] | None:
    """Return axes from an operand or, in older opsets, an attribute; None where none are named."""
    if call.has(position):
        return tuple(int(each) for each in call.static(position, "the axes").reshape(-1))
    return call.get_ints("axes") if call.has_attribute("axes") else None


@converter(*_REDUCTIONS, "ReduceMax", "ReduceMin", statics=(1,))
def reduce(call: Call) -> Tensor:
    """All axes are meant where none are named, unless no axes means no reduction."""
    x, axes = call[0], axes_of(call)
    if not axes:
        if call.get_int("noop_with_empty_axes", 0):
            return _of_nothing(call, x)
        axes = tuple(range(x.ndim))
    keepdims = bool(call.get_int("keepdims", 1))
    if call.op in _OF_NOTHING and any(x.shape[axis] == 0 for axis in axes):
        return F.full(F.sum(x, axes, keepdims).shape, _least(call, x), x.dtype)
    if call.op in _REDUCTIONS:
        return _REDUCTIONS[call.op](x, axes, keepdims)
    is_bool = x.dtype is DType.BOOL
    if is_bool:
        return (F.any if call.op == "ReduceMax" else F.all)(x, axes, keepdims)
    return (F.max if call.op == "ReduceMax" else F.min)(x, axes, keepdims)


_OF_NOTHING = ("ReduceMax", "ReduceMin", "ReduceLogSumExp")


def _least(call: Call, x: Tensor) -> float | int | bool:
    """Return what no element is: less than all for a maximum, more than all for a minimum."""
    is_min = call.op == "ReduceMin"
    if x.dtype is DType.BOOL:
        return is_min
    if x.dtype.is_float:
        return math.inf if is_min else -math.inf
    limits = np.iinfo(x.dtype.numpy)
    return int(limits.max if is_min else limits.min)


def _of_nothing(call: Call, x: Tensor) -> Tensor:
    """Return what is done to single elements, where no axis is reduced."""
    if call.op in ("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"):
        return x
    if call.op == "ReduceLogSumExp":
        return x
    return _REDUCTIONS[call.op](F.unsqueeze(x, 0), 0, False)


@converter("ArgMax", "ArgMin")
def position(call: Call) -> Tensor:
    """The first of equals, or the last."""
    x, axis = call[0], call.get_int("axis", 0)
    keepdims = bool(call.get_int("keepdims", 1))
    find = F.argmax if call.op == "ArgMax" else F.argmin
    if not call.get_int("select_last_index", 0):
        return find(x, axis, keepdims)
    return (x.shape[axis] - 1) - find(F.flip(x, axis), axis, keepdims)


@converter("Softmax", "LogSoftmax")
def softmax(call: Call) -> Tensor:
    """Along one axis; before opset 13 over all axes from one on."""
    x = call[0]
    function = F.log_softmax if call.op == "LogSoftmax" else softmax_in_type
    axis = call.get_int("axis", -1 if call.opset >= 13 else 1)
    if call.opset >= 13:
        return function(x, axis)
    return F.reshape(function(_flat(x, axis), -1), x.shape)


def softmax_in_type(x: Tensor, axis: int) -> Tensor:
    """Softmax, whose steps are rounded to 16 bits where its operand has those, as in ONNX."""
    found: Tensor
    if x.dtype.is_narrow and x.shape[axis]:
        powers = F.exp(x - F.max(x, axis, keepdims=True))
        found = powers / _total(powers, axis)
    else:
        found = F.softmax(x, axis)
    return found


def _total(x: Tensor, axis: int) -> Tensor:
    """Return sums along an axis, which is kept; bf16 rounds those of eight neighbours too."""
    found: Tensor
    if x.dtype is not DType.BF16:
        found = F.sum(x, axis, keepdims=True)
        return found
    rows = F.swapaxes(x, axis, -1)
    blocks = -(-rows.shape[-1] // _NEIGHBOURS)
    widths = [(0, 0)] * (x.ndim - 1) + [(0, blocks * _NEIGHBOURS - rows.shape[-1])]
    parts = F.reshape(F.pad(rows, widths), (*rows.shape[:-1], blocks, _NEIGHBOURS))
    found = parts[..., 0]
    for place in range(1, _NEIGHBOURS):
        found = found + parts[..., place]
    return F.swapaxes(F.sum(found, -1, keepdims=True), axis, -1)


@converter("Hardmax")
def hardmax(call: Call) -> Tensor:
    """1 at the first of the largest, 0 elsewhere."""
    x = call[0]
    axis = call.get_int("axis", -1 if call.opset >= 13 else 1)
    if call.opset < 13:
        flat = _flat(x, axis)
        return F.reshape(_hardmax(flat, -1), x.shape)
    return _hardmax(x, axis)


def _flat(x: Tensor, axis: int) -> Tensor:
    axis = axis % x.ndim if x.ndim else 0
    return F.reshape(x, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))


def _hardmax(x: Tensor, axis: int) -> Tensor:
    axis %= x.ndim
    largest = F.argmax(x, axis, keepdims=True)
    places = F.arange(x.shape[axis]).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    return F.cast(F.equal(largest, places), x.dtype)


@converter("CumSum", "CumProd", since=11, statics=(1,))
def cumulative(call: Call) -> Tensor:
    """Running sums or products; `exclusive` leaves the element itself out."""
    axis = int(call.static(1, "the axis").reshape(()))
    function = F.cumsum if call.op == "CumSum" else F.cumprod
    return function(
        call[0],
        axis,
        exclusive=bool(call.get_int("exclusive", 0)),
        reverse=bool(call.get_int("reverse", 0)),
    )


@converter("TopK", since=10, statics=(1,))
def topk(call: Call) -> list[Tensor | Typed]:
    """The k largest or smallest, and where they stand; of equals the first."""
    k = int(call.static(1, "k").reshape(()))
    axis = call.get_int("axis", -1)
    largest = bool(call.get_int("largest", 1))
    values, index = F.topk(call[0], k, axis, largest)
    return [values, Typed(index, np.dtype(np.int64))]
