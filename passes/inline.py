"""Decides which values are worth memory and which are computed wherever they are needed.

Views, coordinates (`iota`) and small constants are never stored. Cheap elementwise nodes that
read at most one tensor of their own size are computed again in each kernel that uses them:
storing and loading a value costs as much as some fifty operations. Random bits read only a key,
so they too are computed again rather than kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from asg.graph import Graph, Node, Value
from asg.index import flatten, unflatten, variable
from asg.op import (
    Attention,
    Contraction,
    Elementwise,
    Gather,
    Join,
    Procedure,
    Reduction,
    Scatter,
    Source,
    View,
)
from asg.passes.storage import MAX_BINDING_BYTES, binding_count
from asg.types import DType, TensorType

MAP_LIMIT = 64  # operations per element that are repeated rather than stored
OPERAND_LIMIT = 4  # the same inside a contraction's operand, which is read many times
UNPACK_LIMIT = 12  # the same where an operand is unpacked from words, which are fewer
FACTOR_LIMIT = 12  # the same for a factor per row, of which whole quads are read
SCALAR_LIMIT = 8  # the same for values of a few elements, which every invocation would repeat
SMALL = 16  # elements
MAX_LOADS = 4
MAX_SITES = 4  # places of full tensors from which one element is computed, as in a window

Site = tuple[Value, tuple[Node, ...]]  # a value that is loaded, and the views it is seen through


@dataclass
class Inlining:
    """The decision for one graph.

    Attributes:
        stored_views: bijective views written straight from the kernel under them.
    """

    graph: Graph
    stored_views: set[Node] = field(default_factory=set)
    _work: set[Node] = field(default_factory=set)
    _cost: dict[Node, int] = field(default_factory=dict)
    _loads: dict[Node, frozenset[Value]] = field(default_factory=dict)
    _sites: dict[Node, frozenset[Site]] = field(default_factory=dict)
    _sums: dict[Node, frozenset[Value]] = field(default_factory=dict)  # what it reduces rows of

    def is_inline(self, node: Node) -> bool:
        """Tell whether kernels compute `node` where they need it."""
        return node not in self._work

    def work(self) -> list[Node]:
        """Return the nodes that some kernel must compute, in order."""
        return [n for n in self.graph.nodes if n in self._work and not is_given(n)]


def is_given(node: Node) -> bool:
    """Tell whether a node's value lies in memory without a kernel: inputs, arrays, flat joins."""
    kind = node.op.kind
    if isinstance(kind, Source):
        return kind.index is None and not is_small_constant(node)
    return isinstance(kind, Join) and kind.flat


def is_small_constant(node: Node) -> bool:
    """Tell whether a node is a constant of one element, written into the text."""
    return "value" in node.attrs and not node.inputs and node.type.size == 1


def decide(
    graph: Graph, max_bindings: int = 8, max_binding_bytes: int = MAX_BINDING_BYTES
) -> Inlining:
    """Choose the nodes of `graph` that are computed inline.

    A kernel for one node alone needs at most `max_bindings`, unless the node's own operands are
    too many (`SplitJoins` sees to that).
    """
    result = Inlining(graph)
    forced = _forced(graph, result)
    operands = _contraction_operands(graph)
    for node in graph.nodes:
        loads: set[Value] = set()
        sites: set[Site] = set()
        cost = _own_cost(node)
        for operand in dict.fromkeys(node.inputs):
            if result.is_inline(operand.node):
                loads |= result._loads[operand.node]
                sites |= result._sites[operand.node]
                cost += result._cost[operand.node]
            else:
                loads.add(operand)
                sites.add((operand, ()))
        if isinstance(node.op.kind, View):
            sites = {(value, (*views, node)) for value, views in sites}
        result._cost[node], result._loads[node] = cost, frozenset(loads)
        result._sites[node] = frozenset(sites)
        result._sums[node] = _summed(result, node)
        is_cheap = _is_cheap(node, cost, loads, node in operands) and not _is_wide(node, sites)
        is_cheap = is_cheap and not (node in operands and _is_normalised(result, node, loads))
        if node not in forced and not is_cheap:
            narrow = _narrow_operand(result, node)
            if narrow is not None:
                _store(result, narrow.node, max_bindings, max_binding_bytes)
                result._cost[node], result._loads[node] = _own_cost(node), frozenset({narrow})
                result._sites[node] = frozenset({(narrow, ())})
                continue
        if node in operands and not is_cheap:
            early = _early_factor(result, node)
            if early is not None:
                result._work.add(early)
                continue
        if node in forced or not is_cheap or _replaces_its_load(graph, node, loads):
            _store(result, node, max_bindings, max_binding_bytes)
    return result


