"""Maps that read an operand across the order of its memory: transpositions and their like.

Element for element, each of four neighbours would be a load of its own, from a cache line of its
own. Here an invocation computes a block instead: some rows along the axis that is dense in the
operand, times four elements along the last axis. It loads the operand in vec4s and turns them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.contract_operands import bind
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES, lane_variable
from asg.index import Index, Var, flatten, unflatten, variable
from asg.types import Shape

WORKGROUP = 64
TILE = 8  # blocks of a workgroup along both axes
TALL = 16  # rows of a block; a cache line of the operand has as many elements
ENOUGH = 1 << 12  # elements
LANE = lane_variable()


def block_axis(context: KernelContext) -> int | None:
    """Return the axis along which most of the operands that are read across are dense."""
    shape = _shape(context)
    if len(shape) < 2 or shape[-1] % LANES or math.prod(shape) < ENOUGH:
        return None
    if any(value.type.shape != shape for value in context.kernel.outputs):
        return None
    axes = [variable(f"axis_{number}", size) for number, size in enumerate(shape[:-1])]
    last = variable("quad", shape[-1] // LANES) * LANES + Index(0, ((LANE, 1),))
    _, places = context.bindings()
    loads = {value: places[value] for value in context.kernel.reads}
    emitter = Emitter(loads, {}, context.names, LANE)
    for output in context.kernel.outputs:
        emitter.value(output, (*axes, last))
    found: Counter[int] = Counter()
    for position in emitter.crossed:
        for number, size in enumerate(shape[:-1]):
            atom = Var(f"axis_{number}", 0, size - 1)
            if size % LANES == 0 and position.coefficient(atom) == 1:
                found[number] += 1
    return found.most_common(1)[0][0] if found else None


def block_variant(context: KernelContext, axis: int, tall: bool, wide: bool) -> Variant:
    """Write the kernel with blocks along `axis` and the last axis."""
    shape = _shape(context)
    rows = TALL if tall and shape[axis] % TALL == 0 else LANES
    count = math.prod(shape) // (rows * LANES)
    grid = grid_for(-(-count // WORKGROUP))

    def body(emitter: Emitter) -> Mapping[str, object]:
        first = _first(emitter, shape, axis, rows, variable("i", count))
        for row in range(rows):
            where = tuple(
                each + row if number == axis else each for number, each in enumerate(first)
            )
            operands = [(out, emitter.value(out, where)) for out in context.kernel.outputs]
            for output, operand in operands:  # after its loads: it may overwrite a read
                emitter.store(output, flatten(where, shape), operand)
        return {
            "body": emitter.take(),
            "count": count,
            "items": 1,
            "workgroup": WORKGROUP,
            "groups_x": grid[0],
        }

    schedule = f"{rows} x {LANES} elements per invocation, workgroup {WORKGROUP}"
    return write(context, "map.wgsl.j2", body, LANE, grid, schedule=schedule, wide=wide, turns=True)


def _first(emitter: Emitter, shape: Shape, axis: int, rows: int, block: Index) -> Coordinates:
    """Return the coordinates at which a block begins, its lanes included.

    Blocks of a workgroup are a square where the sizes allow: loads and stores then both share
    cache lines and pages.
    """
    down, across = shape[axis] // rows, shape[-1] // LANES
    others = [size for number, size in enumerate(shape[:-1]) if number != axis]
    if down % TILE == 0 and across % TILE == 0:
        sizes = (*others, down // TILE, across // TILE, TILE, TILE)
        *outer, tile_row, tile_column, row, column = unflatten(block, sizes)
        row, column = tile_row * TILE + row, tile_column * TILE + column
    else:
        *outer, column, row = unflatten(block, (*others, across, down))
    outer.insert(axis, bind(emitter, "row", row) * rows)
    return (*outer, bind(emitter, "column", column) * LANES + Index(0, ((LANE, 1),)))


def _shape(context: KernelContext) -> Shape:
    return context.kernel.outputs[0].type.shape
