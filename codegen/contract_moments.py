"""Statistics of a product's tiles, for a norm that follows (see `passes/tile_moments.py`).

Behind the epilogue a tile's results stand where its sums did. Every invocation sums up its four
rows; in a staged workgroup those beside each other exchange what they have through `rows`, which
the loop needs no longer. All add in the same order, so every one of them knows the same mean.
"""

from __future__ import annotations

from collections.abc import Mapping

from asg.codegen.context import KernelContext, output_coordinates
from asg.codegen.contract_place import Place
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES, Operand
from asg.graph import Value
from asg.index import flatten, variable
from asg.passes.tile_moments import Moments, find_moments
from asg.types import DType


def moments_of(context: KernelContext) -> Moments | None:
    """Return the statistics that a contract kernel makes of its tiles, if it does."""
    if len(context.kernel.anchors) < LANES:
        return None
    found = find_moments(context.kernel.nodes)
    return next((found[node] for node in context.kernel.anchors if node in found), None)


def keep_moments(context: KernelContext, inner: Emitter, where: Coordinates, width: int) -> None:
    """Write an element (or a quad) of what is summed up back to the tile, in the epilogue."""
    found = moments_of(context)
    if found is None:
        return
    at = output_coordinates(context, found.source, tuple(where))
    text = inner.widen(inner.value(found.source, at), width)
    target = "tile_sums[i]" if width == LANES else "tile_sums[i / 4u][i % 4u]"
    inner.lines.append(f"{target} = {text};")


def moment_holes(
    context: KernelContext, emitter: Emitter, place: Place, quads: int, members: int = 1
) -> Mapping[str, object]:
    """Write how tiles sum up what they hold.

    Args:
        place: where the invocation's rows begin.
        quads: vec4s that it has of each row.
        members: invocations beside each other that have parts of the same rows.
    """
    found = moments_of(context)
    if found is None:
        return {}
    rows = found.product.type.shape[-2]
    i = variable("i", LANES)
    lead = found.product.type.shape[:-2]
    own = place.row + i
    inner = emitter.fork()
    flat = (flatten((*place.batch, own), (*lead, rows))) * found.tiles + place.column
    for node, name in zip(found.sums, ("totals", "near", "squares"), strict=True):
        inner.store(Value(node), flat, Operand(f"tile_{name}[i]", 1, DType.F32))
    conditions = []
    if members > 1:
        conditions.append(f"thread % {members}u == 0u")
    if place.column.high >= found.tiles:
        conditions.append(f"{emitter.index(place.column)} < {found.tiles}u")
    return {
        "moment_rows": [_row(i, quads) for i in range(LANES)],
        "moment_stores": inner.take(),
        "moment_condition": " && ".join(conditions) or "true",
        "moment_row": emitter.index(own),
        "moment_row_count": rows,
        "moment_scale": emitter.number(1.0 / found.block, DType.F32).text,
        "moment_members": members,
    }


def _row(row: int, quads: int) -> Mapping[str, object]:
    held = [f"tile_sums[{row * quads + quad}]" for quad in range(quads)]
    return {"index": row, "quads": held, "sum": " + ".join(held)}
