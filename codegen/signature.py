"""What a kernel's text depends on, apart from names: so that equal kernels are written once."""

from __future__ import annotations

from collections.abc import Hashable

from asg.codegen.context import KernelContext
from asg.graph import Node, Value
from asg.passes.inline import written_through


def signature(context: KernelContext) -> Hashable:
    """Return a key that kernels share only if their texts differ in names and comments alone.

    Values are numbered as they appear. Everything else that writers look at is in the key: ops
    with their attributes and types, what is loaded and stored where, levels, and the views that
    contractions and attention write through. The target is the same for all kernels of a program.
    """
    kernel, numbers = context.kernel, dict[Value, int]()

    def number(value: Value) -> int:
        return numbers.setdefault(value, len(numbers))

    reads = tuple((number(value), value.type) for value in kernel.reads)
    nodes = tuple(_node(node, tuple(map(number, node.inputs))) for node in kernel.nodes)
    made = tuple(number(value) for node in kernel.nodes for value in node.values)
    return (
        kernel.kind,
        reads,
        nodes,
        made,
        tuple(number(value) for value in kernel.outputs),
        tuple(number(Value(node)) for node in kernel.anchors),
        tuple(number(Value(node)) for node in kernel.per_row),
        tuple((number(read), number(output)) for read, output in kernel.in_place),
        tuple(
            (
                bound.writable,
                bound.parts,
                tuple((number(value), offset) for value, offset in bound.values),
            )
            for bound in context.bound
        ),
        tuple(
            tuple(_node(view, ()) for view in written_through(context.graph, value))
            for node in kernel.anchors
            for value in node.values
        ),
    )


def _node(node: Node, inputs: tuple[int, ...]) -> Hashable:
    return node.op, inputs, tuple(sorted(node.attrs.items())), node.types
