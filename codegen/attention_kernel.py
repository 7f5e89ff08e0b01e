"""Attention kernels: forward and gradients, without the scores in memory.

`attention_roles` says what operands are to a kernel, `attention_tile` writes what the families
share. In `shuffle` a subgroup of eight owns a tile of rows; each lane has all of them, and four of
a block's 32 columns. In `staged` a workgroup of 128 owns a tile; what `shuffle` passes from lane
to lane goes through workgroup memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from asg.artefact import Variant
from asg.codegen.attention_roles import Product, Roles, outputs_of, roles_of
from asg.codegen.attention_tile import (
    BLOCK,
    BLOCK_QUADS,
    LOWEST_TEXT,
    SpanNames,
    Tile,
    block_range,
    place,
    read_span,
)
from asg.codegen.context import KernelContext, grid_for, with_wide, write
from asg.codegen.contract_loop import turned
from asg.codegen.contract_operands import LANE, bind, clamp, quad_start, quads_in
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES
from asg.graph import Value
from asg.index import Index, variable
from asg.passes.schedule_attention import AttentionProblem, AttentionSchedule, choose

DEPTH_QUADS = 4  # quads along the inner axis that `staged` keeps at a time
LINE = DEPTH_QUADS + 1  # a quad longer, so that neighbours lie in different memory banks


def attention_variants(
    context: KernelContext, schedule: AttentionSchedule | None = None
) -> tuple[Variant, ...]:
    """Return the kernel's variants, best first; `schedule` forces one."""
    roles = roles_of(context)
    target = context.target
    widths = tuple(each.width for each in roles.sums)
    problem = AttentionProblem(math.prod(roles.batch), roles.rows, widths, roles.mask is not None)
    schedules = (schedule,) if schedule else choose(problem, target.family, target.subgroup_size)
    return tuple(
        variant
        for each in schedules
        for variant in (
            with_wide(context, partial(_shuffle, context, roles, each), enough=0)
            if each.family == "shuffle"
            else (_staged(context, roles, each),)
        )
    )


@dataclass(frozen=True)
class _Loops:
    """Holes of a kernel's two inner loops: products of rows and columns, and sums of tiles."""

    products: Sequence[Mapping[str, object]]
    tiles: Sequence[str]
    sums: Mapping[str, object]


