"""`If`, `Loop` and `Scan`, whose way is known when the graph is made."""

from __future__ import annotations

from asg.onnx.call import Call, Operand
from asg.onnx.registry import converter


@converter("If", since=1, statics=(0,))
def if_(call: Call) -> list[Operand]:
    """Only the branch that is taken is converted."""
    condition = call.static(0, "the condition")
    if condition.size != 1:
        raise call.malformed(f"a condition has one element, not {condition.size}")
    branch = "then_branch" if condition.item() else "else_branch"
    return call.run(call.get_graph(branch), ())
