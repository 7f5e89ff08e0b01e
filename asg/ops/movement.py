"""Views: ops that only move data. They cost nothing; kernels read through their index maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.index import ZERO, Index, flatten, unflatten
from asg.op import Access, Array, BadSample, Example, Op, Sample, View
from asg.ops.rules import check_axis, expect
from asg.tensor import Tensor, as_tensor
from asg.types import Shape, TensorType, as_shape

Coordinates = tuple[Index, ...]


def _reshape_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    result = TensorType(as_shape(attrs["shape"]), types[0].dtype)
    if result.size != types[0].size:
        raise ShapeError(
            f"{types[0]} has {types[0].size} elements, {list(result.shape)} {result.size}"
        )
    return result


def _reshape_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    return Access(unflatten(flatten(at, shape), source))


reshape: Op = Op(
    name="reshape",
    doc="The same elements in the same order in another shape.",
    kind=View(
        access=_reshape_access,
        inverse=lambda attrs, source, shape, at: unflatten(flatten(at, source), shape),
    ),
    shape=_reshape_rule,
    numpy=lambda x, shape: np.reshape(x, shape),
    grad=lambda node, g, x: [reshape(g, shape=x.shape)],
    examples=[Example([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]],
                      [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], {"shape": (3, 2)})],
    samples=[
        Sample(["f32[4, 6]"], {"shape": (2, 2, 6)}),
        Sample(["i32[3, 1, 4]"], {"shape": (2, 6)}),
        Sample(["f32[]"], {"shape": (1, 1)}),
        Sample(["f32[0, 3]"], {"shape": (5, 0)}),
    ],
    errors=[
        BadSample(["f32[4, 6]"], "reshape: f32[4, 6] has 24 elements, [5, 5] 25", {"shape": (5, 5)})
    ],
)  # fmt: skip


def _permute_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    axes, shape = attrs["axes"], types[0].shape
    if sorted(axes) != list(range(len(shape))):
        raise ShapeError(f"axes {tuple(axes)} are no order of the {len(shape)} axes of {types[0]}")
    return TensorType(tuple(shape[axis] for axis in axes), types[0].dtype)


def _inverse_order(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axes.index(axis) for axis in range(len(axes)))


def _permute_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    return Access(tuple(at[place] for place in _inverse_order(attrs["axes"])))


permute: Op = Op(
    name="permute",
    doc="Axes in another order: axis i of the result is axis `axes[i]` of the operand.",
    kind=View(
        access=_permute_access,
        inverse=lambda attrs, source, shape, at: tuple(at[axis] for axis in attrs["axes"]),
    ),
    shape=_permute_rule,
    numpy=lambda x, axes: np.transpose(x, axes),
    grad=lambda node, g, x: [permute(g, axes=_inverse_order(node.attrs["axes"]))],
    examples=[Example([[[1.0, 2.0, 3.0]]], [[1.0], [2.0], [3.0]], {"axes": (1, 0)})],
    samples=[
        Sample(["f32[4, 3, 2]"], {"axes": (2, 0, 1)}),
        Sample(["u32[4, 3]"], {"axes": (1, 0)}, low=0),
        Sample(["f32[]"], {"axes": ()}),
    ],
    errors=[
        BadSample(["f32[4, 3]"], "axes (0, 0) are no order of the 2 axes", {"axes": (0, 0)}),
        BadSample(["f32[4, 3]"], "axes (1, 0, 2) are no order", {"axes": (1, 0, 2)}),
    ],
)


def _broadcast_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    source, shape = types[0].shape, as_shape(attrs["shape"])
    lead = len(shape) - len(source)
    if lead < 0 or any(
        size not in (1, wanted) for size, wanted in zip(source, shape[max(lead, 0) :], strict=False)
    ):
        raise ShapeError(f"{types[0]} does not broadcast to {list(shape)}")
    return TensorType(shape, types[0].dtype)


def _broadcast_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    tail = at[len(shape) - len(source) :]
    return Access(tuple(ZERO if size == 1 else c for size, c in zip(source, tail, strict=True)))


def _broadcast_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """Each element was read many times, so its gradient is the sum over those places."""
    lead = node.ndim - x.ndim
    widened = [lead + axis for axis, size in enumerate(x.shape) if size != node.shape[lead + axis]]
    axes = (*range(lead), *widened)
    total = g.reduce_sum(axes=axes) if axes else g
    return [total if total.shape == x.shape else reshape(total, shape=x.shape)]


broadcast = Op(
    name="broadcast",
    doc="Axes of size 1 repeated and leading axes added, by NumPy's rule.",
    kind=View(access=_broadcast_access),
    shape=_broadcast_rule,
    numpy=lambda x, shape: np.broadcast_to(x, shape),
    grad=_broadcast_grad,
    examples=[Example([[1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]], {"shape": (2, 2)})],
    samples=[
        Sample(["f32[3, 1]"], {"shape": (2, 3, 4)}),
        Sample(["f32[]"], {"shape": (2, 2)}),
        Sample(["bool[1, 3]"], {"shape": (4, 3)}),
        Sample(["f32[2, 1]"], {"shape": (2, 0)}),
    ],
    errors=[
        BadSample(["f32[3]"], "broadcast: f32[3] does not broadcast to [3, 2]", {"shape": (3, 2)}),
        BadSample(["f32[2, 3]"], "does not broadcast to [3]", {"shape": (3,)}),
    ],
)


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """Return `x` in `shape`, repeated; `x` itself where it has that shape already."""
    tensor, wanted = as_tensor(x), as_shape(shape)
    result: Tensor = tensor if tensor.shape == wanted else broadcast(tensor, shape=wanted)
    return result


def _slice_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    shape = types[0].shape
    bounds = attrs["starts"], attrs["stops"], attrs["steps"]
    if any(len(part) != len(shape) for part in bounds):
        raise ShapeError(f"starts, stops and steps need {len(shape)} entries each for {types[0]}")
    sizes: list[int] = []
    for axis, (size, start, stop, step) in enumerate(zip(shape, *bounds, strict=True)):
        if not 0 <= start <= stop <= size or step < 1:
            raise ShapeError(f"{start}:{stop}:{step} is no slice of axis {axis}, which has {size}")
        sizes.append(-(-(stop - start) // step))
    return TensorType(tuple(sizes), types[0].dtype)


def _slice_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    steps = zip(at, attrs["starts"], attrs["steps"], strict=True)
    return Access(tuple(c * step + start for c, start, step in steps))


def _slices(attrs: Attrs) -> tuple[slice, ...]:
    return tuple(
        slice(*bounds)
        for bounds in zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    )


def _slice_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """Zeros go between the elements that were taken, and around them."""
    attrs = node.attrs
    spread: Tensor = dilate(g, steps=attrs["steps"])
    high = [
        size - start - width
        for size, start, width in zip(x.shape, attrs["starts"], spread.shape, strict=True)
    ]
    result: Tensor = pad(spread, low=attrs["starts"], high=tuple(high), fill=0.0)
    return [result]


def _dilate_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    shape, steps = types[0].shape, attrs["steps"]
    if len(steps) != len(shape) or any(step < 1 for step in steps):
        raise ShapeError(f"steps need {len(shape)} positive entries for {types[0]}, got {steps}")
    sizes = ((size - 1) * step + 1 if size else 0 for size, step in zip(shape, steps, strict=True))
    return TensorType(tuple(sizes), types[0].dtype)


def _dilate_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    steps = attrs["steps"]
    guards = tuple((c % step, 0, 1) for c, step in zip(at, steps, strict=True) if step > 1)
    return Access(tuple(c // step for c, step in zip(at, steps, strict=True)), guards)


def _dilate_numpy(x: Array, steps: Sequence[int]) -> Array:
    sizes = [max((size - 1) * step + 1, 0) for size, step in zip(x.shape, steps, strict=True)]
    result = np.zeros(sizes, x.dtype)
    result[tuple(slice(None, None, step) for step in steps)] = x
    return result


def _dilate_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    """The zeros between are constants."""
    return [slice_(g, starts=(0,) * g.ndim, stops=g.shape, steps=node.attrs["steps"])]


dilate = Op(
    name="dilate",
    doc="`step - 1` zeros put between neighbours, one entry of `steps` per axis.",
    kind=View(access=_dilate_access),
    shape=_dilate_rule,
    numpy=_dilate_numpy,
    grad=_dilate_grad,
    examples=[Example([[1.0, 2.0, 3.0]], [1.0, 0.0, 2.0, 0.0, 3.0], {"steps": (2,)})],
    samples=[
        Sample(["f32[3, 4]"], {"steps": (1, 3)}),
        Sample(["i32[4]"], {"steps": (2,)}),
        Sample(["f32[0, 2]"], {"steps": (2, 2)}),
        Sample(["f32[]"], {"steps": ()}),
    ],
    errors=[
        BadSample(["f32[3]"], "dilate: steps need 1 positive entries", {"steps": (0,)}),
        BadSample(["f32[3]"], "steps need 1 positive entries", {"steps": (1, 1)}),
    ],
)


# Named for the text form; `slice` itself must stay Python's.
slice_ = Op(
    name="slice",
    doc="Elements from `starts` to before `stops` in `steps`, one entry per axis; none negative.",
    kind=View(access=_slice_access),
    shape=_slice_rule,
    numpy=lambda x, **attrs: x[_slices(attrs)],
    grad=_slice_grad,
    examples=[
        Example([[1.0, 2.0, 3.0, 4.0]], [2.0, 4.0], {"starts": (1,), "stops": (4,), "steps": (2,)})
    ],
    samples=[
        Sample(["f32[4, 6]"], {"starts": (1, 0), "stops": (3, 6), "steps": (1, 1)}),
        Sample(["f32[5, 7]"], {"starts": (0, 1), "stops": (5, 7), "steps": (2, 3)}),
        Sample(["i32[4]"], {"starts": (2,), "stops": (2,), "steps": (1,)}),
        Sample(["f32[]"], {"starts": (), "stops": (), "steps": ()}),
    ],
    errors=[
        BadSample(["f32[4]"], "slice: 1:5:1 is no slice of axis 0, which has 4",
                  {"starts": (1,), "stops": (5,), "steps": (1,)}),
        BadSample(["f32[4]"], "3:1:-1 is no slice",
                  {"starts": (3,), "stops": (1,), "steps": (-1,)}),
        BadSample(["f32[4]"], "need 1 entries each", {"starts": (), "stops": (), "steps": ()}),
    ],
)  # fmt: skip


def _pad_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    shape, low, high = types[0].shape, attrs["low"], attrs["high"]
    if len(low) != len(shape) or len(high) != len(shape):
        raise ShapeError(f"low and high need {len(shape)} entries each for {types[0]}")
    sizes = tuple(a + size + b for a, size, b in zip(low, shape, high, strict=True))
    if any(size < 0 for size in sizes):
        raise ShapeError(
            f"{types[0]} with low {tuple(low)} and high {tuple(high)} would be {sizes}"
        )
    return TensorType(sizes, types[0].dtype)


def _pad_access(attrs: Attrs, source: Shape, shape: Shape, at: Coordinates) -> Access:
    inside = tuple(c - low for c, low in zip(at, attrs["low"], strict=True))
    guards = tuple(
        (c, 0, size)
        for c, size, low, high in zip(inside, source, attrs["low"], attrs["high"], strict=True)
        if low > 0 or high > 0
    )
    return Access(inside, guards)


def _pad_numpy(x: Array, low: Sequence[int], high: Sequence[int], fill: float) -> Array:
    grown = [(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True)]
    wide = np.pad(x, grown, constant_values=fill) if grown else x
    ends = zip(low, high, wide.shape, strict=True)
    cropped: Array = wide[tuple(slice(max(-a, 0), size - max(-b, 0)) for a, b, size in ends)]
    return cropped


def _pad_grad(node: Tensor, g: Tensor, x: Tensor) -> list[Tensor]:
    low, high = ([-size for size in node.attrs[side]] for side in ("low", "high"))
    return [pad(g, low=tuple(low), high=tuple(high), fill=0.0)]


pad = Op(
    name="pad",
    doc="`fill` put before (`low`) and after (`high`) each axis; a negative number cuts off.",
    kind=View(access=_pad_access),
    shape=_pad_rule,
    numpy=_pad_numpy,
    grad=_pad_grad,
    examples=[
        Example([[1.0, 2.0]], [7.0, 1.0, 2.0], {"low": (1,), "high": (0,), "fill": 7.0}),
        Example([[1.0, 2.0]], [2.0, 0.0], {"low": (-1,), "high": (1,), "fill": 0.0}),
    ],
    samples=[
        Sample(["f32[2, 3]"], {"low": (1, 0), "high": (2, 1), "fill": 0.0}),
        Sample(["f32[4, 5]"], {"low": (-1, 2), "high": (2, -3), "fill": -1.5}),
        Sample(["i32[3]"], {"low": (2,), "high": (0,), "fill": 4}),
        Sample(["bool[3]"], {"low": (0,), "high": (1,), "fill": True}),
        Sample(["f32[0, 2]"], {"low": (1, 0), "high": (0, 0), "fill": 0.5}),
    ],
    errors=[
        BadSample(["f32[2]"], "would be (-1,)", {"low": (-3,), "high": (0,), "fill": 0.0}),
        BadSample(["f32[2]"], "need 1 entries each", {"low": (), "high": (), "fill": 0.0}),
    ],
)


def _flip_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    for axis in attrs["axes"]:
        check_axis(axis, types[0].shape)
    return types[0]


def _flipped(attrs: Attrs, shape: Shape, at: Coordinates) -> Coordinates:
    axes = attrs["axes"]
    return tuple(
        Index(size - 1) - c if axis in axes else c
        for axis, (size, c) in enumerate(zip(shape, at, strict=True))
    )


flip: Op = Op(
    name="flip",
    doc="Elements in opposite order along `axes`.",
    kind=View(
        access=lambda attrs, source, shape, at: Access(_flipped(attrs, shape, at)),
        inverse=lambda attrs, source, shape, at: _flipped(attrs, shape, at),
    ),
    shape=_flip_rule,
    numpy=lambda x, axes: np.flip(x, axes),
    grad=lambda node, g, x: [flip(g, axes=node.attrs["axes"])],
    examples=[Example([[1.0, 2.0, 3.0]], [3.0, 2.0, 1.0], {"axes": (0,)})],
    samples=[Sample(["f32[4, 3]"], {"axes": (0, 1)}), Sample(["i32[4, 3]"], {"axes": (1,)})],
    errors=[BadSample(["f32[3]"], "flip: axis 1 is out of range for [3]", {"axes": (1,)})],
)

OPS = (reshape, permute, broadcast, slice_, dilate, pad, flip)
