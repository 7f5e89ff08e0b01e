"""Sums over an operand that a contraction makes on its way (see `passes/riders.py`).

Every invocation adds up what it loads; the tiles along an edge of the result store the totals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asg.codegen.context import KernelContext
from asg.codegen.contract_loop import PARTS, SUBGROUP
from asg.codegen.contract_moments import moments_of
from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, Operand
from asg.graph import Node, Value
from asg.index import Index, flatten, unflatten, variable
from asg.passes.riders import ridden_operand
from asg.types import DType


def riders_of(context: KernelContext, *, on_rows: bool, is_transposed: bool) -> list[Node]:
    """Return the sums over the operand whose outer positions are a tile's rows (or columns)."""
    product, *sums = context.kernel.anchors
    wanted = "left" if on_rows != is_transposed else "right"
    moments = moments_of(context)
    sums = [node for node in sums if not moments or node not in moments.sums]
    return [node for node in sums if ridden_operand(product, node) == wanted]


@dataclass
class Riders:
    """The text of the sums: what stands before the loop, in it, and behind it.

    Attributes:
        on_rows, on_columns: the sums over either operand. Equal ones are one node, so there is
            at most one of each unless they differ in shape.
        edge: in-loop condition under which totals are needed, where that is worth testing.
    """

    on_rows: Sequence[Node]
    on_columns: Sequence[Node]
    edge: str = ""
    start: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)

    def add_columns(
        self, emitter: Emitter, count: int, steps: int, quad: Index, stride: int, row: Index
    ) -> None:
        """Sum `count` column quads `b_j`; the tiles that begin at row 0 store them."""
        if not self.on_columns:
            return
        parts = "b_{0}[0] + b_{0}[1] + b_{0}[2] + b_{0}[3]" if steps == LANES else "b_{0}"
        names = [self._total(f"columns_{j}", "vec4f()", parts.format(j)) for j in range(count)]
        i = variable("i", LANES * count)
        at = emitter.index(quad + i // LANES * stride)
        for node in self.on_columns:
            size = node.type.size
            self._open(emitter.index(row), "vec4f", names, LANES * count)
            self.stores += [
                f"let quad = {at};",
                f"let outer = min(quad * {LANES}u, {max(size - LANES, 0)}u) + i % {LANES}u;",
                f"if (outer < quad * {LANES}u || outer >= {size}u) {{",
                "    continue;",
                "}",
            ]
            self._close(emitter, node, f"totals[i / {LANES}u][i % {LANES}u]")

    def add_rows(self, emitter: Emitter, count: int, steps: int, row: Index, quad: Index) -> None:
        """Sum `count` rows `a_i`; the tiles that begin at column 0 store them."""
        if not self.on_rows:
            return
        zero = "vec4f()" if steps == LANES else "0.0"
        names = [self._total(f"rows_{i}", zero, f"a_{i}") for i in range(count)]
        values = [across(name) for name in names] if steps == LANES else names
        self._store_rows(emitter, values, row + variable("i", count), quad, "")

    def add_shared_rows(
        self,
        emitter: Emitter,
        reads: Sequence[str],
        count: int,
        along_inner: bool,
        row: Index,
        quad: Index,
    ) -> None:
        """Sum the rows that lanes have read for each other (`Loop.shuffled_rows`)."""
        if not self.on_rows:
            return
        names = [self._total(f"rows_{turn}", "vec4f()", read) for turn, read in enumerate(reads)]
        lane = variable("lane", SUBGROUP)
        if along_inner:
            own = variable("i", len(names)) * SUBGROUP + lane
            values = [across(name) for name in names]
            limit = f"{emitter.index(own)} >= {count}u || "
            self._store_rows(emitter, values, row + own, quad, limit)
            return
        values = [self._gathered(names, count // LANES, i) for i in range(count)]
        shared = [emitter.fresh("total") for _ in values]
        self.stores += [
            f"let {name} = {value};" for name, value in zip(shared, values, strict=True)
        ]
        self._store_rows(emitter, shared, row + variable("i", count), quad + lane, "")

    def holes(self) -> Mapping[str, object]:
        """Return what the templates need."""
        steps = self.steps
        if self.edge and steps:
            steps = [f"if ({self.edge}) {{", *(f"    {line}" for line in steps), "}"]
        return {
            "rider_start": self.start,
            "rider_steps": steps,
            "rider_stores": self.stores,
        }

    def _total(self, name: str, zero: str, text: str) -> str:
        self.start.append(f"var total_{name} = {zero};")
        self.steps.append(f"total_{name} += {text};")
        return f"total_{name}"

    def _gathered(self, names: Sequence[str], per_step: int, row: int) -> str:
        """Return the sum over what lanes have read of a row, a step each."""
        parts: list[str] = []
        for step in range(LANES):
            quad = step * per_step + row // LANES
            part = f"{names[quad // SUBGROUP]}.{PARTS[row % LANES]}"
            parts.append(f"subgroupShuffle({part}, {quad % SUBGROUP}u)")
        return " + ".join(parts)

    def _store_rows(
        self, emitter: Emitter, values: Sequence[str], row: Index, quad: Index, limit: str
    ) -> None:
        for node in self.on_rows:
            self._open(emitter.index(quad), "f32", values, len(values))
            self.stores += [
                f"let outer = {emitter.index(row)};",
                f"if ({limit}outer >= {node.type.size}u) {{",
                "    continue;",
                "}",
            ]
            self._close(emitter, node, "totals[i]")

    def _open(self, edge: str, element: str, values: Sequence[str], count: int) -> None:
        self.stores += [
            f"if ({edge} == 0u) {{",
            f"var totals = array<{element}, {len(values)}>({', '.join(values)});",
            f"for (var i = 0u; i < {count}u + group.z; i++) {{",
        ]

    def _close(self, emitter: Emitter, node: Node, text: str) -> None:
        inner = emitter.fork()
        at = unflatten(variable("outer", node.type.size), node.type.shape)
        inner.store(Value(node), flatten(at, node.type.shape), Operand(text, 1, DType.F32))
        self.stores += [*inner.take(), "}", "}"]


def across(name: str) -> str:
    """Return the sum of a vec4's parts."""
    return f"({name}.x + {name}.y) + ({name}.z + {name}.w)"
