"""Sliding windows: views, so that what is computed on windows never stores them.

Along each of the last axes, window `o` holds the elements `o * stride + k * dilation`. `windows`
yields them as further axes; `window_sources` goes the other way and asks of every element what each
window that covers it has in its place. One is the gradient of the other.
"""

from __future__ import annotations

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.index import Index
from asg.op import Access, Array, BadSample, Example, Op, Sample, View
from asg.ops.logic import equal, select
from asg.ops.movement import permute
from asg.ops.reduction import reduce_sum
from asg.ops.rules import expect
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType

Coordinates = tuple[Index, ...]


def window_count(size: int, window: int, stride: int, dilation: int) -> int:
    """Return how many windows fit into an axis; none or less where it is too short for one."""
    return (size - (window - 1) * dilation - 1) // stride + 1


def _check(attrs: Attrs, shape: Shape) -> int:
    """Return how many axes have windows."""
    parts = attrs["sizes"], attrs["strides"], attrs["dilation"]
    count = len(parts[0])
    if any(len(part) != count for part in parts) or count > len(shape):
        raise ShapeError(
            f"sizes, strides and dilation need one entry per axis with windows, got {parts}"
        )
    if any(entry < 1 for part in parts for entry in part):
        raise ShapeError(f"sizes, strides and dilation are positive, got {parts}")
    return count


def _windows_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    shape = types[0].shape
    lead = len(shape) - _check(attrs, shape)
    counts: list[int] = []
    parts = zip(shape[lead:], attrs["sizes"], attrs["strides"], attrs["dilation"], strict=True)
    for axis, (size, window, stride, dilation) in enumerate(parts, start=lead):
        counts.append(window_count(size, window, stride, dilation))
        if counts[-1] < 1:
            span = (window - 1) * dilation + 1
            raise ShapeError(
                f"a window spans {span}, more than axis {axis} of {types[0]}, which has {size}"
            )
    return TensorType((*shape[:lead], *counts, *attrs["sizes"]), types[0].dtype)


def _windows_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    rank = len(source)
    lead = rank - len(attrs["sizes"])
    parts = zip(at[lead:rank], at[rank:], attrs["strides"], attrs["dilation"], strict=True)
    return Access((*at[:lead], *(o * stride + k * step for o, k, stride, step in parts)))


def _windows_numpy(x: Array, sizes: Shape, strides: Shape, dilation: Shape) -> Array:
    lead = x.ndim - len(sizes)
    spans = [(size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True)]
    every = np.lib.stride_tricks.sliding_window_view(x, spans, tuple(range(lead, x.ndim)))
    kept = (slice(None, None, step) for step in (*strides, *dilation))
    return every[(slice(None),) * lead + tuple(kept)]


def _windows_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """Each element collects from every window that covers it."""
    attrs = node.attrs
    lead = x.ndim - len(attrs["sizes"])
    sources = window_sources(
        g, shape=x.shape[lead:], strides=attrs["strides"], dilation=attrs["dilation"]
    )
    return [reduce_sum(sources, axes=tuple(range(x.ndim, sources.ndim)))]


windows: Op = Op(
    name="windows",
    doc="Sliding windows of `sizes` over the last axes: [*lead, *windows, *sizes].",
    kind=View(access=_windows_access),
    shape=_windows_rule,
    numpy=_windows_numpy,
    grad=_windows_grad,
    examples=[
        Example([[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]],
                {"sizes": (2,), "strides": (1,), "dilation": (1,)}),
        Example([[1.0, 2.0, 3.0, 4.0, 5.0]], [[1.0, 3.0], [3.0, 5.0]],
                {"sizes": (2,), "strides": (2,), "dilation": (2,)}),
    ],
    samples=[
        Sample(["f32[2, 5, 4]"], {"sizes": (3, 2), "strides": (1, 2), "dilation": (2, 1)}),
        Sample(["f32[7]"], {"sizes": (3,), "strides": (1,), "dilation": (1,)}),
        Sample(["i32[3, 4]"], {"sizes": (2,), "strides": (3,), "dilation": (1,)}),
        Sample(["f32[0, 4]"], {"sizes": (2,), "strides": (1,), "dilation": (1,)}),
        Sample(["f32[]"], {"sizes": (), "strides": (), "dilation": ()}),
    ],
    errors=[
        BadSample(["f32[2, 4]"], "windows: a window spans 5, more than axis 1 of f32[2, 4], which",
                  {"sizes": (3,), "strides": (1,), "dilation": (2,)}),
        BadSample(["f32[4]"], "one entry per axis with windows",
                  {"sizes": (3,), "strides": (), "dilation": (2,)}),
        BadSample(["f32[4]"], "are positive", {"sizes": (3,), "strides": (0,), "dilation": (1,)}),
    ],
)  # fmt: skip


