"""What a run changes: pairs of an input and an output, in the metadata of models that ASG wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onnx import helper

from asg.errors import GraphError
from asg.graph import Graph
from asg.verify import check_updates

KEY = "asg.updates"


def note_updates(proto: Any, updates: Mapping[str, str]) -> None:
    """Write the name of the output that each input becomes into a model."""
    if updates:
        helper.set_model_props(proto, {KEY: json.dumps(dict(updates))})


def noted_updates(proto: Any) -> Any:
    """Return what is noted in a model: a mapping of names, None, or something that is wrong."""
    noted = {each.key: each.value for each in proto.metadata_props}.get(KEY)
    try:
        return None if noted is None else json.loads(noted)
    except ValueError:
        return noted


def changing(proto: Any) -> frozenset[str]:
    """Return the inputs that a run changes: never constants, whatever they begin with."""
    pairs = noted_updates(proto)
    return frozenset(pairs) if isinstance(pairs, dict) else frozenset()


def with_updates(graph: Graph, proto: Any, label: str) -> Graph:
    """Return an imported graph in which outputs that are noted as updates are updates.

    Raises:
        GraphError: what is noted is no mapping of names, or names something that is not there.
    """
    pairs = noted_updates(proto)
    if pairs is None:
        return graph
    if not isinstance(pairs, dict) or not all(isinstance(each, str) for each in pairs.values()):
        raise GraphError(f"{label}: its metadata {KEY} is no JSON object of names")
    inputs = graph.input_names("parameter", "state")
    for name, output in pairs.items():
        if name not in inputs or output not in graph.outputs:
            raise GraphError(f"{label}: its metadata {KEY} has {name!r}: {output!r}, not its graph")
    found = Graph.build(
        {name: value for name, value in graph.outputs.items() if name not in pairs.values()},
        updates={name: graph.outputs[output] for name, output in pairs.items()},
        name=graph.name,
        values=graph.values,
        inputs=graph.inputs,
        interfaces=graph.interfaces,
    )
    check_updates(found)
    return found
