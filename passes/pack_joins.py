"""Let products write straight into the concatenation of their results.

A flat join (`pack`) needs no kernel: its members are written where they belong. So is laid out a
concatenation along the outermost axis, and, seen through a permutation, one of members of equal
size along any axis. Readers follow index maps anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Attention, Contraction, Elementwise
from asg.ops.join import concatenate, pack
from asg.ops.movement import permute, reshape
from asg.passes.inline import contiguous_base, under_views, written_through
from asg.tensor import Tensor


@dataclass(frozen=True)
class PackJoins:
    """Turn concatenations of products into flat joins."""

    def __call__(self, graph: Graph) -> Graph:
        def packed(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if node.op is not concatenate or not _fits(graph, node):
                return None
            return (_pack(node, inputs).value,)

        return rewrite(graph, packed)


def _fits(graph: Graph, node: Node) -> bool:
    axis, shape = node.attrs["axis"], node.type.shape
    is_outermost = math.prod(shape[:axis]) == 1
    is_even = len({value.type for value in node.inputs}) == 1
    if any(value.type.size % value.type.dtype.per_word for value in node.inputs):
        return False
    if node.type.size == 0 or not (is_outermost or is_even):
        return False
    if not is_outermost and Value(node) in graph.results:
        return False
    bases = [under_views(value) for value in node.inputs]
    is_distinct = len(set(bases)) == len(bases)
    return is_distinct and all(_is_written_in_place(graph, value) for value in node.inputs)


def _is_written_in_place(graph: Graph, value: Value) -> bool:
    """Tell whether the kernel of a product or of attention can write all of `value`."""
    base = under_views(value)
    is_product = isinstance(base.node.op.kind, (Contraction, Attention))
    chain = written_through(graph, base) if is_product else []
    if chain:
        return chain[-1] is value.node
    is_whole = contiguous_base(value) == base and base.type.size == value.type.size
    return is_whole and _is_by_product(graph, base)


def _is_by_product(graph: Graph, value: Value) -> bool:
    """Tell whether `value` is a product or attention, or what an epilogue makes of a product."""
    kind = value.node.op.kind
    if isinstance(kind, (Contraction, Attention)):
        return True
    if not isinstance(kind, Elementwise):
        return False
    return any(
        operand.type.size == value.type.size
        and graph.users[operand] == [value.node]
        and _is_by_product(graph, operand)
        for operand in value.node.inputs
    )


def _pack(node: Node, inputs: tuple[Value, ...]) -> Tensor:
    axis, shape = node.attrs["axis"], node.type.shape
    sizes = [value.type.size for value in inputs]
    offsets = tuple(sum(sizes[:position]) for position in range(len(sizes)))
    flat = pack(*map(Tensor, inputs), offsets=offsets, total=sum(sizes))
    result: Tensor
    if math.prod(shape[:axis]) == 1:
        result = reshape(flat, shape=shape)
        return result
    stacked = reshape(flat, shape=(len(inputs), *inputs[0].type.shape))
    order = (*range(1, axis + 1), 0, *range(axis + 1, len(shape) + 1))
    result = reshape(permute(stacked, axes=order), shape=shape)
    return result
