"""Operators that move elements, and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Typed
from asg.onnx.dtypes import computed_type, numpy_type
from asg.onnx.operators.reductions import axes_of
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType


@converter("Reshape", since=5, statics=(1,))
def reshape(call: Call) -> Tensor:
    """0 keeps a size, -1 is what is left."""
    x = call[0]
    sizes = [int(each) for each in call.static(1, "the shape")]
    if not call.get_int("allowzero", 0):
        if any(size == 0 and i >= x.ndim for i, size in enumerate(sizes)):
            raise call.malformed(f"no size {sizes.index(0)} to keep of {x.shape}")
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return F.reshape(x, sizes)


@converter("Transpose", since=1)
def transpose(call: Call) -> Tensor:
    """Axes in another order, backwards unless told."""
    x = call[0]
    order = call.get_ints("perm") if call.has_attribute("perm") else tuple(range(x.ndim))[::-1]
    return F.permute(x, order)


@converter("Concat", since=4)
def concat(call: Call) -> Tensor:
    """Operands one after the other."""
    return F.concatenate(call.tensors, call.get_int("axis"))


@converter("Flatten", since=1)
def flatten(call: Call) -> Tensor:
    """Two axes: those before one, and the rest."""
    x, axis = call[0], call.get_int("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise call.malformed(f"axis {axis} is out of range for {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return F.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@converter("Squeeze", since=1, statics=(1,))
def squeeze(call: Call) -> Tensor:
    """Axes of size 1 taken out: those named, or all."""
    return F.squeeze(call[0], axes_of(call))


@converter("Unsqueeze", since=1, statics=(1,))
def unsqueeze(call: Call) -> Tensor:
    """Axes of size 1 put in; they are numbered as in the result."""
    x, axes = call[0], axes_of(call)
    if axes is None:
        raise call.malformed("the axes are missing")
    rank = x.ndim + len(axes)
    places = sorted(axis + rank if axis < 0 else axis for axis in axes)
    if len(set(places)) < len(places) or not all(0 <= axis < rank for axis in places):
        raise call.malformed(f"axes {axes} for a result of {rank} axes")
    for axis in places:
        x = F.unsqueeze(x, axis)
    return x


@converter("Expand", since=8, statics=(1,))
def expand(call: Call) -> Tensor:
    """Broadcasting, in which a size of 1 asks for nothing."""
    x = call[0]
    sizes = tuple(int(each) for each in call.static(1, "the shape"))
    return F.broadcast_to(x, tuple(np.broadcast_shapes(x.shape, sizes)))


@converter("Tile", since=6, statics=(1,))
def tile(call: Call) -> Tensor:
    """The whole repeated along each axis."""
    x = call[0]
    counts = [int(each) for each in call.static(1, "the repeats")]
    if len(counts) != x.ndim:
        raise call.malformed(f"{len(counts)} repeats for {x.ndim} axes")
    for axis, count in enumerate(counts):
        if count != 1:
            parts = F.broadcast_to(F.unsqueeze(x, axis), _with(x.shape, axis, (count,)))
            x = F.reshape(parts, (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :]))
    return x


def _with(shape: Sequence[int], axis: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return (*shape[:axis], *sizes, *shape[axis:])


@converter("Slice", since=1, statics=(1, 2, 3, 4))
def slice_(call: Call) -> Tensor:
    """Bounds are cut to the axis; steps may be negative."""
    x = call[0]
    if call.opset < 10:
        starts, ends = call.get_ints("starts"), call.get_ints("ends")
        axes = call.get_ints("axes") if call.has_attribute("axes") else tuple(range(len(starts)))
        steps: tuple[int, ...] = (1,) * len(starts)
    else:
        starts, ends = _numbers(call, 1, "the starts"), _numbers(call, 2, "the ends")
        axes = _numbers(call, 3, "the axes") if call.has(3) else tuple(range(len(starts)))
        steps = _numbers(call, 4, "the steps") if call.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise call.malformed("starts, ends, axes and steps differ in number")
    key: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -x.ndim <= axis < x.ndim or step == 0:
            raise call.malformed(f"axis {axis} and step {step} for {x.ndim} axes")
        key[axis] = python_slice(start, end, step, x.shape[axis])
    return x[tuple(key)]


def python_slice(start: int, end: int, step: int, size: int) -> slice:
    """Return ONNX's bounds as Python's, which can't name the place before the first element."""
    start, end, step = slice(start, end, step).indices(size)
    return slice(start, None if end < 0 else end, step)


def _numbers(call: Call, position: int, what: str) -> tuple[int, ...]:
    return tuple(int(each) for each in call.static(position, what).reshape(-1))


