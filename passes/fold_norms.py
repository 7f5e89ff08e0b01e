"""Let convolutions do what known scales and shifts of their channels do after them.

A batch norm with fixed statistics is (y - mean) * rsqrt(var + eps) * weight + bias. Where all of
them are constants, it is a scale, which the convolution's kernels take over, and a shift, which is
left as the bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asg.graph import Attrs, Graph, Literal, Node, Value, rewrite
from asg.ops.arithmetic import add, mul, sub
from asg.ops.convolution import convolution
from asg.ops.movement import broadcast, reshape
from asg.ops.sources import constant_
from asg.passes.known import per_channel, viewed_constant
from asg.tensor import Tensor

Array = np.ndarray[Any, Any]

CHANNELS = 1  # the axis of a convolution's result that its kernels make


@dataclass(frozen=True)
class FoldNorms:
    """Multiply kernels that are constants by what multiplies their results, and add shifts up.

    Comes after differentiation, while convolutions are whole. A result that others read too is
    left as it is.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op is convolution for node in graph.nodes):
            return graph
        return rewrite(graph, _Folder(graph).fold)


@dataclass(frozen=True)
class _Scaled:
    """A convolution with constant kernels `w`, and what is added to its channels."""

    x: Value
    w: Array
    attrs: Attrs
    shift: Array | None = None

    def value(self, shape: tuple[int, ...]) -> Value:
        kernels = constant_(value=Literal(self.w))
        y: Tensor = convolution(Tensor(self.x), kernels, **self.attrs)
        if self.shift is None:
            return y.value
        places = (1,) * (len(shape) - 2)
        shift = reshape(constant_(value=Literal(self.shift)), shape=(len(self.shift), *places))
        result: Tensor = add(y, broadcast(shift, shape=shape))
        return result.value


class _Folder:
    def __init__(self, graph: Graph) -> None:
        self.users = graph.users
        self.results = graph.results
        self.found: dict[Value, _Scaled] = {}

    def fold(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op is convolution:
            w = viewed_constant(inputs[1])
            if w is not None and self.is_private(Value(node)):
                self.found[Value(node)] = _Scaled(inputs[0], np.ascontiguousarray(w), node.attrs)
            return None
        scaled = self.scaled(node, inputs)
        if scaled is None:
            return None
        if self.is_private(Value(node)):
            self.found[Value(node)] = scaled
        is_first = any(
            each in self.found and self.found[each].shift is None for each in node.inputs
        )
        if is_first and node.op is not mul:
            return None  # a convolution and its bias are what there should be
        return (scaled.value(node.type.shape),)

    def is_private(self, value: Value) -> bool:
        """Tell whether a single node reads the value."""
        return value not in self.results and len(self.users.get(value, ())) == 1

    def scaled(self, node: Node, inputs: tuple[Value, ...]) -> _Scaled | None:
        """Return what `node` is, if it scales or shifts a convolution's channels."""
        if node.op is not add and node.op is not sub and node.op is not mul:
            return None
        for side, before in enumerate(node.inputs):
            if before not in self.found or (side == 1 and node.op is sub):
                continue
            other = per_channel(inputs[1 - side], CHANNELS)
            if other is not None:
                return _after(self.found[before], node, other)
        return None


def _after(scaled: _Scaled, node: Node, other: Array) -> _Scaled:
    shift = scaled.shift
    if node.op is mul:
        columns = other.reshape(-1, *(1,) * (scaled.w.ndim - 1))
        return replace(scaled, w=scaled.w * columns, shift=None if shift is None else shift * other)
    step = other if node.op is add else -other
    return replace(scaled, shift=step if shift is None else shift + step)
