"""Contract kernels: a batched matrix product with fused operand prologues and result epilogues.

Every family multiplies the same way: a tile of the result stays in registers (`sum_i_j`, one vec4
per row `i` and column quad `j`) while a loop walks the inner axis. Then a second loop takes the
tile through the epilogue and stores it. What differs is where the loop's operands come from:
`contract_loop` reads them from memory, `contract_staged` by way of workgroup memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, output_coordinates, write
from asg.codegen.contract_choice import chosen, problem_of
from asg.codegen.contract_loop import SUBGROUP, Loop, loop_holes
from asg.codegen.contract_moments import keep_moments, moment_holes
from asg.codegen.contract_operands import (
    LANE,
    LANE_INDEX,
    Side,
    bind,
    quads_in,
    with_dense_quads,
)
from asg.codegen.contract_place import Place
from asg.codegen.contract_riders import Riders, riders_of
from asg.codegen.contract_staged import Stage
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES, Operand
from asg.graph import Node, Value
from asg.index import Index, flatten, unflatten, variable
from asg.passes.schedule_contract import QUAD_BYTES, ContractProblem, ContractSchedule
from asg.types import DType


@dataclass(frozen=True)
class Tiling:
    """A contraction with a schedule applied; rows and columns as the schedule sees them."""

    context: KernelContext
    schedule: ContractSchedule
    problem: ContractProblem
    rows: Side
    columns: Side

    @property
    def anchor(self) -> Node:
        return self.context.kernel.anchors[0]

    def tiles(self, columns: int, rows: int) -> int:
        """Return how many tiles of `rows` by `columns` cover all products."""
        across = -(-self.problem.columns // columns)
        return self.problem.batch * -(-self.problem.rows // rows) * across

    def place(self, emitter: Emitter, columns: int, rows: int) -> Place:
        """Write which tile `tile` means; tiles under each other follow each other."""
        down = -(-self.problem.rows // rows)
        across = -(-self.problem.columns // columns)
        tile = variable("tile", self.problem.batch * down * across)
        if self.schedule.family in ("register", "sliced"):
            column = bind(emitter, "tile_column", tile % across)
            tile_row = bind(emitter, "tile_row", tile // across % down)
        else:
            tile_row = bind(emitter, "tile_row", tile % down)
            column = bind(emitter, "tile_column", tile // down % across)
        batch = bind(emitter, "batch", tile // (across * down))
        quad = column * (columns // LANES)
        return Place(self.batch_at(batch), tile_row * rows, quad, column)

    def batch_at(self, batch: Index) -> Coordinates:
        """Return the coordinates of a position among the products."""
        return unflatten(batch, self.anchor.type.shape[:-2])

    def riders(self, edge: str = "") -> Riders:
        """Return the sums over either operand, with no text yet."""
        turned = self.schedule.is_transposed
        on_rows = riders_of(self.context, on_rows=True, is_transposed=turned)
        on_columns = riders_of(self.context, on_rows=False, is_transposed=turned)
        return Riders(on_rows, on_columns, edge)

    def result_at(self, batch: Coordinates, row: Index, column: Index) -> Coordinates:
        """Return coordinates in the contraction's result."""
        pair = (column, row) if self.schedule.is_transposed else (row, column)
        return (*batch, *pair)


def contract_variants(
    context: KernelContext, schedule: ContractSchedule | None = None
) -> tuple[Variant, ...]:
    """Return the kernel's variants, best first; `schedule` forces one."""
    problem = problem_of(context)
    if schedule:
        return (_variant(_tiling(context, problem, schedule)),)
    schedules = chosen(context, problem)
    variants = [_variant(_tiling(context, problem, each)) for each in schedules]
    # Where no operand lies so that it can be read as words, a variant without them follows.
    useful = [
        variant
        for variant, each in zip(variants, schedules, strict=True)
        if not each.is_wide or "shader-int64" in variant.features
    ]
    return tuple(useful)