def _store(result: Inlining, node: Node, max_bindings: int, max_binding_bytes: int) -> None:
    """Let some kernel compute `node`, which leaves so many bindings for what it loads."""
    result._work.add(node)
    stored = (binding_count(type_.nbytes, max_binding_bytes) for type_ in node.types)
    _limit_loads(result, node, max_bindings - sum(stored), max_binding_bytes)


def _own_cost(node: Node) -> int:
    return node.op.kind.cost if isinstance(node.op.kind, Elementwise) else 0


def _narrow_operand(result: Inlining, node: Node) -> Value | None:
    """Return what to store in the place of a cast to a wider type: its operand, in fewer bytes."""
    if not isinstance(node.op.kind, Elementwise) or len(node.inputs) != 1:
        return None
    (own,) = node.inputs
    is_computed = isinstance(own.node.op.kind, Elementwise) and result.is_inline(own.node)
    is_narrow = own.type.dtype.is_narrow and own.type.nbytes < node.type.nbytes
    return own if is_computed and is_narrow else None


def _early_factor(result: Inlining, node: Node) -> Node | None:
    """Return what to store in the place of `node`: an operand that can be computed in an earlier
    kernel, where the other is small and waits for a sum over everything.

    Gradients of losses are of this kind: a cotangent for each row, divided by what counts.
    """
    if not isinstance(node.op.kind, Elementwise) or len(node.inputs) != 2:
        return None
    for own, other in (node.inputs, node.inputs[::-1]):
        early = own.node
        if not isinstance(early.op.kind, Elementwise) or not result.is_inline(early):
            continue
        is_inline = result.is_inline(other.node)
        loads = result._loads[other.node] if is_inline else {other}
        cost = node.op.kind.cost + (result._cost[other.node] if is_inline else 0)
        is_small = all(value.type.size * 4 <= node.type.size for value in loads)
        late = {value for value in loads if value.type.size == 1 and not is_given(value.node)}
        if is_small and cost <= FACTOR_LIMIT and late - result._loads[early]:
            return early
    return None


def _limit_loads(result: Inlining, node: Node, limit: int, largest: int) -> None:
    """Store inline operands of `node`, from those with the most loads on, until it loads from at
    most `limit` bindings of up to `largest` bytes."""
    makers = {under_views(value).node for value in node.inputs}
    inline = [each for each in makers if isinstance(each.op.kind, Elementwise)]
    inline = [each for each in inline if result.is_inline(each)]
    for each in sorted(inline, key=lambda each: (-len(result._loads[each]), each.serial)):
        if _binding_count(_loads_of(result, node), largest) <= limit:
            return
        result._work.add(each)


def _loads_of(result: Inlining, node: Node) -> set[Value]:
    """Return what a kernel for `node` loads, by the decisions made so far."""
    found: set[Value] = set()
    pending = list(node.inputs)
    while pending:
        value = pending.pop()
        if result.is_inline(value.node):
            pending.extend(value.node.inputs)
        else:
            found.add(value)
    return found


