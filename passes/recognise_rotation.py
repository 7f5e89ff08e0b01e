"""Rotations of queries and keys by their positions, as a view in place of joined halves.

`concatenate(-x[h:], x[:h])` is x with its halves exchanged, times -1 or 1 by position. Forward,
either is one kernel with what reads it; the gradient of the join is pads and a sum, which are
stored, while that of the view is a view.
"""

from __future__ import annotations

from collections.abc import Mapping

from asg.graph import Graph, Node, Value
from asg.ops.arithmetic import add, mul, neg, sub
from asg.ops.join import concatenate
from asg.ops.logic import less, select
from asg.ops.movement import broadcast, flip, reshape, slice_
from asg.ops.sources import iota
from asg.passes.matching import Match, is_private
from asg.passes.patterns import At, Call, Found, Var
from asg.passes.rewriting import is_uniform
from asg.tensor import Tensor
from asg.types import DType

_a, _b, _c, _s = (Var(name) for name in "abcs")
_FIRST = Call(sub, (_a * _c, _b * _s))
_SECOND = Call(add, (_b * _c, _a * _s))


def find_rotations(graph: Graph) -> Mapping[Node, Match]:
    """Return the joins of two halves of which one is denied, or both are turned."""
    found: dict[Node, Match] = {}
    for node in graph.nodes:
        is_join = node.op is concatenate and len(node.inputs) == 2
        if not is_join or node.type.dtype is not DType.F32:
            continue
        match = _exchanged(node) or _turned(node)
        if match is not None and is_private(graph, node, match.inside):
            found[node] = match
    return found


def _half(value: Value, axis: int) -> tuple[Value, int] | None:
    """Return x and 0 or 1 of a value that is the lower or upper half of x along an axis."""
    node = value.node
    if node.op is not slice_ or set(node.attrs["steps"]) != {1}:
        return None
    whole, part = node.inputs[0].type.shape, node.type.shape
    wanted = (*whole[:axis], whole[axis] // 2, *whole[axis + 1 :])
    if not part[axis] or whole[axis] % 2 or part != wanted:
        return None
    start = node.attrs["starts"][axis]
    return (node.inputs[0], start // part[axis]) if start in (0, part[axis]) else None


def _denied(value: Value) -> Value | None:
    """Return x of -x."""
    node = value.node
    if node.op is neg:
        return node.inputs[0]
    if node.op is mul:
        for one, other in (node.inputs, node.inputs[::-1]):
            if is_uniform(other, -1):
                return one
    return None


def _exchanged(node: Node) -> Match | None:
    axis = node.attrs["axis"]
    upper = _denied(node.inputs[0])
    first = None if upper is None else _half(upper, axis)
    second = _half(node.inputs[1], axis)
    if first is None or second is None or first != (second[0], 1) or second[1] != 0:
        return None
    return Match("rotation", (second[0],), (node.inputs[0].node,), lambda x: _exchange(x, axis))


def _exchange(x: Tensor, axis: int) -> Tensor:
    """Return x with its halves exchanged, the first one times -1."""
    half = x.shape[axis] // 2
    apart = reshape(x, shape=(*x.shape[:axis], 2, half, *x.shape[axis + 1 :]))
    swapped = reshape(flip(apart, axes=(axis,)), shape=x.shape)
    position = iota(shape=x.shape, axis=axis, dtype=DType.I32)
    result: Tensor = mul(swapped, select(less(position, half), -1.0, 1.0))
    return result


def _turned(node: Node) -> Match | None:
    """x[:h] cos - x[h:] sin beside x[h:] cos + x[:h] sin."""
    axis = node.attrs["axis"]
    if node.inputs[0].node.op is not sub or node.inputs[0].type != node.inputs[1].type:
        return None
    shape = node.inputs[0].type.shape
    places = tuple(range(len(shape)))
    for begun in _FIRST.match(At(node.inputs[0], places), Found(shape, {}, {})):
        for found in _SECOND.match(At(node.inputs[1], places), begun):
            low, high = (_half(found.values[name], axis) for name in "ab")
            if low is None or high is None or low[1] != 0 or high != (low[0], 1):
                continue
            operands = (low[0], found.values["c"], found.values["s"])
            return Match("rotation", operands, found.inside, lambda x, c, s: _turn(x, c, s, axis))
    return None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, axis: int) -> Tensor:
    cos, sin = (_twice(each, axis) for each in (cos, sin))
    result: Tensor = add(mul(x, cos), mul(_exchange(x, axis), sin))
    return result


def _twice(x: Tensor, axis: int) -> Tensor:
    """Return x beside itself along an axis, as a view."""
    shape = (*x.shape[:axis], 2, *x.shape[axis:])
    apart = reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))
    joined = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    result: Tensor = reshape(broadcast(apart, shape=shape), shape=joined)
    return result