def _variant(tiling: Tiling) -> Variant:
    match tiling.schedule.family:
        case "register":
            return _register(tiling)
        case "shuffle":
            return _shuffle(tiling)
        case "staged":
            return _staged(tiling)
        case "sliced":
            return _sliced(tiling)
        case family:
            assert_never(family)


def _tiling(context: KernelContext, problem: ContractProblem, schedule: ContractSchedule) -> Tiling:
    left, right = context.kernel.anchors[0].inputs
    rows = Side(left, False, problem.rows, problem.inner)
    columns = Side(right, True, problem.columns, problem.inner)
    if schedule.is_transposed:
        rows, columns, problem = columns, rows, problem.transposed
    tiling = Tiling(context, schedule, problem, rows, columns)
    batch = tiling.batch_at(variable("batch", problem.batch))
    # A row quad that is moved back would hold other rows than the sums it is added to.
    unit = SUBGROUP if schedule.family == "shuffle" else LANES
    has_row_quads = problem.rows % LANES == 0 and schedule.rows % unit == 0
    may_follow_outer = has_row_quads and problem.inner >= schedule.inner_steps
    rows = with_dense_quads(context, rows, batch, may_follow_outer=may_follow_outer)
    if schedule.inner_steps == 1:
        columns = replace(columns, along_inner=False)
    else:
        columns = with_dense_quads(context, columns, batch, may_follow_outer=True)
    return replace(tiling, rows=rows, columns=columns)


