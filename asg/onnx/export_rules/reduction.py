"""Reductions, positions of extremes, and products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asg.graph import Node
from asg.onnx.export_rules.elementwise import larger, wrapped
from asg.onnx.writer import ELEMENT, I32, I64, U32, Rule, Writer
from asg.types import DType

_REDUCE = {"sum": "ReduceSum", "prod": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin"}


def _along(to: Writer, op: str, x: str, node: Node) -> str:
    axes = node.attrs["axes"]
    return to(op, x, to.integers(axes), keepdims=0) if axes else x


def reduce(to: Writer, node: Node, x: str) -> str:
    """Sums and products wrap around; a NaN stays."""
    dtype, name = node.type.dtype, node.op.name
    if dtype.is_float:
        if name not in ("max", "min") or not node.attrs["axes"]:
            return _along(to, _REDUCE[name], x, node)
        return largest(to, _REDUCE[name], x, node.attrs["axes"])
    if name in ("sum", "prod"):  # in i64, as ONNX Runtime adds i32 without wrapping around
        return to.cast(_along(to, _REDUCE[name], to.cast(x, I64), node), ELEMENT[dtype])
    if dtype is not DType.U32:
        return _along(to, _REDUCE[name], x, node)
    return to.flipped(_along(to, _REDUCE[name], to.flipped(x, I32), node), U32)


def largest(to: Writer, op: str, x: str, axes: Sequence[int]) -> str:
    """Write `ReduceMax` or `ReduceMin` of floats; NaN where there is one."""
    where = to.integers(axes)
    found = to(op, x, where, keepdims=0)
    flags = to("ReduceMax", to.cast(to("IsNaN", x), I32), where, keepdims=0)
    nothing = to.constant(np.nan, np.float32)
    return to("Where", to("Greater", flags, to.constant(0, np.int32)), nothing, found)


def any_all(to: Writer, node: Node, x: str) -> str:
    """Whether some are true, or none is false."""
    is_any = node.op.name == "any"
    counted = to.cast(x if is_any else to("Not", x), I32)
    found = _along(to, "ReduceSum", counted, node)
    zero = to.constant(0, np.int32)
    return to("Greater", found, zero) if is_any else to("Equal", found, zero)


def extreme(to: Writer, node: Node, x: str) -> str:
    """The first position of the largest or smallest, or of a NaN."""
    dtype, axis = node.inputs[0].type.dtype, node.attrs["axis"]
    op = {"argmax": "ArgMax", "argmin": "ArgMin"}[node.op.name]
    found = to(op, to.ordered(x, dtype), axis=axis, keepdims=0)
    if dtype.is_float:
        is_nan = to.cast(to("IsNaN", x), I32)
        first = to("ArgMax", is_nan, axis=axis, keepdims=0)
        has_one = to("ReduceMax", is_nan, to.integers([axis]), keepdims=0)
        is_there = to("Greater", has_one, to.constant(0, np.int32))
        found = to("Where", is_there, first, found)
    return to.cast(found, I32)


def matmul(to: Writer, node: Node, x: str, y: str) -> str:
    """A product of matrices."""
    return to("MatMul", x, y)


def _shifted(to: Writer, x: str, step: int) -> str:
    """Return the elements `step` places before; those at the start are what they were."""
    zero, axis = to.integers([0]), to.integers([-1])
    start = to("Slice", x, zero, to.integers([step]), axis)
    rest = to("Slice", x, zero, to.integers([-step]), axis)
    return to("Concat", start, rest, axis=-1)


def scan(to: Writer, node: Node, x: str) -> str:
    """Each element with those before it: one, two, four … at a time."""
    dtype, name = node.type.dtype, node.op.name.removeprefix("scan_")
    length = node.type.shape[-1]
    step = 1
    while step < length:
        before = _shifted(to, x, step)
        if name in ("sum", "prod"):
            both = wrapped(to, {"sum": "Add", "prod": "Mul"}[name], x, before, dtype)
        else:
            both = larger(to, {"max": "Max", "min": "Min"}[name], x, before, dtype)
        x = to.where(to.constant(np.arange(length) >= step), both, x, dtype)
        step *= 2
    return x


def recur(to: Writer, node: Node, a: str, b: str) -> str:
    """A step after a step is a step: y = a (a' y + b') + b."""
    length = node.type.shape[-1]
    step = 1
    while step < length:
        is_inside = to.constant(np.arange(length) >= step)
        moved = to("Add", to("Mul", a, _shifted(to, b, step)), b)
        b = to("Where", is_inside, moved, b)
        a = to("Where", is_inside, to("Mul", a, _shifted(to, a, step)), a)
        step *= 2
    return b


RULES: dict[str, Rule] = {
    **dict.fromkeys((f"scan_{name}" for name in _REDUCE), scan),
    "recur_rows": recur,
    **dict.fromkeys(_REDUCE, reduce),
    **dict.fromkeys(("any", "all"), any_all),
    **dict.fromkeys(("argmax", "argmin"), extreme),
    "matmul": matmul,
}
