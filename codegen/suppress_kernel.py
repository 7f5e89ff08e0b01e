"""The kernel that chooses boxes: an invocation goes along a row, for each box over those chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Emitter
from asg.codegen.sort_kernel import put
from asg.codegen.text import Operand, literal
from asg.errors import UnsupportedError
from asg.index import Index, opaque, unflatten, variable
from asg.types import DType

LARGEST = 4096  # numbers that an invocation keeps


def suppress_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's one variant."""
    node = context.kernel.anchors[0]
    boxes, order, count = node.inputs
    lead, length = order.type.shape[:2], order.type.shape[2]
    rows, most = math.prod(lead), node.attrs["most"]
    if most > LARGEST:
        raise UnsupportedError(f"{most} boxes may be chosen of a row; kernels choose {LARGEST}")
    workgroup = 64 if rows >= 512 else 8
    grid = grid_for(-(-rows // workgroup))

    def box(emitter: Emitter, batch: Index, place: str) -> list[str]:
        where = opaque(place, boxes.type.shape[1])
        return [emitter.value(boxes, (batch, where, Index(side))).text for side in range(4)]

    def body(emitter: Emitter) -> Mapping[str, object]:
        row = variable("row", rows)
        batch, group = unflatten(row, lead)
        limit = emitter.value(count, (batch, group)).text
        start = emitter.take()
        candidate = emitter.fork()
        held = candidate.value(order, (batch, group, opaque("k", length))).text
        place = candidate.let("place", f"min(u32({held}), {boxes.type.shape[1] - 1}u)")
        own = box(candidate, batch, place)
        other = candidate.fork()
        theirs = box(other, batch, "u32(chosen[j])")
        store = emitter.fork()
        put(store, node.values[0], row, variable("j", most), Operand("chosen[j]", 1, DType.I32))
        if node.values[1] in emitter.targets:
            emitter.store(node.values[1], row, Operand("i32(taken)", 1, DType.I32))
        return {
            "start": start,
            "limit": limit,
            "candidate": candidate.take(),
            "place": place,
            "own": own,
            "other": other.take(),
            "theirs": theirs,
            "store": store.take(),
            "finish": emitter.take(),
            "threshold": literal(node.attrs["threshold"], DType.F32).text,
            "length": length,
            "most": most,
            "rows": rows,
            "workgroup": workgroup,
            "groups_x": grid[0],
        }

    schedule = f"a row of {length} per invocation, workgroup {workgroup}"
    return (write(context, "suppress.wgsl.j2", body, None, grid, schedule=schedule),)
