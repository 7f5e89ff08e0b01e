"""Spell composite ops out in the ops that kernels are made of."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Attention, Composite
from asg.passes.attention_costs import worth_a_kernel
from asg.passes.inline import under_views
from asg.tensor import Tensor

MAX_BINDINGS = 8


@dataclass(frozen=True)
class ExpandComposites:
    """Replace every composite op by its expansion. Comes after differentiation.

    With `fuse_attention`, attention is left whole where one kernel can compute it; with "by cost",
    where that is faster on a processor, too. None leaves that to the target, for which
    `asg.compiler.for_target` decides; it means no until then. Afterwards no node's kind is
    `Composite`.
    """

    fuse_attention: bool | Literal["by cost"] | None = None

    def __call__(self, graph: Graph) -> Graph:
        while chosen := self._spelt_out(graph):
            graph = expand_all(graph, chosen)
        return graph

    def _spelt_out(self, graph: Graph) -> set[Node]:
        """Return the nodes to spell out next."""
        composites = {node for node in graph.nodes if isinstance(node.op.kind, Composite)}
        attention = {node for node in graph.nodes if isinstance(node.op.kind, Attention)}
        kept: set[Node] = set()
        if self.fuse_attention:
            kept = {node for node in attention if is_one_kernel(graph, node)}
        if self.fuse_attention == "by cost":
            kept = worth_a_kernel(attention, kept)
        return composites | (attention - kept)


def expand_all(graph: Graph, chosen: Set[Node]) -> Graph:
    """Replace the chosen nodes by what they are spelt out in."""
    return rewrite(graph, lambda node, inputs: _expand(node, inputs) if node in chosen else None)


def _expand(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
    kind = node.op.kind
    assert isinstance(kind, (Composite, Attention))
    result = kind.expand(node.attrs, *(Tensor(value) for value in inputs))
    results = result if isinstance(result, tuple) else (result,)
    return tuple(tensor.value for tensor in results)


def is_one_kernel(graph: Graph, node: Node) -> bool:
    """Tell whether a kernel can compute an attention node: more than logarithms is wanted,
    nothing is empty, and operands and results are few enough to be bound."""
    kind = node.op.kind
    assert isinstance(kind, Attention)
    main = node.values if kind.part == "key_grad" else node.values[:1]
    if not any(value in graph.users or value in graph.results for value in main):
        return False
    if any(value.type.size == 0 for value in (*node.inputs, *node.values)):
        return False
    loads = {under_views(value) for value in node.inputs}
    return len(loads) + len(node.types) <= MAX_BINDINGS