def _register(tiling: Tiling) -> Variant:
    """Write the family `register`: each invocation owns a tile and shares nothing."""
    schedule = tiling.schedule
    count = tiling.tiles(schedule.columns, schedule.rows)
    grid = grid_for(-(-count // schedule.workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        place = tiling.place(emitter, schedule.columns, schedule.rows)
        loop = Loop(emitter, place.batch, tiling.rows, tiling.columns, schedule.inner_steps)
        quads = [place.quad + j for j in range(schedule.columns // LANES)]
        if schedule.inner_steps == 1:
            rows = loop.row_numbers(place.row, schedule.rows)
            columns = loop.column_vectors(quads)
        else:
            rows = loop.row_vectors(place.row, schedule.rows)
            columns = loop.column_matrices(quads)
        riders = tiling.riders()
        riders.add_columns(emitter, len(quads), loop.steps, place.quad, 1, place.row)
        riders.add_rows(emitter, schedule.rows, loop.steps, place.row, place.quad)
        return {
            "setup": emitter.take(),
            **loop.holes(rows, columns),
            **riders.holes(),
            **epilogue(emitter, tiling, place, stride=1),
            **moment_holes(tiling.context, emitter, place, len(quads)),
            "count": count,
            "groups_x": grid[0],
            "workgroup": schedule.workgroup,
        }

    template = "contract_register.wgsl.j2"
    return write(
        tiling.context, template, body, LANE, grid, schedule=str(schedule), wide=schedule.is_wide
    )


def _sliced(tiling: Tiling) -> Variant:
    """Write the family `sliced`: invocations share a tile, each has a slice of the inner axis."""
    schedule = tiling.schedule
    if len(tiling.context.kernel.anchors) > 1:  # sums over operands would be slices as well
        return _register(replace(tiling, schedule=replace(schedule, family="register", slices=1)))
    slices, workgroup = schedule.slices, schedule.workgroup
    members = workgroup // slices
    count = tiling.tiles(schedule.columns, schedule.rows)
    grid = grid_for(-(-count // members))
    # Neighbours read neighbours: along the inner axis slices lie side by side, else tiles do.
    along_inner = tiling.columns.along_inner
    places = (f"thread % {slices}u", f"thread / {slices}u")
    if not along_inner:
        places = (f"thread / {members}u", f"thread % {members}u")

    def body(emitter: Emitter) -> Mapping[str, object]:
        place = tiling.place(emitter, schedule.columns, schedule.rows)
        loop = Loop(emitter, place.batch, tiling.rows, tiling.columns, schedule.inner_steps)
        quads = [place.quad + j for j in range(schedule.columns // LANES)]
        rows = loop.row_vectors(place.row, schedule.rows)
        columns = loop.column_matrices(quads)
        return {
            "setup": emitter.take(),
            **loop.holes(rows, columns),
            **tiling.riders().holes(),
            **epilogue(emitter, tiling, place, stride=1),
            "first_trip": "slice",
            "next_trip": f"k += {slices}u",
            "slice": places[0],
            "member": places[1],
            "stride": 1 if along_inner else members,
            "slices": slices,
            "parts": schedule.workgroup_bytes // QUAD_BYTES,
            "count": count,
            "last": max(count - 1, 0),
            "group_tiles": members,
            "groups_x": grid[0],
            "workgroup": workgroup,
        }

    template = "contract_sliced.wgsl.j2"
    return write(tiling.context, template, body, LANE, grid, schedule=str(schedule))


def _shuffle(tiling: Tiling) -> Variant:
    """Write the family `shuffle`: a subgroup owns a tile; rows are read once and passed round."""
    schedule = tiling.schedule
    count = tiling.tiles(schedule.columns * SUBGROUP, schedule.rows)
    grid = grid_for(count)

    def body(emitter: Emitter) -> Mapping[str, object]:
        place = tiling.place(emitter, schedule.columns * SUBGROUP, schedule.rows)
        lane = variable("lane", SUBGROUP)
        place = replace(place, quad=place.quad + lane)
        loop = Loop(emitter, place.batch, tiling.rows, tiling.columns, schedule.inner_steps)
        quads = [place.quad + SUBGROUP * j for j in range(schedule.columns // LANES)]
        rows = loop.shuffled_rows(place.row, schedule.rows, lane)
        columns = loop.column_matrices(quads)
        riders = tiling.riders()
        riders.add_columns(emitter, len(quads), loop.steps, place.quad, SUBGROUP, place.row)
        along_inner = tiling.rows.along_inner
        riders.add_shared_rows(
            emitter, loop.row_reads, schedule.rows, along_inner, place.row, place.quad - lane
        )
        return {
            "setup": emitter.take(),
            **loop.holes(rows, columns),
            **riders.holes(),
            **epilogue(emitter, tiling, place, stride=SUBGROUP),
            "count": count,
            "groups_x": grid[0],
            "has_spare_groups": grid[1] > 1,
        }

    return write(
        tiling.context,
        "contract_shuffle.wgsl.j2",
        body,
        LANE,
        grid,
        schedule=str(schedule),
        features=("subgroups",),
        subgroup_size=SUBGROUP,
        wide=schedule.is_wide,
    )


def _staged(tiling: Tiling) -> Variant:
    """Write the family `staged`: a workgroup reads tiles of both operands into its memory."""
    schedule = tiling.schedule
    across, down = schedule.threads
    tile_rows, tile_columns = down * schedule.rows, across * schedule.columns
    count = tiling.tiles(tile_columns, tile_rows)
    grid = grid_for(count)
    depth = schedule.depth
    row_stage = Stage("rows", tiling.rows, tile_rows, depth, is_dealt=False)
    column_stage = Stage("columns", tiling.columns, tile_columns, depth, is_dealt=True)

    def body(emitter: Emitter) -> Mapping[str, object]:
        place = tiling.place(emitter, tile_columns, tile_rows)
        thread = variable("thread", schedule.workgroup)
        fill = emitter.fork()
        keeps = [
            *row_stage.fill(fill, place.batch, place.row, thread, schedule.workgroup),
            *column_stage.fill(fill, place.batch, place.quad * LANES, thread, schedule.workgroup),
        ]
        thread_row = bind(emitter, "thread_row", thread // across) * schedule.rows
        thread_quad = bind(emitter, "thread_quad", thread % across)
        inside = emitter.fork()
        quad = variable("k", depth // LANES)
        quads = [thread_quad + across * j for j in range(schedule.columns // LANES)]
        rows = row_stage.row_vectors(inside, thread_row, schedule.rows, quad)
        columns = column_stage.column_matrices(inside, quads, quad)
        own = replace(place, row=place.row + thread_row, quad=place.quad + thread_quad)
        riders = tiling.riders(f"{emitter.index(own.row)} == 0u || {emitter.index(own.quad)} == 0u")
        riders.add_columns(emitter, len(quads), LANES, own.quad, across, own.row)
        riders.add_rows(emitter, schedule.rows, LANES, own.row, own.quad)
        return {
            "setup": emitter.take(),
            "fill": fill.take(),
            "keeps": keeps,
            "stages": -(-tiling.problem.inner // depth),
            "stage_quads": [row_stage.quads, column_stage.quads],
            **loop_holes(rows, columns, inside.take(), LANES, depth // LANES),
            **riders.holes(),
            **epilogue(emitter, tiling, own, stride=across),
            **moment_holes(tiling.context, emitter, own, len(quads), across),
            "count": count,
            "groups_x": grid[0],
            "has_spare_groups": grid[1] > 1,
            "workgroup": schedule.workgroup,
        }

    template = "contract_staged.wgsl.j2"
    variant = write(tiling.context, template, body, LANE, grid, schedule=str(schedule))
    if schedule.is_portable:
        return variant
    return replace(variant, limits={"maxComputeWorkgroupStorageSize": schedule.workgroup_bytes})


def epilogue(emitter: Emitter, tiling: Tiling, place: Place, stride: int) -> Mapping[str, object]:
    """Write what happens to one quad of the tile, or to one element where quads don't fit.

    The text stands once, in a loop: unrolled, a long epilogue takes drivers seconds to compile.
    """
    schedule, problem = tiling.schedule, tiling.problem
    inner = emitter.fork()
    is_quad = problem.columns % LANES == 0
    row = variable("row", problem.rows)
    column = variable("column", problem.columns)
    if is_quad:
        column = variable("quad", problem.columns // LANES) * LANES + LANE_INDEX
    coordinates = tiling.result_at(place.batch, row, column)
    anchor = Value(tiling.anchor)
    inner.bound[anchor] = Operand("value", LANES if is_quad else 1, DType.F32)
    sums = tiling.context.kernel.anchors[1:]
    outputs = [
        (output, output_coordinates(tiling.context, output, coordinates))
        for output in tiling.context.kernel.outputs
        if output.node not in sums
    ]
    operands = [inner.value(output, where) for output, where in outputs]
    for (output, where), operand in zip(outputs, operands, strict=True):
        # All loads come first: an output may overwrite what another one reads.
        inner.store(output, flatten(where, output.type.shape), operand)
    keep_moments(tiling.context, inner, coordinates, LANES if is_quad else 1)
    tile_quads = schedule.columns // LANES
    tile_size = schedule.rows * tile_quads * (1 if is_quad else LANES)
    i = variable("i", tile_size)
    position = i if is_quad else i // LANES
    row_index = place.row + position // tile_quads
    quad_index = place.quad + position % tile_quads * stride
    return {
        "row": emitter.index(row_index),
        "quad": emitter.index(quad_index),
        "tile_size": tile_size,
        "row_count": problem.rows,
        "column_count": problem.columns,
        "quad_count": quads_in(problem.columns),
        "last_start": max(problem.columns - LANES, 0),
        "has_row_guard": row_index.high >= problem.rows,
        "has_quad_guard": quad_index.high >= quads_in(problem.columns),
        "is_quad": is_quad,
        "epilogue": inner.take(),
        "moment_rows": [],
    }
