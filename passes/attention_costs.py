"""Whether a processor computes attention faster in one kernel or spelt out.

One kernel looks only at blocks of keys that some query sees, but takes longer for each pair of a
query and a key: its tiles are smaller than a product's. The numbers are picoseconds for a pair on
two cores with Mesa's software driver and heads of 64 channels, for sizes from 64 to 1024; only
ratios matter.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Set
from dataclasses import dataclass

from asg.graph import Node
from asg.op import Attention
from asg.ops.attention_scores import extras_of_values


@dataclass(frozen=True)
class AttentionCosts:
    """What a pair of a query and a key costs.

    Attributes:
        whole: of the forward kernel; `whole_gradient`: of both kernels for the gradients.
        apart: of two products and a softmax; `apart_gradient`: of the products for the gradients.
        rows, columns: of a kernel's tile: pairs are looked at together.
        unknown: the share of pairs that is looked at where only a span knows.
    """

    whole: int = 66
    whole_gradient: int = 225
    apart: int = 59
    apart_gradient: int = 120
    rows: int = 16
    columns: int = 32
    unknown: float = 0.5


COSTS = AttentionCosts()


def worth_a_kernel(nodes: Collection[Node], possible: Set[Node]) -> set[Node]:
    """Return the attention nodes that are faster whole, of those where that is possible.

    A forward pass and its gradients go together: products that are spelt out share the scores.
    """
    families: dict[Node, list[Node]] = {}
    for node in nodes:
        families.setdefault(_forward_of(node), []).append(node)
    chosen = [each for each in families.values() if possible >= set(each) and _is_faster(each)]
    return {node for family in chosen for node in family}


def _forward_of(node: Node) -> Node:
    """Return the forward node whose logarithms a gradient reads, or the node itself."""
    if _part(node) == "forward":
        return node
    source = node.inputs[3].node
    return source if isinstance(source.op.kind, Attention) else node


def _part(node: Node) -> str:
    kind = node.op.kind
    assert isinstance(kind, Attention)
    return kind.part


def _is_faster(family: Collection[Node]) -> bool:
    has_gradient = any(_part(node) != "forward" for node in family)
    has_forward = any(_part(node) == "forward" for node in family)
    whole = COSTS.whole * has_forward + COSTS.whole_gradient * has_gradient
    apart = COSTS.apart * has_forward + COSTS.apart_gradient * has_gradient
    return whole * _seen_share(next(iter(family))) < apart


def _seen_share(node: Node) -> float:
    """Return the share of pairs that a kernel looks at."""
    queries, keys = node.inputs[0].type.shape[-2], node.inputs[1].type.shape[-2]
    part = _part(node)
    if extras_of_values(node.inputs[3 if part == "forward" else 6 :]).span is not None:
        return COSTS.unknown
    if not node.attrs["causal"]:
        return 1.0
    seen = 0
    for first in range(0, queries, COSTS.rows):
        rows = min(COSTS.rows, queries - first)
        blocks = math.ceil(min(first + rows, keys) / COSTS.columns)
        seen += rows * min(blocks * COSTS.columns, keys)
    return seen / max(queries * keys, 1)
