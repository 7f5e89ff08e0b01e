"""Row kernels: reductions along rows, with maps before, between and after them.

The kernel is a sequence of loops over the elements of a row. A reduction belongs to the first
loop in which all that it needs is known; what later loops need again is computed again. Values
per row are computed between the loops, values of every element are stored in the last one.

Three schedule families share this plan: `serial` (one invocation per row, or per four rows that
are neighbours in memory), `subgroup` (one subgroup per row) and `staged` (one workgroup per row,
combining through workgroup memory).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asg.artefact import Variant
from asg.codegen.combine import Accumulator, arg_accumulator, value_accumulator
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, Operand, lane_variable
from asg.graph import Node, Value
from asg.index import Atom, Index, Var, unflatten, variable
from asg.op import ArgReduction, Reduction
from asg.passes.spaces import RowSpace, row_space

STAGED_WORKGROUP = 128


@dataclass(frozen=True)
class RowSchedule:
    """How rows are spread over invocations. `vector` says what a vec4 runs over."""

    family: str  # serial | subgroup | staged
    threads: int  # invocations per row
    rows_per_group: int
    vector: str  # none | row | element

    def __str__(self) -> str:
        what = {"none": "scalar", "row": "4 rows at once", "element": "4 elements at once"}
        return (
            f"{self.family}: {self.threads} invocation(s) per row, "
            f"{self.rows_per_group} row(s) per workgroup, {what[self.vector]}"
        )


@dataclass
class RowPlan:
    """Which loop computes what."""

    space: RowSpace
    loops: int
    reductions: dict[int, list[Node]] = field(default_factory=dict)
    row_values: dict[int, list[Value]] = field(default_factory=dict)
    full_outputs: list[Value] = field(default_factory=list)
    row_outputs: list[Value] = field(default_factory=list)


def row_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's variants for the context's target, the best first."""
    plan = plan_loops(context)
    schedules = choose(context, plan.space)
    return tuple(_write(context, plan, schedule) for schedule in schedules)


def choose(context: KernelContext, space: RowSpace) -> list[RowSchedule]:
    """Choose schedules by target and by how rows lie in memory."""
    has_arg = any(isinstance(node.op.kind, ArgReduction) for node in context.kernel.anchors)
    is_along = space.full.coefficient(Var("k", 0, space.length - 1)) == 1 and space.length > 1
    vector = "none"
    if is_along and space.length % LANES == 0 and not has_arg:
        vector = "element"
    elif _rows_are_neighbours(space):
        vector = "row"
    threads = space.rows // LANES if vector == "row" else space.rows
    group = 64 if threads >= 512 else 8
    serial = RowSchedule("serial", 1, group * (LANES if vector == "row" else 1), vector)
    if has_arg or not is_along:
        return [serial]
    if context.target.family == "gpu":
        return [RowSchedule("staged", STAGED_WORKGROUP, 1, vector)]
    size = context.target.subgroup_size
    if size and space.length >= 4 * size:
        per_group = 8 if space.rows >= 64 else 1
        return [RowSchedule("subgroup", size, per_group, vector), serial]
    return [serial]


def _rows_are_neighbours(space: RowSpace) -> bool:
    if space.rows % LANES or space.rows == 0:
        return False
    row = _row_index(space, "row", lane_variable())
    moved = space.full.substitute({Var("row", 0, space.rows - 1): row})
    return moved.coefficient(lane_variable()) == 1


def plan_loops(context: KernelContext) -> RowPlan:
    """Assign reductions, row values and outputs to loops."""
    kernel = context.kernel
    space = row_space(kernel.anchors[0])
    reads = set(kernel.reads)
    ready: dict[Node, int] = {}
    loop_of: dict[Node, int] = {}
    per_row = set(kernel.per_row)
    for node in kernel.nodes:
        needs = [value.node for value in node.inputs if value not in reads]
        first = max((ready.get(each, 0) for each in needs), default=0)
        if isinstance(node.op.kind, (Reduction, ArgReduction)):
            loop_of[node] = first
            ready[node] = first + 1
        else:
            ready[node] = first
    full = [value for value in kernel.outputs if value.node not in per_row]
    last = max([*loop_of.values(), *(ready[value.node] for value in full)])
    plan = RowPlan(space, last + 1, full_outputs=full)
    plan.row_outputs = [value for value in kernel.outputs if value.node in per_row]
    for node, loop in loop_of.items():
        plan.reductions.setdefault(loop, []).append(node)
    wanted = {value for node in kernel.nodes for value in node.inputs} | set(kernel.outputs)
    for node in kernel.nodes:
        if node in per_row and node not in loop_of:
            for value in node.values:
                if value in wanted:
                    plan.row_values.setdefault(ready[node], []).append(value)
    return plan


