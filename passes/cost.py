"""What nodes cost: arithmetic operations per node and per element."""

from __future__ import annotations

from typing import assert_never

from asg.graph import Node
from asg.op import (
    ArgReduction,
    Composite,
    Contraction,
    Elementwise,
    Gather,
    Join,
    Reduction,
    Scatter,
    Source,
    View,
)


def element_cost(node: Node) -> int:
    """Return operations per result element of a node that is evaluated inside a map."""
    kind = node.op.kind
    return kind.cost if isinstance(kind, Elementwise) else 0


def node_flops(node: Node) -> int:
    """Return the arithmetic operations of a whole node."""
    kind = node.op.kind
    match kind:
        case Elementwise():
            return kind.cost * node.type.size
        case Reduction() | ArgReduction():
            return node.inputs[0].type.size
        case Contraction():
            return 2 * node.type.size * node.inputs[0].type.shape[-1]
        case Scatter():
            return node.inputs[2].type.size
        case View() | Join() | Gather() | Source() | Composite():
            return 0
        case _:
            assert_never(kind)
