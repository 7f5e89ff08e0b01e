"""Find what exporters and users spell out in small ops, and put back the ops that say it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from asg.graph import Graph, Node, Value
from asg.passes.matching import remark, replaced
from asg.passes.recognise_attention import find_attention

# What is recognised -> the op that stands for it.
KINDS = {"attention": "attention"}


@dataclass(frozen=True)
class Recognise:
    """Replace spelt-out attention by the op.

    Comes before differentiation, where a whole op has the better gradient, and again before
    composites are spelt out. Results stay the same but for rounding, for operands that are finite
    and scores short of overflow. A pattern is left as it is where others read what lies inside.
    """

    def __call__(self, graph: Graph) -> Graph:
        return self.apart_from(graph, frozenset())

    def apart_from(self, graph: Graph, differentiated: Set[Value]) -> Graph:
        """Return the graph, where a gradient is wanted by some of its values."""
        return replaced(graph, find_attention(graph, differentiated))


class _Step(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def after(self) -> Graph: ...


class RecognisedIn:
    """An observer that keeps what was recognised, before composites are spelt out."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def __call__(self, step: _Step) -> None:
        if step.name == "recognise":
            self.found = recognised(step.after)


def recognised(graph: Graph) -> dict[str, list[str]]:
    """Return what was recognised in a graph, and where."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for kind, op in KINDS.items():
            if node.op.name == op and node.note == remark(kind):
                found.setdefault(kind, []).append(_place(node))
    return found


def _place(node: Node) -> str:
    return " ".join(filter(None, [str(node.site or ""), node.scope])) or "-"
