"""What the three attention kernels have in common: tiles of rows times columns, never stored.

A tile has a score for every row and column. In the forward kernel and in that of the queries'
gradient rows are queries and columns keys; for the gradients of keys and values it is the other
way round. A kernel walks over blocks of columns. For each it makes *products* (row operand times
column operand over an inner axis), turns them into *tiles* (weights, or changes of scores), and
adds tiles times column operands to its *sums*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from asg.codegen.context import KernelContext
from asg.graph import Node, Value
from asg.op import Attention, Elementwise, View
from asg.ops.attention_scores import extras_of_values

TileName = Literal["weight", "change"]


@dataclass(frozen=True)
class Product:
    """Rows [*batch, rows, inner] times columns [*batch, columns, inner]."""

    rows: Value
    columns: Value

    @property
    def inner(self) -> int:
        return self.rows.type.shape[-1]


@dataclass(frozen=True)
class Sum:
    """A tile times column values [*batch, columns, width], and the result that it becomes."""

    tile: TileName
    columns: Value
    result: Value

    @property
    def width(self) -> int:
        return self.columns.type.shape[-1]


@dataclass(frozen=True)
class Roles:
    """What an attention node's operands are to its kernel.

    `logs` and `delta` are numbers per query; only gradients have them.
    """

    node: Node
    products: tuple[Product, ...]
    sums: tuple[Sum, ...]
    mask: Value | None
    span: Value | None = None
    logs: Value | None = None
    delta: Value | None = None
    rows_are_queries: bool = True

    @property
    def rows(self) -> int:
        return self.products[0].rows.type.shape[-2]

    @property
    def columns(self) -> int:
        return self.products[0].columns.type.shape[-2]

    @property
    def batch(self) -> tuple[int, ...]:
        return self.products[0].rows.type.shape[:-2]

    @property
    def is_causal(self) -> bool:
        return bool(self.node.attrs["causal"])

    @property
    def softcap(self) -> float:
        """What scores are held below, or 0."""
        return float(self.node.attrs.get("softcap", 0.0))

    @property
    def is_forward(self) -> bool:
        return self.logs is None

    @property
    def tiles(self) -> tuple[TileName, ...]:
        """The tiles that sums take."""
        return tuple(dict.fromkeys(each.tile for each in self.sums))


def roles_of(context: KernelContext) -> Roles:
    """Return the roles of a kernel's anchor; results that nobody needs have no sum."""
    node = context.kernel.anchors[0]
    kind = node.op.kind
    assert isinstance(kind, Attention)
    q, k, v, *rest = node.inputs
    if kind.part == "forward":
        extras = extras_of_values(rest)
        sums: tuple[Sum, ...] = (Sum("weight", v, Value(node)),)
        return Roles(node, (Product(q, k),), sums, extras.mask, extras.span)
    logs, dout, delta, *others = rest
    extras = extras_of_values(others)
    mask, span = extras.mask, extras.span
    match kind.part:
        case "query_grad":
            products = (Product(q, k), Product(dout, v))
            sums = (Sum("change", k, Value(node)),)
            return Roles(node, products, sums, mask, span, logs, delta)
        case "key_grad":
            sums = (Sum("change", q, Value(node)), Sum("weight", dout, Value(node, 1)))
            needed = tuple(each for each in sums if outputs_of(context, each.result))
            products = (Product(k, q), Product(v, dout))
            return Roles(node, products, needed, mask, span, logs, delta, rows_are_queries=False)
        case part:
            assert_never(part)


def outputs_of(context: KernelContext, result: Value) -> tuple[Value, ...]:
    """Return what is stored of a result: itself, a view of it, what a map makes of it."""
    made = {result}
    for node in context.kernel.nodes:
        if isinstance(node.op.kind, (View, Elementwise)) and not made.isdisjoint(node.inputs):
            made.update(node.values)
    return tuple(output for output in context.kernel.outputs if output in made)
