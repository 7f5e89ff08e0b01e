"""Cut few long rows in parts, so that there is work for every core, and read them seldom.

A reduction along rows of 100,000 elements becomes one of each part and one over the parts, in the
graph itself. Two patterns would read the rows once more for each reduction that waits for
another; here the parts do without it:

- the sum of `exp(x - max(x))`: each part subtracts its own maximum, and its sum is multiplied by
  `exp(own - whole)` in the second stage (Milakov, Gimelshein 2018);
- sums of `x - v` and its square, v about the mean: each part subtracts its own mean m, and with
  S = sum(x - m) and Q = sum((x - m)^2) over C elements, and d = m - v, the sums are S + C d and
  Q + d (2 S + C d) (Chan, Golub, LeVeque 1979). That holds for any m and v, rounded or not.

What is left over of a row that can't be cut evenly goes to the second stage, as parts of one
element each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from asg.graph import Graph, Node, Value, rewrite
from asg.index import unflatten
from asg.op import ArgReduction, Combine, Op, Reduction
from asg.ops.arithmetic import add, mul, sub
from asg.ops.elementwise import exp
from asg.ops.join import concatenate
from asg.ops.logic import equal, select
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.reduction import reduce_max, reduce_min, reduce_sum
from asg.ops.sources import constant, iota
from asg.passes.riders import find_riders, under_plain_views
from asg.passes.spaces import element_variable, reduced_axes, row_variable
from asg.tensor import Tensor
from asg.types import DType

LANES = 4
MOST_ROWS = 3


@dataclass(frozen=True)
class SplitRows:
    """Split reductions along few long rows, which are neighbours in memory.

    Attributes:
        most_rows: rows above which they keep a device busy by themselves. None leaves that to the
            target, for which `asg.compiler.for_target` decides; it means 3 until then.
        shortest: elements of a row below which one stage is quick enough.
        parts: parts wanted of all rows together, at most.
        part: elements of a part, at least.
    """

    most_rows: int | None = None
    shortest: int = 32768
    parts: int = 256
    part: int = 1024

    def __call__(self, graph: Graph) -> Graph:
        riders = find_riders(graph)
        splitter = _Splitter(self, riders)
        return rewrite(graph, splitter.change)

    def cut(self, node: Node) -> _Cut | None:
        """Return how the rows of a reduction are cut, if they are."""
        source = node.inputs[0].type
        axes = reduced_axes(node)
        if not axes or axes != tuple(range(source.rank - len(axes), source.rank)):
            return None
        length = math.prod(source.shape[axis] for axis in axes)
        rows = node.type.size
        most = MOST_ROWS if self.most_rows is None else self.most_rows
        if not 0 < rows <= most or length < self.shortest:
            return None
        wanted = max(min(self.parts // rows, length // self.part), 2)
        even = [n for n in range(wanted, wanted // 2, -1) if length % (n * LANES) == 0]
        parts = even[0] if even else wanted
        size = length // parts // LANES * LANES
        return _Cut(rows, length, parts, size) if size else None


@dataclass(frozen=True)
class _Cut:
    """`rows` rows of `length` elements as `parts` parts of `size`, and the rest."""

    rows: int
    length: int
    parts: int
    size: int

    @property
    def rest(self) -> int:
        return self.length - self.parts * self.size

    def main(self, x: Tensor) -> Tensor:
        """Return [rows, parts, size] of a tensor of whole rows."""
        part = self._range(x, 0, self.parts * self.size)
        result: Tensor = reshape(part, shape=(self.rows, self.parts, self.size))
        return result

    def tail(self, x: Tensor) -> Tensor:
        """Return [rows, rest]."""
        return self._range(x, self.parts * self.size, self.length)

    def _range(self, x: Tensor, start: int, stop: int) -> Tensor:
        rows = reshape(x, shape=(self.rows, self.length))
        if stop - start == self.length:
            return rows  # type: ignore[no-any-return]
        starts, stops = (0, start), (self.rows, stop)
        result: Tensor = slice_(rows, starts=starts, stops=stops, steps=(1, 1))
        return result

    def joined(self, per_part: Tensor, rest: Tensor) -> Tensor:
        """Return [rows, parts + rest]: what is known of the parts, and of single elements."""
        result: Tensor = concatenate(per_part, rest, axis=1) if self.rest else per_part
        return result

    def over_parts(self, per_part: Tensor) -> Tensor:
        """Repeat [rows, parts] for every element of a part."""
        shape = (self.rows, self.parts, 1)
        whole = (self.rows, self.parts, self.size)
        result: Tensor = broadcast(reshape(per_part, shape=shape), shape=whole)
        return result

    def over_joined(self, per_row: Tensor) -> Tensor:
        """Repeat [rows] for every part and every single element."""
        column = reshape(per_row, shape=(self.rows, 1))
        result: Tensor = broadcast(column, shape=(self.rows, self.parts + self.rest))
        return result

    def filled(self, value: float, count: int) -> Tensor:
        """Return [rows, count] of one number."""
        result: Tensor = broadcast(constant(value), shape=(self.rows, count))
        return result


@dataclass
class _Splitter:
    """One run of the pass: what it has found of the parts of each tensor so far.

    `partial` has the results [rows, parts] of a reduction of a tensor; `maximum_of` says of which
    tensor a result [rows] is the maximum.
    """

    options: SplitRows
    riders: Mapping[Node, Node]
    partial: dict[tuple[Op, Value], Tensor] = field(default_factory=dict)
    maximum_of: dict[Value, Value] = field(default_factory=dict)

    def change(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        kind = node.op.kind
        if not isinstance(kind, (Reduction, ArgReduction)) or node in self.riders:
            return None
        cut = self.options.cut(node)
        if cut is None:
            return None
        if isinstance(kind, ArgReduction):
            result = _position(node.op, kind, cut, Tensor(inputs[0]))
        else:
            result = self._reduced(node.op, kind, cut, inputs[0])
        return (reshape(result, shape=node.type.shape).value,)

    def _reduced(self, op: Op, kind: Reduction, cut: _Cut, source: Value) -> Tensor:
        if kind.combine is Combine.SUM:
            for pattern in (self._exponentials, self._moment):
                found = pattern(cut, source)
                if found is not None:
                    return found
        return self._plain(op, cut, source)

    def _plain(self, op: Op, cut: _Cut, source: Value) -> Tensor:
        x = Tensor(source)
        partial = op(cut.main(x), axes=(2,))
        self.partial[op, source] = partial
        result: Tensor = op(cut.joined(partial, cut.tail(x)), axes=(1,))
        if op is reduce_max:
            self.maximum_of[result.value] = source
        return result

    def _exponentials(self, cut: _Cut, source: Value) -> Tensor | None:
        """Return the sum of `exp(x - max(x))`, if it is that.

        A part of nothing but -infinity subtracts 0 instead; its factor is 0 anyway.
        """
        if source.node.op is not exp:
            return None
        pair = _difference(source.node.inputs[0], cut)
        if pair is None or self.maximum_of.get(pair[1]) != pair[0]:
            return None
        x, whole = Tensor(pair[0]), Tensor(pair[1])
        own = self.partial[reduce_max, pair[0]]
        lowest = broadcast(constant(-math.inf), shape=own.shape)
        nothing = cut.filled(0.0, cut.parts)
        shift = select(equal(own, lowest), nothing, own)
        sums = reduce_sum(exp(sub(cut.main(x), cut.over_parts(shift))), axes=(2,))
        terms = cut.joined(sums, cut.filled(1.0, cut.rest))
        own = cut.joined(own, cut.tail(x))
        factors = exp(sub(own, cut.over_joined(whole)))
        result: Tensor = reduce_sum(mul(terms, factors), axes=(1,))
        return result

    def _moment(self, cut: _Cut, source: Value) -> Tensor | None:
        """Return the sum of `x - v` or of its square, if it is that, and the parts' sums are
        there already."""
        is_square = source.node.op is mul and source.node.inputs[0] == source.node.inputs[1]
        pair = _difference(source.node.inputs[0] if is_square else source, cut)
        if pair is None or (reduce_sum, pair[0]) not in self.partial:
            return None
        x, shift = Tensor(pair[0]), Tensor(pair[1])
        mean = mul(self.partial[reduce_sum, pair[0]], cut.filled(1.0 / cut.size, cut.parts))
        centred = sub(cut.main(x), cut.over_parts(mean))
        none, one = cut.filled(0.0, cut.rest), cut.filled(1.0, cut.rest)
        sums = cut.joined(reduce_sum(centred, axes=(2,)), none)
        counts = cut.joined(cut.filled(float(cut.size), cut.parts), one)
        distance = sub(cut.joined(mean, cut.tail(x)), cut.over_joined(shift))
        moved = mul(counts, distance)
        terms = add(sums, moved)
        if is_square:
            squares = cut.joined(reduce_sum(mul(centred, centred), axes=(2,)), none)
            terms = add(squares, mul(distance, add(sums, terms)))
        result: Tensor = reduce_sum(terms, axes=(1,))
        return result


def _difference(value: Value, cut: _Cut) -> tuple[Value, Value] | None:
    """Return x and v [rows] where the value is x less v, repeated along the rows of x."""
    node = value.node
    if node.op is not sub or node.type.size != cut.rows * cut.length:
        return None
    row, k = row_variable(cut.rows), element_variable(cut.length)
    place = row * cut.length + k
    found, where = under_plain_views(node.inputs[1], unflatten(place, node.type.shape))
    if found.type.size != cut.rows or where != row:
        return None
    return node.inputs[0], found


def _position(op: Op, kind: ArgReduction, cut: _Cut, x: Tensor) -> Tensor:
    """Return the position of the extreme: that of the first part that has it, in this part."""
    extreme = reduce_max if kind.largest else reduce_min
    parts = cut.main(x)
    joined = cut.joined(extreme(parts, axes=(2,)), cut.tail(x))
    shape = (cut.rows, cut.parts + cut.rest)
    best = op(joined, axis=1)
    inside = op(parts, axis=2)
    starts = iota(shape=(cut.rows, cut.parts), axis=1, dtype=DType.I32)
    sizes = broadcast(constant(cut.size, DType.I32), shape=starts.shape)
    inside = add(inside, mul(starts, sizes))
    rest = iota(shape=(cut.rows, cut.rest), axis=1, dtype=DType.I32)
    start = broadcast(constant(cut.parts * cut.size, DType.I32), shape=rest.shape)
    places = cut.joined(inside, add(rest, start))
    is_best = equal(iota(shape=shape, axis=1, dtype=DType.I32), cut.over_joined(best))
    none = broadcast(constant(0, DType.I32), shape=shape)
    result: Tensor = reduce_sum(select(is_best, places, none), axes=(1,))
    return result
