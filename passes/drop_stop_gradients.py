"""Take out the marks that only differentiation reads."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.ops.convert import stop_gradient


@dataclass(frozen=True)
class DropStopGradients:
    """Replace every `stop_gradient` by its operand. Comes after differentiation.

    It is no rule of `Simplify`, which may run before a gradient is taken.
    """

    def __call__(self, graph: Graph) -> Graph:
        if all(node.op is not stop_gradient for node in graph.nodes):
            return graph
        return rewrite(graph, _operand)


def _operand(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    return inputs if node.op is stop_gradient else None
