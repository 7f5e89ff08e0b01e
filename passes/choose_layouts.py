"""Choose which images are stored with their channels last.

Images that elementwise nodes compute from each other are a *family*: all of them are stored alike,
because a map reads its operands element for element. Convolutions, poolings and reductions may lie
between families of either layout; `layout_costs` says what that takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, Protocol

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Composite, Elementwise, Reduction, View
from asg.ops.convolution import convolution
from asg.passes.inline import readers_of, under_views
from asg.passes.layout_costs import COSTS, convolution_cost, product_size
from asg.passes.layouts import Layout, to_first, to_last
from asg.tensor import Tensor

Wanted = Layout | Literal["auto"]


@dataclass(frozen=True)
class ChooseLayouts:
    """Write down which images lie [n, *places, c] in memory: by permutations undone at once.

    `layout` forces one or the other on all images; "auto" takes what costs less on a processor.
    None leaves that to the target, for which `asg.compiler.for_target` decides; it means channels
    first until then. Inputs and outputs keep the layout that they have. Comes before `Convolve`,
    which looks at the order in memory; `TurnMaps` has to follow.
    """

    layout: Wanted | None = None

    def __call__(self, graph: Graph) -> Graph:
        turned = set(self.last(graph))
        if not turned:
            return graph

        def mark(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if Value(node) not in turned:
                return None
            same = Tensor(Value(Node(node.op, inputs, node.attrs, node.types)))
            return (to_first(to_last(same)).value,)

        return rewrite(graph, mark, note="channels last")

    def last(self, graph: Graph) -> list[Value]:
        """Return the images whose channels come last."""
        if self.layout in (None, "nchw") or not any(n.op is convolution for n in graph.nodes):
            return []
        families = find_families(graph)
        chosen = families
        if self.layout == "auto":
            chosen = _Chooser(graph, families).cheapest()
        return [value for family in chosen for value in family.members]


class _Step(Protocol):
    """What an observer is told, as far as it is read here."""

    @property
    def name(self) -> str: ...

    @property
    def before(self) -> Graph | None: ...


@dataclass(frozen=True)
class LayoutsIn:
    """An observer that keeps, for an entry, which layouts convolutions have, and why."""

    passes: Sequence[object]
    entry: str
    found: dict[str, object]

    def __call__(self, step: _Step) -> None:
        chooser = next((each for each in self.passes if isinstance(each, ChooseLayouts)), None)
        if step.name != "choose-layouts" or step.before is None or chooser is None:
            return
        if said := describe(chooser, step.before):
            self.found[self.entry] = said


def describe(step: ChooseLayouts, graph: Graph) -> list[dict[str, str | int]]:
    """Return the layouts that each convolution reads and makes, and what speaks for them: the
    multiply-adds that it would take more with channels first, or last, around it."""
    convolutions = [node for node in graph.nodes if node.op is convolution]
    last = set(step.last(graph))
    found: list[dict[str, str | int]] = []
    for node in convolutions:
        below = [under_views(value) for value in node.inputs]
        kernel = is_image(below[1])
        costs = [
            convolution_cost(node, each, each if kernel else None, each) for each in (False, True)
        ]
        found.append(
            {
                "convolution": graph.names[Value(node)],
                "operand": "nhwc" if below[0] in last else "nchw",
                "result": "nhwc" if Value(node) in last else "nchw",
                "more_with_nchw": int(costs[0]),
                "more_with_nhwc": int(costs[1]),
            }
        )
    return found


@dataclass(eq=False)
class Family:
    """Images that are stored alike, in the graph's order."""

    members: list[Value] = field(default_factory=list)


