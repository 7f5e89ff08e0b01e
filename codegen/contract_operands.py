"""How a contraction's operands are read: four neighbours at a time, along whichever axis is dense.

Both operands are seen as `[outer, inner]`, where `inner` is the axis that is summed over. A group
of four neighbours is a *quad*. Where a size is no multiple of four the last quad is moved back, so
that it overlaps its neighbour and all reads stay inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from asg.codegen.context import KernelContext
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES, lane_variable
from asg.graph import Value
from asg.index import ZERO, Index, Var, constant, variable

LANE = lane_variable()
LANE_INDEX = Index(0, ((LANE, 1),))


@dataclass(frozen=True)
class Side:
    """One operand of the product.

    Attributes:
        value: the graph value.
        inner_first: whether `inner` comes before `outer` in the value's own axes.
        outer, inner: sizes.
        along_inner: whether quads lie along `inner` (else along `outer`).
    """

    value: Value
    inner_first: bool
    outer: int
    inner: int
    along_inner: bool = True

    def at(self, batch: Coordinates, outer: Index, inner: Index) -> Coordinates:
        """Return coordinates in the value."""
        return (*batch, inner, outer) if self.inner_first else (*batch, outer, inner)

    def read(self, emitter: Emitter, batch: Coordinates, outer: Index, inner: Index) -> str:
        """Write the load of the quad that begins at `outer`, `inner`; return a vec4's text."""
        size = self.inner if self.along_inner else self.outer

        def shifted(step: Index) -> Coordinates:
            if self.along_inner:
                return self.at(batch, outer, inner + step)
            return self.at(batch, outer + step, inner)

        if size >= LANES:
            return emitter.widen(emitter.value(self.value, shifted(LANE_INDEX)), LANES)
        parts = [
            emitter.value(self.value, shifted(constant(step))).text if step < size else "0.0"
            for step in range(LANES)
        ]
        return emitter.let(emitter.names[self.value], f"vec4f({', '.join(parts)})")

    def read_one(self, emitter: Emitter, batch: Coordinates, outer: Index, inner: Index) -> str:
        """Write the load of a single element; return its text."""
        return emitter.value(self.value, self.at(batch, outer, inner)).text


def bind(emitter: Emitter, name: str, index: Index) -> Index:
    """Write `let name = index;` and return the name as a variable with the same range."""
    if index.is_const or _is_variable(index):
        return index
    return bind_text(emitter, name, emitter.index(index), index.low, index.high)


def bind_text(emitter: Emitter, name: str, text: str, low: int, high: int) -> Index:
    """Write `let name = text;` and return the name as a variable with the given range."""
    emitter.lines.append(f"let {name} = {text};")
    return Index(0, ((Var(name, low, high), 1),))


def clamp(emitter: Emitter, name: str, index: Index, size: int) -> Index:
    """Return `index`, held at `size - 1` where it may exceed it."""
    if index.high < size:
        return index
    if index.low >= size - 1:
        return constant(max(size - 1, 0))
    text = f"min({emitter.index(index)}, {size - 1}u)"
    return bind_text(emitter, name, text, index.low, size - 1)


def quad_start(emitter: Emitter, name: str, quad: Index, size: int) -> Index:
    """Return where the quad at position `quad` begins, held inside an axis of `size`."""
    if size < LANES:
        return ZERO
    if size % LANES == 0:
        return clamp(emitter, name, quad, size // LANES) * LANES
    return clamp(emitter, name, quad * LANES, size - LANES + 1)


def quads_in(size: int) -> int:
    """Return how many quads cover an axis."""
    return -(-size // LANES)


def with_dense_quads(
    context: KernelContext, side: Side, batch: Coordinates, *, may_follow_outer: bool
) -> Side:
    """Return `side` with quads along the axis that takes fewer loads, then shorter addresses.

    In doubt they lie along `inner`.
    """
    if not may_follow_outer:
        return replace(side, along_inner=True)
    costs = [
        _read_cost(context, replace(side, along_inner=along_inner), batch)
        for along_inner in (True, False)
    ]
    return replace(side, along_inner=costs[0] <= costs[1])


def _read_cost(context: KernelContext, side: Side, batch: Coordinates) -> tuple[int, int]:
    """Return the loads of single elements that reading a quad takes, and the length of its text.

    The addresses of neighbours in a sliding window differ by one along a row of the image, and
    are each a calculation of their own along the window: the text tells.
    """
    bindings, places = context.bindings()
    for binding in bindings:
        binding.is_vector = binding.quad_words is not None
    loads = {value: places[value] for value in context.kernel.reads}
    emitter = Emitter(loads, {}, context.names, LANE)
    outer, inner = variable("outer", side.outer), variable("inner", side.inner)
    if side.along_inner:
        inner = quad_start(emitter, "start", variable("quad", quads_in(side.inner)), side.inner)
    else:
        outer = quad_start(emitter, "start", variable("quad", quads_in(side.outer)), side.outer)
    side.read(emitter, batch, outer, inner)
    loads_of_one = sum(binding.scalar_uses for binding in bindings)
    return loads_of_one, sum(map(len, emitter.lines))


def _is_variable(index: Index) -> bool:
    if index.const or len(index.terms) != 1:
        return False
    atom, factor = index.terms[0]
    return factor == 1 and isinstance(atom, Var)
