"""Groups of nodes that become kernels, and when two of them may be one.

The rules here are about legality: index relations, cycles, bindings. What is worth merging is
decided in `fuse.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from asg.graph import Graph, Node, Value
from asg.index import unflatten
from asg.op import ArgReduction, Attention, Contraction, Form, Join, Procedure, Reduction, Scatter
from asg.passes.group_order import GroupOrder
from asg.passes.inline import Inlining, contiguous_range, is_written
from asg.passes.pull import Reads, pull
from asg.passes.spaces import RowSpace, flat_atom, flat_variable, row_space, row_variable
from asg.passes.storage import MAX_BINDING_BYTES, binding_count
from asg.passes.tile_moments import Moments

Level = Literal["full", "row"]
GroupKind = Literal["map", "row", "contract", "attention", "scatter"] | Form


@dataclass
class Group:
    """Work nodes computed by one kernel.

    Attributes:
        size: elements of a map's iteration space (also a contraction's results).
        space: the loops, for row groups.
        levels: for row groups, whether a node is computed for every element or once per row.
    """

    number: int
    kind: GroupKind
    nodes: list[Node]
    size: int
    space: RowSpace | None = None
    levels: dict[Node, Level] = field(default_factory=dict)


class Grouping:
    """All groups of a graph, with who reads what and who depends on whom."""

    def __init__(
        self,
        graph: Graph,
        inlining: Inlining,
        max_bindings: int,
        riders: Mapping[Node, Node] | None = None,
        max_binding_bytes: int = MAX_BINDING_BYTES,
    ) -> None:
        self.graph = graph
        self.inlining = inlining
        self.max_bindings = max_bindings
        self.max_binding_bytes = max_binding_bytes
        self.groups: dict[int, Group] = {}
        self.order = GroupOrder()
        self.owner: dict[Node, Group] = {}
        self.reads: dict[Node, Reads] = {}
        self.users: dict[Value, list[Node]] = {}
        self.readers: dict[Value, list[Node]] = {}  # those of the users that have a group
        for node in inlining.work():
            self.reads[node] = self._reads_of(node)
            for base in self.reads[node]:
                self.users.setdefault(base, []).append(node)
        self.riders = dict(riders or {})
        self.partners: dict[Node, list[Node]] = {}
        for rider, product in self.riders.items():
            self.partners.setdefault(rider, []).append(product)
            self.partners.setdefault(product, []).append(rider)
        self.kept = self._kept()
        self.replaces = self._replaced_states()
        self.join_of: dict[Value, Node] = {}
        for node in self.graph.nodes:
            for value in node.inputs if is_pack(node) else ():
                self.join_of.setdefault(member_base(value), node)

    def _reads_of(self, node: Node) -> Reads:
        """Return base values and positions: over `i` for maps, `row` and `k` for reductions."""
        kind = node.op.kind
        is_inline = self.inlining.is_inline
        if isinstance(kind, (Contraction, Attention, Scatter, Procedure)):
            return pull([(value, None) for value in node.inputs], is_inline)
        if isinstance(kind, (Reduction, ArgReduction)):
            space = row_space(node)
            coordinates = unflatten(space.full, space.shape)
            return pull([(node.inputs[0], coordinates)], is_inline)
        flat = unflatten(flat_variable(node.type.size), node.type.shape)
        return pull([(Value(node), flat)], lambda each: each is node or is_inline(each))

    def _kept(self) -> set[Value]:
        """Return values that must be stored whoever else reads them."""
        kept: set[Value] = set()
        flat_joins = [value for node in self.graph.nodes for value in node.inputs if is_pack(node)]
        for value in (*self.graph.results, *flat_joins):
            found = contiguous_range(value)
            kept.add(found[0] if found else value)
        return kept

    def add(self, node: Node) -> Group:
        """Make a group of `node` alone, above everything that it reads."""
        number = len(self.owner)
        kind = node.op.kind
        group = Group(number, "map", [node], node.type.size)
        if isinstance(kind, (Reduction, ArgReduction)):
            group.kind, group.space, group.levels = "row", row_space(node), {node: "row"}
        elif isinstance(kind, Contraction):
            group.kind = "contract"
        elif isinstance(kind, Attention):
            group.kind = "attention"
        elif isinstance(kind, Scatter):
            group.kind = "scatter"
        elif isinstance(kind, Procedure):
            group.kind = kind.form
        self.order.add(number, [producer.number for producer in self.producers(node)])
        for base in self.reads[node]:
            self.readers.setdefault(base, []).append(node)
        self.groups[number] = group
        self.owner[node] = group
        return group

    def producers(self, node: Node) -> list[Group]:
        """Return the groups whose values `node` reads (also through flat joins)."""
        found: dict[int, Group] = {}
        pending = [base.node for base in self.reads[node]]
        while pending:
            each = pending.pop()
            if each in self.owner:
                found[self.owner[each].number] = self.owner[each]
            elif is_pack(each):
                pending.extend(member_base(value).node for value in each.inputs)
        return list(found.values())

    def outputs(self, nodes: Iterable[Node]) -> list[Value]:
        """Return the values of `nodes` that others need."""
        inside = dict.fromkeys(nodes)
        found: list[Value] = []
        for node in inside:
            for value in node.values:
                users = self.users.get(value, ())
                is_wanted = value in self.kept or is_written(node)
                if is_wanted or any(user not in inside for user in users):
                    found.append(value)
        return found

    def external_reads(self, nodes: Iterable[Node]) -> list[Value]:
        """Return the base values that `nodes` read and do not compute."""
        inside = dict.fromkeys(nodes)
        bases = (base for node in inside for base in self.reads[node])
        return [base for base in dict.fromkeys(bases) if base.node not in inside]

    def relation(self, node: Node, base: Value, space: RowSpace, level: Level) -> Level | None:
        """Tell how `node`, at `level` in a row space, reads `base`: element for element, the
        row's own value, or neither."""
        full, row = space.full, row_variable(space.rows)
        here = full if level == "full" else row
        atom = flat_atom(node.type.size)
        positions = self.reads[node][base]
        if not isinstance(node.op.kind, (Reduction, ArgReduction)):
            positions = [p and p.substitute({atom: here}) for p in positions]
        is_whole = level == "full" and base.type.size == space.rows * space.length
        if is_whole and all(position == full for position in positions):
            return "full"
        if base.type.size == space.rows and all(position == row for position in positions):
            return "row"
        return None

    def is_identity(self, node: Node, base: Value) -> bool:
        """Tell whether a map node reads `base` element for element."""
        flat = flat_variable(node.type.size)
        same = base.type.size == node.type.size
        return same and all(position == flat for position in self.reads[node][base])

    def may_merge(
        self, groups: list[Group], space: RowSpace | None = None, level: Level = "full"
    ) -> bool:
        """Tell whether `groups` can be one kernel: what one computes and another reads is read
        element for element, the order stays acyclic, and the bindings are few enough.

        With `space`, the kernel's loops are rows, and maps among the groups take `level`.
        """
        nodes = [node for group in groups for node in group.nodes]
        if len(nodes) > MAX_NODES or self._bindings(nodes) > self.max_bindings:
            return False
        if not self._agree(groups, space, level):
            return False
        return self.order.may_merge(group.number for group in groups)

    def take_moments(self, found: Moments) -> bool:
        """Let a product sum up what its tiles hold, if it can; tell whether it does."""
        target, sums = self.owner.get(found.product), found.sums
        reads = {base.node for node in sums for base in self.reads[node]} - set(sums)
        if target is None or any(self.owner.get(node) is not target for node in reads):
            return False
        # They depend on nothing but the product, so no cycle can arise.
        is_first = not any(node in self.riders for node in target.nodes)
        if not is_first or self._bindings([*target.nodes, *sums]) > self.max_bindings:
            return False
        self.merge(target, [self.add(node) for node in sums])
        return True

    def _agree(self, groups: list[Group], space: RowSpace | None, level: Level) -> bool:
        """Tell whether values that pass between `groups` are read where they are computed."""
        for group in groups:
            for node in group.nodes:
                for base in self.reads[node]:
                    if is_pack(base.node) and self._makes_member(groups, base.node):
                        return False  # the join is whole only after the kernel
                    owner = self.owner.get(base.node)
                    if owner is None or owner is group or owner not in groups:
                        continue
                    if owner.kind == "contract" and base.node in self.riders:
                        return False  # the sum is whole only after the kernel
                    if not self._agrees(node, base, owner, group.levels.get(node, level), space):
                        return False
        return True

    def _makes_member(self, groups: list[Group], join: Node) -> bool:
        owners = (self.owner.get(member_base(value).node) for value in join.inputs)
        return any(owner in groups for owner in owners if owner is not None)

    def _agrees(
        self, node: Node, base: Value, owner: Group, level: Level, space: RowSpace | None
    ) -> bool:
        if space is None:
            return node in self.inlining.stored_views or self.is_identity(node, base)
        if isinstance(node.op.kind, (Reduction, ArgReduction)):
            level = "full"
        return self.relation(node, base, space, level) == owner.levels.get(base.node, level)

    def _bindings(self, nodes: list[Node]) -> int:
        """Count operands and results; a state and what it becomes share one binding, and so do
        members of a flat join."""
        reads = self.external_reads(nodes)
        outputs = self.outputs(nodes)
        # Members of a flat join lie side by side, in what binds the join.
        joins = {self.join_of[value]: None for value in outputs if value in self.join_of}
        alone = [value for value in outputs if value not in self.join_of]
        shared = [value for value in alone if self.replaces.get(value) in reads]

        def count(values: list[Value]) -> int:
            each = (binding_count(value.type.nbytes, self.max_binding_bytes) for value in values)
            return sum(each)

        return count(reads) + count(alone) + count([Value(node) for node in joins]) - count(shared)

    def _replaced_states(self) -> dict[Value, Value]:
        """Return for each new value of a state (or of a flat join of states) the old one."""
        joins: dict[Value, tuple[Value, int]] = {}
        for node in self.graph.nodes:
            if is_pack(node):
                for value, start in zip(node.inputs, member_starts(node), strict=True):
                    joins.setdefault(member_base(value), (Value(node), start))
        found: dict[Value, Value] = {}
        for name, value in self.graph.updates.items():
            place = contiguous_range(value)
            if place is None:
                continue
            new, offset = place
            state = Value(self.graph.input(name))
            old, start = joins.get(state, (state, 0))
            if new.type.size == old.type.size and offset == start:
                found[new] = old
        return found

    def merge(self, target: Group, others: list[Group]) -> None:
        """Make `others` part of `target`; levels must be set already."""
        others = [other for other in others if other is not target]
        if not others:
            return
        self.order.merge(target.number, [other.number for other in others])
        for other in others:
            target.nodes.extend(other.nodes)
            target.levels |= other.levels
            for node in other.nodes:
                self.owner[node] = target
            del self.groups[other.number]
        target.nodes.sort(key=lambda node: node.serial)


MAX_NODES = 200


def is_pack(node: Node) -> bool:
    """Tell whether a node is a flat join."""
    return isinstance(node.op.kind, Join) and node.op.kind.flat


def member_starts(node: Node) -> tuple[int, ...]:
    """Return the element offsets of a flat join's operands."""
    kind = node.op.kind
    assert isinstance(kind, Join)
    return kind.starts(node.attrs, tuple(value.type for value in node.inputs))


def member_base(value: Value) -> Value:
    """Return the value under the views of a flat join's operand."""
    found = contiguous_range(value)
    return found[0] if found else value
