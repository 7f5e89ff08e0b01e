"""Kernels that find places among sorted keys, and that go through what belongs to a row."""

from __future__ import annotations

import math
from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.combine import combine_text
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, Operand, lane_variable
from asg.graph import Value
from asg.index import Index, opaque, unflatten, variable
from asg.op import Procedure
from asg.types import DType


def search_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the one variant of a kernel in which an invocation looks for one key."""
    node = context.kernel.anchors[0]
    keys, wanted = node.inputs
    length, count = keys.type.shape[-1], math.prod(node.type.shape)
    workgroup = 64 if count >= 512 else 8
    grid = grid_for(-(-count // workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        where = unflatten(variable("i", count), node.type.shape)
        target = emitter.value(wanted, where).text
        start = emitter.take()
        inner = emitter.fork()
        lines, test = [], "false"
        if length:
            key = inner.value(keys, (*where[:-1], opaque("middle", length)))
            lines = inner.take()
            test = f"{key.text} {'<=' if node.attrs['right'] else '<'} {target}"
        emitter.store(Value(node), variable("i", count), Operand("i32(low)", 1, DType.I32))
        return {
            "start": start,
            "bisect": lines,
            "is_before": test,
            "finish": emitter.take(),
            "length": length,
            "count": count,
            "workgroup": workgroup,
            "groups_x": grid[0],
        }

    schedule = f"one key per invocation, workgroup {workgroup}"
    return (write(context, "search.wgsl.j2", body, None, grid, schedule=schedule),)


def segments_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the one variant of a kernel in which an invocation owns an element of the result, or
    four neighbours."""
    node = context.kernel.anchors[0]
    x, first, end, order, updates = node.inputs
    kind = node.op.kind
    assert isinstance(kind, Procedure)
    assert kind.combine is not None
    combine = kind.combine
    lane = lane_variable() if node.type.shape[1] % LANES == 0 else None
    width = 1 if lane is None else LANES
    count = node.type.size // width
    rows, listed = updates.type.shape[0], order.type.shape[0]
    workgroup = 64 if count >= 512 else 8
    grid = grid_for(-(-count // workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        flat = variable("i", count)
        if lane is not None:
            flat = flat * LANES + Index(0, ((lane, 1),))
        row, column = unflatten(flat, node.type.shape)
        total = emitter.widen(emitter.value(x, (row, column)), width)
        begin, stop = (emitter.value(each, (row,)).text for each in (first, end))
        start = [*emitter.take(), f"var total = {total};"]
        inner = emitter.fork()
        update = inner.value(order, (opaque("k", listed),)).text
        picked = inner.let("update", f"min(u32({update}), {max(rows - 1, 0)}u)")
        added = inner.widen(inner.value(updates, (opaque(picked, rows), column)), width)
        text = combine_text(inner, combine, node.type.dtype, width).format("total", added)
        inner.lines.append(f"total = {text};")
        emitter.store(Value(node), flat, Operand("total", width, node.type.dtype))
        return {
            "start": start,
            "begin": begin,
            "stop": stop,
            "update": inner.take(),
            "finish": emitter.take(),
            "count": count,
            "workgroup": workgroup,
            "groups_x": grid[0],
        }

    amount = "one element" if lane is None else "4 elements"
    schedule = f"{amount} per invocation, workgroup {workgroup}"
    return (write(context, "segments.wgsl.j2", body, lane, grid, schedule=schedule),)