def _binding_count(loads: set[Value], largest: int) -> int:
    """Return how many bindings `loads` need: what kernels compute lies in one buffer, of which
    one binding can show all if none is large."""
    given = sum(
        binding_count(value.type.nbytes, largest) for value in loads if is_given(value.node)
    )
    computed = [
        binding_count(value.type.nbytes, largest) for value in loads if not is_given(value.node)
    ]
    if max(computed, default=1) > 1:
        return given + sum(computed)
    return given + bool(computed)


def _is_cheap(node: Node, cost: int, loads: set[Value], is_operand: bool) -> bool:
    kind = node.op.kind
    if isinstance(kind, View):
        return True
    if isinstance(kind, Source):
        return not is_given(node)
    if not isinstance(kind, Elementwise) or len(loads) > MAX_LOADS:
        return False
    size = node.type.size
    full = [value for value in loads if value.type.size * 4 > size]
    if is_operand and _is_packed(size, loads):
        return cost <= UNPACK_LIMIT
    if len(full) > 1:
        return False
    if is_operand:
        return cost <= OPERAND_LIMIT
    if size <= SMALL:
        return cost <= SCALAR_LIMIT
    return cost <= MAP_LIMIT or not full


def _summed(result: Inlining, node: Node) -> frozenset[Value]:
    """Return the values from whose rows `node`, smaller than they are, is reduced."""
    if isinstance(node.op.kind, Reduction):
        return frozenset(
            value for value in result._loads[node] if value.type.size > SMALL * node.type.size
        )
    inputs = (value.node for value in node.inputs if value.type.size <= node.type.size)
    return frozenset().union(*(result._sums.get(each, frozenset()) for each in inputs))


def _is_normalised(result: Inlining, node: Node, loads: set[Value]) -> bool:
    """Tell whether rows are scaled by what is summed over them: a kernel that holds them anyway
    stores them with one access more, and their products read them many times."""
    if not isinstance(node.op.kind, Elementwise):
        return False
    return any(loads & result._sums.get(value.node, frozenset()) for value in loads)


def _is_packed(size: int, loads: set[Value]) -> bool:
    """Tell whether so many elements are unpacked from words, and from little beside them."""
    is_smaller = all(value.type.size * 2 <= size for value in loads)
    return is_smaller and any(value.type.dtype is DType.U32 for value in loads)


def _is_wide(node: Node, sites: set[Site]) -> bool:
    """Tell whether an element is computed from many elements of full tensors, as in a window."""
    full = [value for value, _ in sites if value.type.size * 4 > node.type.size]
    return isinstance(node.op.kind, Elementwise) and len(full) > MAX_SITES


def _replaces_its_load(graph: Graph, node: Node, loads: set[Value]) -> bool:
    """Tell whether `node` is all that anyone reads of a value of its size: then it, not that
    value, is worth storing, and belongs to the kernel that computes it."""
    if not isinstance(node.op.kind, Elementwise):
        return False
    for value in loads:
        if value.type.size != node.type.size or is_given(value.node) or value in graph.results:
            continue
        if value.type.dtype.is_narrow and node.type.nbytes > value.type.nbytes:
            continue
        if readers_of(graph, value) == {node}:
            return True
    return False


def readers_of(graph: Graph, value: Value) -> set[Node]:
    """Return the nodes that read a value, directly or through views."""
    found: set[Node] = set()
    pending = list(graph.users.get(value, ()))
    while pending:
        user = pending.pop()
        if isinstance(user.op.kind, View):
            pending.extend(graph.users.get(Value(user), ()))
        else:
            found.add(user)
    return found


