"""Cut long reductions with few results in two stages, so that there is work for every core.

`sum` over a million elements becomes 256 partial sums and a sum of those, in the graph itself:
the order of additions is fixed and plain to see, and both stages fuse like any reduction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Reduction
from asg.ops.movement import reshape
from asg.passes.riders import find_riders
from asg.tensor import Tensor


@dataclass(frozen=True)
class SplitReductions:
    """Split reductions over the first axis (or all of them) that have few results.

    Attributes:
        enough_rows: results (in vec4s where they are neighbours) that keep a device busy.
        shortest: elements per result below which one stage is quick enough.
        parts: partial results wanted per result, at most.
    """

    enough_rows: int = 32
    shortest: int = 2048
    parts: int = 256

    def __call__(self, graph: Graph) -> Graph:
        riders = find_riders(graph)
        return rewrite(
            graph, lambda node, inputs: None if node in riders else self._split(node, inputs)
        )

    def _split(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        kind = node.op.kind
        if not isinstance(kind, Reduction):
            return None
        shape = node.inputs[0].type.shape
        axes = tuple(sorted(node.attrs["axes"]))
        if axes != tuple(range(len(axes))) or not axes or node.type.size == 0:
            return None
        length = math.prod(shape[: len(axes)])
        rows = max(node.type.size // 4, 1) if node.type.size % 4 == 0 else node.type.size
        if rows >= self.enough_rows or length < self.shortest:
            return None
        parts = _divisor(length, min(self.parts, -(-self.enough_rows // rows), length // 16))
        if parts == 1:
            return None
        rest = shape[len(axes) :]
        cut = reshape(Tensor(inputs[0]), shape=(parts, length // parts, *rest))
        partial = node.op(cut, axes=(1,))
        return (node.op(partial, axes=(0,)).value,)


def _divisor(length: int, most: int) -> int:
    """Return the largest divisor of `length` up to `most`; 1 where only small ones exist."""
    best = next((part for part in range(most, 0, -1) if length % part == 0), 1)
    return best if best >= min(most, 8) else 1
