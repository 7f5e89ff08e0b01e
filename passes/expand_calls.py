"""Spell out functions of the user's before anything else is done with a graph."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node
from asg.op import Composite
from asg.passes.expand import expand_all


@dataclass(frozen=True)
class ExpandCalls:
    """Replace every call of a user's function by its body. Comes after differentiation.

    A body may hold anything: convolutions, marks for differentiation, further calls. So it comes
    before the passes that look for these.
    """

    def __call__(self, graph: Graph) -> Graph:
        while chosen := {node for node in graph.nodes if _is_call(node)}:
            graph = expand_all(graph, chosen)
        return graph


def _is_call(node: Node) -> bool:
    return isinstance(node.op.kind, Composite) and node.op.kind.is_call
