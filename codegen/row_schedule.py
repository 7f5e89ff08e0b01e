"""How a row kernel is spread over invocations, and a row over the steps that they take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from asg.codegen.context import KernelContext
from asg.codegen.text import LANES, lane_variable
from asg.index import Index, Mod, Var, constant, variable
from asg.passes.spaces import RowSpace

STAGED_WORKGROUP = 128
SHORT = 4  # chunks that need no loop, whatever they do
SHORTEST_PIECE = 8  # neighbours in memory that several invocations may read as they would a row
# Loads and stores of an invocation that may be written one after the other, so that rows stay in
# registers: drivers take some 20 ms to compile each. Only long work is worth many.
HELD = 24
HELD_LARGE = 64
HELD_LARGEST = 128
LARGE = 1 << 20  # elements
LARGEST = 1 << 22
MANY_ROWS = 1024  # enough that a subgroup may take some of them in turn
TURNS = 16


@dataclass(frozen=True)
class Chunk:
    """One step over a row: which element (a vec4's lanes included), and the test that it exists.

    `name` and `start` are those of a variable that the kernel must declare first, if any.
    """

    element: Index
    guard: str = ""
    name: str = ""
    start: str = ""


@dataclass(frozen=True)
class Loop:
    """A loop over chunks, of which each trip takes some."""

    variable: Var
    start: str
    end: int
    step: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class RowSchedule:
    """How rows are spread over invocations.

    Attributes:
        family: serial, subgroup or staged.
        threads: invocations per row.
        vector: what a vec4 runs over: `none`, `row` or `element`.
        length: elements of a row.
        is_held: whether all chunks are written one after the other.
        unroll: chunks per trip of the loop otherwise.
        pairs: whether an invocation takes two neighbouring vec4s in two chunks that follow.
        turns: rows that a subgroup takes one after the other; what they share is loaded once.
    """

    family: str
    threads: int
    rows_per_group: int
    vector: str
    length: int
    is_held: bool = False
    unroll: int = 1
    pairs: bool = False
    turns: int = 1

    def __str__(self) -> str:
        what = {"none": "scalar", "row": "4 rows at once", "element": "4 elements at once"}
        steps = "row in registers" if self.loop is None else f"{self.unroll} step(s) per trip"
        if self.turns > 1:
            steps += f", {self.turns} rows in turn"
        return (
            f"{self.family}: {self.threads} invocation(s) per row, "
            f"{self.rows_per_group} row(s) per workgroup, {what[self.vector]}, {steps}"
        )

    @property
    def rows_at_once(self) -> int:
        """Rows of an invocation."""
        return LANES if self.vector == "row" else 1

    @property
    def row_width(self) -> int:
        """Lanes of a value per row."""
        return self.rows_at_once

    @property
    def units(self) -> int:
        """Vec4s (or elements) of a row, of which a chunk has one per invocation."""
        return self.length // LANES if self.vector == "element" else self.length

    @property
    def whole(self) -> int:
        """Chunks in which every invocation has something to do."""
        return self.units // self.threads

    @cached_property
    def loop(self) -> Loop | None:
        """The loop over whole chunks, if there is one."""
        trips = self._trips
        if trips == 0:
            return None
        step = self.unroll * self.threads // (2 if self.pairs else 1)
        k = variable("k", (trips - 1) * step + self.threads)
        (atom,) = k.atoms() or (Var("k", 0, 0),)
        assert isinstance(atom, Var)
        chunks = tuple(self._chunk(k, number) for number in range(self.unroll))
        start = "0u" if self.threads == 1 else self._lane_name
        return Loop(atom, start, trips * step, step, chunks)

    @cached_property
    def straight(self) -> tuple[Chunk, ...]:
        """The chunks that follow the loop, in order."""
        done = self._trips * self.unroll
        chunks = [self._chunk(self._lane, number) for number in range(done, self.whole)]
        return (*chunks, self.rest_chunk) if self.rest_chunk else tuple(chunks)

    @cached_property
    def rest_chunk(self) -> Chunk | None:
        """The last chunk where the row has none for every invocation; the others take the last
        one again and throw it away."""
        rest = self.units % self.threads
        if not rest:
            return None
        name = "rest"
        start = f"min({self._lane_name} + {self.whole * self.threads}u, {self.units - 1}u)"
        where = Index(0, ((Var(name, self.whole * self.threads, self.units - 1), 1),))
        if rest == 1:
            where = constant(self.units - 1)
        return Chunk(self._element(where), f"{self._lane_name} < {rest}u", name, start)

    @property
    def _trips(self) -> int:
        return 0 if self.is_held else self.whole // self.unroll

    def _chunk(self, first: Index, number: int) -> Chunk:
        """Return the chunk of this number, counted from where `first` is."""
        if not self.pairs:
            return Chunk(self._element(first + number * self.threads))
        pair = first + number // 2 * self.threads
        return Chunk(self._element(pair * 2 + number % 2))

    @property
    def _lane_name(self) -> str:
        return "thread" if self.family == "staged" else "lane"

    @property
    def _lane(self) -> Index:
        return variable(self._lane_name, self.threads)

    def _element(self, unit: Index) -> Index:
        if self.vector != "element":
            return unit
        return unit * LANES + Index(0, ((lane_variable(), 1),))


def choose(context: KernelContext, space: RowSpace, passes: int) -> list[RowSchedule]:
    """Choose schedules by target and by how rows lie in memory."""
    is_along = _elements_are_neighbours(space, context.target.family)
    vector = "none"
    if is_along and _has_quads(space):
        vector = "element"
    elif _rows_are_neighbours(space):
        vector = "row"
    threads = space.rows // LANES if vector == "row" else space.rows
    group = 64 if threads >= 512 else 8

    def schedule(family: str, threads: int, rows_per_group: int, turns: int = 1) -> RowSchedule:
        units = space.length // LANES if vector == "element" else space.length
        steps = -(-units // threads)
        is_held = steps <= SHORT or _fits_registers(context, space, passes, steps, turns)
        is_light = context.target.family == "cpu" and _loads(context, space) <= 2
        unroll = 4 if steps >= 8 and is_light else 2
        is_even = vector == "element" and units % (2 * threads) == 0
        return RowSchedule(
            family,
            threads,
            rows_per_group,
            vector,
            space.length,
            is_held,
            min(unroll, steps),
            pairs=is_even and context.target.family == "cpu",
            turns=turns,
        )

    serial = schedule("serial", 1, group * (LANES if vector == "row" else 1))
    if not is_along:
        return [serial]
    if context.target.family == "gpu":
        return [schedule("staged", STAGED_WORKGROUP, 1)]
    size = context.target.subgroup_size
    if size and space.length >= 4 * size:
        if space.rows >= MANY_ROWS:
            turns = min(TURNS, space.rows // MANY_ROWS * 4)
            return [schedule("subgroup", size, 8 * turns, turns), serial]
        return [schedule("subgroup", size, 8 if space.rows >= 64 else 1), serial]
    return [serial]


def _fits_registers(
    context: KernelContext, space: RowSpace, passes: int, steps: int, turns: int
) -> bool:
    """Tell whether to write all steps one after the other; of use where passes share something,
    or rows that follow each other do."""
    is_shared = turns > 1 and any(each.type.size == space.length for each in context.kernel.reads)
    if passes == 1 and not is_shared:
        return False
    full = sum(value.type.size == space.rows * space.length for value in context.kernel.outputs)
    elements = space.rows * space.length
    most = HELD_LARGEST if elements >= LARGEST else HELD_LARGE if elements >= LARGE else HELD
    return steps * (_loads(context, space) + full) <= most


def _loads(context: KernelContext, space: RowSpace) -> int:
    """Return how many operands are read for every element."""
    return sum(value.type.size >= space.length for value in context.kernel.reads)


def _elements_are_neighbours(space: RowSpace, family: str) -> bool:
    """Tell whether invocations side by side should read elements side by side.

    A row may lie in one piece, in pieces of whole quads, or in others that are not short: these a
    processor reads as fast one by one.
    """
    k = variable("k", space.length)
    if space.length < 2 or (Var("k", 0, space.length - 1), 1) in space.full.terms:
        return space.length > 1
    pieces = [atom for atom, factor in space.full.terms if factor == 1 and isinstance(atom, Mod)]
    is_long = any(each.operand == k and each.divisor >= SHORTEST_PIECE for each in pieces)
    return _has_quads(space) or (is_long and family == "gpu")


def _has_quads(space: RowSpace) -> bool:
    """Tell whether each four elements of a row, counted from its first, lie side by side."""
    if space.length % LANES:
        return False
    quad = variable("quad", space.length // LANES) * LANES + Index(0, ((lane_variable(), 1),))
    moved = space.full.substitute({Var("k", 0, space.length - 1): quad})
    return moved.coefficient(lane_variable()) == 1


def _rows_are_neighbours(space: RowSpace) -> bool:
    if space.rows % LANES or space.rows == 0:
        return False
    row = variable("row", space.rows // LANES) * LANES + Index(0, ((lane_variable(), 1),))
    moved = space.full.substitute({Var("row", 0, space.rows - 1): row})
    return moved.coefficient(lane_variable()) == 1
