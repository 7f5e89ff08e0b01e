"""Row kernels: reductions along rows, with maps before, between and after them.

The kernel is a sequence of passes over the elements of a row. A reduction belongs to the first
pass in which all that it needs is known. Values per row are computed between the passes, values
of every element are stored in the last one. A row is cut into chunks, one step of all invocations
that share it. Where there are few chunks they are written one after the other: then what a
pass loads or computes stays in registers for the next ones. Otherwise a pass is a loop, and what
later passes need again is computed again.

Three schedule families share this plan: `serial` (one invocation per row, or per four rows that
are neighbours in memory), `subgroup` (one subgroup per row) and `staged` (one workgroup per row,
combining through workgroup memory).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asg.artefact import Variant
from asg.codegen.combine import Accumulator, arg_accumulator, value_accumulator
from asg.codegen.context import KernelContext, grid_for, with_wide, write
from asg.codegen.emit import Emitter
from asg.codegen.row_schedule import Chunk, RowSchedule, choose
from asg.codegen.text import LANES, Operand, lane_variable
from asg.graph import Node, Value
from asg.index import Index, Var, unflatten, variable
from asg.op import ArgReduction, Reduction
from asg.passes.spaces import RowSpace, row_space


@dataclass
class RowPlan:
    """Which pass computes what."""

    space: RowSpace
    passes: int
    reductions: dict[int, list[Node]] = field(default_factory=dict)
    row_values: dict[int, list[Value]] = field(default_factory=dict)
    full_outputs: list[Value] = field(default_factory=list)
    row_outputs: list[Value] = field(default_factory=list)


def row_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's variants for the context's target, the best first."""
    plan = plan_passes(context)
    first, *others = choose(context, plan.space, plan.passes)
    variants = with_wide(context, lambda wide: _write(context, plan, first, wide))
    return (*variants, *(_write(context, plan, each, False) for each in others))


def plan_passes(context: KernelContext) -> RowPlan:
    """Assign reductions, row values and outputs to passes."""
    kernel = context.kernel
    space = row_space(kernel.anchors[0])
    reads = set(kernel.reads)
    ready: dict[Node, int] = {}
    pass_of: dict[Node, int] = {}
    per_row = set(kernel.per_row)
    for node in kernel.nodes:
        needs = [value.node for value in node.inputs if value not in reads]
        first = max((ready.get(each, 0) for each in needs), default=0)
        if isinstance(node.op.kind, (Reduction, ArgReduction)):
            pass_of[node] = first
            ready[node] = first + 1
        else:
            ready[node] = first
    full = [value for value in kernel.outputs if value.node not in per_row]
    last = max([*pass_of.values(), *(ready[value.node] for value in full)])
    plan = RowPlan(space, last + 1, full_outputs=full)
    plan.row_outputs = [value for value in kernel.outputs if value.node in per_row]
    for node, position in pass_of.items():
        plan.reductions.setdefault(position, []).append(node)
    wanted = {value for node in kernel.nodes for value in node.inputs} | set(kernel.outputs)
    for node in kernel.nodes:
        if node in per_row and node not in pass_of:
            for value in node.values:
                if value in wanted:
                    plan.row_values.setdefault(ready[node], []).append(value)
    return plan


