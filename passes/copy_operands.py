"""Give kernels written by hand operands that can be bound by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.ops.convert import copy
from asg.passes.groups import is_pack, member_base, member_starts
from asg.passes.inline import is_written, whole_base
from asg.passes.storage import ALIGNMENT, WORD
from asg.tensor import Tensor


@dataclass(frozen=True)
class CopyOperands:
    """Copy what such a kernel reads twice, and what lies inside of something else.

    Each operand has a binding of its own, which begins with its first element. Comes last: a rule
    may not take the copies out again.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(is_written(node) for node in graph.nodes):
            return graph
        inside = _unaligned_members(graph)

        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if not is_written(node):
                return None
            operands: list[Value] = []
            bases: set[Value] = set()
            for old, value in zip(node.inputs, inputs, strict=True):
                tensor = Tensor(value)
                if (whole_base(old) or old) in inside:
                    tensor = copy(tensor)
                while (whole_base(tensor.value) or tensor.value) in bases:
                    tensor = copy(tensor)  # of what is copied already, another one
                bases.add(whole_base(tensor.value) or tensor.value)
                operands.append(tensor.value)
            if tuple(operands) == inputs:
                return None
            return Node(node.op, tuple(operands), node.attrs, node.types).values

        return rewrite(graph, change)


def _unaligned_members(graph: Graph) -> set[Value]:
    """Return flat joins, and their members where no binding can begin."""
    found: set[Value] = set()
    for node in graph.nodes:
        if not is_pack(node):
            continue
        found.add(Value(node))
        for value, start in zip(node.inputs, member_starts(node), strict=True):
            if start * WORD % ALIGNMENT:
                found.add(member_base(value))
    return found
