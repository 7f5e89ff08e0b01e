"""Cut a graph into kernels.

Nodes are visited once, in order. Each starts a group of its own and is then merged with the
groups that make its operands, where the loops agree:

- a map joins maps that it reads element for element;
- a reduction takes the maps that feed it into its loop, and joins a reduction over the same rows
  (so softmax, layer norm and cross-entropy become one kernel);
- a map joins a row kernel at the level of its elements or of its rows;
- a sum over the operand of a contraction joins it (the gradients of bias and weight);
- a map joins the contraction whose result it reads element for element (the epilogue), unless
  that would only add a tensor to store: where a row kernel reads the raw result anyway, the map
  is left to that kernel.

Cheap nodes and views take no part: they are computed inside whoever needs them (`inline.py`).
Then small maps of equal size, which would be a dispatch each, are put side by side.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import get_args

from asg.graph import Graph, Node, Value
from asg.index import unflatten
from asg.op import (
    ArgReduction,
    Attention,
    Contraction,
    Form,
    Procedure,
    Reduction,
    Scatter,
    Source,
    View,
)
from asg.passes.groups import Group, Grouping, Level, is_pack, member_base, member_starts
from asg.passes.inline import (
    Inlining,
    contiguous_range,
    decide,
    is_given,
    is_small_constant,
    is_written,
)
from asg.passes.kernels import FusedKernel, FusionPlan, KernelKind, Placement
from asg.passes.pull import pull
from asg.passes.riders import find_riders
from asg.passes.spaces import RowSpace, flat_variable, row_space
from asg.passes.storage import ALIGNMENT, MAX_BINDING_BYTES, WORD
from asg.passes.tile_moments import find_moments

ANCHORS = (Reduction, ArgReduction, Contraction, Attention, Scatter, Procedure)
ALONE = ("attention", *get_args(Form))  # kinds whose results take no operand's memory
TINY = 64  # elements; maps this small are merged whatever they read
SMALL_REDUCTION = 1 << 18  # elements; the same for reductions: a dispatch costs more
CANDIDATES = 32  # groups that one is compared with: those made last


@dataclass(frozen=True)
class Fuse:
    """Cut a graph into kernels of at most `max_bindings` operands and results, where those larger
    than `max_binding_bytes` count more than once.

    Needs a graph without composite ops. Afterwards every value that must exist is an input, a
    constant, a range of one, or the output of exactly one kernel. With `enabled` off, every
    node that computes has a kernel of its own (what `bisect` compares with).
    """

    max_bindings: int = 8
    enabled: bool = True
    max_binding_bytes: int = MAX_BINDING_BYTES

    def __call__(self, graph: Graph) -> FusionPlan:
        inlining = decide(graph, self.max_bindings, self.max_binding_bytes)
        riders = find_riders(graph) if self.enabled else {}
        moments = find_moments(graph.nodes) if self.enabled else {}
        grouping = Grouping(graph, inlining, self.max_bindings, riders, self.max_binding_bytes)
        grouping.riders |= {node: found.product for node, found in moments.items()}
        for node in inlining.work():
            if node in grouping.owner:
                continue
            if node in moments and grouping.take_moments(moments[node]):
                continue
            group = grouping.add(node)
            if node in grouping.partners:
                _ride(grouping, node)
            elif node in inlining.stored_views or self.enabled:
                _merge_with_producers(grouping, group, node)
        if self.enabled:
            _merge_side_by_side(grouping)
        return _plan(grouping)


def _ride(grouping: Grouping, node: Node) -> None:
    """Let the product `node` make sums over its operands, or be `node` such a sum."""
    for other in grouping.partners[node]:
        pair = [grouping.owner.get(each) for each in (node, other)]
        product, rider = sorted(pair, key=lambda group: group is None or group.kind != "contract")
        if product is None or rider is None or product is rider or len(rider.nodes) > 1:
            continue
        if product.kind == "contract" and grouping.may_merge([product, rider]):
            grouping.merge(product, [product, rider])


def _merge_with_producers(grouping: Grouping, group: Group, node: Node) -> None:
    match node.op.kind:
        case Contraction() | Attention() | Scatter() | Procedure():
            return
        case Reduction() | ArgReduction():
            _merge_reduction(grouping, group, node)
        case _:
            _merge_map(grouping, group, node)


def _merge_reduction(grouping: Grouping, group: Group, node: Node) -> None:
    """Join reductions over the same rows, and take in the maps that feed this one."""
    space = group.space
    assert space is not None
    merged = [group]
    for other in grouping.producers(node):
        fits = _fits_rows(grouping, other, group, node, "full")
        if fits and grouping.may_merge([*merged, other], space):
            merged.append(other)
    _absorb(grouping, group, merged, "full")
    for other in _row_siblings(grouping, group):
        if grouping.may_merge([group, other], space):
            grouping.merge(group, [group, other])


def _row_siblings(grouping: Grouping, group: Group) -> list[Group]:
    """Return row groups with the same loops that read one of the same tensors."""
    assert group.space is not None
    found: dict[int, Group] = {}
    for base in grouping.external_reads(group.nodes):
        for user in grouping.readers[base][-CANDIDATES:]:
            other = grouping.owner[user]
            if other is group or other.space is None:
                continue
            if other.space.key == group.space.key:
                found[other.number] = other
    return list(found.values())


def _fits_rows(grouping: Grouping, other: Group, group: Group, node: Node, level: Level) -> bool:
    """Tell whether `other` can share `group`'s loops, `node` (at `level`) reading it."""
    space = group.space
    assert space is not None
    inside = [base for base in grouping.reads[node] if grouping.owner.get(base.node) is other]
    if other.kind == "map":
        wanted = space.rows * space.length if level == "full" else space.rows
        if other.size != wanted:
            return False
        return all(grouping.relation(node, base, space, level) == level for base in inside)
    if other.kind != "row" or other.space is None or other.space.key != space.key:
        return False
    return all(
        grouping.relation(node, base, space, level) == other.levels[base.node] for base in inside
    )


