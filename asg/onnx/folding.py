"""What is known when a model is imported, computed then and there.

Models compute shapes: sizes are sliced, multiplied and joined before they reach a `Reshape`. This
is done here with NumPy in the types that ONNX says, so that int64 stays int64. Operators that are
not in the table are converted as ever, and computed by the rules of the ops that come of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from asg import evaluate
from asg.graph import Node, Value
from asg.onnx.call import Call, Operand
from asg.onnx.dtypes import Array, numpy_type

LIMIT = 1 << 16  # elements; what is larger is left to the device

Fold = Callable[..., Any]


def fold(call: Call) -> Sequence[Array] | None:
    """Return the results of a node whose operands are all known, or None.

    Raises:
        ValueError, IndexError, TypeError: the operands do not fit together.
    """
    rule = TABLE.get(call.op) if call.node.domain in ("", "ai.onnx") else None
    present = [each for each in call.operands if each is not None]
    if rule is None or any(_size(each) > LIMIT for each in present):
        return None
    if call.op in BROADCAST and not _checked_size(_broadcast(present)):
        return None
    arrays = [None if each is None else each.array for each in call.operands]
    try:
        with np.errstate(all="ignore"):
            result = rule(call, *arrays)
    except AttributeError:
        if None not in arrays:
            raise
        raise ValueError("an operand is missing") from None
    if result is None:
        return None
    return result if isinstance(result, list) else [np.asarray(result)]


def evaluated(operands: Sequence[Operand | None]) -> Sequence[Operand | None]:
    """Compute tensors that are made of constants only, where they are small."""
    return [None if each is None else _evaluated(each) for each in operands]


def _evaluated(operand: Operand) -> Operand:
    if operand.tensor is None or operand.array is not None or operand.tensor.size > LIMIT:
        return operand
    array = compute(operand.tensor.value)
    if array is None:
        return operand
    with np.errstate(all="ignore"):
        array = array.astype(operand.dtype, copy=False)
    return Operand(operand.name, operand.dtype, array=array)


def compute(root: Value) -> Array | None:
    """Return the value of a node by the NumPy rules of ops, or None where it needs an input."""
    done: dict[Node, tuple[Array, ...]] = {}
    pending = [root.node]
    while pending:
        node = pending[-1]
        missing = [each.node for each in node.inputs if each.node not in done]
        if node.is_input or node.type.size > 4 * LIMIT:
            return None
        pending.extend(missing)
        if missing:
            continue
        pending.pop()
        operands = [done[each.node][each.index] for each in node.inputs]
        done[node] = evaluate.compute(node, operands, "f32")
    return done[root.node][root.index]


def _broadcast(operands: Sequence[Operand]) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*(each.shape for each in operands)))


def _size(operand: Operand) -> int:
    return math.prod(operand.shape)


def _checked_size(shape: Iterable[int]) -> bool:
    return math.prod(map(int, shape)) <= LIMIT


def _same_type(function: Callable[..., Any]) -> Fold:
    """Return a rule whose result has the type of its first operand."""
    return lambda call, *arrays: np.asarray(function(*arrays)).astype(arrays[0].dtype, copy=False)


def _plain(function: Callable[..., Any]) -> Fold:
    return lambda call, *arrays: function(*arrays)


def _divide(call: Call, x: Array, y: Array) -> Array:
    """Whole numbers are divided towards zero."""
    if x.dtype.kind == "f":
        return np.asarray(x / y).astype(x.dtype)
    safe = np.where(y == 0, 1, y)
    quotient = np.abs(x) // np.abs(safe) * np.sign(x) * np.sign(safe)
    return np.asarray(quotient).astype(x.dtype)


def _modulo(call: Call, x: Array, y: Array) -> Array:
    function = np.fmod if call.get_int("fmod", 0) else np.mod
    return np.asarray(function(x, y)).astype(x.dtype)


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise IndexError(f"axis {axis} is out of range for {rank} axes")
    return axis % rank if rank else 0


def _gather(call: Call, x: Array, index: Array) -> Array | None:
    axis = _axis(call.get_int("axis", 0), x.ndim)
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return np.take(x, index.astype(np.int64), axis=axis) if _checked_size(shape) else None


def _concat(call: Call, *arrays: Array) -> Array:
    return np.concatenate(arrays, axis=_axis(call.get_int("axis", 1), arrays[0].ndim))


def _axes(call: Call, position: int, rank: int) -> list[int]:
    """Return the axes of `Squeeze` and the like: an attribute once, an operand from 13 on."""
    if call.has(position):
        found = [int(each) for each in np.ravel(call.static(position, "the axes"))]
    elif call.has_attribute("axes"):
        found = list(call.get_ints("axes"))
    else:
        return []
    return [_axis(each, rank) for each in found]


def _squeeze(call: Call, x: Array, *_: Array) -> Array:
    return np.squeeze(x, tuple(_axes(call, 1, x.ndim)) or None)


def _unsqueeze(call: Call, x: Array, *_: Array) -> Array:
    count = len(call.get_ints("axes")) if call.has_attribute("axes") else _size(call.operand(1))
    return np.expand_dims(x, tuple(_axes(call, 1, x.ndim + count)))


def _reshape(call: Call, x: Array, shape: Array) -> Array:
    wanted = [int(each) for each in shape]
    if not call.get_int("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


def _slice(call: Call, x: Array, *bounds: Array) -> Array:
    if call.has_attribute("starts"):
        starts, stops = call.get_ints("starts"), call.get_ints("ends")
        axes, steps = call.get_ints("axes", range(len(starts))), (1,) * len(starts)
    else:
        starts, stops = (tuple(map(int, each)) for each in bounds[:2])
        axes = tuple(map(int, bounds[2])) if call.has(3) else tuple(range(len(starts)))
        steps = tuple(map(int, bounds[3])) if call.has(4) else (1,) * len(starts)
    index: list[slice] = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        size = x.shape[_axis(axis, x.ndim)]
        # A stop before the first element is written as a large negative number.
        end = None if step < 0 and stop < -size else stop
        index[_axis(axis, x.ndim)] = slice(start, end, step)
    return x[tuple(index)]


def _range(call: Call, start: Array, limit: Array, delta: Array) -> Array | None:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    if count > LIMIT:
        return None
    return np.asarray(start.item() + np.arange(count) * delta.item()).astype(start.dtype)


def _constant_of_shape(call: Call, shape: Array) -> Array | None:
    value = call.get_array("value") if call.has_attribute("value") else np.zeros(1, np.float32)
    if any(size < 0 for size in shape):
        raise ValueError(f"a size of {shape.tolist()} is negative")
    return np.full(shape, value.ravel()[0]) if _checked_size(shape) else None


def _expand(call: Call, x: Array, shape: Array) -> Array | None:
    wanted = np.broadcast_shapes(x.shape, tuple(map(int, shape)))
    return np.broadcast_to(x, wanted) if _checked_size(wanted) else None


def _tile(call: Call, x: Array, repeats: Array) -> Array | None:
    shape = [size * int(each) for size, each in zip(x.shape, repeats, strict=True)]
    return np.tile(x, repeats) if _checked_size(shape) else None


def _cast(call: Call, x: Array) -> Array | None:
    target = numpy_type(call.get_int("to"))
    if target.kind not in "fiub":
        return None
    return x.astype(target)


def _reduce(function: Callable[..., Any]) -> Fold:
    def rule(call: Call, x: Array, *_: Array) -> Array:
        axes = _axes(call, 1, x.ndim)
        if not axes and call.get_int("noop_with_empty_axes", 0):
            return x
        keepdims = bool(call.get_int("keepdims", 1))
        found = function(x, axis=tuple(axes) or None, keepdims=keepdims)
        return np.asarray(found).astype(x.dtype)

    return rule


def _split(call: Call, x: Array, *sizes: Array) -> list[Array]:
    axis, count = _axis(call.get_int("axis", 0), x.ndim), call.output_count
    if call.has(1):
        parts = [int(each) for each in sizes[0]]
    elif call.has_attribute("split"):
        parts = list(call.get_ints("split"))
    else:
        part = -(-x.shape[axis] // count)
        parts = [part] * (count - 1) + [x.shape[axis] - part * (count - 1)]
    if sum(parts) != x.shape[axis] or min(parts, default=0) < 0:
        raise ValueError(f"parts {parts} do not make up an axis of {x.shape[axis]}")
    return np.split(x, np.cumsum(parts)[:-1], axis=axis)


def _transpose(call: Call, x: Array) -> Array:
    order = call.get_ints("perm") if call.has_attribute("perm") else None
    return np.transpose(x, order)


def _shape(call: Call, x: Array) -> Array:
    start, end = call.get_int("start", 0), call.get_int("end", 2**31)
    return np.array(x.shape[start:end], np.int64)


def _variadic(function: Callable[..., Any]) -> Fold:
    def rule(call: Call, *arrays: Array) -> Array:
        found = arrays[0]
        for each in arrays[1:]:
            found = function(found, each)
        return np.asarray(found).astype(arrays[0].dtype, copy=False)

    return rule


TABLE: Mapping[str, Fold] = {
    "Abs": _same_type(np.abs),
    "Add": _same_type(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _same_type(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": lambda call, x, axis: None if call.node.attribute else np.cumsum(
        x, axis=int(axis.item()), dtype=x.dtype
    ),
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Expand": _expand,
    "Floor": _same_type(np.floor),
    "Gather": _gather,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(lambda x: x),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mod": _modulo,
    "Mul": _same_type(np.multiply),
    "Neg": _same_type(np.negative),
    "NonZero": _plain(lambda x: np.array(np.nonzero(np.atleast_1d(x)), np.int64)),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _same_type(np.power),
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _plain(lambda x: np.array(x.size, np.int64)),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _same_type(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _same_type(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
    "Xor": _plain(np.logical_xor),
}  # fmt: skip

# Those whose operands are spread against each other: small ones may make large ones.
BROADCAST = frozenset(
    ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
     "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Where", "Xor")
)  # fmt: skip
