"""Part of a graph as a graph of its own: some values computed from others, which become inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asg.graph import Graph, Node, Value
from asg.ops.sources import input_
from asg.site import inherit


def extract(
    graph: Graph,
    outputs: Mapping[str, Value],
    boundary: Iterable[Value] = (),
    *,
    name: str | None = None,
) -> Graph:
    """Return the graph that computes `outputs` from `boundary`, as far as it lies above them.

    Values of the boundary become inputs under the names they have in `graph`; so do the inputs
    of `graph` that are still needed. No part has state.
    """
    cut = set(boundary)
    made: dict[Value, Value] = {}
    inputs: list[Node] = []
    for node in _needed(graph, outputs.values(), cut):
        for value in node.values:
            if value in cut or node.op is input_:
                made[value] = _input(graph, value)
                inputs.append(made[value].node)
        if not all(value in made for value in node.inputs) or node.op is input_:
            continue  # every result that is needed lies on the boundary
        moved = Node(
            node.op,
            tuple(made[value] for value in node.inputs),
            node.attrs,
            node.types,
            node.site,
            node.scope,
            node.note,
            node.also,
        )
        for value, copy in zip(node.values, moved.values, strict=True):
            made.setdefault(value, copy)
    return Graph.build(
        {key: made[value] for key, value in outputs.items()},
        name=name or graph.name,
        inputs=inputs,
    )


def _needed(graph: Graph, outputs: Iterable[Value], cut: set[Value]) -> list[Node]:
    """Return the nodes to go through, in order; those at the boundary are among them."""
    wanted: set[Node] = set()
    computed: set[Node] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop()
        wanted.add(value.node)
        if value not in cut and value.node not in computed:
            computed.add(value.node)
            pending.extend(value.node.inputs)
    return [node for node in graph.nodes if node in wanted]


def _input(graph: Graph, value: Value) -> Value:
    attrs = {"name": graph.names[value], "role": "input", "type": value.type}
    node = value.node
    with inherit(node.site, node.scope, node.note):
        return Value(Node(input_, (), attrs, (value.type,)))
