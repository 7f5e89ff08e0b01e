"""Text of the attention kernels that both schedule families share: loads, tiles, stores.

Scores are in units of log 2, so that a weight is a power of two. `LOWEST` is the least maximum,
as in `asg/ops/attention_scores.py`: it makes hidden keys weigh nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from asg.codegen.attention_roles import Roles, Sum, outputs_of
from asg.codegen.context import KernelContext, output_coordinates
from asg.codegen.contract_operands import (
    LANE_INDEX,
    Side,
    bind,
    clamp,
    quad_start,
    quads_in,
)
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES, Operand, literal
from asg.graph import Value
from asg.index import Index, constant, flatten, unflatten, variable
from asg.ops.attention_scores import FARTHEST, HIDDEN, LOWEST
from asg.types import DType

BLOCK_QUADS = 8
BLOCK = BLOCK_QUADS * LANES
LOG2_E = 1.0 / math.log(2.0)


@dataclass(frozen=True)
class SpanNames:
    """Variables that hold a span: where the first query stands, and how many keys there are."""

    offset: str
    length: str


@dataclass
class Tile:
    """A kernel under construction: the rows that an invocation owns and the block it looks at.

    Attributes:
        emitter: where statements before the loop over blocks go.
        owned: how many rows an invocation owns; the one numbered i is `base + step * i`.
        quad: which quad of a block's columns, and of the results' columns, it owns.
        span: the span's two numbers, if there is one.
    """

    context: KernelContext
    roles: Roles
    emitter: Emitter
    batch: Coordinates
    base: Index
    step: int
    owned: int
    quad: Index
    span: SpanNames | None = None
    rows: list[Index] = field(init=False)
    columns: list[Index] = field(init=False)
    bounds: list[str] = field(init=False)
    shares: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [
            clamp(self.emitter, f"row_{i}", self.base + self.step * i, self.roles.rows)
            for i in range(self.owned)
        ]
        rows = self.rows if self.span is not None else []
        self.bounds = [self._bound(row) for row in rows]

    def _bound(self, row: Index) -> str:
        """Write where the columns that a row sees end or, where rows are keys, begin."""
        span = self.span
        assert span is not None
        place = f"i32({self.emitter.index(row)})"
        if self.roles.rows_are_queries:
            end = f"min({span.length}, {span.offset} + {place} + 1)"
            return _held(
                self.emitter,
                "seen",
                end if self.roles.is_causal else span.length,
                self.roles.columns,
            )
        since = _held(self.emitter, "since", f"{place} - {span.offset}", self.roles.columns)
        first = since if self.roles.is_causal else "0u"
        return self.emitter.let(
            "since", f"select({self.roles.columns}u, {first}, {place} < {span.length})"
        )

    @property
    def block(self) -> Index:
        return variable("block", -(-self.roles.columns // BLOCK))

    @property
    def block_quad(self) -> Index:
        """The owned quad of the block's columns."""
        return self.block * BLOCK_QUADS + self.quad

    def begin_block(self, emitter: Emitter) -> None:
        """Write which columns the owned quad of a block means."""
        self.columns = self.positions(emitter, "column", self.block_quad)

    def positions(self, emitter: Emitter, name: str, quad: Index) -> list[Index]:
        """Return the columns of a quad, held inside the operands."""
        size = self.roles.columns
        if size % LANES == 0:
            start = quad_start(emitter, name, quad, size)
            return [start + lane for lane in range(LANES)]
        return [
            clamp(emitter, f"{name}_{lane}", quad * LANES + lane, size) for lane in range(LANES)
        ]

    # -- products -----------------------------------------------------------------------------

    def read_inner(
        self, emitter: Emitter, value: Value, outer: Index, quad: Index, start: Index
    ) -> str:
        """Read a quad along the inner axis that was moved to `start`; what repeats is zero."""
        size = value.type.shape[-1]
        text = Side(value, False, value.type.shape[-2], size).read(
            emitter, self.batch, outer, start
        )
        if size < LANES or quad.high * LANES + LANES <= size:
            return text
        steps = f"vec4u({emitter.index(start)}) + vec4u(0u, 1u, 2u, 3u)"
        is_new = f"{steps} >= vec4u({emitter.index(quad * LANES)})"
        return emitter.let("new", f"select(vec4f(), {text}, {is_new})")

    # -- tiles --------------------------------------------------------------------------------

    def at_columns(self, emitter: Emitter, value: Value, at: Callable[[Index], Coordinates]) -> str:
        """Read a value at the four owned columns; return a vec4's text."""
        if self.roles.columns % LANES == 0:
            found = emitter.value(value, at(self.columns[0] + LANE_INDEX))
            return emitter.widen(found, LANES)
        reads = [emitter.value(value, at(position)).text for position in self.columns]
        vector = "vec4<bool>" if value.type.dtype is DType.BOOL else "vec4f"
        return emitter.let(emitter.names[value], f"{vector}({', '.join(reads)})")

    def read_mask(self, emitter: Emitter, mask: Value, row: Index) -> str:
        """Read the mask at a row and the four owned columns."""

        def at(column: Index) -> Coordinates:
            pair = (row, column) if self.roles.rows_are_queries else (column, row)
            return (*self.batch, *pair)

        return self.at_columns(emitter, mask, at)

    def scores(self, emitter: Emitter, names: Sequence[str]) -> list[str]:
        """Write scaled and masked scores of the own quad from the products `names`, a row each."""
        roles = self.roles
        scale = literal(float(roles.node.attrs["scale"]) * LOG2_E, DType.F32).text
        hidden = literal(HIDDEN * LOG2_E, DType.F32).text
        has_tail = roles.columns % BLOCK != 0
        if has_tail or roles.is_causal or self.bounds:
            start = emitter.index(self.block_quad * LANES)
            emitter.lines.append(f"let columns = vec4u({start}) + vec4u(0u, 1u, 2u, 3u);")
        if has_tail:
            emitter.lines.append(f"let is_column = columns < vec4u({roles.columns}u);")
        result: list[str] = []
        self.shares = []
        for i, (row, name) in enumerate(zip(self.rows, names, strict=True)):
            tests = ["is_column"] if has_tail else []
            if self.bounds:
                sign = "<" if roles.rows_are_queries else ">="
                tests.append(f"(columns {sign} vec4u({self.bounds[i]}))")
            elif roles.is_causal:
                sign = "<=" if roles.rows_are_queries else ">="
                tests.append(f"(columns {sign} vec4u({emitter.index(row)}))")
            score = self._capped(emitter, name) if roles.softcap else f"{name} * {scale}"
            if roles.mask is not None:
                mask = self.read_mask(emitter, roles.mask, row)
                if roles.mask.type.dtype is DType.BOOL:
                    tests.append(mask)
                else:
                    score = f"{score} + {mask} * {literal(LOG2_E, DType.F32).text}"
            if tests:
                score = f"select(vec4f({hidden}), {score}, {' & '.join(tests)})"
            result.append(emitter.let("score", score))
        return result

    def _capped(self, emitter: Emitter, product: str) -> str:
        """Write the hyperbolic tangent of a score's share of the cap; return the capped score."""
        cap = self.roles.softcap
        factor = literal(float(self.roles.node.attrs["scale"]) / cap, DType.F32).text
        tanh = emitter.call("asg_tanh", LANES)
        self.shares.append(emitter.let("share", f"{tanh}({product} * {factor})"))
        return f"{self.shares[-1]} * {literal(cap * LOG2_E, DType.F32).text}"

    def per_query(self, value: Value) -> list[str] | None:
        """Write the loads of a number per query where rows are queries; return one per row."""
        if not self.roles.rows_are_queries:
            return None
        return [self.emitter.value(value, (*self.batch, row)).text for row in self.rows]

    def gradient_tiles(
        self,
        emitter: Emitter,
        scores: Sequence[str],
        products: Sequence[str],
        logs: Sequence[str] | None,
        delta: Sequence[str] | None,
    ) -> dict[str, list[str]]:
        """Write weights, and the scores' changes, from scores and the second product."""
        roles = self.roles
        assert roles.logs is not None
        assert roles.delta is not None
        if logs is None or delta is None:

            def at(column: Index) -> Coordinates:
                return (*self.batch, column)

            logs = [self.at_columns(emitter, roles.logs, at)] * self.owned
            delta = [self.at_columns(emitter, roles.delta, at)] * self.owned
        power = emitter.call("asg_exp2", LANES)
        factor = literal(LOG2_E, DType.F32).text
        found: dict[str, list[str]] = {"weight": [], "change": []}
        for i, score in enumerate(scores):
            weight = emitter.let("weight", f"{power}({score} - {logs[i]} * {factor})")
            found["weight"].append(weight)
            if "change" in roles.tiles:
                text = f"{weight} * ({products[i]} - {delta[i]})"
                if self.shares:
                    share = self.shares[i]
                    text = f"{text} * (vec4f(1.0) - {share} * {share})"
                found["change"].append(emitter.let("change", text))
        return found

    # -- sums ---------------------------------------------------------------------------------

    def sum_quads(self, each: Sum) -> int:
        """Return how many quads of a sum an invocation owns."""
        return -(-quads_in(each.width) // BLOCK_QUADS)

    def sum_names(self, number: int, each: Sum) -> list[list[str]]:
        """Return the names of a sum's variables, by row and quad."""
        return [
            [f"sum_{number}_{i}_{j}" for j in range(self.sum_quads(each))]
            for i in range(self.owned)
        ]

    def column_starts(self, number: int, each: Sum) -> list[Index]:
        """Write where the owned quads of a sum's column operand begin."""
        return [
            quad_start(self.emitter, f"start_{number}_{j}", self.quad + BLOCK_QUADS * j, each.width)
            for j in range(self.sum_quads(each))
        ]

    def column_matrices(
        self, emitter: Emitter, each: Sum, starts: Sequence[Index], positions: Sequence[Index]
    ) -> list[str]:
        """Read a column operand at four columns; return a mat4x4 for each owned quad."""
        side = Side(each.columns, True, each.width, self.roles.columns, along_inner=False)
        return [
            "mat4x4f("
            + ", ".join(side.read(emitter, self.batch, start, where) for where in positions)
            + ")"
            for start in starts
        ]

    def store(self, number: int, each: Sum) -> Mapping[str, object]:
        """Return what the template needs to store a sum."""
        inner = self.emitter.fork()
        is_quad = each.width % LANES == 0
        row = variable("row", self.roles.rows)
        column = variable("column", each.width)
        if is_quad:
            column = variable("quad", each.width // LANES) * LANES + LANE_INDEX
        operand = Operand("value", LANES if is_quad else 1, DType.F32)
        self._store_outputs(inner, each.result, (*self.batch, row, column), operand)
        quads = self.sum_quads(each)
        count = self.owned * quads * (1 if is_quad else LANES)
        i = variable("i", count)
        position = i if is_quad else i // LANES
        names = self.sum_names(number, each)
        return {
            "sums": [name for line in names for name in line],
            "count": count,
            "row": inner.index(self.base + position // quads * self.step),
            "quad": inner.index(self.quad + position % quads * BLOCK_QUADS),
            "quad_count": quads_in(each.width),
            "column_count": each.width,
            "last_start": max(each.width - LANES, 0),
            "is_quad": is_quad,
            "lines": inner.take(),
        }

    def store_logs(self) -> Mapping[str, object] | None:
        """Return what the template needs to store the logarithms of the sums, if wanted."""
        result = Value(self.roles.node, 1)
        if not self.roles.is_forward or not outputs_of(self.context, result):
            return None
        inner = self.emitter.fork()
        row = variable("row", self.roles.rows)
        operand = Operand("value", 1, DType.F32)
        self._store_outputs(inner, result, (*self.batch, row), operand)
        i = variable("i", self.owned)
        return {"row": inner.index(self.base + i * self.step), "lines": inner.take()}

    def _store_outputs(
        self, inner: Emitter, result: Value, coordinates: Coordinates, operand: Operand
    ) -> None:
        """Write the stores of an element of a result, and of what maps make of it."""
        inner.bound[result] = operand
        for output in outputs_of(self.context, result):
            where = output_coordinates(self.context, output, coordinates, result)
            inner.store(output, flatten(where, output.type.shape), inner.value(output, where))

    def finish_forward(self, totals: Sequence[str], tops: Sequence[str]) -> list[str]:
        """Write the division of all sums by the rows' totals, and the logarithms of these."""
        log = self.emitter.call("asg_log", 1)
        lines: list[str] = []
        sums = self.sum_names(0, self.roles.sums[0]) if self.roles.sums else []
        for i, (total, top) in enumerate(zip(totals, tops, strict=True)):
            lines.append(f"let factor_{i} = select(1.0 / {total}, 0.0, {total} == 0.0);")
            lines += [f"{name} *= factor_{i};" for name in sums[i]]
            value = f"{top} * {literal(math.log(2.0), DType.F32).text} + {log}({total})"
            lines.append(f"let log_{i} = select({value}, 0.0, {total} == 0.0);")
        return lines

    def finish_gradients(self) -> list[str]:
        """Write the scaling of what changes of scores were added to."""
        scale = literal(float(self.roles.node.attrs["scale"]), DType.F32).text
        return [
            f"{name} *= {scale};"
            for number, each in enumerate(self.roles.sums)
            if each.tile == "change"
            for line in self.sum_names(number, each)
            for name in line
        ]


LOWEST_TEXT = literal(LOWEST * LOG2_E, DType.F32).text


def place(emitter: Emitter, roles: Roles, tile_rows: int) -> tuple[Coordinates, Index, int]:
    """Write which rows `tile` means; return its batch, first row, and how many tiles there are."""
    down = -(-roles.rows // tile_rows)
    count = math.prod(roles.batch)
    tile = variable("tile", count * down)
    first = bind(emitter, "first_row", tile % down * tile_rows)
    batch = bind(emitter, "batch", tile // down)
    return unflatten(batch, roles.batch), first, count * down


def block_range(
    emitter: Emitter, roles: Roles, first: Index, tile_rows: int, span: SpanNames | None
) -> tuple[str, str]:
    """Return the first block that a tile needs and the one behind the last, as text."""
    blocks = -(-roles.columns // BLOCK)
    if span is not None:
        return _spanned_range(emitter, roles, first, tile_rows, span)
    if not roles.is_causal:
        return "0u", f"{blocks}u"
    if roles.rows_are_queries:
        last = emitter.index((first + (tile_rows - 1)) // BLOCK + 1)
        return "0u", f"min({last}, {blocks}u)"
    return emitter.index(first // BLOCK), f"{blocks}u"


def _spanned_range(
    emitter: Emitter, roles: Roles, first: Index, tile_rows: int, span: SpanNames
) -> tuple[str, str]:
    """Return the same where the span says what is seen."""
    place = f"i32({emitter.index(first)})"
    if roles.rows_are_queries:
        end = f"min({span.length}, {span.offset} + {place} + {tile_rows})"
        seen = _held(emitter, "seen", end if roles.is_causal else span.length, roles.columns)
        return "0u", f"({seen} + {BLOCK - 1}u) / {BLOCK}u"
    blocks = f"select(0u, {-(-roles.columns // BLOCK)}u, {place} < {span.length})"
    if not roles.is_causal:
        return "0u", blocks
    since = _held(emitter, "since", f"{place} - {span.offset}", roles.columns)
    return f"{since} / {BLOCK}u", blocks


def _held(emitter: Emitter, name: str, number: str, most: int) -> str:
    """Write an i32 held between 0 and `most`, as u32; return its name."""
    return emitter.let(name, f"u32(clamp({number}, 0, {most}))")


def read_span(emitter: Emitter, roles: Roles, batch: Coordinates) -> SpanNames | None:
    """Write the loads of a tile's span, if there is one."""
    if roles.span is None:
        return None
    lead = batch[: roles.span.type.rank - 1]
    numbers: list[str] = []
    for part, name in enumerate(("offset", "length")):
        loaded = emitter.value(roles.span, (*lead, constant(part))).text
        numbers.append(emitter.let(name, f"clamp(i32({loaded}), -{FARTHEST}, {FARTHEST})"))
    return SpanNames(*numbers)
