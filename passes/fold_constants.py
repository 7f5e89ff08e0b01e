"""Evaluate what is known before the program runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.graph import Graph, Node, Value, rewrite
from asg.narrow import evaluate as evaluate_op
from asg.op import Composite, Source, View
from asg.ops.movement import broadcast
from asg.ops.sources import constant, constant_

# Elements of the biggest result that becomes a constant. A bigger one costs more to store and to
# load than to compute: kernels read constants from memory.
MAX_ELEMENTS = 1024

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FoldConstants:
    """Replace nodes whose operands are constants by their value.

    Broadcasts stay, since kernels read through them for nothing, and so do results of more than
    `max_elements`. `Simplify` does the same among its other rules.
    """

    max_elements: int = MAX_ELEMENTS

    def __call__(self, graph: Graph) -> Graph:
        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            arrays = known_operands(node, inputs, self.max_elements)
            return None if arrays is None else evaluate(node, arrays)

        return rewrite(graph, change)


def known_operands(
    node: Node, inputs: Iterable[Value], max_elements: int = MAX_ELEMENTS
) -> list[Array] | None:
    """Return the operands' values where the node should be folded."""
    operands = list(inputs)
    if not operands or isinstance(node.op.kind, (Source, Composite)):
        return None
    size = sum(type_.size for type_ in node.types)
    if size > max_elements:
        return None
    if isinstance(node.op.kind, View) and size > operands[0].type.size:
        return None
    arrays: list[Array] = []
    for value in operands:
        array = known(value)
        if array is None:
            return None
        arrays.append(array)
    return arrays


def known(value: Value) -> Array | None:
    """Return the array that `value` always is: a constant, or one that is broadcast."""
    node = value.node
    if node.op is broadcast and node.inputs[0].node.op is constant_:
        return np.broadcast_to(_contents(node.inputs[0].node), value.type.shape)
    return _contents(node) if node.op is constant_ else None


def evaluate(node: Node, arrays: Iterable[Array]) -> tuple[Value, ...]:
    """Run the node's NumPy rule; return its results as constants."""
    with np.errstate(all="ignore"):
        results = evaluate_op(node.op, list(arrays), node.attrs, node.types)
    return tuple(
        constant(result.astype(type_.dtype.numpy)).value
        for result, type_ in zip(results, node.types, strict=True)
    )


def _contents(node: Node) -> Array:
    array: Array = node.attrs["value"].array
    return array
