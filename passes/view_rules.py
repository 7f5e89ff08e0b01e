"""Rewrites of views, joins and reductions: views compose, and what they undo goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from asg.graph import Node, Value
from asg.op import Combine, Reduction
from asg.ops.arithmetic import add, mul
from asg.ops.join import concatenate, pack
from asg.ops.movement import broadcast, dilate, flip, pad, permute, reshape, slice_
from asg.ops.sources import constant_, iota
from asg.passes.rewriting import (
    Captures,
    Rule,
    as_scalar,
    full,
    is_uniform,
    made_by,
    operand,
    spread,
)
from asg.tensor import Tensor, build
from asg.types import Shape


def _same_type(node: Node) -> Captures | None:
    """Match a view that changes nothing: its type is the operand's, and so is every place."""
    x = operand(node, 0)
    if x.type != node.type:
        return None
    axes = node.attrs.get("axes")
    if node.op is permute and axes != tuple(range(x.ndim)):
        return None
    if node.op is flip and any(x.shape[axis] > 1 for axis in axes or ()):
        return None
    if node.op is pad and any(node.attrs["low"]):
        return None
    return (x,)


def _unit_permute(node: Node) -> Captures | None:
    """Match a permutation that moves nothing but axes of size 1."""
    x = operand(node, 0)
    moved = [axis for axis in node.attrs["axes"] if x.shape[axis] != 1]
    return (x, node.type.shape) if moved == sorted(moved) else None


def _unit_broadcast(node: Node) -> Captures | None:
    """Match a broadcast that adds nothing but axes of size 1."""
    x = operand(node, 0)
    return (x, node.type.shape) if x.size == node.type.size and x.size else None


def _nested(node: Node) -> Captures | None:
    """Match a view over one of the same op; capture both."""
    inner = made_by(node.inputs[0], node.op)
    return None if inner is None else (node, inner)


def _merge_permutes(node: Node, inner: Node) -> Tensor:
    axes = tuple(inner.attrs["axes"][axis] for axis in node.attrs["axes"])
    result: Tensor = permute(operand(inner, 0), axes=axes)
    return result


def _merge_flips(node: Node, inner: Node) -> Tensor:
    axes = sorted(set(node.attrs["axes"]) ^ set(inner.attrs["axes"]))
    result: Tensor = flip(operand(inner, 0), axes=tuple(axes))
    return result


def _merge_slices(node: Node, inner: Node) -> Tensor:
    ranges: list[tuple[int, int, int]] = []
    outer_bounds = zip(node.attrs["starts"], node.attrs["steps"], node.type.shape, strict=True)
    inner_bounds = zip(inner.attrs["starts"], inner.attrs["steps"], strict=True)
    for (start, step, size), (low, stride) in zip(outer_bounds, inner_bounds, strict=True):
        ranges.append((low + start * stride, step * stride, size))
    return _slice(operand(inner, 0), ranges)


def _slice(x: Tensor, ranges: Sequence[tuple[int, int, int]]) -> Tensor:
    """Take `size` elements from `start` in steps of `step` along every axis."""
    if not ranges:
        return x
    bounds = [
        (start, start + (size - 1) * step + 1, step) if size else (0, 0, 1)
        for start, step, size in ranges
    ]
    starts, stops, steps = (tuple(part) for part in zip(*bounds, strict=True))
    result: Tensor = slice_(x, starts=starts, stops=stops, steps=steps)
    return result


def _nested_pads(node: Node) -> Captures | None:
    inner = made_by(node.inputs[0], pad)
    if inner is None or not _same_fill(node, inner):
        return None
    amounts = (*node.attrs["low"], *node.attrs["high"], *inner.attrs["low"], *inner.attrs["high"])
    return (node, inner) if min(amounts, default=0) >= 0 else None


def _same_fill(first: Node, second: Node) -> bool:
    left, right = (np.asarray(node.attrs["fill"]) for node in (first, second))
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))


def _merge_pads(node: Node, inner: Node) -> Tensor:
    low, high = (
        tuple(a + b for a, b in zip(node.attrs[side], inner.attrs[side], strict=True))
        for side in ("low", "high")
    )
    result: Tensor = pad(operand(inner, 0), low=low, high=high, fill=node.attrs["fill"])
    return result


def _cropping_pad(node: Node) -> Captures | None:
    """Match a pad that cuts off, and cuts off nothing but elements of its operand."""
    amounts = list(
        zip(node.attrs["low"], node.attrs["high"], node.inputs[0].type.shape, strict=True)
    )
    is_inside = all(max(-low, 0) + max(-high, 0) <= size for low, high, size in amounts)
    is_cropping = any(low < 0 or high < 0 for low, high, _ in amounts)
    return (node,) if is_cropping and is_inside else None


