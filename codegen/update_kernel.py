"""Kernels that put a slice in place at a position known only at run time.

Where the result has the memory of what it changes, only the slice is written; otherwise every
element of the result is, from one or the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES, Operand, lane_variable
from asg.graph import Node, Value
from asg.index import Index, flatten, opaque, unflatten, variable
from asg.types import DType

WORKGROUP = 64


def update_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's one variant."""
    node = context.kernel.anchors[0]
    update, axis = node.inputs[2], node.attrs["axis"]
    is_in_place = _is_in_place(context)
    shape = update.type.shape if is_in_place else node.type.shape
    is_vector = axis != len(shape) - 1 and shape[-1] % LANES == 0
    lane = lane_variable() if is_vector else None
    count = math.prod(shape) // (LANES if is_vector else 1)
    grid = grid_for(-(-count // WORKGROUP))

    def body(emitter: Emitter) -> Mapping[str, object]:
        flat = variable("i", math.prod(shape))
        if lane is not None:
            flat = variable("i", count) * LANES + Index(0, ((lane, 1),))
        where = unflatten(flat, shape)
        start = _start(emitter, node, where)
        if is_in_place:
            moved = (*where[:axis], where[axis] + start, *where[axis + 1 :])
            emitter.store(
                Value(node), flatten(moved, node.type.shape), emitter.value(update, where)
            )
        else:
            emitter.store(Value(node), flat, _either(emitter, node, where, start))
        return {"body": emitter.take(), "count": count, "groups_x": grid[0], "workgroup": WORKGROUP}

    written = "the slice alone, in place" if is_in_place else "everything"
    schedule = f"{LANES if is_vector else 1} element(s) per invocation, {written}"
    return (write(context, "update.wgsl.j2", body, lane, grid, schedule=schedule),)


def _is_in_place(context: KernelContext) -> bool:
    """Tell whether the result lies where the kernel reads what it changes."""
    result = Value(context.kernel.anchors[0])
    reads = {read for read, written in context.kernel.in_place if written == result}
    places = context.bindings()[1]
    return any(
        places[read].binding is places[result].binding
        and places[read].offset == places[result].offset
        for read in reads
    )


def _start(emitter: Emitter, node: Node, where: Coordinates) -> Index:
    """Write where the slice begins, held inside; return that."""
    x, start, update = node.inputs
    axis = node.attrs["axis"]
    last = x.type.shape[axis] - update.type.shape[axis]
    number = emitter.value(start, where[: start.type.rank])
    held = f"min({number.text}, {last}u)"
    if number.dtype is DType.I32:
        held = f"u32(clamp({number.text}, 0, {last}))"
    return opaque(emitter.let("start", held), last + 1)


def _either(emitter: Emitter, node: Node, where: Coordinates, start: Index) -> Operand:
    """Write the element of the update, or of what it changes."""
    x, _, update = node.inputs
    axis, length = node.attrs["axis"], update.type.shape[node.attrs["axis"]]
    old = emitter.value(x, where)
    if update.type.size == 0:
        return old
    # u32 arithmetic wraps, so one comparison tests both ends.
    step = emitter.let("step", f"{emitter.index(where[axis])} - {emitter.index(start)}")
    place = opaque(emitter.let("place", f"min({step}, {length - 1}u)"), length)
    new = emitter.value(update, (*where[:axis], place, *where[axis + 1 :]))
    width = max(old.width, new.width)
    texts = emitter.widen(old, width), emitter.widen(new, width)
    return Operand(f"select({texts[0]}, {texts[1]}, {step} < {length}u)", width, old.dtype)