def _absorb(grouping: Grouping, target: Group, merged: list[Group], level: Level) -> None:
    """Merge into the row group `target`; members of maps take `level`."""
    for other in merged:
        if other.kind == "map":
            other.levels = dict.fromkeys(other.nodes, level)
    grouping.merge(target, merged)


def _merge_map(grouping: Grouping, group: Group, node: Node) -> None:
    """Join the row kernel, the contraction or the maps that make the operands."""
    producers = grouping.producers(node)
    for other in producers:
        if other.kind == "row" and _join_rows(grouping, group, node, other, producers):
            return
    for other in producers:
        if _takes_epilogue(grouping, node, other) and _join_epilogue(
            grouping, group, node, other, producers
        ):
            return
    merged = [group]
    for other in producers:
        if _reads_identically(grouping, node, other) and grouping.may_merge([*merged, other]):
            merged.append(other)
    grouping.merge(group, merged)


def _takes_epilogue(grouping: Grouping, node: Node, other: Group) -> bool:
    """Tell whether a kernel may take a map behind its result: attention only stores by a view,
    or what a map makes of one result alone, such as the same in fewer bits."""
    if other.kind != "attention":
        return other.kind == "contract"
    reads = grouping.reads[node]
    is_alone = len(reads) == 1 and all(grouping.is_identity(node, base) for base in reads)
    return node in grouping.inlining.stored_views or is_alone


def _reads_identically(grouping: Grouping, node: Node, other: Group) -> bool:
    """Tell whether `other` is a map that `node` reads element for element."""
    inside = [base for base in grouping.reads[node] if grouping.owner.get(base.node) is other]
    is_map = other.kind == "map" and bool(inside)
    return is_map and all(grouping.is_identity(node, base) for base in inside)


def _join_rows(
    grouping: Grouping, group: Group, node: Node, target: Group, producers: list[Group]
) -> bool:
    """Put a map node into a row group, with the maps and equal row groups that it reads."""
    space = target.space
    assert space is not None
    if _feeds_other_rows_only(grouping, node, space):
        return False
    size = node.type.size
    levels: list[Level] = []
    if size == space.rows * space.length:
        levels.append("full")
    if size == space.rows:
        levels.append("row")
    for level in levels:
        if not _fits_rows(grouping, target, target, node, level):
            continue
        if not grouping.may_merge([target, group], space, level):
            continue
        merged = [target, group]
        for other in producers:
            if other is target or not _fits_rows(grouping, other, target, node, level):
                continue
            if grouping.may_merge([*merged, other], space, level):
                merged.append(other)
        _absorb(grouping, target, merged, level)
        return True
    return False


def _feeds_other_rows_only(grouping: Grouping, node: Node, space: RowSpace) -> bool:
    """Tell whether only reductions along other rows read `node`: in one of their kernels it is
    never stored, and is worth what it loads."""
    users = [user for value in node.values for user in grouping.users.get(value, ())]
    full = [base for base in grouping.reads[node] if base.type.size == node.type.size]
    return (
        bool(users)
        and len(full) <= 2
        and not any(value in grouping.kept for value in node.values)
        and all(isinstance(user.op.kind, Reduction) for user in users)
        and all(row_space(user).key != space.key for user in users)
    )


