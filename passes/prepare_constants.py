"""Compute once, while compiling, what depends on constants alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.evaluate import compute
from asg.graph import Graph, Literal, Node, Value, rewrite
from asg.op import Contraction, Elementwise, Join, Reduction, View
from asg.ops.sources import constant_

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PrepareConstants:
    """Replace what is computed from constants by its value, large as it may be.

    So frozen kernels are stored as Winograd's products want them. Views of constants stay views,
    and so does what is much larger than the constants that it is made of.

    Attributes:
        growth: how many times larger than its constants a result may be.

    Comes after convolutions are spelt out. `Simplify` folds small constants among its rules.
    """

    growth: int = 2

    def __call__(self, graph: Graph) -> Graph:
        sources = _sources(graph)
        if not sources:
            return graph
        wanted = {
            value
            for value, constants in sources.items()
            if _is_work(value.node)
            and _is_read(graph, value, sources)
            and value.type.nbytes <= self.growth * sum(each.type.nbytes for each in constants)
        }
        if not wanted:
            return graph
        known: dict[Value, Array] = {}

        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            value = Value(node)
            return (_constant(_evaluate(value, known)),) if value in wanted else None

        return rewrite(graph, change)


def _sources(graph: Graph) -> dict[Value, frozenset[Value]]:
    """Return the values that follow from constants, each with those that it follows from."""
    found: dict[Value, frozenset[Value]] = {}
    for node in graph.nodes:
        value = Value(node)
        if node.op is constant_:
            found[value] = frozenset((value,))
        elif node.inputs and len(node.types) == 1 and _is_plain(node):
            below = [found.get(each) for each in node.inputs]
            known = [each for each in below if each is not None]
            if len(known) == len(below):
                found[value] = frozenset().union(*known)
    return found


def _is_plain(node: Node) -> bool:
    return isinstance(node.op.kind, View) or _is_work(node)


def _is_work(node: Node) -> bool:
    return isinstance(node.op.kind, (Elementwise, Join, Reduction, Contraction))


def _is_read(graph: Graph, value: Value, sources: dict[Value, frozenset[Value]]) -> bool:
    """Tell whether something reads the value that isn't known itself, maybe through views."""
    pending = [value]
    while pending:
        each = pending.pop()
        if each in graph.results:
            return True
        for user in graph.users.get(each, ()):
            if Value(user) not in sources:
                return True
            if isinstance(user.op.kind, View):
                pending.append(Value(user))
    return False


def _evaluate(root: Value, known: dict[Value, Array]) -> Array:
    pending = [root]
    while pending:
        node = pending[-1].node
        waiting = [each for each in node.inputs if each not in known]
        if waiting:
            pending.extend(waiting)
            continue
        value = pending.pop()
        if value not in known:
            arrays = [known[each] for each in node.inputs]
            known[value] = compute(node, arrays, "f32")[0]
    return known[root]


def _constant(array: Array) -> Value:
    result: Value = constant_(value=Literal(array)).value
    return result
