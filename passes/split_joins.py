"""Cut concatenations of very many tensors, since a kernel can bind only a few buffers.

Each input may lie in a buffer of its own; what kernels compute lies in one. Concatenated group by
group, the tensors pass through memory once more.
"""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.ops.join import concatenate
from asg.passes.inline import under_views
from asg.tensor import Tensor


@dataclass(frozen=True)
class SplitJoins:
    """Let no concatenation read more than `most` buffers.

    Attributes:
        most: buffers that a kernel can bind, less the one that it writes.
    """

    most: int = 7

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, self._split)

    def _split(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op is not concatenate or _buffers(inputs) <= self.most:
            return None
        parts = [Tensor(value) for value in inputs]
        while len(parts) > self.most:
            parts = [
                _concatenated(parts[first : first + self.most], node.attrs["axis"])
                for first in range(0, len(parts), self.most)
            ]
        return (_concatenated(parts, node.attrs["axis"]).value,)


def _concatenated(parts: list[Tensor], axis: int) -> Tensor:
    result: Tensor = parts[0] if len(parts) == 1 else concatenate(*parts, axis=axis)
    return result


def _buffers(values: tuple[Value, ...]) -> int:
    """Return how many buffers hold `values`, at most."""
    bases = {under_views(value) for value in values}
    given = sum(not base.node.inputs for base in bases)
    return given + (given < len(bases))
