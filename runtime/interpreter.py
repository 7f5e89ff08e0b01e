"""The meaning of a graph: every node computed by NumPy, one after the other.

No fusion and no cleverness, so that it is obviously right; everything else is compared with it.
With `dtype="f64"` floats are computed in float64, for references more exact than the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from asg.cutting import cut_results, shortened
from asg.errors import InputError
from asg.evaluate import Array, Precision, compute, storage_dtype
from asg.graph import Graph, Node, Value
from asg.types import TensorType, is_floating

Arrays = Mapping[str, Array]
Observer = Callable[[Node, tuple[Array, ...]], None]
Adjust = Callable[[Node, Sequence[Array], tuple[Array, ...]], tuple[Array, ...]]


def run(
    graph: Graph,
    inputs: Mapping[str, Any],
    *,
    dtype: Precision = "f32",
    values: Arrays | None = None,
    observe: Observer | None = None,
) -> dict[str, Array]:
    """Return the outputs of one run.

    Args:
        inputs: an array for every input by name; parameters and state may be among them.
        dtype: what floats are computed in.
        values: parameters and state, instead of those that the graph starts with. State that
            has no value anywhere is zero.
        observe: called with every node and its results, in order.

    Raises:
        InputError: a name is unknown or missing, or a shape or dtype does not fit.
    """
    return run_with_updates(graph, inputs, dtype=dtype, values=values, observe=observe)[0]


def run_with_updates(
    graph: Graph,
    inputs: Mapping[str, Any],
    *,
    dtype: Precision = "f32",
    values: Arrays | None = None,
    observe: Observer | None = None,
    adjust: Adjust | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the outputs of one run, and what parameters and state become by it (see `run`).

    `adjust(node, operands, results)` returns what to go on with instead of a node's results, to
    see what a small error in them does to everything after it.
    """
    given = _inputs(graph, inputs, values or {}, dtype)
    last_use = _last_uses(graph)
    computed: dict[Value, Array] = {}
    cuts, lengths = cut_results(graph), dict[str, tuple[int, int]]()
    ends: dict[Node, list[str]] = {}
    for name in cuts:
        ends.setdefault(graph.outputs[name].node, []).append(name)
    for position, node in enumerate(graph.nodes):
        if node in given:
            results: tuple[Array, ...] = (given[node],)
        else:
            operands = [computed[value] for value in node.inputs]
            results = compute(node, operands, dtype)
            if adjust is not None:
                results = adjust(node, operands, results)
        computed.update(zip(node.values, results, strict=True))
        if observe is not None:
            observe(node, results)
        for name in ends.get(node, ()):
            lengths[name] = cuts[name].axis, int(computed[cuts[name].count])
        for value in dict.fromkeys((*node.inputs, *node.values)):
            if last_use.get(value, position) <= position and value not in graph.results:
                del computed[value]
    outputs = {name: computed[value] for name, value in graph.outputs.items()}
    for name, (axis, length) in lengths.items():
        outputs[name] = shortened(outputs[name], axis, length)
    updates = {name: computed[value] for name, value in graph.updates.items()}
    return outputs, updates


def _last_uses(graph: Graph) -> dict[Value, int]:
    """Return the position of the last node that reads each value."""
    return {value: position for position, node in enumerate(graph.nodes) for value in node.inputs}


def _inputs(
    graph: Graph, inputs: Mapping[str, Any], values: Arrays, dtype: Precision
) -> dict[Node, Array]:
    """Return an array for every input node."""
    known = graph.input_names()
    for name in (*inputs, *values):
        if name not in known:
            raise InputError(
                f"graph {graph.name} has no input {name!r}; inputs: {', '.join(known) or 'none'}"
            )
    found: dict[Node, Array] = {}
    for node in graph.inputs:
        name, role = node.attrs["name"], node.attrs["role"]
        given: Any = None
        for source in (inputs, values, graph.values):
            if given is None:
                given = source.get(name)
        if given is None and role == "state":
            given = np.zeros(node.type.shape, node.type.dtype.numpy)
        if given is None:
            raise InputError(f"{role} {name!r} has no value; it is {node.type}")
        found[node] = to_array(given, node.type, f"{role} {name!r}", dtype)
    return found


def to_array(given: Any, type_: TensorType, what: str, precision: Precision = "f32") -> Array:
    """Return what was given for an input as an array of its type.

    64-bit numbers narrow to 32 bits if they are in range; nothing else is converted.

    Raises:
        InputError: shape, dtype or range does not fit.
    """
    array = np.asarray(given)
    target = storage_dtype(type_.dtype, precision)
    if array.shape != type_.shape:
        raise InputError(f"{what} is {type_}, got shape {list(array.shape)} ({array.dtype})")
    if array.dtype == target:
        return array
    kinds = "f" if type_.dtype.is_float else "iu" if type_.dtype.is_integer else "b"
    if ("f" if is_floating(array) else array.dtype.kind) not in kinds:
        raise InputError(
            f"{what} is {type_}, got {array.dtype}{list(array.shape)}; "
            f"fix: convert it with .astype({target.name!r})"
        )
    with np.errstate(all="ignore"):
        converted = array.astype(target)
        if type_.dtype.is_float:
            lost = np.isfinite(array) & ~np.isfinite(converted)
        else:
            limits = np.iinfo(target)
            lost = (array < limits.min) | (array > limits.max)
    if lost.any():
        raise InputError(f"{what} is {type_}, but {array[lost].flat[0]} is out of its range")
    return converted
