"""Write short reductions over sliding windows out, as a chain of their elements.

A loop over nine elements costs a processor more than their sum, and a graphics card the chance to
read four neighbours at once. Written out, pooling is a map like any other, and fuses as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import product

from asg.graph import Graph, Node, Value, rewrite
from asg.index import Index, Var, variable
from asg.op import ArgReduction, Combine, Elementwise, Reduction, View
from asg.ops.arithmetic import add, maximum, minimum, mul
from asg.ops.bits import bitwise_and, bitwise_not, bitwise_or
from asg.ops.logic import greater, isnan, less, select
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.sources import constant
from asg.ops.windows import window_sources, windows
from asg.passes.pull import Coordinates, operand_coordinates
from asg.passes.spaces import reduced_axes
from asg.tensor import Tensor

CHAINS: dict[Combine, Callable[[Tensor, Tensor], Tensor]] = {
    Combine.SUM: add,
    Combine.PROD: mul,
    Combine.MAX: maximum,
    Combine.MIN: minimum,
}


@dataclass(frozen=True)
class UnrollWindows:
    """Replace reductions of at most `longest` elements that lie in one window.

    Comes after composites are spelt out. The order of additions is that of the elements.
    """

    longest: int = 32

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op is windows or node.op is window_sources for node in graph.nodes):
            return graph
        return rewrite(graph, self._unroll)

    def _unroll(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        kind = node.op.kind
        if not isinstance(kind, (Reduction, ArgReduction)) or node.type.size == 0:
            return None
        if isinstance(kind, Reduction) and kind.combine not in CHAINS:
            return None
        axes = reduced_axes(node)
        length = math.prod(node.inputs[0].type.shape[axis] for axis in axes)
        if not 0 < length <= self.longest or not _is_inside_windows(node.inputs[0], axes):
            return None
        parts = _elements(Tensor(inputs[0]), axes)
        if isinstance(kind, Reduction):
            return (reduce(CHAINS[kind.combine], parts).value,)
        return (_position(parts, largest=kind.largest).value,)


def _is_inside_windows(value: Value, axes: tuple[int, ...]) -> bool:
    """Tell whether `axes` run over the elements of windows from which `value` is computed."""
    shape = value.type.shape
    inner = {f"r{axis}" if axis in axes else f"i{axis}": size for axis, size in enumerate(shape)}
    pending: list[tuple[Value, Coordinates | None]] = [
        (value, tuple(variable(name, size) for name, size in inner.items()))
    ]
    seen: set[tuple[Value, Coordinates | None]] = set()
    while pending:
        found, coordinates = pending.pop()
        node = found.node
        if coordinates is None or (found, coordinates) in seen:
            continue
        seen.add((found, coordinates))
        if node.op is windows or node.op is window_sources:
            count = len(node.attrs["strides"])
            outer, place = coordinates[:-count], coordinates[-count:]
            if any(map(_is_reduced, place)) and not any(map(_is_reduced, outer)):
                return True
        elif isinstance(node.op.kind, (Elementwise, View)):
            pending.extend(operand_coordinates(node, coordinates))
    return False


def _is_reduced(index: Index) -> bool:
    return any(isinstance(atom, Var) and atom.name.startswith("r") for atom in index.atoms())


def _elements(x: Tensor, axes: tuple[int, ...]) -> list[Tensor]:
    """Return `x` at each place along `axes`, without these axes, in order."""
    kept = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    parts: list[Tensor] = []
    for place in product(*(range(x.shape[axis]) for axis in axes)):
        starts, stops = [0] * x.ndim, list(x.shape)
        for axis, chosen in zip(axes, place, strict=True):
            starts[axis], stops[axis] = chosen, chosen + 1
        part = slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)
        parts.append(reshape(part, shape=kept))
    return parts


def _position(parts: list[Tensor], *, largest: bool) -> Tensor:
    """Return where the extreme lies: the first among equals, or the first NaN."""
    best, found = parts[0], _everywhere(0, parts[0])
    is_better = greater if largest else less
    for position, part in enumerate(parts[1:], start=1):
        wins = is_better(part, best)
        if part.dtype.is_float:
            wins = bitwise_or(wins, bitwise_and(isnan(part), bitwise_not(isnan(best))))
        best, found = select(wins, part, best), select(wins, _everywhere(position, best), found)
    return found


def _everywhere(number: int, like: Tensor) -> Tensor:
    result: Tensor = broadcast(constant(number), shape=like.shape)
    return result
