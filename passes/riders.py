"""Sums that a product can make on its way.

The gradient of a bias is the sum of what the gradient of the weight multiplies, over the axis that
the product sums over. Its kernel loads every element of that operand anyway.
"""

from __future__ import annotations

import math
from typing import Literal

from asg.graph import Graph, Node, Value
from asg.index import ZERO, Index, flatten, unflatten
from asg.op import Combine, Contraction, Reduction, View
from asg.passes.pull import Coordinates
from asg.passes.spaces import element_variable, row_space, row_variable

Operand = Literal["left", "right"]


def find_riders(graph: Graph) -> dict[Node, Node]:
    """Return the sums of `graph` that a product can make, each with the product."""
    products: dict[object, Node] = {}
    for node in graph.nodes:
        if _is_product(node):
            products.setdefault(_product_reads(node, "left"), node)
            products.setdefault(_product_reads(node, "right"), node)
    found: dict[Node, Node] = {}
    for node in graph.nodes:
        if products and _is_sum(node) and (reads := _sum_reads(node)) in products:
            found[node] = products[reads]
    return found


def ridden_operand(product: Node, rider: Node) -> Operand:
    """Return which operand of `product` the sum `rider` runs over."""
    return "left" if _product_reads(product, "left") == _sum_reads(rider) else "right"


def _is_product(node: Node) -> bool:
    if not isinstance(node.op.kind, Contraction) or node.type.size == 0:
        return False
    return math.prod(node.type.shape[:-2]) == 1 and node.inputs[0].type.size > 0


def _is_sum(node: Node) -> bool:
    kind = node.op.kind
    return isinstance(kind, Reduction) and kind.combine is Combine.SUM and node.type.size > 1


def _product_reads(product: Node, operand: Operand) -> object:
    """Return what is read of an operand at its row (or column) `row` and inner step `k`."""
    value = product.inputs[0 if operand == "left" else 1]
    *batch, first, last = value.type.shape
    outer, inner = (first, last) if operand == "left" else (last, first)
    row, k = row_variable(outer), element_variable(inner)
    pair = (row, k) if operand == "left" else (k, row)
    return outer, inner, under_plain_views(value, (*(ZERO for _ in batch), *pair))


def _sum_reads(node: Node) -> object:
    """Return what is read for result `row` of a sum in step `k`."""
    space = row_space(node)
    coordinates = unflatten(space.full, space.shape)
    return space.rows, space.length, under_plain_views(node.inputs[0], coordinates)


def under_plain_views(value: Value, coordinates: Coordinates) -> tuple[Value, Index]:
    """Return the value under plain views of `value`, and the position that is read in it."""
    while isinstance(kind := value.node.op.kind, View):
        source = value.node.inputs[0]
        access = kind.access(value.node.attrs, source.type.shape, value.type.shape, coordinates)
        if access.guards:
            break
        value, coordinates = source, access.coordinates
    return value, flatten(coordinates, value.type.shape)
