"""Find what exporters and users spell out in small ops, and put back the ops that say it."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Protocol

from asg.graph import Graph, Node, Value
from asg.passes.matching import remark, replaced
from asg.passes.recognise_attention import find_attention
from asg.passes.recognise_rotation import find_rotations
from asg.passes.recognise_rows import find_formulas

# What is recognised -> the op that stands for it.
KINDS = {
    "attention": ("attention",),
    "softmax": ("softmax",),
    "log_softmax": ("log_softmax",),
    "layer_norm": ("standardize",),
    "rms_norm": ("rsqrt",),
    "gelu": ("erf", "tanh"),
    "silu": ("sigmoid",),
    "sigmoid": ("sigmoid",),
    "rotation": ("flip",),
}


@dataclass(frozen=True)
class Recognise:
    """Replace attention, softmax, norms, activations and rotations that are spelt out.

    Comes before differentiation, where a whole op has the better gradient, and again before
    composites are spelt out. Results stay the same but for rounding, for operands that are finite
    and scores below 1e29. A pattern is left as it is where others read what lies inside.
    """

    def __call__(self, graph: Graph) -> Graph:
        return self.apart_from(graph, lambda _: frozenset())

    def apart_from(self, graph: Graph, differentiated: Callable[[Graph], Set[Value]]) -> Graph:
        """Return the graph, where a gradient is wanted by some of its values."""
        for find in (find_formulas, find_rotations):
            graph = replaced(graph, find(graph))
        return replaced(graph, find_attention(graph, differentiated(graph)))


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
        for kind, ops in KINDS.items():
            if node.op.name in ops and node.note == remark(kind):
                found.setdefault(kind, []).append(_place(node))
    return found


def _place(node: Node) -> str:
    return " ".join(filter(None, [str(node.site or ""), node.scope])) or "-"