@converter("Split", since=2, statics=(1,))
def split(call: Call) -> list[Tensor]:
    """Parts of given sizes, or of equal ones (the last may be smaller)."""
    x, axis = call[0], call.get_int("axis", 0)
    size = x.shape[axis]
    if call.has(1):
        sizes = list(_numbers(call, 1, "the sizes"))
    elif call.has_attribute("split"):
        sizes = list(call.get_ints("split"))
    else:
        count = call.get_int("num_outputs", call.output_count)
        if count != call.output_count:
            raise call.malformed(f"num_outputs is {count} for {call.output_count} results")
        part = -(-size // count)
        sizes = [max(0, min(part, size - i * part)) for i in range(count)]
    return F.split(x, sizes, axis)


@converter("Pad", since=2, statics=(1, 3))
def pad(call: Call) -> Tensor:
    """Constants, mirrored elements, the last one repeated, or the other end; negative cuts off."""
    x = call[0]
    if call.opset < 11:
        pads, value = call.get_ints("pads"), call.get_float("value", 0.0)
        fill = call.constant_tensor(value, x.dtype)
    else:
        pads = _numbers(call, 1, "the pads")
        given = call.optional(2)
        fill = call.constant_tensor(0, x.dtype) if given is None else F.reshape(given, ())
    axes = _numbers(call, 3, "the axes") if call.has(3) else tuple(range(x.ndim))
    if len(pads) != 2 * len(axes):
        raise call.malformed(f"{len(pads)} pads for {len(axes)} axes")
    widths = [(0, 0)] * x.ndim
    for axis, low, high in zip(axes, pads, pads[len(axes) :], strict=False):
        widths[axis] = (low, high)
    mode: Any = call.get_text("mode", "constant")
    if mode == "constant":
        return _filled(call, x, widths, fill)
    if mode not in ("reflect", "edge", "wrap"):
        raise call.malformed(f"mode {mode!r}")
    return F.pad(x, widths, mode=mode)


def _filled(call: Call, x: Tensor, widths: Sequence[tuple[int, int]], fill: Tensor) -> Tensor:
    known = call.constant(2) if call.opset >= 11 and call.has(2) else np.zeros(())
    if call.opset < 11:
        return F.pad(x, widths, call.get_float("value", 0.0))
    if known is not None and x.dtype is not DType.BOOL:
        return F.pad(x, widths, known.reshape(()).item())
    inside = F.pad(F.ones_like(x).astype(DType.I32), widths, 0)
    found: Tensor = F.where(F.equal(inside, 1), F.pad(x, widths), fill)
    return found


@converter("Trilu", since=14, statics=(1,))
def trilu(call: Call) -> Tensor:
    """The upper or lower triangle of matrices."""
    x = call[0]
    k = int(call.static(1, "the diagonal").reshape(())) if call.has(1) else 0
    limit = max(x.shape[-2:], default=0) + 1
    k = max(-limit, min(limit, k))
    return (F.triu if call.get_int("upper", 1) else F.tril)(x, k)


@converter("DepthToSpace", since=1)
def depth_to_space(call: Call) -> Tensor:
    """Channels become blocks of places."""
    mode: Any = call.get_text("mode", "DCR")
    return F.depth_to_space(call[0], call.get_int("blocksize"), mode)


@converter("SpaceToDepth", since=1)
def space_to_depth(call: Call) -> Tensor:
    """Blocks of places become channels, which come first (DCR) or last (CRD) in their order."""
    x, block = call[0], call.get_int("blocksize")
    y = F.space_to_depth(x, block)
    if not call.has_attribute("mode") or call.get_text("mode") == "DCR":
        return y
    n, c, h, w = x.shape
    parts = F.reshape(y, (n, block * block, c, h // block, w // block))
    return F.reshape(F.permute(parts, (0, 2, 1, 3, 4)), y.shape)


@converter("ReverseSequence", since=10)
def reverse_sequence(call: Call) -> Tensor:
    """The first elements of each sequence backwards, as many as its length says."""
    time, batch = call.get_int("time_axis", 0), call.get_int("batch_axis", 1)
    return F.reverse_sequence(call[0], call[1], batch, time)


@converter("EyeLike", since=9)
def eye_like(call: Call) -> Typed:
    """Ones on a diagonal."""
    rows, columns = call.shape(0)
    target = numpy_type(call.get_int("dtype")) if call.has_attribute("dtype") else call.dtype(0)
    kind = computed_type(target, call.importer.allow_float64)
    k = call.get_int("k", 0)
    difference = F.arange(columns).reshape((1, -1)) - F.arange(rows).reshape((-1, 1))
    return Typed(F.cast(F.equal(difference, k), kind), target)
