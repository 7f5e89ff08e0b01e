"""Make constants of parameters that never change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import numpy as np

from asg.graph import Graph, Literal, Node, Value, rewrite
from asg.ops.sources import constant_


@overload
def freeze(graph: Graph) -> Graph: ...
@overload
def freeze(graph: Mapping[str, Graph]) -> dict[str, Graph]: ...
def freeze(graph: Graph | Mapping[str, Graph]) -> Graph | dict[str, Graph]:
    """Return a graph, or entries of a program, with parameters and state as constants.

    What has a value and is updated by no entry becomes a constant, so that the compiler computes
    once what follows from it alone: norms go into the weights before them, weights into the form
    that products want. It can't be replaced later, by `load_state_dict` for example.
    """
    if isinstance(graph, Graph):
        return _frozen(graph, set(graph.updates))
    updated = {name for each in graph.values() for name in each.updates}
    return {key: _frozen(each, updated) for key, each in graph.items()}


def _frozen(graph: Graph, updated: set[str]) -> Graph:
    known = {
        node.attrs["name"]: constant_(value=Literal(graph.values[node.attrs["name"]])).value
        for node in graph.inputs
        if _is_known(graph, node) and node.attrs["name"] not in updated
    }

    def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        name = node.attrs["name"] if node.is_input else None
        return (known[name],) if name in known else None

    changed = rewrite(graph, change)
    values = {name: array for name, array in graph.values.items() if name not in known}
    return changed.with_values(values)


def _is_known(graph: Graph, node: Node) -> bool:
    name = node.attrs["name"]
    if node.attrs["role"] == "input" or name not in graph.values:
        return False
    array: np.ndarray = graph.values[name]
    return array.shape == node.type.shape and array.dtype == node.type.dtype.numpy