def _shuffle(
    context: KernelContext, roles: Roles, schedule: AttentionSchedule, wide: bool
) -> Variant:
    tiles = place(_scratch(context), roles, schedule.rows)[2]
    grid = grid_for(tiles)

    def body(emitter: Emitter) -> Mapping[str, object]:
        batch, first, _ = place(emitter, roles, schedule.rows)
        lane = variable("lane", BLOCK_QUADS)
        span = _shared_span(emitter, roles, batch, "lane")
        tile = Tile(context, roles, emitter, batch, first, 1, schedule.rows, lane, span)
        block = emitter.fork()
        tile.begin_block(block)
        begin = block.take()
        held = [
            clamp(emitter, f"lane_row_{turn}", first + lane + BLOCK_QUADS * turn, roles.rows)
            for turn in range(-(-schedule.rows // BLOCK_QUADS))
        ]
        products = [
            _shuffled_product(tile, block, number, each, held)
            for number, each in enumerate(roles.products)
        ]
        numbers = _QueryNumbers.read(tile)
        found = _tiles(tile, block, numbers)
        lines = block.take()
        if roles.is_forward:
            lines += _forward_in_lanes(block, tile, found["weight"])
        sums = _sums(tile, block, lambda name, i: f"subgroupShuffle({found[name][i]}, t)")
        lines += block.take()
        totals = [f"all_{i}" for i in range(tile.owned)]
        finish = [f"let all_{i} = subgroupAdd(total_{i});" for i in range(tile.owned)]
        return _holes(
            tile,
            _Loops(products, lines, sums),
            begin,
            finish if roles.is_forward else [],
            totals,
            (first, schedule.rows),
        ) | {"count": tiles, "groups_x": grid[0], "has_spare_groups": grid[1] > 1}

    return write(
        context,
        "attention_shuffle.wgsl.j2",
        body,
        LANE,
        grid,
        schedule=str(schedule),
        features=("subgroups",),
        subgroup_size=BLOCK_QUADS,
        wide=wide,
    )


def _staged(context: KernelContext, roles: Roles, schedule: AttentionSchedule) -> Variant:
    down = schedule.workgroup // BLOCK_QUADS
    tile_rows = down * schedule.rows
    tiles = place(_scratch(context), roles, tile_rows)[2]
    grid = grid_for(tiles)

    def body(emitter: Emitter) -> Mapping[str, object]:
        batch, first, _ = place(emitter, roles, tile_rows)
        thread = variable("thread", schedule.workgroup)
        own = bind(emitter, "own_row", thread // BLOCK_QUADS)
        quad = bind(emitter, "own_quad", thread % BLOCK_QUADS)
        span = _shared_span(emitter, roles, batch, "thread")
        tile = Tile(context, roles, emitter, batch, first + own, down, schedule.rows, quad, span)
        block = emitter.fork()
        tile.begin_block(block)
        begin = block.take()
        products = [
            _staged_product(tile, block, number, each, first, schedule)
            for number, each in enumerate(roles.products)
        ]
        numbers = _QueryNumbers.read(tile)
        found = _tiles(tile, block, numbers)
        lines = block.take()
        places = [emitter.index(own + down * i) for i in range(tile.owned)]
        if roles.is_forward:
            lines += _forward_in_memory(block, tile, found["weight"], places)
        for name in roles.tiles if not roles.is_forward else ():
            lines += [
                f"tile_{name}[place_of({at}, own_quad)] = {text};"
                for at, text in zip(places, found[name], strict=True)
            ]
        lines.append("workgroupBarrier();")
        sums = _sums(
            tile,
            block,
            lambda name, i: f"tile_{name}[place_of({places[i]}, t)]",
            adds_totals=roles.is_forward,
        )
        totals = [f"total_{i}" for i in range(tile.owned)]
        return _holes(
            tile, _Loops(products, lines, sums), begin, [], totals, (first, tile_rows)
        ) | {
            "count": tiles,
            "groups_x": grid[0],
            "has_spare_groups": grid[1] > 1,
            "workgroup": schedule.workgroup,
            "tiles": [f"tile_{name}" for name in roles.tiles],
            "tile_size": tile_rows * BLOCK_QUADS,
            "stage_sizes": [tile_rows * LINE, BLOCK * LINE],
            "is_forward": roles.is_forward,
        }

    template = "attention_staged.wgsl.j2"
    return write(context, template, body, LANE, grid, schedule=str(schedule))


def _shared_span(
    emitter: Emitter, roles: Roles, batch: Coordinates, thread: str
) -> SpanNames | None:
    """Write the load of a span, by one invocation for all where memory is not known to hold the
    same for all: shuffles and barriers stand in loops that end where it says."""
    inner = emitter.fork()
    span = read_span(inner, roles, batch)
    if span is None:
        return None
    if not _is_written(emitter, roles.span):
        emitter.lines += inner.take()
        return span
    emitter.lines += [
        f"if ({thread} == 0u) {{",
        *(f"    {line}" for line in inner.take()),
        f"    span = vec2i({span.offset}, {span.length});",
        "}",
        "let shared_span = workgroupUniformLoad(&span);",
    ]
    return SpanNames("shared_span.x", "shared_span.y")


def _is_written(emitter: Emitter, value: Value | None) -> bool:
    """Tell whether `value` is computed from a binding that the kernel may write."""
    pending = [] if value is None else [value]
    while pending:
        each = pending.pop()
        if each not in emitter.places:
            pending += each.node.inputs
        elif emitter.places[each].binding.writable:
            return True
    return False


def _scratch(context: KernelContext) -> Emitter:
    return Emitter({}, {}, context.names, LANE)


@dataclass(frozen=True)
class _QueryNumbers:
    """Logarithms and deltas of the rows, where rows are queries and there are any."""

    logs: Sequence[str] | None
    delta: Sequence[str] | None

    @staticmethod
    def read(tile: Tile) -> _QueryNumbers:
        roles = tile.roles
        if roles.logs is None or roles.delta is None:
            return _QueryNumbers(None, None)
        return _QueryNumbers(tile.per_query(roles.logs), tile.per_query(roles.delta))


def _score_names(tile: Tile, number: int) -> list[str]:
    return [f"product_{number}_{i}" for i in range(tile.owned)]


def _shuffled_product(
    tile: Tile, block: Emitter, number: int, product: Product, lane_rows: Sequence[Index]
) -> Mapping[str, object]:
    """Write a product's loop: lanes read rows and columns once, and pass the rows round."""
    quads = quads_in(product.inner)
    k = variable("k", quads)
    inside = block.fork()
    start = quad_start(inside, "start", k, product.inner)
    held = [tile.read_inner(inside, product.rows, row, k, start) for row in lane_rows]
    reads = [tile.read_inner(inside, product.columns, at, k, start) for at in tile.columns]
    texts = [
        f"subgroupShuffle({held[i // BLOCK_QUADS]}, {i % BLOCK_QUADS}u)" for i in range(tile.owned)
    ]
    return _product_holes(tile, number, inside, reads, texts) | {"trips": f"{quads}u"}


def _staged_product(
    tile: Tile,
    block: Emitter,
    number: int,
    product: Product,
    first: Index,
    schedule: AttentionSchedule,
) -> Mapping[str, object]:
    """Write a product's loop: a workgroup reads parts of both operands into its memory."""
    quads = quads_in(product.inner)
    stage = variable("stage", -(-quads // DEPTH_QUADS))
    thread = variable("thread", schedule.workgroup)
    fill = block.fork()
    keeps: list[str] = []
    down = schedule.workgroup // BLOCK_QUADS
    sides = (
        ("rows", product.rows, first, tile.roles.rows, down * schedule.rows),
        ("columns", product.columns, tile.block * BLOCK, tile.roles.columns, BLOCK),
    )
    for name, value, base, size, count in sides:
        for turn in range(-(-count * DEPTH_QUADS // schedule.workgroup)):
            position = thread + turn * schedule.workgroup
            outer, part = position // DEPTH_QUADS, position % DEPTH_QUADS
            at = clamp(fill, f"{name}_{turn}", base + outer, size)
            quad = stage * DEPTH_QUADS + part
            start = quad_start(fill, f"{name}_start_{turn}", quad, product.inner)
            text = tile.read_inner(fill, value, at, quad, start)
            keep = f"stage_{name}[{fill.index(outer * LINE + part)}] = {text};"
            is_whole = (turn + 1) * schedule.workgroup <= count * DEPTH_QUADS
            if not is_whole:
                keep = f"if ({fill.index(position)} < {count * DEPTH_QUADS}u) {{ {keep} }}"
            keeps.append(keep)
    inside = block.fork()
    k = variable("k", DEPTH_QUADS)
    reads = [
        inside.let("column", f"stage_columns[{inside.index((tile.quad * LANES + i) * LINE + k)}]")
        for i in range(LANES)
    ]
    own = [tile.base - first + tile.step * i for i in range(tile.owned)]
    texts = [f"stage_rows[{inside.index(row * LINE + k)}]" for row in own]
    trips = f"min({DEPTH_QUADS}u, {quads}u - stage * {DEPTH_QUADS}u)"
    return _product_holes(tile, number, inside, reads, texts) | {
        "fill": [*fill.take(), *keeps],
        "stages": -(-quads // DEPTH_QUADS),
        "trips": trips,
    }


def _product_holes(
    tile: Tile, number: int, inside: Emitter, reads: Sequence[str], rows: Sequence[str]
) -> dict[str, object]:
    steps = ", ".join(turned(reads, step) for step in range(LANES))
    names = _score_names(tile, number)
    return {
        "loads": inside.take(),
        "column": f"mat4x4f({steps})",
        "rows": [{"name": f"a_{i}", "text": text, "sum": names[i]} for i, text in enumerate(rows)],
    }


def _tiles(tile: Tile, block: Emitter, numbers: _QueryNumbers) -> dict[str, list[str]]:
    """Write what becomes of the products: scores, for gradients weights and changes."""
    scores = tile.scores(block, _score_names(tile, 0))
    if tile.roles.is_forward:
        return {"weight": scores}
    second = _score_names(tile, 1)
    return tile.gradient_tiles(block, scores, second, numbers.logs, numbers.delta)


def _forward_in_lanes(block: Emitter, tile: Tile, scores: list[str]) -> list[str]:
    """Turn scores into weights, in place; sums so far are brought to the new maximum."""
    power, power_4 = block.call("asg_exp2", 1), block.call("asg_exp2", LANES)
    sums = tile.sum_names(0, tile.roles.sums[0])
    lines: list[str] = []
    for i, score in enumerate(scores):
        lines += [
            f"let top_{i} = max(largest_{i}, top_of({score}));",
            f"let keep_{i} = {power}(largest_{i} - top_{i});",
            f"let weight_{i} = {power_4}({score} - top_{i});",
            f"largest_{i} = top_{i};",
            f"total_{i} = total_{i} * keep_{i} + dot(weight_{i}, vec4f(1.0));",
            *(f"{name} *= keep_{i};" for name in sums[i]),
        ]
        scores[i] = f"weight_{i}"
    return lines


def _forward_in_memory(
    block: Emitter, tile: Tile, scores: Sequence[str], places: Sequence[str]
) -> list[str]:
    """Put weights into workgroup memory, by way of the scores, whose rows others hold too."""
    power, power_4 = block.call("asg_exp2", 1), block.call("asg_exp2", LANES)
    sums = tile.sum_names(0, tile.roles.sums[0])
    lines = [
        f"tile_weight[place_of({at}, own_quad)] = {score};"
        for at, score in zip(places, scores, strict=True)
    ]
    lines.append("workgroupBarrier();")
    for i, at in enumerate(places):
        lines += [
            f"let top_{i} = max(largest_{i}, top_of(place_of({at}, 0u)));",
            f"let keep_{i} = {power}(largest_{i} - top_{i});",
            f"largest_{i} = top_{i};",
            f"total_{i} *= keep_{i};",
            *(f"{name} *= keep_{i};" for name in sums[i]),
        ]
    lines.append("workgroupBarrier(); // before weights overwrite scores that others read")
    lines += [
        f"tile_weight[place_of({at}, own_quad)] = {power_4}({score} - top_{i});"
        for i, (at, score) in enumerate(zip(places, scores, strict=True))
    ]
    return lines


def _sums(
    tile: Tile, block: Emitter, row: Callable[[str, int], str], *, adds_totals: bool = False
) -> Mapping[str, object]:
    """Write the loop that adds tiles times column operands, four columns in a trip."""
    roles = tile.roles
    inside = block.fork()
    quad = tile.block * BLOCK_QUADS + variable("t", BLOCK_QUADS)
    positions = tile.positions(inside, "step", quad)
    columns: list[Mapping[str, object]] = []
    lines: list[Mapping[str, object]] = []
    for number, each in enumerate(roles.sums):
        starts = tile.column_starts(number, each)
        texts = tile.column_matrices(inside, each, starts, positions)
        names = [f"b_{number}_{j}" for j in range(len(texts))]
        columns += [{"name": n, "text": text} for n, text in zip(names, texts, strict=True)]
        for i, sums in enumerate(tile.sum_names(number, each)):
            pairs = [
                {"sum": total, "column": column} for total, column in zip(sums, names, strict=True)
            ]
            name = f"c_{number}_{i}"
            extra = [f"total_{i} += dot({name}, vec4f(1.0));"] if adds_totals else []
            lines.append({"name": name, "text": row(each.tile, i), "pairs": pairs, "lines": extra})
    total = quads_in(roles.columns)
    trips = f"{BLOCK_QUADS}u"
    if total % BLOCK_QUADS:
        trips = f"min({BLOCK_QUADS}u, {total}u - block * {BLOCK_QUADS}u)"
    return {"loads": inside.take(), "columns": columns, "rows": lines, "trips": trips}


def _holes(
    tile: Tile,
    loops: _Loops,
    begin: Sequence[str],
    finish: Sequence[str],
    totals: Sequence[str],
    rows: tuple[Index, int],
) -> dict[str, object]:
    """Return the holes that both templates have."""
    roles = tile.roles
    owned = range(tile.owned)
    if roles.is_forward:
        tops = [f"largest_{i}" for i in owned]
        finish = [*finish, *tile.finish_forward(totals, tops)]
    else:
        finish = tile.finish_gradients()
    names = [
        name
        for number, each in enumerate(roles.sums)
        for line in tile.sum_names(number, each)
        for name in line
    ]
    first_block, blocks = block_range(tile.emitter, roles, *rows, tile.span)
    stores = [
        tile.store(number, each)
        for number, each in enumerate(roles.sums)
        if outputs_of(tile.context, each.result)
    ]
    return {
        "setup": tile.emitter.take(),
        "sums": names,
        "largest": [f"largest_{i}" for i in owned] if roles.is_forward else [],
        "totals": [f"total_{i}" for i in owned] if roles.is_forward else [],
        "lowest": LOWEST_TEXT,
        "first_block": first_block,
        "blocks": blocks,
        "begin": begin,
        "products": loops.products,
        "tile_lines": loops.tiles,
        "adding": loops.sums,
        "finish": finish,
        "stores": stores,
        "logs": tile.store_logs(),
        "log_names": [f"log_{i}" for i in owned],
        "owned": tile.owned,
        "is_first_quad": f"{tile.emitter.index(tile.quad)} == 0u",
        "row_count": roles.rows,
        "has_shared_span": _is_written(tile.emitter, roles.span),
    }
