"""What nodes compute, by the NumPy rules of their ops: the ground under the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from asg import narrow
from asg.errors import InternalError
from asg.format import format_node
from asg.graph import Graph, Node, Value
from asg.types import DType, TensorType

Array = np.ndarray[Any, Any]
Precision = Literal["f32", "f64"]


def compute(node: Node, operands: Sequence[Array], precision: Precision) -> tuple[Array, ...]:
    """Run the op's NumPy rule; its results take the types of the node."""
    with np.errstate(
        all="ignore"
    ):  # overflow and invalid operations yield inf and nan, as on a GPU
        results = narrow.evaluate(node.op, operands, node.attrs, node.types)
        return tuple(
            _checked(node, result, type_, precision)
            for result, type_ in zip(results, node.types, strict=True)
        )


def _checked(node: Node, array: Array, type_: TensorType, precision: Precision) -> Array:
    if array.shape != type_.shape:
        raise InternalError(
            f"the NumPy rule of {node.op.name} gives shape {list(array.shape)} for {type_}\n"
            f"  {format_node(node)}"
        )
    return array.astype(storage_dtype(type_.dtype, precision), copy=False)


def storage_dtype(dtype: DType, precision: Precision) -> np.dtype[Any]:
    """Return the NumPy dtype that values of a graph's `dtype` have in a run."""
    return np.dtype(np.float64) if dtype.is_float and precision == "f64" else dtype.numpy


def evaluate(graph: Graph, given: Mapping[str, Array], precision: Precision) -> list[Array]:
    """Return the outputs of a graph that is small enough to keep every value."""
    computed: dict[Value, Array] = {}
    for node in graph.nodes:
        if node.is_input:
            computed[Value(node)] = given[node.attrs["name"]]
            continue
        operands = [computed[value] for value in node.inputs]
        computed.update(zip(node.values, compute(node, operands, precision), strict=True))
    return [computed[value] for value in graph.outputs.values()]
