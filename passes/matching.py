"""What recognition is made of: a match, who else reads what lies inside of it, and its replacement.

A match holds values of the graph as it was; `replaced` hands its `build` what these became.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Source, View
from asg.site import inherit
from asg.tensor import Tensor


@dataclass(frozen=True)
class Match:
    """A node that is the end of a pattern.

    Attributes:
        kind: what was recognised, such as `attention`.
        operands: what the pattern reads.
        inside: the nodes between, which go unless they cost nothing.
        build: makes what takes the node's place, of the operands.
    """

    kind: str
    operands: tuple[Value, ...]
    inside: tuple[Node, ...]
    build: Callable[..., Tensor]


Finder = Callable[[Graph], Mapping[Node, Match]]


def is_private(graph: Graph, last: Node, inside: Iterable[Node]) -> bool:
    """Tell whether nobody else reads what costs something inside of a pattern."""
    own = {last, *inside}
    free: set[Node] = set()
    for node in sorted(own - {last}, key=lambda each: each.serial):
        if _is_free(node, own, free):
            free.add(node)
        elif any(_is_read_elsewhere(graph, value, own) for value in node.values):
            return False
    return True


def _is_free(node: Node, own: set[Node], free: set[Node]) -> bool:
    """Tell whether a node is nothing but index arithmetic on what stays anyway."""
    if isinstance(node.op.kind, Source):
        return True
    is_view = isinstance(node.op.kind, View)
    return is_view and all(v.node in free or v.node not in own for v in node.inputs)


def _is_read_elsewhere(graph: Graph, value: Value, own: set[Node]) -> bool:
    return value in graph.results or any(user not in own for user in graph.users.get(value, ()))


def remark(kind: str) -> str:
    """Return what is noted on the nodes that took a pattern's place."""
    return f"recognised {kind}"


def replaced(graph: Graph, found: Mapping[Node, Match]) -> Graph:
    """Return a graph in which every match is what it builds."""
    if not found:
        return graph
    renamed: dict[Value, Value] = {}

    def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        renamed.update(zip(node.inputs, inputs, strict=True))
        match = found.get(node)
        if match is None:
            return None
        operands = [Tensor(renamed[value]) for value in match.operands]
        with inherit(node.site, node.scope, remark(match.kind)):
            value = match.build(*operands).value
        return None if _is_same(value, node, inputs) else (value,)

    return rewrite(graph, change)


def _is_same(value: Value, node: Node, inputs: tuple[Value, ...]) -> bool:
    """Tell whether what was built is what stood there."""
    pending = [(value.node, node, inputs)]
    while pending:
        new, old, operands = pending.pop()
        if new.op is not old.op or new.attrs != old.attrs or len(new.inputs) != len(operands):
            return False
        for one, other in zip(new.inputs, operands, strict=True):
            if one != other:
                pending.append((one.node, other.node, other.node.inputs))
    return True