def _slice_before_pad(node: Node) -> Tensor:
    x, low, high = operand(node, 0), node.attrs["low"], node.attrs["high"]
    cropped = _slice(
        x,
        [
            (max(-a, 0), 1, size - max(-a, 0) - max(-b, 0))
            for a, b, size in zip(low, high, x.shape, strict=True)
        ],
    )
    low, high = (tuple(max(amount, 0) for amount in side) for side in (low, high))
    result: Tensor = pad(cropped, low=low, high=high, fill=node.attrs["fill"])
    return result


def _ends(node: Node) -> list[tuple[int, int]]:
    """Return the first and the last position that a slice reads along each axis."""
    bounds = zip(node.attrs["starts"], node.attrs["steps"], node.type.shape, strict=True)
    return [(start, start + (size - 1) * step) for start, step, size in bounds]


def _slice_inside_pad(node: Node) -> Captures | None:
    """Match a slice of a pad that reads only what was padded."""
    inner = made_by(node.inputs[0], pad)
    if inner is None or not node.type.size:
        return None
    shape = inner.inputs[0].type.shape
    for (first, last), low, size in zip(_ends(node), inner.attrs["low"], shape, strict=True):
        if first < low or last >= low + size:
            return None
    return operand(inner, 0), node, inner.attrs["low"]


def _slice_of_fill(node: Node) -> Captures | None:
    """Match a slice of a pad that reads only the fill."""
    inner = made_by(node.inputs[0], pad)
    if inner is None or not node.type.size:
        return None
    shape = inner.inputs[0].type.shape
    for (first, last), low, size in zip(_ends(node), inner.attrs["low"], shape, strict=True):
        if last < low or first >= low + size:
            return inner.attrs["fill"], node.type
    return None


def _slice_inside_join(node: Node) -> Captures | None:
    """Match a slice of a concatenation that reads only one operand."""
    join = made_by(node.inputs[0], concatenate)
    if join is None or not node.type.size:
        return None
    axis = join.attrs["axis"]
    first, last = _ends(node)[axis]
    start = 0
    for value in join.inputs:
        size = value.type.shape[axis]
        if start <= first and last < start + size:
            shift = tuple(start if other == axis else 0 for other in range(value.type.rank))
            return Tensor(value), node, shift
        start += size
    return None


def _slice_shifted(x: Tensor, node: Node, shift: Sequence[int]) -> Tensor:
    """Take from `x` what `node` takes `shift` further."""
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    return _slice(
        x,
        [
            (start - low, step, size)
            for start, step, size, low in zip(starts, steps, node.type.shape, shift, strict=True)
        ],
    )


def _packed_member(node: Node) -> Captures | None:
    """Match a slice of a pack that reads exactly one member."""
    join = made_by(node.inputs[0], pack)
    if join is None or node.attrs["steps"] != (1,) or not node.type.size:
        return None
    for value, offset in zip(join.inputs, join.attrs["offsets"], strict=True):
        if offset == node.attrs["starts"][0] and value.type.size == node.type.size:
            return Tensor(value), node.type.shape
    return None


def _broadcast_reshape(node: Node) -> Captures | None:
    """Match a broadcast of a reshape that only adds or drops leading axes of size 1."""
    inner = made_by(node.inputs[0], reshape)
    if inner is None:
        return None
    x = operand(inner, 0)
    is_same = _without_lead(x.shape) == _without_lead(inner.type.shape)
    return (x, node.type.shape) if is_same and x.ndim <= node.type.rank else None


def _without_lead(shape: Shape) -> Shape:
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _unit_constant(node: Node) -> Captures | None:
    """Match a broadcast of a constant of one element that has axes."""
    inner = made_by(node.inputs[0], constant_)
    if inner is None or inner.type.size != 1 or not inner.type.shape:
        return None
    return inner.attrs["value"].array.reshape(())[()], node.type


def _repeated_scalar(node: Node) -> Captures | None:
    """Match a view of one element that is repeated everywhere."""
    inner = made_by(node.inputs[0], broadcast)
    if inner is None or inner.inputs[0].type.size != 1:
        return None
    return operand(inner, 0), node.type.shape


def _pad_with_same(node: Node) -> Captures | None:
    """Match a pad that adds only more of the same, or finds no elements to surround."""
    is_empty = not node.inputs[0].type.size and min(node.attrs["low"] + node.attrs["high"]) >= 0
    is_same = is_uniform(node.inputs[0], node.attrs["fill"])
    return (node.attrs["fill"], node.type) if is_empty or is_same else None


