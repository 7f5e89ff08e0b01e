"""What nodes cost: arithmetic operations per node and per element."""

from __future__ import annotations

import math
from typing import assert_never

from asg.graph import Node
from asg.op import (
    ArgReduction,
    Attention,
    Composite,
    Contraction,
    Cut,
    Elementwise,
    Form,
    Gather,
    Join,
    Procedure,
    Reduction,
    Scatter,
    Source,
    View,
)
from asg.ops.attention_scores import extras_of_values


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
        case Scatter(adds):
            return node.inputs[2].type.size if adds else 0
        case Attention(part):
            return _attention_flops(node, part)
        case Procedure(form):
            return _procedure_flops(node, form)
        case View() | Join() | Gather() | Source() | Composite() | Cut():
            return 0
        case _:
            assert_never(kind)


def _procedure_flops(node: Node, form: Form) -> int:
    """Return operations of a procedure: comparisons, or additions."""
    size = node.inputs[0].type.size
    match form:
        case "sort":
            return size * max(node.inputs[0].type.shape[-1] - 1, 0).bit_length()
        case _:
            return max(size, node.type.size)


def _attention_flops(node: Node, part: str) -> int:
    """Return operations of attention: each product once, some ten operations for each weight.

    Of what `causal` hides nothing is computed: about half. What a span hides is not known.
    """
    q, k, v = (value.type.shape for value in node.inputs[:3])
    pairs = math.prod(q[:-1]) * k[-2]
    extras = extras_of_values(node.inputs[3 if part == "forward" else 6 :])
    if node.attrs["causal"] and extras.span is None:
        seen = sum(min(row + 1, k[-2]) for row in range(q[-2]))
        pairs = math.prod(q[:-2]) * seen
    products = {
        "forward": q[-1] + v[-1],
        "query_grad": 2 * q[-1] + v[-1],
        "key_grad": 2 * (q[-1] + v[-1]),
    }
    return pairs * (2 * products[part] + 10)
