"""Cuts a graph that shows a fault down to the few nodes that show it by themselves.

First the graph grows from nothing, node by node, until the fault is there; then what lies above
the node that brought it is cut away, as near to the node as the fault allows. Cut values become
inputs, with the numbers that the interpreter computes for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asg.comparison import Array
from asg.extract import extract
from asg.graph import Graph, Node, Value
from asg.op import Source
from asg.yardstick import collect

# Names of the outputs that are wrong; of all of them where none is computed at all.
Probe = Callable[[Graph, Mapping[str, Array]], list[str]]

_DEEPEST = 12  # operands of operands … that are kept before giving up on cutting


@dataclass(frozen=True)
class Shrunk:
    """A small graph, arrays for its inputs, and the value of the larger one that it ends in."""

    graph: Graph
    inputs: Mapping[str, Array]
    value: Value


def shrink(graph: Graph, given: Mapping[str, Array], probe: Probe) -> Shrunk | None:
    """Return the smallest part found of a graph that `probe` finds wrong; None if it is right.

    `given` has an array for every input, parameters and state included.
    """
    nodes = [node for node in graph.nodes if not isinstance(node.op.kind, Source)]
    if not nodes or not probe(*_prefix(graph, nodes, given)):
        return None
    right, wrong = 0, len(nodes)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if probe(*_prefix(graph, nodes[:middle], given)):
            wrong = middle
        else:
            right = middle
    part, inputs = _prefix(graph, nodes[:wrong], given)
    name = probe(part, inputs)[0]
    value = {each: value for value, each in graph.names.items()}[name]
    return _cut(graph, value, given, probe) or Shrunk(part, inputs, value)


def _prefix(
    graph: Graph, nodes: list[Node], given: Mapping[str, Array]
) -> tuple[Graph, dict[str, Array]]:
    """Return the graph of some nodes at its beginning; what they do not use is its output."""
    used = {value for node in nodes for value in node.inputs}
    ends = [value for node in nodes for value in node.values if value not in used]
    part = extract(graph, {graph.names[value]: value for value in ends})
    return part, {name: given[name] for name in part.input_names()}


def _cut(graph: Graph, value: Value, given: Mapping[str, Array], probe: Probe) -> Shrunk | None:
    """Return the graph of `value` from operands as near as possible; None if it is right alone."""
    layer = {value.node}
    kept: dict[Node, None] = {}
    for _ in range(_DEEPEST):
        kept.update(dict.fromkeys(sorted(layer, key=lambda node: node.serial)))
        above = {each for node in kept for each in node.inputs if each.node not in kept}
        part = extract(graph, {graph.names[value]: value}, above)
        inputs = feed(graph, part, given)
        if probe(part, inputs):
            return Shrunk(part, inputs, value)
        layer = {each.node for each in above if not isinstance(each.node.op.kind, Source)}
        if not layer:
            break
    part = extract(graph, {graph.names[value]: value})
    inputs = feed(graph, part, given)
    return Shrunk(part, inputs, value) if probe(part, inputs) else None


def feed(graph: Graph, part: Graph, given: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays for the inputs of a part, which are values of `graph`."""
    values = {name: value for value, name in graph.names.items()}
    names = part.input_names()
    found = collect(graph, given, [values[name] for name in names])
    return {name: found[values[name]] for name in names}
