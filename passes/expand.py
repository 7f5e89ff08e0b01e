"""Spell composite ops out in the ops that kernels are made of."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Attention, Composite
from asg.tensor import Tensor


@dataclass(frozen=True)
class ExpandComposites:
    """Replace every composite op by its expansion. Comes after differentiation.

    Afterwards no node's kind is `Composite`.
    """

    def __call__(self, graph: Graph) -> Graph:
        while any(isinstance(node.op.kind, (Composite, Attention)) for node in graph.nodes):
            graph = rewrite(graph, _expand)
        return graph


def _expand(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    kind = node.op.kind
    if not isinstance(kind, (Composite, Attention)):
        return None
    result = kind.expand(node.attrs, *(Tensor(value) for value in inputs))
    results = result if isinstance(result, tuple) else (result,)
    return tuple(tensor.value for tensor in results)