def _write(context: KernelContext, plan: RowPlan, schedule: RowSchedule, wide: bool) -> Variant:
    rows = plan.space.rows // schedule.rows_at_once
    per_group = schedule.rows_per_group // schedule.rows_at_once
    grid = grid_for(-(-rows // per_group))

    def body(emitter: Emitter) -> Mapping[str, object]:
        has_spare_rows = grid[0] * grid[1] * per_group > rows
        return _RowWriter(context, plan, schedule, emitter, has_spare_rows).write() | {
            "rows": rows,
            "rows_per_group": per_group,
            "has_spare_rows": has_spare_rows,
            "groups_x": grid[0],
            "workgroup": per_group // schedule.turns * schedule.threads,
            "threads": schedule.threads,
            "turns": schedule.turns,
        }

    is_subgroup = schedule.family == "subgroup"
    return write(
        context,
        f"row_{schedule.family}.wgsl.j2",
        body,
        None if schedule.vector == "none" else lane_variable(),
        grid,
        schedule=str(schedule),
        features=("subgroups",) if is_subgroup else (),
        subgroup_size=schedule.threads if is_subgroup else 0,
        wide=wide,
        pairs=schedule.pairs,
    )


@dataclass
class _RowWriter:
    """Writes the passes of one kernel."""

    context: KernelContext
    plan: RowPlan
    schedule: RowSchedule
    outer: Emitter
    has_spare_rows: bool
    emitter: Emitter = field(init=False)
    row: Index = field(init=False)
    accumulators: list[Accumulator] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = self.plan.space.rows
        self.row = variable("row", rows)
        if self.schedule.vector == "row":
            self.row = variable("row", rows // LANES) * LANES + Index(0, ((lane_variable(), 1),))
        self.emitter = self.outer
        if self.schedule.turns > 1:  # what no row changes comes before the loop over rows
            self.emitter = self.outer.fork((Var("row", 0, rows - 1),))

    def write(self) -> dict[str, object]:
        """Return the holes `shared`, `before`, `passes` and `after`."""
        rest = self.schedule.rest_chunk
        if rest is not None:
            self.outer.lines.append(f"let {rest.name} = {rest.start};")
        self._row_values(0)
        is_whole = self.emitter is self.outer
        before = self.emitter.take()
        passes = [self._pass(position) for position in range(self.plan.passes)]
        self._store_rows()
        after = self.emitter.take()
        return {
            "shared": [] if is_whole else self.outer.take(),
            "before": before,
            "passes": passes,
            "after": after,
            "accumulators": self.accumulators,
        }

    def _row_values(self, ready: int) -> None:
        for value in self.plan.row_values.get(ready, ()):
            coordinates = unflatten(self.row, value.type.shape)
            self.emitter.bound[value] = self.emitter.value(value, coordinates)

    def _pass(self, position: int) -> dict[str, object]:
        """Write one pass over the row, and what follows it."""
        emitter = self.emitter
        nodes = self.plan.reductions.get(position, [])
        here = [self._accumulator(node) for node in nodes]
        is_last = position == self.plan.passes - 1
        loop = self.schedule.loop
        looped: list[str] = []
        if loop is not None:
            inner = emitter.fork((loop.variable,))
            for chunk in loop.chunks:
                self._chunk(inner, chunk, nodes, here, is_last)
            looped = inner.take()
        declared = emitter.take()
        declared += [line for accumulator in here for line in accumulator.declare()]
        for chunk in self.schedule.straight:
            self._chunk(emitter, chunk, nodes, here, is_last)
        for node, accumulator in zip(nodes, here, strict=True):
            name = emitter.fresh(self.context.names[Value(node)])
            emitter.lines.extend(accumulator.finish(emitter, name))
            emitter.bound[Value(node)] = Operand(name, self.schedule.row_width, node.type.dtype)
        self.accumulators.extend(here)
        self._row_values(position + 1)
        return {
            "declared": declared,
            "loop": loop,
            "body": looped,
            "after": emitter.take(),
        }

    def _chunk(
        self,
        emitter: Emitter,
        chunk: Chunk,
        nodes: list[Node],
        accumulators: list[Accumulator],
        is_last: bool,
    ) -> None:
        """Write what a pass does with a chunk of the row."""
        full = self.plan.space.full.substitute(
            {
                Var("row", 0, self.plan.space.rows - 1): self.row,
                Var("k", 0, self.plan.space.length - 1): chunk.element,
            }
        )
        updates: list[str] = []
        for node, accumulator in zip(nodes, accumulators, strict=True):
            source = node.inputs[0]
            operand = emitter.value(source, unflatten(full, source.type.shape))
            updates += accumulator.update(emitter, operand, chunk.element)
        emitter.lines += _guarded(updates, chunk.guard)
        if is_last:
            self._store_full(emitter, full, chunk.guard)

    def _accumulator(self, node: Node) -> Accumulator:
        name = self.emitter.fresh(f"acc_{self.context.names[Value(node)]}")
        schedule = self.schedule
        width = 1 if schedule.vector == "none" else LANES
        across = schedule.vector == "element"
        is_position = isinstance(node.op.kind, ArgReduction)
        make = arg_accumulator if is_position else value_accumulator
        return make(name, node, width, across, schedule.family, self.emitter)

    def _store_full(self, emitter: Emitter, full: Index, guard: str) -> None:
        stores = [
            (value, emitter.value(value, unflatten(full, value.type.shape)))
            for value in self.plan.full_outputs
        ]
        lines = emitter.take()
        for value, operand in stores:  # after all loads: an output may overwrite a read
            emitter.store(value, full, operand)
        is_row_guarded = self.has_spare_rows and self.schedule.family != "serial"
        guards = [guard] if guard else []
        if is_row_guarded:
            guards.append("is_inside")
        emitter.lines = [*lines, *_guarded(emitter.take(), " && ".join(guards))]

    def _store_rows(self) -> None:
        for value in self.plan.row_outputs:
            coordinates = unflatten(self.row, value.type.shape)
            self.emitter.store(value, self.row, self.emitter.value(value, coordinates))


def _guarded(lines: list[str], condition: str) -> list[str]:
    if not condition or not lines:
        return lines
    return [f"if ({condition}) {{", *(f"    {line}" for line in lines), "}"]
