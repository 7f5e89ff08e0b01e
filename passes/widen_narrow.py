"""Let narrow element types be computed in wide ones (see `asg/narrow.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.narrow import widened_operands
from asg.op import Join, Source
from asg.ops.convert import cast
from asg.ops.join import concatenate
from asg.ops.movement import broadcast, reshape
from asg.ops.sources import constant
from asg.tensor import Tensor, build
from asg.types import DType, TensorType


@dataclass(frozen=True)
class WidenNarrow:
    """Put casts around every op that computes with f16, bf16 or integers of 8 or 16 bits.

    Comes before composites are spelt out, which so are computed wide as a whole. Afterwards
    values of narrow types are inputs, constants, conversions, or moved.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(type_.dtype.is_narrow for node in graph.nodes for type_ in node.types):
            return graph
        return rewrite(graph, _widen)


def _widen(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if isinstance(node.op.kind, Join) and node.op.kind.flat and not _has_whole_words(node):
        return (_spelt_out(node, inputs),)
    attrs, wide = node.attrs, list(inputs)
    for position in widened_operands(node.op, len(inputs)):
        wide[position] = _as(inputs[position], inputs[position].type.dtype.compute)
    if isinstance(node.op.kind, Source) and "dtype" in attrs:
        attrs = {**attrs, "dtype": attrs["dtype"].compute}
    if attrs == node.attrs and wide == list(inputs):
        return None
    built = build(node.op, wide, attrs)
    results = built if isinstance(built, tuple) else (built,)
    return tuple(_narrowed(found, type_) for found, type_ in zip(results, node.types, strict=True))


def _has_whole_words(node: Node) -> bool:
    """Tell whether every member of a flat join begins and ends with words of memory."""
    assert isinstance(node.op.kind, Join)
    types = tuple(value.type for value in node.inputs)
    starts = node.op.kind.starts(node.attrs, types)
    per_word = node.type.dtype.per_word
    return not any(
        start % per_word or type_.size % per_word
        for start, type_ in zip(starts, types, strict=True)
    )


def _spelt_out(node: Node, inputs: tuple[Value, ...]) -> Value:
    """Return a flat join as a concatenation, which a kernel computes."""
    assert isinstance(node.op.kind, Join)
    types = tuple(value.type for value in inputs)
    parts: list[Tensor] = []
    end = 0
    for value, start in zip(inputs, node.op.kind.starts(node.attrs, types), strict=True):
        parts += _zeros(start - end, node.type.dtype)
        parts.append(reshape(Tensor(value), shape=(value.type.size,)))
        end = start + value.type.size
    parts += _zeros(node.type.size - end, node.type.dtype)
    result: Tensor = concatenate(*parts, axis=0)
    return result.value


def _zeros(count: int, dtype: DType) -> list[Tensor]:
    return [broadcast(constant(0, dtype), shape=(count,))] if count else []


def _as(value: Value, dtype: DType) -> Value:
    return cast(Tensor(value), dtype).value


def _narrowed(result: Tensor, type_: TensorType) -> Value:
    return cast(result, type_.dtype).value
