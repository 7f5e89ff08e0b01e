"""Rewrite a graph by rules until none applies: see `arithmetic_rules` and `view_rules`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asg.errors import InternalError
from asg.graph import Graph, Node, Value
from asg.op import Op
from asg.ops.sources import input_
from asg.passes.arithmetic_rules import ARITHMETIC
from asg.passes.fold_constants import evaluate, known_operands
from asg.passes.rewriting import Rule
from asg.passes.view_rules import VIEWS
from asg.site import inherit

# Arithmetic comes first: a constant may make a whole node vanish, views and all.
RULES: tuple[Rule, ...] = (*ARITHMETIC, *VIEWS)


@dataclass(frozen=True)
class Simplify:
    """Fold constants and apply rewrite rules until nothing changes.

    Every rule looks only at a node and what lies under it. So one sweep in topological order
    is enough, in which the nodes that a replacement brings are simplified before it is used.
    Nodes nobody needs and nodes that became equal go when the graph is built.
    """

    rules: tuple[Rule, ...] = RULES

    def __call__(self, graph: Graph) -> Graph:
        rewriter = _Rewriter(self.rules, fuel=1000 + 100 * len(graph.nodes))
        for node in graph.nodes:
            rewriter.simplify(node)
        if not rewriter.applied:
            return graph
        renamed = rewriter.renamed
        return Graph.build(
            {name: renamed[value] for name, value in graph.outputs.items()},
            updates={name: renamed[value] for name, value in graph.updates.items()},
            name=graph.name,
            values=graph.values,
            inputs=graph.inputs,
            interfaces=graph.interfaces,
        )


class _Rewriter:
    """Simplifies nodes bottom up. `renamed` has the simple form of every value met so far."""

    def __init__(self, rules: Iterable[Rule], fuel: int) -> None:
        self.rules = tuple(rules)
        self.by_op: dict[str, tuple[Rule, ...]] = {}
        self.fuel = fuel
        self.applied: list[str] = []
        self.renamed: dict[Value, Value] = {}
        self.kept: dict[tuple[object, ...], Node] = {}
        self.replaced: dict[Node, tuple[Value, ...]] = {}

    def simplify(self, root: Node) -> None:
        """Find the simple form of a node and of all it needs, without recursion."""
        pending = [root]
        while pending:
            node = pending[-1]
            waiting = [value.node for value in self.needs(node) if value not in self.renamed]
            if waiting:
                pending.extend(reversed(waiting))
                continue
            pending.pop()
            if Value(node) not in self.renamed and not self.finish(node):
                pending.append(node)

    def needs(self, node: Node) -> Iterator[Value]:
        """Yield what must be simple first: the operands, or what the node is replaced by."""
        yield from self.replaced.get(node, node.inputs)

    def finish(self, node: Node) -> bool:
        """Name the simple form of `node`; False where a rule has just replaced it."""
        if node in self.replaced:
            self.name(node, tuple(self.renamed[value] for value in self.replaced[node]))
            return True
        fresh = self.copy(node)
        same = self.kept.get(fresh.key)
        if same is None:
            values = self.rewrite(fresh)
            if values is not None:
                self.replaced[node] = values
                return False
            same = self.kept[fresh.key] = fresh
        elif fresh.site not in (None, same.site, *same.also):
            # A remark about the source, no part of what the node is.
            object.__setattr__(same, "also", (*same.also, fresh.site))
        self.name(node, same.values)
        if same is not node:
            self.name(same, same.values)
        return True

    def name(self, node: Node, values: tuple[Value, ...]) -> None:
        self.renamed.update(zip(node.values, values, strict=True))

    def copy(self, node: Node) -> Node:
        """Return the node over simple operands. Copies keep the order of the nodes in the text,
        which is that of their creation."""
        if node.op is input_:
            return node
        inputs = tuple(self.renamed[value] for value in node.inputs)
        return Node(
            node.op, inputs, node.attrs, node.types, node.site, node.scope, node.note, node.also
        )

    def rewrite(self, node: Node) -> tuple[Value, ...] | None:
        """Return what the first rule that fits makes of `node`."""
        with inherit(node.site, node.scope, node.note):
            arrays = known_operands(node, node.inputs)
            if arrays is not None:
                self.count("fold constants", node)
                return evaluate(node, arrays)
            for rule in self.rules_of(node.op):
                captures = rule.pattern(node)
                if captures is not None:
                    self.count(rule.name, node)
                    return (rule.replace(*captures).value,)
        return None

    def rules_of(self, op: Op) -> tuple[Rule, ...]:
        if op.name not in self.by_op:
            self.by_op[op.name] = tuple(
                rule for rule in self.rules if not rule.roots or any(op is r for r in rule.roots)
            )
        return self.by_op[op.name]

    def count(self, name: str, node: Node) -> None:
        self.applied.append(name)
        if len(self.applied) > self.fuel:
            last = ", ".join(dict.fromkeys(self.applied[-8:]))
            raise InternalError(f"simplify: rules undo each other at {node!r}: {last}")
