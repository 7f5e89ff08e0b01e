"""Kernels written by hand: the text as it stands, its bindings accessed as the plan wants it."""

from __future__ import annotations

from asg.artefact import Variant
from asg.codegen.context import KernelContext, header
from asg.custom.wgsl_source import read_bindings, with_accesses
from asg.errors import UnsupportedError
from asg.graph import Node
from asg.op import Procedure
from asg.passes.inline import whole_base


def written_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the one variant that there is."""
    node = context.kernel.anchors[0]
    assert isinstance(node.op.kind, Procedure)
    written = node.op.kind.written
    assert written is not None
    _check_bound(context, node)
    types = tuple(value.type for value in node.inputs)
    text = written.text(types, node.attrs)
    accesses = ["read_write" if bound.writable else "read" for bound in context.bound]
    text = with_accesses(text, read_bindings(text), accesses)
    schedule = "written by hand"
    grid = written.workgroups(types, node.attrs)
    return (Variant(f"{header(context, schedule)}\n{text}", grid, schedule=schedule),)


def _check_bound(context: KernelContext, node: Node) -> None:
    """Refuse what the text can't be bound to: every value begins a binding, and ends it."""
    name = f"kernel {context.kernel.name}, written by hand for op {node.op.name!r}"
    operands = [whole_base(value) or value for value in node.inputs]
    for value in (*node.inputs, *node.values):
        if value.type.size == 0:
            raise UnsupportedError(f"{name}, takes no empty tensors: {value.type}")
    bound = [each.values for each in context.bound]
    for value, each in zip((*operands, *node.values), context.bound, strict=False):
        if each.parts:
            raise UnsupportedError(f"{name}: {value.type} is too large for one binding")
    if bound != [((value, 0),) for value in (*operands, *node.values)]:
        raise UnsupportedError(
            f"{name}: an operand or result lies inside another tensor, where no binding can begin"
        )
