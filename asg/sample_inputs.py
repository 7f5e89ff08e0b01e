"""Arrays to try a graph with where nobody has given any.

Floats are normal. An integer that is used as a position must be one: what it indexes, or the
coordinates that it is compared with, say how many there are. Parameters and state keep their
values; those that have none get small random numbers, and state begins at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asg.graph import Graph, Node, Value
from asg.op import Composite, Elementwise, Gather, Scatter, Source, View
from asg.ops.sources import input as graph_input
from asg.types import DType, TensorType

Array = np.ndarray[Any, Any]

_UNKNOWN = 8  # numbers that an integer of unknown use takes


def sample_inputs(
    graph: Graph, given: Mapping[str, Any] | None = None, *, seed: int = 0
) -> dict[str, Array]:
    """Return an array for every input that has none: neither in `given` nor in the graph."""
    found: dict[str, Array] = {}
    for position, node in enumerate(graph.inputs):
        name, role = node.attrs["name"], node.attrs["role"]
        if name in (given or {}):
            found[name] = np.asarray((given or {})[name])
        elif name not in graph.values and role != "state":
            source = np.random.default_rng([seed, position])
            found[name] = _draw(source, node.type, positions(graph, Value(node)), role)
    return found


def _draw(source: np.random.Generator, type_: TensorType, count: int | None, role: str) -> Array:
    dtype = type_.dtype
    if dtype.is_float:
        scale = 1.0 if role == "input" or type_.rank < 2 else type_.shape[-2] ** -0.5
        drawn: Any = source.normal(0.0, scale, type_.shape)
    elif dtype is DType.BOOL:
        drawn = source.integers(0, 2, type_.shape)
    elif dtype is DType.U32 and count is None:
        drawn = source.integers(0, 2**32, type_.shape)
    else:
        drawn = source.integers(0, max(count or _UNKNOWN, 1), type_.shape)
    return np.asarray(drawn).astype(dtype.numpy)


def positions(graph: Graph, value: Value) -> int | None:
    """Return how many positions an integer chooses from, or None where it chooses none.

    Where it is used in several ways, the fewest, so that every use is in range.
    """
    counts: list[int] = []
    seen = {value}
    pending = [value] if value.type.dtype.is_integer else []
    while pending:
        current = pending.pop()
        for node in graph.users.get(current, ()):
            counts += _counts(node, current)
            # Through views, casts and the like, which keep what the number means.
            if isinstance(node.op.kind, (View, Elementwise)):
                fresh = [each for each in node.values if each.type.dtype.is_integer]
                pending.extend(each for each in fresh if each not in seen)
                seen.update(fresh)
    return min(counts, default=None)


def _counts(node: Node, value: Value) -> list[int]:
    """Return the sizes of what a node looks up with an integer."""
    kind = node.op.kind
    if isinstance(kind, (Gather, Scatter)) and node.inputs[1] == value:
        return [node.inputs[0].type.shape[node.attrs["axis"]]]
    if isinstance(kind, Composite):
        return _counts_within(node, value)
    if isinstance(kind, Elementwise) and node.type.dtype is DType.BOOL:
        others = [_coordinates(other) for other in node.inputs if other != value]
        return [count for count in others if count is not None]
    return []


def _counts_within(node: Node, value: Value) -> list[int]:
    """Return what `positions` finds in the ops that a composite is spelt out in."""
    kind = node.op.kind
    assert isinstance(kind, Composite)
    names = [f"operand_{position}" for position in range(len(node.inputs))]
    pairs = list(zip(names, node.inputs, strict=True))
    operands = [graph_input(name, operand.type) for name, operand in pairs]
    made = kind.expand(node.attrs, *operands)
    results = made if isinstance(made, tuple) else (made,)
    inside = Graph.build({f"result_{i}": each.value for i, each in enumerate(results)})
    read = inside.input_names()
    used = [name for name, operand in pairs if operand == value and name in read]
    found = [positions(inside, Value(inside.input(name))) for name in used]
    return [count for count in found if count is not None]


def _coordinates(value: Value) -> int | None:
    """Return how many coordinates a value counts, if by views and casts it is an `iota`."""
    while isinstance(value.node.op.kind, (View, Elementwise)) and len(value.node.inputs) == 1:
        value = value.node.inputs[0]
    kind = value.node.op.kind
    if isinstance(kind, Source) and kind.index is not None:
        return value.type.shape[value.node.attrs["axis"]] if value.type.rank else 1
    return None