_PART = 1 << 16  # elements compared at a time


def _uniform_constant(node: Node) -> Captures | None:
    array = node.attrs["value"].array
    if array.size < 2:
        return None
    words = array.reshape(-1).view(np.uint8).reshape(array.size, -1)
    for start in range(0, array.size, _PART):  # most differ soon, and some are large
        if (words[start : start + _PART] != words[0]).any():
            return None
    return array.reshape(-1)[0], node.type


def _unit_iota(node: Node) -> Captures | None:
    return (0, node.type) if node.type.shape[node.attrs["axis"]] == 1 else None


def _reduction_of_units(node: Node) -> Captures | None:
    """Match a reduction along axes of size 1, among others perhaps."""
    if not isinstance(node.op.kind, Reduction):
        return None
    shape = node.inputs[0].type.shape
    units = [axis for axis in node.attrs["axes"] if shape[axis] == 1]
    return (node, units) if units or not node.attrs["axes"] else None


def _reduce_others(node: Node, units: Sequence[int]) -> Tensor:
    x = operand(node, 0)
    left = [axis for axis in range(x.ndim) if axis not in units]
    small = reshape(x, shape=tuple(x.shape[axis] for axis in left))
    axes = tuple(left.index(axis) for axis in node.attrs["axes"] if axis not in units)
    return _reduce(node, small, axes)


