"""How each op is written in ONNX: a rule for every op that is not spelt out in others.

A rule gets the writer, the node and the names of its operands, and returns the name of the
result, or a tuple. A rule may fit some nodes only; a composite op without one that fits is
exported as what it is spelt out in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asg.graph import Node
from asg.onnx.export_rules import bits, elementwise, movement, placing, reduction, structured
from asg.onnx.writer import Rule, Writer

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **bits.RULES,
    **movement.RULES,
    **placing.RULES,
    **reduction.RULES,
    **structured.RULES,
}

# Ops of the table that can't be written, and why.
MISSING: Mapping[str, str] = {
    "suppress_rows": "ONNX's NonMaxSuppression has results of another form",
}

FITS: Mapping[str, Callable[[Node], bool]] = {**placing.FITS, **structured.FITS}


@dataclass(frozen=True)
class Choice:
    """The rule for one node."""

    rule: Rule

    def write(self, to: Writer, node: Node, operands: list[str]) -> tuple[str, ...]:
        """Write the node; return the names of its results."""
        found = self.rule(to, node, *operands)
        return found if isinstance(found, tuple) else (found,)


def rule_for(node: Node) -> Choice | None:
    """Return the rule for a node, if there is one that fits."""
    name = node.op.name
    if name not in RULES or (name in FITS and not FITS[name](node)):
        return None
    return Choice(RULES[name])