def _sources_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    shape, count = types[0].shape, len(attrs["shape"])
    lead = len(shape) - 2 * count
    if lead < 0:
        raise ShapeError(f"{types[0]} has no {count} axes of windows and {count} inside them")
    sizes = shape[lead + count :]
    inner = {"sizes": sizes, "strides": attrs["strides"], "dilation": attrs["dilation"]}
    covered = TensorType((*shape[:lead], *attrs["shape"]), types[0].dtype)
    if _windows_rule((covered,), inner) != types[0]:
        raise ShapeError(f"{types[0]} are no windows over {list(attrs['shape'])}")
    return TensorType((*covered.shape, *sizes), types[0].dtype)


def _sources_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    count = len(attrs["shape"])
    lead = len(source) - 2 * count
    counts, inside = source[lead : lead + count], at[lead + count :]
    places: list[Index] = []
    guards: list[tuple[Index, int, int]] = []
    parts = zip(at[lead:], inside, counts, attrs["strides"], attrs["dilation"], strict=False)
    for i, k, windows_, stride, dilation in parts:
        start = i - k * dilation
        places.append(start // stride)
        guards.append((start // stride, 0, windows_))
        if stride > 1:
            guards.append((start % stride, 0, 1))
    return Access((*at[:lead], *places, *inside), tuple(guards))


def _sources_numpy(x: Array, shape: Shape, strides: Shape, dilation: Shape) -> Array:
    count = len(shape)
    lead = x.ndim - 2 * count
    sizes = x.shape[lead + count :]
    result = np.zeros((*x.shape[:lead], *shape, *sizes), x.dtype)
    for inside in np.ndindex(*sizes):
        places = tuple(
            slice(k * step, k * step + (windows_ - 1) * stride + 1, stride)
            for k, step, stride, windows_ in zip(
                inside, dilation, strides, x.shape[lead:], strict=False
            )
        )
        before = (slice(None),) * lead
        result[(*before, *places, *inside)] = x[(*before, *(slice(None),) * count, *inside)]
    return result


def _sources_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """Element k of window o went to one place: the one where a window over `g` has it.

    Of all pairs (place inside of the window, place inside of g) the equal ones are kept.
    """
    attrs, count = node.attrs, len(node.attrs["shape"])
    lead = x.ndim - 2 * count
    sizes = x.shape[lead + count :]
    spatial, inside = range(lead, lead + count), range(lead + count, x.ndim)
    moved = permute(g, axes=(*range(lead), *inside, *spatial))
    pairs: Tensor = windows(
        moved, sizes=sizes, strides=attrs["strides"], dilation=attrs["dilation"]
    )  # [*lead, *inside of g, *windows, *inside of the window]
    for axis in range(count):
        first, second = (
            iota(shape=pairs.shape, axis=place, dtype=DType.I32)
            for place in (lead + axis, pairs.ndim - count + axis)
        )
        pairs = select(equal(first, second), pairs, 0.0)
    return [reduce_sum(pairs, axes=tuple(range(lead, lead + count)))]


window_sources: Op = Op(
    name="window_sources",
    doc="For each element of the last axes, of `shape`, and each place in a window: that place's "
    "element of the window in which the element lies there, or 0: [*lead, *shape, *sizes].",
    kind=View(access=_sources_access),
    shape=_sources_rule,
    numpy=_sources_numpy,
    grad=_sources_grad,
    examples=[
        Example([[[1.0, 2.0], [3.0, 4.0]]], [[1.0, 0.0], [3.0, 2.0], [0.0, 4.0]],
                {"shape": (3,), "strides": (1,), "dilation": (1,)}),
    ],
    samples=[
        Sample(["f32[2, 3, 2, 3, 2]"], {"shape": (7, 4), "strides": (2, 1), "dilation": (1, 2)}),
        Sample(["f32[3, 3]"], {"shape": (9,), "strides": (3,), "dilation": (1,)}),
        Sample(["i32[2, 2]"], {"shape": (3,), "strides": (1,), "dilation": (1,)}),
    ],
    errors=[
        BadSample(["f32[3, 2]"], "window_sources: f32[3, 2] are no windows over [6]",
                  {"shape": (6,), "strides": (1,), "dilation": (1,)}),
        BadSample(["f32[3]"], "has no 1 axes of windows",
                  {"shape": (6,), "strides": (1,), "dilation": (1,)}),
    ],
)  # fmt: skip

OPS = (windows, window_sources)
