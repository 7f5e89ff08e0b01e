"""Results that are cut to a length known at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.errors import UnsupportedError
from asg.graph import Graph, Value
from asg.op import Cut

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class CutResult:
    """Where a result is cut, and the value that says after how many elements."""

    axis: int
    count: Value


def cut_results(graph: Graph) -> dict[str, CutResult]:
    """Return the outputs of a graph that are cut, by name.

    Raises:
        UnsupportedError: something inside the graph reads what is to be cut.
    """
    for node in graph.nodes:
        for value in node.inputs:
            if isinstance(value.node.op.kind, Cut):
                raise UnsupportedError(_refusal(graph, value, node.op.name))
    for name, value in graph.updates.items():
        if isinstance(value.node.op.kind, Cut):
            raise UnsupportedError(_refusal(graph, value, f"the state {name}"))
    return {
        name: CutResult(value.node.attrs["axis"], value.node.inputs[1])
        for name, value in graph.outputs.items()
        if isinstance(value.node.op.kind, Cut)
    }


def _refusal(graph: Graph, value: Value, reader: str) -> str:
    lines = [
        f"{graph.names[value]}: {value.type} has a length known at run time only, and {reader} "
        "reads it; only outputs of a graph may have one"
    ]
    if value.node.site is not None:
        lines.append(f"  at {value.node.site}:  {value.node.site.source}")
    return "\n".join(lines)


def uncut(graph: Graph) -> tuple[Graph, dict[str, tuple[int, str]]]:
    """Return the graph with cut outputs in full size and their counts as outputs, and for each
    of them the axis and the name of its count."""
    found = cut_results(graph)
    if not found:
        return graph, {}
    outputs: dict[str, Value] = {}
    cuts: dict[str, tuple[int, str]] = {}
    for name, value in graph.outputs.items():
        outputs[name] = value.node.inputs[0] if name in found else value
    for name, each in found.items():
        count = f"{name}.count"
        while count in outputs:
            count += "_"
        outputs[count] = each.count
        cuts[name] = each.axis, count
    plain = Graph.build(
        outputs,
        updates=graph.updates,
        name=graph.name,
        values=graph.values,
        inputs=graph.inputs,
        interfaces=graph.interfaces,
    )
    return plain, cuts


def uncut_entries(entries: Mapping[str, Graph]) -> dict[str, Graph]:
    """Return each graph with all that it computes, in full size."""
    return {key: uncut(graph)[0] for key, graph in entries.items()}


def shortened(array: Array, axis: int, count: int) -> Array:
    """Return the first `count` elements of an array along an axis."""
    return array[(*(slice(None),) * axis, slice(0, count))]
