"""Views and joins: what moves elements and computes none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asg.graph import Node
from asg.onnx.writer import ELEMENT, I64, Rule, Writer
from asg.types import DType

_FAR = -(2**62)  # beyond the start of every axis


def constant(to: Writer, node: Node) -> str:
    """The array."""
    return to.constant(node.attrs["value"].array)


def iota(to: Writer, node: Node) -> str:
    """A range along one axis, repeated along the others."""
    shape, axis, dtype = node.attrs["shape"], node.attrs["axis"], node.type.dtype
    limits = (to.constant(number, np.int64) for number in (0, shape[axis], 1))
    along = to.cast(to("Range", *limits), ELEMENT[dtype])
    ones = [size if place == axis else 1 for place, size in enumerate(shape)]
    return to("Expand", to.reshape(along, ones), to.integers(shape))


def reshape(to: Writer, node: Node, x: str) -> str:
    """Another shape."""
    return to.reshape(x, node.type.shape)


def permute(to: Writer, node: Node, x: str) -> str:
    """Axes in another order."""
    return to("Transpose", x, perm=list(node.attrs["axes"])) if node.type.rank else x


def broadcast(to: Writer, node: Node, x: str) -> str:
    """Repeated to a larger shape."""
    return to("Expand", x, to.integers(node.type.shape))


def sliced(
    to: Writer, x: str, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]
) -> str:
    """Write a slice of all axes."""
    axes = range(len(starts))
    return to("Slice", x, *(to.integers(list(each)) for each in (starts, stops, axes, steps)))


def slice_(to: Writer, node: Node, x: str) -> str:
    """Part of each axis."""
    attrs = node.attrs
    if not node.type.rank:
        return x
    return sliced(to, x, attrs["starts"], attrs["stops"], attrs["steps"])


def flip(to: Writer, node: Node, x: str) -> str:
    """Axes backwards."""
    axes = list(node.attrs["axes"])
    if not axes:
        return x
    back = [-1] * len(axes)
    far = [_FAR] * len(axes)
    return to("Slice", x, *(to.integers(each) for each in (back, far, axes, back)))


def pad(to: Writer, node: Node, x: str) -> str:
    """Elements put around; what is to be cut off is cut off afterwards."""
    low, high = node.attrs["low"], node.attrs["high"]
    return padded(to, x, node.inputs[0].type.dtype, low, high, node.attrs["fill"])


def padded(
    to: Writer, x: str, dtype: DType, low: Sequence[int], high: Sequence[int], fill: float = 0
) -> str:
    """Write a pad of all axes by positive and negative numbers."""
    added = [max(each, 0) for each in (*low, *high)]
    if any(added):
        value = to.constant(fill, dtype.numpy)
        x = to("Pad", x, to.integers(added), value, mode="constant")
    starts = [max(-each, 0) for each in low]
    stops = [min(each, 0) or 2**62 for each in high]
    if any(starts) or any(stop < 0 for stop in stops):
        x = sliced(to, x, starts, stops, [1] * len(starts))
    return x


def dilate(to: Writer, node: Node, x: str) -> str:
    """Zeros between neighbours."""
    return dilated(to, x, node.inputs[0].type.dtype, node.inputs[0].type.shape, node.attrs["steps"])


def dilated(to: Writer, x: str, dtype: DType, shape: Sequence[int], steps: Sequence[int]) -> str:
    """Write zeros between neighbours: each gets an axis of its own, which is padded."""
    sizes = list(shape)
    for axis, step in enumerate(steps):
        if step == 1 or sizes[axis] == 0:
            continue
        x = to.reshape(x, [*sizes[: axis + 1], 1, *sizes[axis + 1 :]])
        high = [0] * (len(sizes) + 1)
        high[axis + 1] = step - 1
        x = padded(to, x, dtype, [0] * len(high), high)
        sizes[axis] *= step
        x = to.reshape(x, sizes)
        high = [0] * len(sizes)
        high[axis] = 1 - step
        x = padded(to, x, dtype, [0] * len(high), high)
        sizes[axis] -= step - 1
    return x


def concatenate(to: Writer, node: Node, *x: str) -> str:
    """One after the other."""
    return to("Concat", *x, axis=node.attrs["axis"])


def pack(to: Writer, node: Node, *x: str) -> str:
    """Flat, each at its offset, zeros between."""
    parts: list[str] = []
    end = 0
    starts = (*node.attrs["offsets"], node.attrs["total"])
    for place, start in enumerate(starts):
        if start > end:
            zero = to.constant(np.zeros(1, node.type.dtype.numpy))
            parts.append(to("Expand", zero, to.integers([start - end])))
        if place < len(x):
            size = node.inputs[place].type.size
            parts.append(to.reshape(x[place], [size]))
            end = start + size
    return to("Concat", *parts, axis=0)


def windows(to: Writer, node: Node, x: str) -> str:
    """Each axis is looked up at the places of its windows, last axis first."""
    attrs, shape = node.attrs, node.inputs[0].type.shape
    count = len(attrs["sizes"])
    lead = len(shape) - count
    for place in reversed(range(count)):
        size, stride, step = (attrs[key][place] for key in ("sizes", "strides", "dilation"))
        number = (shape[lead + place] - (size - 1) * step - 1) // stride + 1
        where = np.arange(number)[:, None] * stride + np.arange(size) * step
        x = to("Gather", x, to.constant(where, np.int64), axis=lead + place)
    pairs = [lead + 2 * place for place in range(count)]
    order = [*range(lead), *pairs, *(pair + 1 for pair in pairs)]
    return to("Transpose", x, perm=order) if order else x


def by_position(to: Writer, node: Node, x: str) -> str:
    """Look elements up at constant positions; 0 is the place of what comes from nowhere."""
    source = node.inputs[0].type
    numbers = np.arange(1, source.size + 1, dtype=np.int64).reshape(source.shape)
    places = node.op.numpy(numbers, **node.attrs)
    nothing = to.constant(np.zeros(1, source.dtype.numpy))
    flat = to("Concat", nothing, to.reshape(x, [source.size]), axis=0)
    return to("Gather", flat, to.constant(places, np.int64), axis=0)


def positions(to: Writer, node: Node, index: str) -> tuple[str, int]:
    """Return the positions in i64, counted from the start where they are inside."""
    size = node.inputs[0].type.shape[node.attrs["axis"]]
    wide = to.cast(index, I64)
    if node.inputs[1].type.dtype is DType.U32:
        return wide, size
    below = to("Less", wide, to.constant(0, np.int64))
    return to("Where", below, to("Add", wide, to.constant(size, np.int64)), wide), size


def gather(to: Writer, node: Node, x: str, index: str) -> str:
    """The nearest slice where a position is outside."""
    wide, size = positions(to, node, index)
    near = to("Clip", wide, to.constant(0, np.int64), to.constant(size - 1, np.int64))
    return to("Gather", x, near, axis=node.attrs["axis"])


def cut(to: Writer, node: Node, x: str, count: str) -> str:
    """What is real of a result."""
    end = to.reshape(to.cast(count, I64), [1])
    axis = to.integers([node.attrs["axis"]])
    return to("Slice", x, to.integers([0]), end, axis)


def dynamic_update_slice(to: Writer, node: Node, x: str, start: str, update: str) -> str:
    """Each place looks up the update's element that lies there, if one does."""
    axis, shape = node.attrs["axis"], node.type.shape
    length = node.inputs[2].type.shape[axis]
    if length == 0:
        return x
    zero, leads = to.constant(0, np.int64), node.inputs[1].type.shape
    last = to.constant(shape[axis] - length, np.int64)
    first = to.reshape(
        to("Clip", to.cast(start, I64), zero, last), [*leads, *[1] * (len(shape) - len(leads))]
    )
    places = np.arange(shape[axis]).reshape([-1 if n == axis else 1 for n in range(len(shape))])
    inside = to("Sub", to.constant(places, np.int64), first)
    inside = to("Expand", inside, to.integers(shape))
    near = to("Clip", inside, zero, to.constant(length - 1, np.int64))
    is_there = to("Equal", inside, near)
    return to.where(is_there, to("GatherElements", update, near, axis=axis), x, node.type.dtype)


RULES: dict[str, Rule] = {
    "cut": cut,
    "dynamic_update_slice": dynamic_update_slice,
    "constant": constant,
    "iota": iota,
    "reshape": reshape,
    "permute": permute,
    "broadcast": broadcast,
    "slice": slice_,
    "flip": flip,
    "pad": pad,
    "dilate": dilate,
    "concatenate": concatenate,
    "pack": pack,
    "windows": windows,
    "window_sources": by_position,
    "gather": gather,
}