def _reduce(node: Node, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the reduction that `node` does, of `x` along `axes`."""
    if not axes:
        return x
    result: Tensor = build(node.op, [x.value], {**node.attrs, "axes": tuple(axes)})
    return result


def _nested_reductions(node: Node) -> Captures | None:
    inner = made_by(node.inputs[0], node.op) if isinstance(node.op.kind, Reduction) else None
    if inner is None:
        return None
    kept = [axis for axis in range(inner.inputs[0].type.rank) if axis not in inner.attrs["axes"]]
    axes = sorted((*inner.attrs["axes"], *(kept[axis] for axis in node.attrs["axes"])))
    return node, operand(inner, 0), axes


def _reduction_of_all(node: Node) -> Captures | None:
    """Match a reduction of all elements, which does not mind their order."""
    if not isinstance(node.op.kind, Reduction) or node.type.shape:
        return None
    inner = node.inputs[0].node
    if not any(inner.op is view for view in (reshape, permute, flip)):
        return None
    x = operand(inner, 0)
    if inner.type.shape == tuple(size for size in x.shape if size != 1):
        return None  # the reshape is there because unit axes are not reduced
    return node, x, range(x.ndim)


def _reduction_of_repeats(node: Node) -> Captures | None:
    """Match a reduction along axes where the operand repeats itself."""
    kind = node.op.kind
    if not isinstance(kind, Reduction) or kind.combine is Combine.PROD:
        return None
    inner = made_by(node.inputs[0], broadcast)
    if inner is None or not inner.type.size:
        return None
    x = operand(inner, 0)
    lead = inner.type.rank - x.ndim
    repeated = [
        axis
        for axis in node.attrs["axes"]
        if inner.type.shape[axis] > 1 and (axis < lead or x.shape[axis - lead] == 1)
    ]
    return (node, inner, repeated) if repeated else None


def _reduce_before_broadcast(node: Node, inner: Node, repeated: Sequence[int]) -> Tensor:
    shape = inner.type.shape
    once = tuple(1 if axis in repeated else size for axis, size in enumerate(shape))
    total = _reduce(node, spread(operand(inner, 0), once), node.attrs["axes"])
    kind = node.op.kind
    if not isinstance(kind, Reduction) or kind.combine is not Combine.SUM:
        return total
    count = math.prod(shape[axis] for axis in repeated)
    result: Tensor = mul(total, full(count, total.type))
    return result


def _trivial_join(node: Node) -> Captures | None:
    """Match a concatenation with nested or empty operands, or a single one."""
    axis = node.attrs["axis"]
    parts: list[Value] = []
    for value in node.inputs:
        inner = made_by(value, concatenate)
        if inner is not None and inner.attrs["axis"] == axis:
            parts.extend(inner.inputs)
        elif value.type.shape[axis]:
            parts.append(value)
    parts = parts or [node.inputs[0]]
    is_same = tuple(parts) == node.inputs and len(parts) > 1
    return None if is_same else (parts, axis)


def _join(parts: Sequence[Value], axis: int) -> Tensor:
    tensors = [Tensor(value) for value in parts]
    result: Tensor = tensors[0] if len(tensors) == 1 else concatenate(*tensors, axis=axis)
    return result


@dataclass(frozen=True)
class _Piece:
    """A tensor with zeros around it along one axis."""

    x: Tensor
    axis: int
    low: int
    high: int

    @property
    def end(self) -> int:
        return self.low + self.x.shape[self.axis]


def _adjacent_pads(node: Node) -> Captures | None:
    """Match a sum of pads that lie side by side along one axis, as the gradient of a split."""
    pieces: list[_Piece] = []
    pending = list(node.inputs)
    while pending:
        value = pending.pop()
        if value.node.op is add and len(pieces) + len(pending) < 64:
            pending.extend(value.node.inputs)
            continue
        piece = _piece(value)
        if piece is None or (pieces and piece.axis != pieces[0].axis):
            return None
        pieces.append(piece)
    pieces.sort(key=lambda piece: piece.low)
    for before, after in pairwise(pieces):
        if before.end != after.low:
            return None
    return (pieces,)


def _piece(value: Value) -> _Piece | None:
    node = made_by(value, pad)
    if node is None or node.attrs["fill"] != 0 or not node.inputs[0].type.size:
        return None
    low, high = node.attrs["low"], node.attrs["high"]
    axes = [axis for axis in range(len(low)) if low[axis] or high[axis]]
    if len(axes) != 1 or low[axes[0]] < 0 or high[axes[0]] < 0:
        return None
    return _Piece(operand(node, 0), axes[0], low[axes[0]], high[axes[0]])


def _concatenate_pieces(pieces: Sequence[_Piece]) -> Tensor:
    axis = pieces[0].axis
    joined = concatenate(*(piece.x for piece in pieces), axis=axis)
    low, high = ([0] * joined.ndim for _ in range(2))
    low[axis], high[axis] = pieces[0].low, pieces[-1].high
    result: Tensor = pad(joined, low=tuple(low), high=tuple(high), fill=0)
    return result


def _reshaped(x: Tensor, shape: Shape) -> Tensor:
    result: Tensor = reshape(x, shape=shape)
    return result


def _broadcast_again(node: Node, inner: Node) -> Tensor:
    return spread(operand(inner, 0), node.type.shape)


_ALL_VIEWS = (reshape, permute, broadcast, slice_, dilate, pad, flip)

VIEWS: tuple[Rule, ...] = (
    Rule("view that changes nothing", _ALL_VIEWS, _same_type, lambda x: x),
    Rule("permute of unit axes", (permute,), _unit_permute, _reshaped),
    Rule("broadcast of unit axes", (broadcast,), _unit_broadcast, _reshaped),
    Rule(
        "reshape of reshape", (reshape,), _nested,
        lambda node, inner: _reshaped(operand(inner, 0), node.type.shape),
    ),
    Rule("permute of permute", (permute,), _nested, _merge_permutes),
    Rule("flip of flip", (flip,), _nested, _merge_flips),
    Rule("slice of slice", (slice_,), _nested, _merge_slices),
    Rule("broadcast of broadcast", (broadcast,), _nested, _broadcast_again),
    Rule("broadcast of reshape", (broadcast,), _broadcast_reshape, spread),
    Rule("broadcast of a unit constant", (broadcast,), _unit_constant, full),
    Rule(
        "view of a repeated scalar", (reshape, permute, flip, slice_), _repeated_scalar,
        lambda x, shape: spread(as_scalar(x), shape),
    ),
    Rule("pad that cuts off", (pad,), _cropping_pad, _slice_before_pad),
    Rule("pad with the same", (pad,), _pad_with_same, full),
    Rule("pad of pad", (pad,), _nested_pads, _merge_pads),
    Rule("slice inside pad", (slice_,), _slice_inside_pad, _slice_shifted),
    Rule("slice of fill", (slice_,), _slice_of_fill, full),
    Rule("slice inside concatenate", (slice_,), _slice_inside_join, _slice_shifted),
    Rule("slice of a pack's member", (slice_,), _packed_member, _reshaped),
    Rule("uniform constant", (constant_,), _uniform_constant, full),
    Rule("iota along a unit axis", (iota,), _unit_iota, full),
    Rule("reduction of unit axes", (), _reduction_of_units, _reduce_others),
    Rule("reduction of reduction", (), _nested_reductions, _reduce),
    Rule("reduction of all elements", (), _reduction_of_all, _reduce),
    Rule("reduction of repeats", (), _reduction_of_repeats, _reduce_before_broadcast),
    Rule("trivial concatenate", (concatenate,), _trivial_join, _join),
    Rule("pads side by side", (add,), _adjacent_pads, _concatenate_pieces),
)  # fmt: skip
