"""Which stored values a node reads, and at which addresses.

Views and inlined nodes disappear into index expressions: `pull` follows them down to base values
and yields the row-major position at which each is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from asg.graph import Node, Value
from asg.index import Index, flatten, unflatten
from asg.op import (
    ArgReduction,
    Attention,
    Composite,
    Contraction,
    Cut,
    Elementwise,
    Gather,
    Join,
    Procedure,
    Reduction,
    Scatter,
    Source,
    View,
)

Coordinates = tuple[Index, ...]
Reads = dict[Value, list[Index | None]]  # None: an address known at run time only


def operand_coordinates(
    node: Node, coordinates: Coordinates
) -> list[tuple[Value, Coordinates | None]]:
    """Return where a pointwise node reads its operands when computed at `coordinates`."""
    kind = node.op.kind
    match kind:
        case Elementwise():
            return [(operand, coordinates) for operand in node.inputs]
        case View():
            source = node.inputs[0].type.shape
            access = kind.access(node.attrs, source, node.type.shape, coordinates)
            return [(node.inputs[0], access.coordinates)]
        case Join():
            return list(zip(node.inputs, join_coordinates(kind, node, coordinates), strict=True))
        case Gather():
            axis, rank = node.attrs["axis"], node.inputs[1].type.rank
            return [(node.inputs[0], None), (node.inputs[1], coordinates[axis : axis + rank])]
        case Source():
            return []
        case (
            Reduction()
            | ArgReduction()
            | Contraction()
            | Scatter()
            | Composite()
            | Attention()
            | Procedure()
            | Cut()
        ):
            return [(operand, None) for operand in node.inputs]
        case _:
            assert_never(kind)


def join_coordinates(kind: Join, node: Node, coordinates: Coordinates) -> list[Coordinates]:
    """Return each operand's coordinates in a join."""
    types = tuple(operand.type for operand in node.inputs)
    inner: list[Coordinates] = []
    for start, operand in zip(kind.starts(node.attrs, types), types, strict=True):
        if kind.flat:
            inner.append(unflatten(coordinates[0] - start, operand.shape))
        else:
            axis = kind.axis(node.attrs)
            inner.append((*coordinates[:axis], coordinates[axis] - start, *coordinates[axis + 1 :]))
    return inner


def pull(roots: list[tuple[Value, Coordinates | None]], is_inline: Callable[[Node], bool]) -> Reads:
    """Follow `roots` through inlined nodes; return base values and positions, in order."""
    reads: Reads = {}
    seen: set[tuple[Value, Coordinates | None]] = set()
    pending = list(reversed(roots))
    while pending:
        value, coordinates = pending.pop()
        if (value, coordinates) in seen:
            continue
        seen.add((value, coordinates))
        if is_inline(value.node):
            pending.extend(reversed(_below(value.node, coordinates)))
            continue
        position = None if coordinates is None else flatten(coordinates, value.type.shape)
        positions = reads.setdefault(value, [])
        if position not in positions:
            positions.append(position)
    return reads


def _below(node: Node, coordinates: Coordinates | None) -> list[tuple[Value, Coordinates | None]]:
    if coordinates is None:
        return [(operand, None) for operand in node.inputs]
    return operand_coordinates(node, coordinates)