def find_families(graph: Graph) -> list[Family]:
    """Return the families that convolutions make or read, in the graph's order."""
    leader: dict[Value, Value] = {}

    def root(value: Value) -> Value:
        while leader[value] is not value:
            value = leader[value]
        return value

    touched: list[Value] = []
    for node in graph.nodes:
        value = Value(node)
        if not is_image(value):
            continue
        leader[value] = value
        if isinstance(node.op.kind, (Elementwise, Composite)) and node.op is not convolution:
            for each in node.inputs:
                if each in leader and each.type.shape == value.type.shape:
                    leader[root(value)] = root(each)
        if node.op is convolution:
            below = (under_views(each) for each in node.inputs)
            touched += [each for each in below if each in leader]
            touched += () if _is_kernel(node) else (value,)
    families: dict[Value, Family] = {root(value): Family() for value in touched}
    for value in leader:
        if root(value) in families:
            families[root(value)].members.append(value)
    return list(families.values())


def is_image(value: Value) -> bool:
    """Tell whether a value is computed, and has channels and places."""
    node = value.node
    is_computed = not node.is_input and not isinstance(node.op.kind, View) and node.inputs
    is_one = len(node.types) == 1 and node.type.size > 0
    return bool(is_computed) and is_one and node.type.rank >= 3


def _is_kernel(node: Node) -> bool:
    """Tell whether a convolution makes kernels rather than images: a gradient, which has fewer
    places than the cotangent that it is convolved with."""
    return prod(node.type.shape[2:]) < prod(node.inputs[1].type.shape[2:])


class _Chooser:
    """Looks for the layouts of families that cost least together."""

    def __init__(self, graph: Graph, families: Sequence[Family]) -> None:
        self.graph, self.families = graph, families
        self.of = {value: family for family in families for value in family.members}
        self.convolutions = [node for node in graph.nodes if node.op is convolution]
        self.total = sum(map(product_size, self.convolutions))
        self.near: dict[Family, list[Node]] = {family: [] for family in families}
        for node in self.convolutions:
            for family in dict.fromkeys(filter(None, self._around(node))):
                self.near[family].append(node)
        self.own = {family: self._own(family) for family in families}

    def cheapest(self) -> list[Family]:
        """Return the families with channels last: those of the cheapest choice, where no single
        family would better be stored otherwise, or none if that saves too little."""
        nothing: set[Family] = set()
        found = [self._settled(start) for start in (nothing, set(self.families))]
        best = min(found, key=self._cost)
        if self._cost(nothing) - self._cost(best) <= COSTS.margin * self.total:
            return []
        return [family for family in self.families if family in best]

    def _settled(self, start: set[Family]) -> set[Family]:
        last = set(start)
        for _ in range(len(self.families)):
            before = set(last)
            for family in self.families:
                if self._local(family, last ^ {family}) < self._local(family, last):
                    last ^= {family}
            if last == before:
                break
        return last

    def _cost(self, last: Collection[Family]) -> float:
        own = sum(self.own[family] for family in self.families if family in last)
        return own + sum(self._of(node, last) for node in self.convolutions)

    def _local(self, family: Family, last: Collection[Family]) -> float:
        own = self.own[family] if family in last else 0.0
        return own + sum(self._of(node, last) for node in self.near[family])

    def _around(self, node: Node) -> tuple[Family | None, Family | None, Family | None]:
        """Return the families of a convolution's operand, kernel and result."""
        x, w = (self.of.get(under_views(value)) for value in node.inputs)
        return x, w, self.of.get(Value(node))

    def _of(self, node: Node, last: Collection[Family]) -> float:
        x, w, result = self._around(node)
        return convolution_cost(node, x in last, None if w is None else w in last, result in last)

    def _own(self, family: Family) -> float:
        """Return what it costs that others than convolutions read a family with channels last."""
        cost = 0.0
        for value in family.members:
            size = value.type.size
            cost += COSTS.turned * size if value in self.graph.results else 0.0
            for user in readers_of(self.graph, value):
                if user.op is convolution or Value(user) in self.of:
                    continue
                is_sum = isinstance(user.op.kind, Reduction)
                cost += (COSTS.statistic if is_sum else COSTS.turned) * size
            if isinstance(value.node.op.kind, Composite) and value.node.op is not convolution:
                cost += COSTS.standardized * size
        return cost
