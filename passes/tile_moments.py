"""Let products make the statistics of a norm that follows, tile by tile.

A norm over a product's result needs its sum along rows, and then sums of `x - v` and its square, v
about the mean. Here each tile of a product sums what it holds: with C elements of a row in it and
m their mean, it stores their sum, S = sum(x - m) and Q = sum((x - m)^2). With d = m - v the sums
wanted are those of S + C d and of Q + d (2 S + C d) over tiles (Chan, Golub, LeVeque 1979), which
holds for any m and v, rounded or not. So the norm reads the result once, to normalise it.

All of that stands in the graph: the tiles' sums are reductions, which fusion puts in the product's
kernel (`fuse.py`) and `codegen/contract_moments.py` writes. Columns that fill no tile go to the
second stage one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from asg.graph import Graph, Node, Value, rewrite
from asg.index import flatten, unflatten
from asg.op import Combine, Contraction, Elementwise, Reduction
from asg.ops.arithmetic import add, mul, sub
from asg.ops.join import concatenate
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.reduction import reduce_sum
from asg.ops.sources import constant
from asg.passes.moment_schedules import moment_block
from asg.passes.riders import under_plain_views
from asg.passes.schedule_contract import ContractProblem
from asg.passes.spaces import element_variable, row_space, row_variable
from asg.tensor import Tensor
from asg.types import DType, Shape


@dataclass(frozen=True)
class TileMoments:
    """Split the sums of a norm over a product's result by the product's tiles.

    Attributes:
        enabled: whether to; "by cost" where rows are long and the tile is no worse than others.
            None leaves that to the target, for which `asg.compiler.for_target` decides; it means
            no until then.
        family: the target's, whose tiles are meant.
        shortest: elements of a row below which a norm's kernel holds it, and reads it once anyway.
    """

    enabled: bool | Literal["by cost"] | None = None
    family: str = ""
    shortest: int = 16384

    def __call__(self, graph: Graph) -> Graph:
        if not self.enabled or not self.family:
            return graph
        cuts = self._cuts(graph)
        return rewrite(graph, _Splitter(cuts).change) if cuts else graph

    def decided(self, family: str) -> TileMoments:
        """Return the pass for devices of a family."""
        enabled = self.enabled
        if enabled is None:
            enabled = "by cost" if family == "gpu" else False
        return replace(self, enabled=enabled, family=family)

    def _cuts(self, graph: Graph) -> dict[Value, _Cut]:
        """Return the tensors whose squares about a mean are summed, with their tiles."""
        found: dict[Value, _Cut] = {}
        for node in graph.nodes:
            if not _is_sum(node) or not _is_square(node.inputs[0].node):
                continue
            near = node.inputs[0].node.inputs[0].node
            if near.op is not sub or near.inputs[0] in found:
                continue
            cut = self._cut(graph, near.inputs[0], node)
            if cut is not None:
                found[near.inputs[0]] = cut
        return found

    def _cut(self, graph: Graph, x: Value, node: Node) -> _Cut | None:
        product = product_under(x)
        if product is None or not _is_made_for(graph, x, product):
            return None
        *batch, rows, columns = product.type.shape
        problem = ContractProblem(math.prod(batch), rows, columns, product.inputs[0].type.shape[-1])
        space = row_space(node)
        # The sums' rows are some of the product's axes, its columns are among what is summed up.
        outer = _outer_axes(x.type.shape, columns)
        if outer is None or not set(range(outer, x.type.rank)) <= set(space.axes):
            return None
        by_cost = self.enabled == "by cost"
        block = moment_block(problem, self.family, by_cost=by_cost)
        if block is None or (by_cost and space.length < self.shortest):
            return None
        summed = tuple(axis for axis in space.axes if axis < outer)
        return _Cut(x.type.shape[:outer], summed, columns, block, columns // block)


@dataclass(frozen=True)
class _Cut:
    """A tensor [*outer, columns], of which `summed` axes and columns are summed up.

    `tiles` tiles have `block` of the columns each.
    """

    outer: Shape
    summed: tuple[int, ...]
    columns: int
    block: int
    tiles: int

    @property
    def rest(self) -> int:
        return self.columns - self.tiles * self.block

    @property
    def kept(self) -> Shape:
        return tuple(size for axis, size in enumerate(self.outer) if axis not in self.summed)

    def main(self, x: Tensor) -> Tensor:
        """Return [rows, tiles, block]."""
        rows = math.prod(self.outer)
        part = self._range(x, 0, self.tiles * self.block)
        result: Tensor = reshape(part, shape=(rows, self.tiles, self.block))
        return result

    def joined(self, per_tile: Tensor, rest: Tensor | float) -> Tensor:
        """Return [*outer, tiles + rest]: what is known of tiles, and of single elements."""
        tiles: Tensor = reshape(per_tile, shape=(*self.outer, self.tiles))
        if not self.rest:
            return tiles
        if isinstance(rest, float):
            rest = broadcast(constant(rest), shape=(*self.outer, self.rest))
        result: Tensor = concatenate(tiles, rest, axis=len(self.outer))
        return result

    def tail(self, x: Tensor) -> Tensor:
        """Return [*outer, rest]."""
        part = self._range(x, self.tiles * self.block, self.columns)
        result: Tensor = reshape(part, shape=(*self.outer, self.rest))
        return result

    def over_joined(self, per_row: Tensor) -> Tensor:
        """Repeat what there is of each row of the sums for every tile and single element."""
        sizes = (1 if axis in self.summed else n for axis, n in enumerate(self.outer))
        shape = (*self.outer, self.tiles + self.rest)
        result: Tensor = broadcast(reshape(per_row, shape=(*sizes, 1)), shape=shape)
        return result

    def total(self, joined: Tensor) -> Tensor:
        result: Tensor = reduce_sum(joined, axes=(*self.summed, len(self.outer)))
        return result

    def filled(self, value: float) -> Tensor:
        shape = (math.prod(self.outer), self.tiles)
        result: Tensor = broadcast(constant(value), shape=shape)
        return result

    def _range(self, x: Tensor, start: int, stop: int) -> Tensor:
        rows: Tensor = reshape(x, shape=(math.prod(self.outer), self.columns))
        if stop - start == self.columns:
            return rows
        starts, stops = (0, start), (rows.shape[0], stop)
        result: Tensor = slice_(rows, starts=starts, stops=stops, steps=(1, 1))
        return result


@dataclass
class _Splitter:
    """One run of the pass: the cuts, by the old tensors; the tiles' sums, by the new ones."""

    cuts: Mapping[Value, _Cut]
    sums: dict[Value, tuple[_Cut, Tensor]] = field(default_factory=dict)

    def change(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not _is_sum(node):
            return None
        cut = self.cuts.get(node.inputs[0])
        if cut is not None and row_space(node).axes == self._axes(node.inputs[0], cut):
            x = Tensor(inputs[0])
            sums = reduce_sum(cut.main(x), axes=(2,))
            self.sums[inputs[0]] = cut, sums
            rest = cut.tail(x) if cut.rest else 0.0
            return (self._shaped(cut.total(cut.joined(sums, rest)), node),)
        source = inputs[0].node
        is_square = _is_square(source)
        near = source.inputs[0].node if is_square else source
        if near.op is not sub or near.inputs[0] not in self.sums:
            return None
        cut, sums = self.sums[near.inputs[0]]
        shift = _per_row(near, node)
        if shift is None or row_space(node).axes != self._axes(near.inputs[0], cut):
            return None
        moved = _about(cut, Tensor(near.inputs[0]), sums, Tensor(shift), is_square)
        return (self._shaped(moved, node),)

    def _axes(self, x: Value, cut: _Cut) -> tuple[int, ...]:
        return (*cut.summed, *range(len(cut.outer), x.type.rank))

    def _shaped(self, result: Tensor, node: Node) -> Value:
        value: Value = reshape(result, shape=node.type.shape).value
        return value


def _about(cut: _Cut, x: Tensor, sums: Tensor, shift: Tensor, is_square: bool) -> Tensor:
    """Return the sum of `x - shift`, or of its square, from the tiles' moments."""
    mean = mul(sums, cut.filled(1.0 / cut.block))
    tiles = cut.main(x)
    column = reshape(mean, shape=(*mean.shape, 1))
    centred = sub(tiles, broadcast(column, shape=tiles.shape))
    first = cut.joined(reduce_sum(centred, axes=(2,)), 0.0)
    counts = cut.joined(cut.filled(float(cut.block)), 1.0)
    means = cut.joined(mean, cut.tail(x) if cut.rest else 0.0)
    distance = sub(means, cut.over_joined(shift))
    terms = add(first, mul(counts, distance))
    if is_square:
        squares = cut.joined(reduce_sum(mul(centred, centred), axes=(2,)), 0.0)
        terms = add(squares, mul(distance, add(first, terms)))
    return cut.total(terms)


def _per_row(near: Node, node: Node) -> Value | None:
    """Return v [rows] where `near` is x less v, repeated along the rows that `node` sums up."""
    space = row_space(node)
    found, where = under_plain_views(near.inputs[1], unflatten(space.full, space.shape))
    if found.type.size != space.rows or where != row_variable(space.rows):
        return None
    return found


def _is_sum(node: Node) -> bool:
    kind = node.op.kind
    is_sum = isinstance(kind, Reduction) and kind.combine is Combine.SUM
    return is_sum and node.type.dtype is DType.F32 and node.type.size > 0


def _is_square(node: Node) -> bool:
    return node.op is mul and node.inputs[0] == node.inputs[1]


def _outer_axes(shape: Shape, columns: int) -> int | None:
    """Return how many axes lie before those whose elements are `columns` together."""
    for outer in range(len(shape) - 1, -1, -1):
        if math.prod(shape[outer:]) == columns:
            return outer
    return None


def product_under(value: Value) -> Node | None:
    """Return the product that maps and reshapes make `value` of, element for element."""
    pending = [value]
    while pending:
        each = pending.pop()
        node = each.node
        if node.type.size != value.type.size or node.type.dtype is not DType.F32:
            continue
        if isinstance(node.op.kind, Contraction):
            return node
        if isinstance(node.op.kind, Elementwise) or node.op is reshape:
            pending.extend(reversed(node.inputs))
    return None


def _is_made_for(graph: Graph, x: Value, product: Node) -> bool:
    """Tell whether all that reads a product leads to `x`, element for element, so that one kernel
    makes `x`."""
    between, pending = {x.node}, [x.node]
    while pending:
        for value in pending.pop().inputs:
            node = value.node
            is_map = isinstance(node.op.kind, Elementwise) or node.op is reshape
            if is_map and node.type.size == x.type.size and node not in between:
                between.add(node)
                pending.append(node)
    pending = [product] if product is not x.node else []
    while pending:
        value = Value(pending.pop())
        users = set(graph.users.get(value, ()))
        if not users <= between or value in graph.results:
            return False
        pending.extend(users - {x.node})
    return True


@dataclass(frozen=True)
class Moments:
    """What the tiles of a product sum up, as fusion and codegen find it in a graph.

    Attributes:
        source: the tensor, made of the product element for element.
        sums: nodes of the sums of x, of x less its mean, and of the squares of that.
        tiles, block: full tiles along a row, and columns of one.
    """

    product: Node
    source: Value
    sums: tuple[Node, Node, Node]
    tiles: int
    block: int


def find_moments(nodes: tuple[Node, ...]) -> dict[Node, Moments]:
    """Return the sums by tiles among `nodes`, as `TileMoments` leaves them."""
    first: dict[tuple[Value, object], Node] = {}
    about: dict[Node, dict[bool, Node]] = {}
    for node in nodes:
        if not _is_sum(node) or node.inputs[0].type.rank != 3 or node.attrs["axes"] != (2,):
            continue
        source = node.inputs[0].node
        is_square = _is_square(source)
        near = source.inputs[0].node if is_square else source
        if near.op is sub and (owner := _centred(near, first, node)) is not None:
            about.setdefault(owner, {})[is_square] = node
        elif not is_square:
            first[_tile_reads(node.inputs[0])] = node
    found: dict[Node, Moments] = {}
    for (source_value, _), node in first.items():
        rest = about.get(node, {})
        product = product_under(source_value)
        if len(rest) == 2 and product is not None and _is_tiled(node, product):
            sums = (node, rest[False], rest[True])
            _, tiles, block = node.inputs[0].type.shape
            moments = Moments(product, source_value, sums, tiles, block)
            found |= dict.fromkeys(sums, moments)
    return found


def _tile_reads(value: Value) -> tuple[Value, object]:
    """Return what a tensor [rows, tiles, block] reads, and where."""
    size = value.type.size // value.type.shape[2]
    place = row_variable(size) * value.type.shape[2] + element_variable(value.type.shape[2])
    return under_plain_views(value, unflatten(place, value.type.shape))


def _is_tiled(node: Node, product: Node) -> bool:
    """Tell whether the rows of a sum are tiles of a product's rows."""
    columns = product.type.shape[-1]
    rows, tiles, block = node.inputs[0].type.shape
    row, k = row_variable(rows * tiles), element_variable(block)
    place = flatten((row // tiles, row % tiles * block + k), (rows, columns))
    if tiles * block == columns:
        place = row * block + k
    return rows * columns == product.type.size and _tile_reads(node.inputs[0])[1] == place


def _centred(near: Node, first: Mapping[tuple[Value, object], Node], node: Node) -> Node | None:
    """Return the sum of tiles whose means are taken from their elements in `near`."""
    owner = first.get(_tile_reads(near.inputs[0]))
    shift = _per_row(near, node)
    if owner is None or shift is None or shift.node.op is not mul:
        return None
    return owner if shift.node.inputs[0] == Value(owner) else None