def _join_epilogue(
    grouping: Grouping, group: Group, node: Node, target: Group, producers: list[Group]
) -> bool:
    """Put a map node behind the contraction that makes its operand."""
    inside = [base for base in grouping.reads[node] if grouping.owner.get(base.node) is target]
    if any(base.node in grouping.riders for base in inside):
        return False
    if node not in grouping.inlining.stored_views:
        is_same = target.kind == "attention" or target.size == node.type.size
        if not is_same or not inside:
            return False
        if not all(grouping.is_identity(node, base) for base in inside):
            return False
        members = {*target.nodes, node}
        only_user = all(set(grouping.users[base]) <= members for base in inside)
        if not only_user and _feeds_reduction(grouping, node):
            return False
    if not grouping.may_merge([target, group]):
        return False
    merged = [target, group]
    for other in producers:
        if _reads_identically(grouping, node, other) and grouping.may_merge([*merged, other]):
            merged.append(other)
    grouping.merge(target, merged)
    return True


def _feeds_reduction(grouping: Grouping, node: Node) -> bool:
    return any(
        isinstance(user.op.kind, (Reduction, ArgReduction))
        for value in node.values
        for user in grouping.users.get(value, ())
    )


def _merge_side_by_side(grouping: Grouping) -> None:
    """Merge maps of equal size, or reductions over equal rows, that are small or read the
    same tensor."""
    alike: dict[object, list[Group]] = {}
    for group in list(grouping.groups.values()):
        if group.kind == "map":
            key: object = group.size
            is_small = group.size <= TINY
        elif group.space is not None and set(group.levels.values()) == {"row"}:
            key = group.space.key
            is_small = group.space.rows * group.space.length <= SMALL_REDUCTION
        else:
            continue
        for other in alike.setdefault(key, [])[-CANDIDATES:]:
            if not is_small and not _share_a_read(grouping, group, other):
                continue
            if grouping.may_merge([other, group], group.space):
                grouping.merge(other, [other, group])
                break
        else:
            alike[key].append(group)


def _share_a_read(grouping: Grouping, group: Group, other: Group) -> bool:
    """Tell whether two groups of equal loops load one large tensor, or one loads what the other
    makes: what kept them apart before may be gone, as a state takes the place of a result."""
    reads, others = (set(grouping.external_reads(each.nodes)) for each in (group, other))
    shared = reads & others
    shared |= {value for value in reads if grouping.owner.get(value.node) is other}
    shared |= {value for value in others if grouping.owner.get(value.node) is group}
    return any(value.type.size >= group.size for value in shared)


def _plan(grouping: Grouping) -> FusionPlan:
    graph = grouping.graph
    order = _in_order(grouping)
    kernels: list[FusedKernel] = []
    for group in order:
        outputs = grouping.outputs(group.nodes)
        if not outputs or all(value.type.size == 0 for value in outputs):
            continue
        kernels.append(_kernel(grouping, group, outputs, len(kernels)))
    placed, copies = _place_joins(grouping)
    read = {value for kernel in kernels for value in kernel.reads}
    stored: dict[Value, None] = {Value(node): None for node in graph.inputs}
    aliases: dict[Value, Placement] = {}
    for value in (*graph.results, *(source for source, _, _ in copies)):
        found = contiguous_range(value)
        if found is not None and found[0] != value:
            aliases[value] = Placement(*found)
            read.add(found[0])
        else:
            read.add(value)
    for node in graph.nodes:
        is_read = is_given(node) and Value(node) in read
        if is_read or (is_small_constant(node) and Value(node) in graph.results):
            stored[Value(node)] = None
    stored |= {value: None for kernel in kernels for value in kernel.outputs}
    for value in read:
        stored.setdefault(value, None)
    return FusionPlan(graph, tuple(kernels), tuple(stored), aliases, placed, copies)


def _in_order(grouping: Grouping) -> list[Group]:
    """Return groups so that each comes after those it depends on, early nodes first."""
    groups = grouping.groups
    above = {number: grouping.order.above(number) for number in groups}
    below: dict[int, list[int]] = {number: [] for number in groups}
    for number, others in above.items():
        for other in others:
            below[other].append(number)
    missing = {number: len(others) for number, others in above.items()}
    ready = [(groups[number].nodes[-1].serial, number) for number in groups if not missing[number]]
    heapq.heapify(ready)
    order: list[Group] = []
    while ready:
        _, number = heapq.heappop(ready)
        order.append(groups[number])
        for other in below[number]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, (groups[other].nodes[-1].serial, other))
    assert len(order) == len(groups), "kernels depend on each other"
    return order