def _forced(graph: Graph, result: Inlining) -> set[Node]:
    """Return nodes that need memory: results that are no plain range of something stored,
    members of flat joins, what a kernel written by hand reads, and views that the contraction
    under them writes directly."""
    forced: set[Node] = set()
    wanted = list(graph.results)
    for node in graph.nodes:
        if isinstance(node.op.kind, Join) and node.op.kind.flat:
            wanted.extend(node.inputs)
    for node in graph.nodes:
        for value in node.inputs if is_written(node) else ():
            whole = whole_base(value)
            if whole is None or not is_given(whole.node):
                forced.add((whole or value).node)
    for value in wanted:
        base = contiguous_base(value)
        if base is None:
            forced.add(value.node)
        elif not is_given(base.node):
            forced.add(base.node)
    for node in graph.nodes:
        if not isinstance(node.op.kind, (Contraction, Attention)):
            continue
        for value in node.values:
            chain = written_through(graph, value)
            forced.update(chain[-1:])
            result.stored_views.update(chain[-1:])
    return forced


def written_through(graph: Graph, value: Value) -> list[Node]:
    """Return the bijective views through which alone a result of a contraction or of attention
    is read, if they reorder it: its kernel then stores what the last of them shows."""
    chain: list[Node] = []
    while value not in graph.results:
        users = list(graph.users.get(value, ()))
        if len(users) != 1:
            break
        user = users[0]
        if not isinstance(user.op.kind, View) or user.op.kind.inverse is None:
            break
        chain.append(user)
        value = Value(user)
    return chain if contiguous_base(value) is None else []


def under_views(value: Value) -> Value:
    """Return the value that `value` is made of by views alone (maybe itself)."""
    while isinstance(value.node.op.kind, View):
        value = value.node.inputs[0]
    return value


def contiguous_base(value: Value) -> Value | None:
    """Return the value that `value` is a contiguous range of by views alone (maybe itself)."""
    found = contiguous_range(value)
    return None if found is None else found[0]


def contiguous_range(value: Value) -> tuple[Value, int] | None:
    """Return the stored value under `value`'s views and the element offset of its range.

    None where the views do more than take a contiguous range (they permute, repeat or skip).
    """
    size = value.type.size
    position = variable("i", max(size, 1))
    flat = position
    while isinstance(kind := value.node.op.kind, View):
        node = value.node
        source = node.inputs[0]
        coordinates = unflatten(flat, node.type.shape)
        access = kind.access(node.attrs, source.type.shape, node.type.shape, coordinates)
        for index, low, high in access.guards:
            if index.low < low or index.high >= high:
                return None
        flat = flatten(access.coordinates, source.type.shape)
        value = source
    if size == 0:  # at the start, so that it lies inside whatever is under it
        return value, 0
    offset = flat - position
    if not offset.is_const or not _is_whole_words(size, offset.const, value.type):
        return None
    return value, offset.const


def _is_whole_words(size: int, offset: int, under: TensorType) -> bool:
    """Tell whether a range of elements begins and ends with words of memory."""
    per_word = under.dtype.per_word
    return offset % per_word == 0 and (size % per_word == 0 or size == under.size)


def whole_base(value: Value) -> Value | None:
    """Return the value that `value` is another shape of, if it is no more than that."""
    found = contiguous_range(value)
    is_whole = found is not None and found[1] == 0 and found[0].type.size == value.type.size
    return found[0] if found is not None and is_whole else None


def is_written(node: Node) -> bool:
    """Tell whether a node is a kernel written by hand."""
    kind = node.op.kind
    return isinstance(kind, Procedure) and kind.form == "written"


def _reads_again(node: Node) -> bool:
    """Tell whether a node is a procedure that looks at its operands' elements many times."""
    kind = node.op.kind
    return isinstance(kind, Procedure) and kind.form not in ("sort", "scan", "recur")


def _contraction_operands(graph: Graph) -> set[Node]:
    """Return the nodes read, through views, as an operand by contractions and the like."""
    found: set[Node] = set()
    pending: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op.kind, (Contraction, Attention, Scatter)) or _reads_again(node):
            pending.extend(value.node for value in node.inputs)
        elif isinstance(node.op.kind, Gather):
            pending.append(node.inputs[1].node)
    while pending:
        node = pending.pop()
        if node in found:
            continue
        found.add(node)
        if isinstance(node.op.kind, View):
            pending.append(node.inputs[0].node)
    return found
