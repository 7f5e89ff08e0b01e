"""The meaning of a graph: every node computed by NumPy, one after the other.

No fusion and no cleverness, so that it is obviously right; everything else is compared with it.
With `dtype="f64"` floats are computed in float64, for references more exact than the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from asg.errors import InputError, InternalError
from asg.format import format_node
from asg.graph import Graph, Node, Value
from asg.types import DType, TensorType

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Observer = Callable[[Node, tuple[Array, ...]], None]
Adjust = Callable[[Node, Sequence[Array], tuple[Array, ...]], tuple[Array, ...]]
Precision = Literal["f32", "f64"]


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
    for position, node in enumerate(graph.nodes):
        if node in given:
            results: tuple[Array, ...] = (given[node],)
        else:
            operands = [computed[value] for value in node.inputs]
            results = _compute(node, operands, dtype)
            if adjust is not None:
                results = adjust(node, operands, results)
        computed.update(zip(node.values, results, strict=True))
        if observe is not None:
            observe(node, results)
        for value in dict.fromkeys((*node.inputs, *node.values)):
            if last_use.get(value, position) <= position and value not in graph.results:
                del computed[value]
    outputs = {name: computed[value] for name, value in graph.outputs.items()}
    updates = {name: computed[value] for name, value in graph.updates.items()}
    return outputs, updates


def _compute(node: Node, operands: list[Array], dtype: Precision) -> tuple[Array, ...]:
    """Run the op's NumPy rule; its results take the types of the node."""
    with np.errstate(
        all="ignore"
    ):  # overflow and invalid operations yield inf and nan, as on a GPU
        found = node.op.numpy(*operands, **node.attrs)
        results = found if len(node.types) > 1 else (found,)
        return tuple(
            _checked(node, np.asarray(result), type_, dtype)
            for result, type_ in zip(results, node.types, strict=True)
        )


def _checked(node: Node, array: Array, type_: TensorType, dtype: Precision) -> Array:
    if array.shape != type_.shape:
        raise InternalError(
            f"the NumPy rule of {node.op.name} gives shape {list(array.shape)} for {type_}\n"
            f"  {format_node(node)}"
        )
    return array.astype(storage_dtype(type_.dtype, dtype), copy=False)


def storage_dtype(dtype: DType, precision: Precision) -> np.dtype[Any]:
    """Return the NumPy dtype that values of a graph's `dtype` have in a run."""
    return np.dtype(np.float64) if dtype.is_float and precision == "f64" else dtype.numpy


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
    kinds = {"f": "f", "i": "iu", "u": "iu", "b": "b"}[target.kind]
    if array.dtype.kind not in kinds:
        raise InputError(
            f"{what} is {type_}, got {array.dtype}{list(array.shape)}; "
            f"fix: convert it with .astype({target.name!r})"
        )
    with np.errstate(all="ignore"):
        converted = array.astype(target)
        if target.kind == "f":
            lost = np.isfinite(array) & ~np.isfinite(converted)
        else:
            limits = np.iinfo(target)
            lost = (array < limits.min) | (array > limits.max)
    if lost.any():
        raise InputError(f"{what} is {type_}, but {array[lost].flat[0]} is out of its range")
    return converted