def _row_index(space: RowSpace, name: str, lane: Var | None) -> Index:
    if lane is None:
        return variable(name, space.rows)
    return variable(name, space.rows // LANES) * LANES + Index(0, ((lane, 1),))


def _write(context: KernelContext, plan: RowPlan, schedule: RowSchedule) -> Variant:
    space = plan.space
    lane = None if schedule.vector == "none" else lane_variable()
    row = _row_index(space, "row", lane if schedule.vector == "row" else None)
    count = space.rows // LANES if schedule.vector == "row" else space.rows
    trips = space.length // LANES if schedule.vector == "element" else space.length
    k = variable("k", trips)
    if schedule.vector == "element":
        assert lane is not None
        k = k * LANES + Index(0, ((lane, 1),))
    replaced: dict[Atom, Index] = {
        Var("row", 0, space.rows - 1): row,
        Var("k", 0, space.length - 1): k,
    }
    full = space.full.substitute(replaced)
    per_group = schedule.rows_per_group // (LANES if schedule.vector == "row" else 1)
    grid = grid_for(-(-count // per_group))
    loop = tuple(atom for atom in k.atoms() if isinstance(atom, Var))

    def body(emitter: Emitter) -> Mapping[str, object]:
        writer = _RowWriter(context, plan, schedule, emitter, row, full, loop)
        return writer.write() | {
            "rows": count,
            "rows_per_group": per_group,
            "groups_x": grid[0],
            "workgroup": per_group * schedule.threads,
            "threads": schedule.threads,
            "trips": trips,
        }

    is_subgroup = schedule.family == "subgroup"
    return write(
        context,
        f"row_{schedule.family}.wgsl.j2",
        body,
        lane,
        grid,
        schedule=str(schedule),
        features=("subgroups",) if is_subgroup else (),
        subgroup_size=schedule.threads if is_subgroup else 0,
    )


@dataclass
class _RowWriter:
    """Writes the loops of one kernel."""

    context: KernelContext
    plan: RowPlan
    schedule: RowSchedule
    emitter: Emitter
    row: Index
    full: Index
    loop: tuple[Var, ...]
    accumulators: list[Accumulator] = field(default_factory=list)

    def write(self) -> dict[str, object]:
        """Return the holes `before`, `loops` and `after`."""
        self._row_values(0)
        before = self.emitter.take()
        loops = [self._loop(position) for position in range(self.plan.loops)]
        self._store_rows()
        return {
            "before": before,
            "loops": loops,
            "after": self.emitter.take(),
            "accumulators": self.accumulators,
        }

    def _row_values(self, ready: int) -> None:
        for value in self.plan.row_values.get(ready, ()):
            coordinates = unflatten(self.row, value.type.shape)
            self.emitter.bound[value] = self.emitter.value(value, coordinates)

    def _loop(self, position: int) -> dict[str, object]:
        """Write one pass over the row, and what follows it."""
        inner = self.emitter.fork(self.loop)
        here: list[Accumulator] = []
        nodes = self.plan.reductions.get(position, [])
        for node in nodes:
            accumulator = self._accumulator(node)
            source = node.inputs[0]
            operand = inner.value(source, unflatten(self.full, source.type.shape))
            inner.lines.extend(accumulator.update(inner, operand))
            here.append(accumulator)
        if position == self.plan.loops - 1:
            self._store_full(inner)
        before = self.emitter.take()
        for node, accumulator in zip(nodes, here, strict=True):
            name = self.emitter.fresh(self.context.names[Value(node)])
            self.emitter.lines.extend(accumulator.finish(self.emitter, name))
            width = LANES if self.schedule.vector == "row" else 1
            self.emitter.bound[Value(node)] = Operand(name, width, node.type.dtype)
        self.accumulators.extend(here)
        self._row_values(position + 1)
        declared = [line for accumulator in here for line in accumulator.declare()]
        after = self.emitter.take()
        return {"declared": [*before, *declared], "body": inner.take(), "after": after}

    def _accumulator(self, node: Node) -> Accumulator:
        name = self.emitter.fresh(f"acc_{self.context.names[Value(node)]}")
        width = 1 if self.schedule.vector == "none" else LANES
        across = self.schedule.vector == "element"
        if isinstance(node.op.kind, ArgReduction):
            return arg_accumulator(name, node, width, self.emitter, "k")
        return value_accumulator(name, node, width, across, self.schedule.family, self.emitter)

    def _store_full(self, inner: Emitter) -> None:
        stores = [
            (value, inner.value(value, unflatten(self.full, value.type.shape)))
            for value in self.plan.full_outputs
        ]
        for value, operand in stores:  # after all loads: an output may overwrite a read
            inner.store(value, self.full, operand)

    def _store_rows(self) -> None:
        for value in self.plan.row_outputs:
            coordinates = unflatten(self.row, value.type.shape)
            self.emitter.store(value, self.row, self.emitter.value(value, coordinates))
