"""Ops for which ONNX has an operator as a whole; where it does not fit, they are spelt out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asg.graph import Node
from asg.onnx.export_rules.movement import dilated, padded
from asg.onnx.writer import DOUBLE, ELEMENT, I32, U32, Rule, Writer
from asg.types import DType

_SOFTMAX = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
_AFTER, _LAST = 1e200, 1e300  # beyond every f32: where infinity and NaN stand among keys


def softmax(to: Writer, node: Node, x: str) -> str:
    """Along one axis."""
    return to(_SOFTMAX[node.op.name], x, axis=node.attrs["axis"])


def standardize(to: Writer, node: Node, x: str) -> str:
    """A layer norm without weights."""
    axes, shape = node.attrs["axes"], node.type.shape
    ones = to.constant(np.ones(shape[axes[0] :], np.float32))
    return to("LayerNormalization", x, ones, axis=axes[0], epsilon=node.attrs["eps"])


def _is_layer_norm(node: Node) -> bool:
    axes, rank = tuple(node.attrs["axes"]), node.type.rank
    return bool(axes) and axes == tuple(range(axes[0], rank)) and node.type.size > 0


def convolution(to: Writer, node: Node, x: str, w: str) -> str:
    """Zeros between neighbours, and padding that cuts off, come before."""
    attrs, given = node.attrs, node.inputs[0].type
    x = dilated(to, x, given.dtype, given.shape, (1, 1, *attrs["lhs_dilation"]))
    low, high = zip(*attrs["padding"], strict=True)
    if min(*low, *high) < 0:
        x = padded(to, x, given.dtype, (0, 0, *low), (0, 0, *high))
        low, high = (0,) * len(low), (0,) * len(high)
    return to(
        "Conv", x, w, pads=[*low, *high], strides=list(attrs["strides"]),
        dilations=list(attrs["dilation"]), group=attrs["groups"],
        kernel_shape=list(node.inputs[1].type.shape[2:]),
    )  # fmt: skip


def _has_elements(node: Node) -> bool:
    return all(value.type.size for value in (*node.inputs, *node.values))


def sort(to: Writer, node: Node, x: str) -> tuple[str, ...]:
    """Positions by keys in which NaN is largest, then the elements there."""
    axis, dtype = node.attrs["axis"], node.type.dtype
    count = to.integers([node.attrs["count"]])
    largest = int(node.attrs.get("descending", False))
    key = to.cast(x, DOUBLE) if dtype.is_float else to.ordered(x, dtype)
    if dtype.is_float:
        is_inf = to("IsInf", x, detect_negative=0)
        key = to("Where", is_inf, to.constant(_AFTER, np.float64), key)
        key = to("Where", to("IsNaN", x), to.constant(_LAST, np.float64), key)
    _, order = to.several("TopK", 2, key, count, axis=axis, largest=largest, sorted=1)
    return _picked(to, x, order, axis, dtype), to.cast(order, I32)


def _picked(to: Writer, x: str, order: str, axis: int, dtype: DType) -> str:
    if dtype.is_float:
        return to("GatherElements", x, order, axis=axis)
    return to.cast(to("GatherElements", to.cast(x, I32), order, axis=axis), ELEMENT[dtype])


def sort_rows(to: Writer, node: Node, keys: str) -> tuple[str, ...]:
    """Along the last axis, upwards."""
    count = to.integers([node.attrs["count"]])
    axis = node.type.rank - 1
    keys = to.flipped(keys, I32)
    found, order = to.several("TopK", 2, keys, count, axis=axis, largest=0, sorted=1)
    return to.flipped(found, U32), to.cast(order, I32)


def merge_rows(to: Writer, node: Node, keys: str, order: str) -> tuple[str, ...]:
    """Two rows sorted as one."""
    *lead, _, length = node.inputs[0].type.shape
    flat = [*lead, 2 * length]
    count = to.integers([node.attrs["count"]])
    keys = to.flipped(to.reshape(keys, flat), I32)
    axis = len(lead)
    found, places = to.several("TopK", 2, keys, count, axis=axis, largest=0, sorted=1)
    moved = to("GatherElements", to.reshape(order, flat), places, axis=axis)
    return to.flipped(found, U32), moved


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SOFTMAX, softmax),
    "standardize": standardize,
    "convolution": convolution,
    "sort": sort,
    "sort_rows": sort_rows,
    "merge_rows": merge_rows,
}
FITS: dict[str, Callable[[Node], bool]] = {
    **dict.fromkeys(_SOFTMAX, _has_elements),
    "standardize": _is_layer_norm,
    "convolution": _has_elements,
    "sort": _has_elements,
}
