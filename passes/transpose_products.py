"""Compute a matrix product the way round in which it is read."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.ops.linear import matmul_, swap_last
from asg.ops.movement import permute
from asg.tensor import Tensor


@dataclass(frozen=True)
class TransposeProducts:
    """Replace a transposed product by the product of the transposed operands: (x y)ᵀ = yᵀ xᵀ.

    Operands are read through index maps, so their transpositions are free; that of a result is
    not, where it is stored: the gradient of a weight `w` that is used as `x wᵀ`. Acts where
    nobody else reads the product. `Simplify` has to follow, which merges the transpositions.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(_product(graph, node) for node in graph.nodes):
            return graph

        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if not _product(graph, node):
                return None
            x, y = (swap_last(Tensor(value)) for value in inputs[0].node.inputs)
            return (matmul_(y, x).value,)

        return rewrite(graph, change)


def _product(graph: Graph, node: Node) -> Node | None:
    """Return the product that `node` transposes, if it is read by nothing else."""
    if node.op is not permute:
        return None
    value, rank = node.inputs[0], node.type.rank
    if value.node.op is not matmul_ or value in graph.results or graph.users[value] != [node]:
        return None
    is_swap = node.attrs["axes"] == (*range(rank - 2), rank - 1, rank - 2)
    return value.node if is_swap else None
