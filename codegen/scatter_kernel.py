"""Scatter kernels: additions at places known only at run time, deterministic.

No float atomics: each invocation owns some elements of the result and goes through the updates
in order. Where there are enough columns it owns a whole column (all places along the axis) and
adds in memory; otherwise it owns one element and picks the updates that hit it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, Operand, lane_variable
from asg.codegen.update_kernel import update_variants
from asg.graph import Node, Value
from asg.index import Index, Var, flatten, opaque, unflatten, variable
from asg.op import Scatter
from asg.passes.sort_scatters import owned
from asg.types import DType


def scatter_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's one variant."""
    node = context.kernel.anchors[0]
    if node.op.kind == Scatter(adds=False):
        return update_variants(context)
    axis, shape = node.attrs["axis"], node.type.shape
    is_vector = axis != len(shape) - 1 and shape[-1] % LANES == 0
    lane = lane_variable() if is_vector else None
    count, by_column = owned(node)
    workgroup = 64 if count >= 512 else 8
    grid = grid_for(-(-count // workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        writer = _by_column if by_column else _by_element
        return writer(context, node, emitter, lane) | {
            "count": count,
            "groups_x": grid[0],
            "workgroup": workgroup,
            "updates": node.inputs[1].type.size,
        }

    what = "one column" if by_column else "one element"
    schedule = f"an invocation owns {what}{' of four neighbours' if is_vector else ''}"
    return (write(context, "scatter_owner.wgsl.j2", body, lane, grid, schedule=schedule),)


def _wide(size: int, lane: Var | None) -> Index:
    """Return the position `i` of what an invocation owns, in elements."""
    if lane is None:
        return variable("i", size)
    return variable("i", size // LANES) * LANES + Index(0, ((lane, 1),))


def _place(emitter: Emitter, node: Node, update: tuple[Index, ...]) -> tuple[str, str]:
    """Write the row an update goes to; return it as u32 and the test that it exists."""
    index = emitter.value(node.inputs[1], update)
    size = node.type.shape[node.attrs["axis"]]
    if index.dtype is DType.U32:
        return index.text, f"{index.text} < {size}u"
    wrapped = f"select({index.text}, {index.text} + {size}, {index.text} < 0)"
    place = emitter.let("place", f"u32({wrapped})")  # a negative one wraps beyond the end
    return place, f"{place} < {size}u"


def _by_column(
    context: KernelContext, node: Node, emitter: Emitter, lane: Var | None
) -> dict[str, object]:
    axis, shape = node.attrs["axis"], node.type.shape
    rest = (*shape[:axis], *shape[axis + 1 :])
    column = unflatten(_wide(math.prod(rest), lane), rest)
    before, after = column[:axis], column[axis:]
    output = Value(node)

    first = emitter.fork()
    row = variable("v", shape[axis])
    where = (*before, row, *after)
    first.store(output, flatten(where, shape), first.value(node.inputs[0], where))
    rows = f"for (var v = 0u; v < {shape[axis]}u + group.z; v++) {{"
    start = [rows, *_indented(first.take()), "}"]

    inner = emitter.fork()
    update = unflatten(variable("u", node.inputs[1].type.size), node.inputs[1].type.shape)
    place, test = _place(inner, node, update)
    added = inner.value(node.inputs[2], (*before, *update, *after))
    held = inner.fork()
    target = (*before, opaque(place, shape[axis]), *after)
    held.places = {output: held.targets[output]}
    old = held.value(output, target)
    total = Operand(f"{old.text} + {held.widen(added, old.width)}", old.width, old.dtype)
    held.store(output, flatten(target, shape), total)
    lines = [*inner.take(), f"if ({test}) {{", *_indented(held.take()), "}"]
    return {"start": start, "update": lines, "finish": [], "what_is_owned": "a column"}


def _by_element(
    context: KernelContext, node: Node, emitter: Emitter, lane: Var | None
) -> dict[str, object]:
    axis, shape = node.attrs["axis"], node.type.shape
    flat = _wide(math.prod(shape), lane)
    where = unflatten(flat, shape)
    initial = emitter.value(node.inputs[0], where)
    width = LANES if lane is not None else 1
    start = [*emitter.take(), f"var total = {emitter.widen(initial, width)};"]

    inner = emitter.fork()
    update = unflatten(variable("u", node.inputs[1].type.size), node.inputs[1].type.shape)
    place, _ = _place(inner, node, update)
    own = inner.index(where[axis])
    held = inner.fork()
    added = held.value(node.inputs[2], (*where[:axis], *update, *where[axis + 1 :]))
    addition = f"total += {held.widen(added, width)};"
    lines = [
        *inner.take(),
        f"if ({place} == {own}) {{",
        *_indented([*held.take(), addition]),
        "}",
    ]
    emitter.store(Value(node), flat, Operand("total", width, node.type.dtype))
    finish = emitter.take()
    return {"start": start, "update": lines, "finish": finish, "what_is_owned": "an element"}


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