def _kernel(grouping: Grouping, group: Group, outputs: list[Value], position: int) -> FusedKernel:
    reads = grouping.external_reads(group.nodes)
    anchors = [node for node in group.nodes if isinstance(node.op.kind, ANCHORS)]
    anchors.sort(key=lambda node: not isinstance(node.op.kind, Contraction))
    kind: KernelKind = group.kind
    if kind == "row" and all(group.levels[value.node] == "row" for value in outputs):
        kind = "reduce"
    nodes = _evaluated(grouping.inlining, group, reads)
    return FusedKernel(
        name=f"k{position:02d}_{_title(group)}",
        kind=kind,
        anchors=tuple(anchors),
        outputs=tuple(outputs),
        reads=tuple(reads),
        nodes=nodes,
        in_place=_in_place(grouping, group, reads, outputs),
        per_row=tuple(node for node, level in group.levels.items() if level == "row"),
    )


def _title(group: Group) -> str:
    """Name a kernel after its anchors and its last ops."""
    names = [node.op.name for node in group.nodes]
    anchors = [node.op.name for node in group.nodes if isinstance(node.op.kind, ANCHORS)]
    words = list(dict.fromkeys([*anchors[:3], *names[-2:]]))
    return "_".join(words[:4])


def _evaluated(inlining: Inlining, group: Group, reads: list[Value]) -> tuple[Node, ...]:
    """Return the group's nodes and the inlined ones under them."""
    known = {value.node for value in reads}
    seen: dict[Node, None] = {}
    pending = list(group.nodes)
    while pending:
        node = pending.pop()
        if node in seen or node in known:
            continue
        seen[node] = None
        pending.extend(value.node for value in node.inputs)
    work = [node for node in seen if not isinstance(node.op.kind, (View, Source))]
    views = [node for node in seen if isinstance(node.op.kind, (View, Source))]
    return tuple(sorted([*work, *views], key=lambda node: node.serial))


def _in_place(
    grouping: Grouping, group: Group, reads: list[Value], outputs: list[Value]
) -> tuple[tuple[Value, Value], ...]:
    """Return pairs of operand and result that may share memory."""
    pairs: list[tuple[Value, Value]] = []
    if group.kind == "scatter":
        return _in_place_scatter(grouping, group)
    if group.kind in ALONE:
        return ()
    for read in reads:
        readers = [node for node in group.nodes if read in grouping.reads[node]]
        if not all(_reads_own_element(grouping, group, node, read) for node in readers):
            continue
        for output in outputs:
            is_full = group.space is None or group.levels[output.node] == "full"
            is_full = is_full and not (group.kind == "contract" and output.node in grouping.riders)
            if is_full and output.type.size == read.type.size:
                pairs.append((read, output))
    return tuple(pairs)


def _in_place_scatter(grouping: Grouping, group: Group) -> tuple[tuple[Value, Value], ...]:
    """Return what a scatter changes and its result, if it reads nothing else of that."""
    (node,) = group.nodes
    flat = flat_variable(node.type.size)
    changed = pull(
        [(node.inputs[0], unflatten(flat, node.type.shape))], grouping.inlining.is_inline
    )
    others = pull([(value, None) for value in node.inputs[1:]], grouping.inlining.is_inline)
    pairs = [
        (read, Value(node))
        for read, positions in changed.items()
        if positions == [flat] and read not in others and read.type.size == node.type.size
    ]
    return tuple(pairs)


def _reads_own_element(grouping: Grouping, group: Group, node: Node, read: Value) -> bool:
    if group.space is not None:
        level = group.levels[node]
        if isinstance(node.op.kind, (Reduction, ArgReduction)):
            level = "full"
        return grouping.relation(node, read, group.space, level) == "full"
    if isinstance(node.op.kind, Contraction) or node in grouping.inlining.stored_views:
        return False
    return node.type.size == group.size and grouping.is_identity(node, read)


def _place_joins(
    grouping: Grouping,
) -> tuple[dict[Value, Placement], tuple[tuple[Value, Value, int], ...]]:
    """Decide which members of flat joins are written straight into place."""
    placed: dict[Value, Placement] = {}
    copies: list[tuple[Value, Value, int]] = []
    for node in grouping.graph.nodes:
        if not is_pack(node):
            continue
        starts = member_starts(node)
        bases = [member_base(value) for value in node.inputs]
        is_state = all(is_state_input(base.node) for base in bases)
        for value, base, start in zip(node.inputs, bases, starts, strict=True):
            is_whole = base.type.size == value.type.size
            is_free = base not in placed and (is_state or base.node in grouping.owner)
            is_free = is_free and (not is_written(base.node) or start * WORD % ALIGNMENT == 0)
            if is_whole and is_free:
                placed[base] = Placement(Value(node), start)
            else:
                copies.append((value, Value(node), start))
    return placed, tuple(copies)


def is_state_input(node: Node) -> bool:
    """Tell whether a node is an input that lives on the device between runs."""
    return node.attrs.get("role") in ("parameter", "state")
