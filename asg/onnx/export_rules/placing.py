"""Elements put at positions that are known at run time only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from asg.graph import Node
from asg.onnx.export_rules.elementwise import larger, wrapped
from asg.onnx.export_rules.movement import padded, positions, sliced
from asg.onnx.export_rules.reduction import largest
from asg.onnx.writer import I32, I64, U32, Rule, Writer
from asg.types import DType

_REDUCE = {"sum": "ReduceSum", "prod": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin"}


def scatter_add(to: Writer, node: Node, x: str, index: str, updates: str) -> str:
    """Rows along the first axis."""
    axis, shape = node.attrs["axis"], node.type.shape
    places, _ = positions(to, node, index)
    rank = node.inputs[1].type.rank
    order = [axis, *(place for place in range(len(shape)) if place != axis)]
    others = [shape[place] for place in order[1:]]
    moved = [*range(axis, axis + rank), *range(axis), *range(axis + rank, len(shape) + rank - 1)]
    given = to("Transpose", updates, perm=moved) if moved else updates
    count = node.inputs[1].type.size
    given, places = to.reshape(given, [count, *others]), to.reshape(places, [count])
    rows = to("Transpose", x, perm=order)
    sizes = [shape[axis], *others]
    found = scattered(to, rows, places, given, sizes, "add", node.type.dtype)
    return to("Transpose", found, perm=[int(place) for place in np.argsort(order)])


def scattered(
    to: Writer,
    rows: str,
    places: str,
    updates: str,
    shape: Sequence[int],
    reduction: str,
    dtype: DType,
) -> str:
    """Write updates into rows; one more row takes those whose place is no row."""
    size = to.constant(shape[0], np.int64)
    is_low = to("Less", places, to.constant(0, np.int64))
    is_inside = to("And", to("Not", is_low), to("Less", places, size))
    indices = to("Unsqueeze", to("Where", is_inside, places, size), to.integers([-1]))
    rows = padded(to, rows, dtype, [0] * len(shape), [1, *[0] * (len(shape) - 1)])
    if dtype is DType.U32:  # as i32 of the same bits, or of the same order
        turn = to.cast if reduction in ("add", "mul") else to.flipped
        rows, updates = turn(rows, I32), turn(updates, I32)
        found = turn(to("ScatterND", rows, indices, updates, reduction=reduction), U32)
    else:
        found = to("ScatterND", rows, indices, updates, reduction=reduction)
    return sliced(to, found, [0], [shape[0]], [1])


def scatter_rows(to: Writer, node: Node, x: str, places: str, updates: str) -> str:
    """Rows combined with updates."""
    wide, combine = to.cast(places, I64), node.attrs["combine"]
    shape, dtype = node.type.shape, node.type.dtype
    found = scattered(to, x, wide, updates, shape, combine, dtype)
    if not dtype.is_float or combine not in ("max", "min"):
        return found
    flags = [to.cast(to("IsNaN", each), I32) for each in (x, updates)]
    is_nan = scattered(to, flags[0], wide, flags[1], shape, "max", DType.I32)
    nothing = to.constant(np.nan, np.float32)
    return to("Where", to("Greater", is_nan, to.constant(0, np.int32)), nothing, found)


def _combines(node: Node) -> bool:
    """Which of several updates stays, ONNX leaves open."""
    numbers = node.type.dtype is not DType.BOOL
    return node.attrs["combine"] != "none" and numbers and bool(node.type.size)


def segments(to: Writer, node: Node, x: str, first: str, end: str, order: str, updates: str) -> str:
    """Each row looks at all updates, and leaves out those before its first and from its end on."""
    dtype, name = node.type.dtype, node.op.name.removeprefix("segments_")
    count, width = node.inputs[3].type.size, len(node.type.shape) - 1
    numbers = to.constant(np.arange(count), np.int64)
    low, high = (to("Unsqueeze", to.cast(each, I64), to.integers([1])) for each in (first, end))
    is_inside = to("And", to("GreaterOrEqual", numbers, low), to("Less", numbers, high))
    is_inside = to("Unsqueeze", is_inside, to.integers(range(2, 2 + width)))
    given = to("Gather", updates, to.cast(order, I64), axis=0)
    neutral = to.constant(np.array(_neutral(name, dtype), dtype.numpy))
    chosen = to.where(is_inside, to("Unsqueeze", given, to.integers([0])), neutral, dtype)
    if dtype is DType.U32:
        turn: Callable[[str, int], str] = to.cast if name in ("sum", "prod") else to.flipped
        reduced = to(_REDUCE[name], turn(chosen, I32), to.integers([1]), keepdims=0)
        reduced = turn(reduced, U32)
    elif dtype.is_float and name in ("max", "min"):
        reduced = largest(to, _REDUCE[name], chosen, [1])
    else:
        reduced = to(_REDUCE[name], chosen, to.integers([1]), keepdims=0)
    if name in ("sum", "prod"):
        return wrapped(to, {"sum": "Add", "prod": "Mul"}[name], x, reduced, dtype)
    return larger(to, {"max": "Max", "min": "Min"}[name], x, reduced, dtype)


def _neutral(name: str, dtype: DType) -> float:
    if name in ("sum", "prod"):
        return {"sum": 0, "prod": 1}[name]
    if dtype.is_float:
        return -np.inf if name == "max" else np.inf
    limits = np.iinfo(dtype.numpy)
    return limits.min if name == "max" else limits.max


def search_rows(to: Writer, node: Node, keys: str, wanted: str) -> str:
    """Every key is compared with every wanted one."""
    row = to("Unsqueeze", to.flipped(keys, I32), to.integers([-2]))
    column = to("Unsqueeze", to.flipped(wanted, I32), to.integers([-1]))
    is_before = to("LessOrEqual" if node.attrs["right"] else "Less", row, column)
    last = to.integers([node.type.rank])
    counted = to("ReduceSum", to.cast(is_before, I64), last, keepdims=0)
    return to.cast(counted, I32)


RULES: dict[str, Rule] = {
    "scatter_add": scatter_add,
    "scatter_rows": scatter_rows,
    "search_rows": search_rows,
    **dict.fromkeys((f"segments_{name}" for name in _REDUCE), segments),
}
FITS: dict[str, Callable[[Node], bool]] = {"scatter_rows": _combines}
