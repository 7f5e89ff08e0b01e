"""One trip of a contraction's loop over the inner axis, as text.

A trip takes one or four inner steps. With four, a tile's row is a vec4 along the inner axis, a
column quad is a mat4x4 whose columns are the inner steps, and `four_steps` adds their product to a
sum; with one they are a number and a vec4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asg.codegen.contract_operands import Side, clamp, quad_start, quads_in
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES
from asg.index import ZERO, Index, constant, variable

PARTS = "xyzw"
SUBGROUP = 8


@dataclass
class Loop:
    """Loads and sums of a trip.

    Attributes:
        outside: where statements before the loop go.
        batch: coordinates of the product among the batch.
        rows, columns: the operands.
        steps: inner steps in a trip.
        row_reads: what a lane has read of the rows that `shuffled_rows` deals out.
    """

    outside: Emitter
    batch: Coordinates
    rows: Side
    columns: Side
    steps: Literal[1, 4]
    inside: Emitter = field(init=False)
    start: Index = field(init=False)
    row_reads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside = self.outside.fork()
        k = variable("k", self.trips)
        self.start = k if self.steps == 1 else quad_start(self.inside, "start", k, self.inner)
        if self.has_overlap:
            steps = "vec4u(start) + vec4u(0u, 1u, 2u, 3u)"
            self.inside.lines.append(f"let is_new = {steps} >= vec4u(k * {LANES}u);")

    @property
    def inner(self) -> int:
        """Size of the inner axis."""
        return self.rows.inner

    @property
    def trips(self) -> int:
        """How often the loop runs."""
        return -(-self.inner // self.steps)

    @property
    def has_overlap(self) -> bool:
        """Whether the last trip is moved back and repeats steps, which then count as zero."""
        return self.steps == LANES and self.inner > LANES and self.inner % LANES != 0

    def row_vectors(self, first: Index, count: int) -> list[str]:
        """Read `count` rows; return a vec4 along the inner axis for each."""
        side = self.rows
        if side.along_inner:
            held = [clamp(self.outside, f"row_{i}", first + i, side.outer) for i in range(count)]
            return [self._read(side, row, ZERO) for row in held]
        result: list[str] = []
        for quad in range(quads_in(count)):
            reads = self._read_steps(side, first // LANES + quad, f"row_{quad}")
            result += [turned(reads, lane) for lane in range(LANES)]
        return result[:count]

    def row_numbers(self, first: Index, count: int) -> list[str]:
        """Read `count` rows at a single inner step; return a number for each."""
        side = self.rows
        if side.along_inner:
            held = [clamp(self.outside, f"row_{i}", first + i, side.outer) for i in range(count)]
            return [side.read_one(self.inside, self.batch, row, self.start) for row in held]
        result: list[str] = []
        for quad in range(quads_in(count)):
            start = quad_start(self.outside, f"row_{quad}", first // LANES + quad, side.outer)
            read = side.read(self.inside, self.batch, start, self.start)
            result += [f"{read}.{part}" for part in PARTS]
        return result[:count]

    def shuffled_rows(self, first: Index, count: int, lane: Index) -> list[str]:
        """Share the reading of `count` rows among a subgroup; return vec4s as `row_vectors` does.

        The rows' quads are dealt out: lane 0 reads the first, ninth, … Each lane then fetches
        every quad from its reader: one permutation instead of eight loads of the same element.
        """
        side = self.rows
        reads = self.row_reads
        for turn in range(-(-count // SUBGROUP)):
            quad = lane + turn * SUBGROUP
            if side.along_inner:
                row = clamp(self.outside, f"row_{turn}", first + quad, side.outer)
                reads.append(self._read(side, row, ZERO))
                continue
            per_step = count // LANES
            row = first // LANES + quad % per_step
            start = quad_start(self.outside, f"row_{turn}", row, side.outer)
            reads.append(self._read(side, start, quad // per_step))

        def fetched(quad: int, part: str = "") -> str:
            return f"subgroupShuffle({reads[quad // SUBGROUP]}{part}, {quad % SUBGROUP}u)"

        if side.along_inner:
            return [fetched(i) for i in range(count)]
        return [
            "vec4f("
            + ", ".join(
                fetched(step * (count // LANES) + i // LANES, f".{PARTS[i % LANES]}")
                for step in range(LANES)
            )
            + ")"
            for i in range(count)
        ]

    def column_matrices(self, quads: Sequence[Index]) -> list[str]:
        """Read column quads; return a mat4x4 for each, with one column for each inner step."""
        side = self.columns
        matrices: list[str] = []
        for j, quad in enumerate(quads):
            if side.along_inner:
                start = quad_start(self.outside, f"column_{j}", quad, side.outer)
                lanes = [start + min(lane, side.outer - 1) for lane in range(LANES)]
                reads = [self._read(side, column, ZERO) for column in lanes]
                steps = [turned(reads, step) for step in range(LANES)]
            else:
                steps = self._read_steps(side, quad, f"column_{j}")
            matrices.append(f"mat4x4f({', '.join(steps)})")
        return matrices

    def column_vectors(self, quads: Sequence[Index]) -> list[str]:
        """Read column quads at a single inner step."""
        side = self.columns
        starts = [
            quad_start(self.outside, f"column_{j}", quad, side.outer)
            for j, quad in enumerate(quads)
        ]
        return [side.read(self.inside, self.batch, start, self.start) for start in starts]

    def _read_steps(self, side: Side, quad: Index, name: str) -> list[str]:
        """Read an outer quad at each of the four inner steps."""
        start = quad_start(self.outside, name, quad, side.outer)
        return [
            self._read(side, start, constant(step)) if step < self.inner else "vec4f()"
            for step in range(LANES)
        ]

    def _read(self, side: Side, outer: Index, step: Index) -> str:
        """Read a quad; what an earlier trip has read already becomes zero."""
        text = side.read(self.inside, self.batch, outer, self.start + step)
        if not self.has_overlap:
            return text
        is_new = "is_new"
        if not side.along_inner:
            is_new = f"{self.inside.index(self.start + step)} >= k * {LANES}u"
        return self.inside.let("new", f"select(vec4f(), {text}, {is_new})")

    def holes(self, rows: Sequence[str], columns: Sequence[str]) -> Mapping[str, object]:
        """Return what the templates need to write the loop."""
        return loop_holes(rows, columns, self.inside.take(), self.steps, self.trips)


def loop_holes(
    rows: Sequence[str], columns: Sequence[str], loads: Sequence[str], steps: int, trips: int
) -> Mapping[str, object]:
    """Return what the templates need to write a loop of `trips` over a tile's sums."""
    sums = [[f"sum_{i}_{j}" for j in range(len(columns))] for i in range(len(rows))]
    return {
        "sums": [name for line in sums for name in line],
        "rows": [{"name": f"a_{i}", "text": text, "sums": sums[i]} for i, text in enumerate(rows)],
        "columns": [{"name": f"b_{j}", "text": text} for j, text in enumerate(columns)],
        "loads": loads,
        "steps": steps,
        "trips": trips,
        "first_trip": "0u",
        "next_trip": "k++",
    }


def turned(quads: Sequence[str], lane: int) -> str:
    """Return a vec4 of lane `lane` of each of four quads."""
    return f"vec4f({', '.join(f'{quad}.{PARTS[lane]}' for quad in quads)})"
