"""Accumulators: how a reduction starts, takes an element, and ends, as WGSL statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, SCALAR, VECTOR, Operand, literal
from asg.errors import InternalError
from asg.graph import Node
from asg.index import Index
from asg.op import ArgReduction, Combine, Reduction
from asg.types import DType

_SUBGROUP = {
    Combine.SUM: "subgroupAdd({0})",
    Combine.PROD: "subgroupMul({0})",
    Combine.ANY: "subgroupAny({0})",
    Combine.ALL: "subgroupAll({0})",
}


@dataclass(frozen=True)
class Accumulator:
    """One running reduction.

    Attributes:
        type: WGSL type of one combined value.
        update: statements that take an operand, which is at a position along the row.
        combine: text of `a` combined with `b`, for the staged template's tree.
    """

    name: str
    type: str
    start: str
    update: Callable[[Emitter, Operand, Index], list[str]]
    finish: Callable[[Emitter, str], list[str]]
    extra: tuple[str, ...] = ()
    combine: str = ""

    def declare(self) -> list[str]:
        """Return the statements before the loop."""
        return [f"var {self.name} = {self.start};", *self.extra]


def combine_text(emitter: Emitter, combine: Combine, dtype: DType, width: int) -> str:
    """Return the expression that combines `{0}` and `{1}`."""
    match combine:
        case Combine.SUM:
            return "{0} + {1}"
        case Combine.PROD:
            return "{0} * {1}"
        case Combine.ANY:
            return "{0} | {1}"
        case Combine.ALL:
            return "{0} & {1}"
        case Combine.MAX | Combine.MIN:
            plain = "max" if combine is Combine.MAX else "min"
            if dtype is not DType.F32:
                return f"{plain}({{0}}, {{1}})"
            helper = "asg_maximum" if combine is Combine.MAX else "asg_minimum"
            return f"{emitter.call(helper, width)}({{0}}, {{1}})"


def identity(emitter: Emitter, combine: Combine, dtype: DType) -> str:
    """Return what a reduction over nothing yields; infinities come from bits."""
    if combine in (Combine.ANY, Combine.ALL):
        return "false" if combine is Combine.ANY else "true"
    if combine in (Combine.SUM, Combine.PROD):
        return literal(0 if combine is Combine.SUM else 1, dtype).text
    is_max = combine is Combine.MAX
    if dtype is DType.F32:
        return emitter.number(float("-inf") if is_max else float("inf"), dtype).text
    low, high = (0, 2**32 - 1) if dtype is DType.U32 else (-(2**31), 2**31 - 1)
    return literal(low if is_max else high, dtype).text


def value_accumulator(
    name: str, node: Node, width: int, across_lanes: bool, family: str, emitter: Emitter
) -> Accumulator:
    """Return the accumulator of a reduction.

    `across_lanes`: the four lanes hold elements of one row, to be combined at the end. A maximum
    of floats keeps the largest bits beside it, by which a NaN is known: that takes fewer
    operations per element than a maximum that yields NaN.
    """
    kind = node.op.kind
    assert isinstance(kind, Reduction)
    combine, dtype = kind.combine, node.inputs[0].type.dtype
    has_bits = dtype is DType.F32 and combine in (Combine.MAX, Combine.MIN)
    plain = "max" if combine is Combine.MAX else "min"
    lanes = f"{plain}({{0}}, {{1}})" if has_bits else combine_text(emitter, combine, dtype, 1)
    wide = lanes if width == 1 or has_bits else combine_text(emitter, combine, dtype, width)
    types = VECTOR if width == LANES else SCALAR
    bits, bits_type = f"{name}_bits", types[DType.U32]

    def update(inner: Emitter, operand: Operand, _: Index) -> list[str]:
        text = inner.widen(operand, width)
        lines = [f"{name} = {wide.format(name, text)};"]
        if has_bits:
            mask = f"{bits_type}(0x7fffffffu)"
            lines.append(f"{bits} = max({bits}, bitcast<{bits_type}>({text}) & {mask});")
        return lines

    def finish(outer: Emitter, result: str) -> list[str]:
        own = result if family == "serial" else f"{result}_lane"  # what this invocation found
        lines: list[str] = []
        text, largest, left = name, bits, 1 if across_lanes else width
        if across_lanes:
            text = f"{result}_all" if has_bits else own
            lines += _joined(text, name, lanes)
        if across_lanes and has_bits:
            largest = f"{result}_bits"
            lines += _joined(largest, bits, "max({0}, {1})")
        if has_bits:
            nan = outer.widen(outer.number(float("nan"), dtype), left)
            limit = f"{(VECTOR if left == LANES else SCALAR)[DType.U32]}(0x7f800000u)"
            lines.append(f"let {own} = select({text}, {nan}, {largest} > {limit});")
        elif not across_lanes:
            lines.append(f"let {own} = {text};")
        if family == "staged":
            lines.append(f"let {result} = reduce_{name}({own}, thread);")
        if family == "subgroup":
            lines += _across_subgroup(outer, combine, dtype, result)
        return lines

    return Accumulator(
        name,
        SCALAR[dtype],
        f"{types[dtype]}({identity(emitter, combine, dtype)})",
        update,
        finish,
        extra=(f"var {bits} = {bits_type}(0u);",) if has_bits else (),
        combine=combine_text(emitter, combine, dtype, 1).format("a", "b"),
    )


def _joined(result: str, name: str, combine: str) -> list[str]:
    """Combine the four lanes of a variable."""
    first = combine.format(f"{name}.x", f"{name}.y")
    second = combine.format(f"{name}.z", f"{name}.w")
    pair = combine.format(f"{result}_xy", f"{result}_zw")
    return [
        f"let {result}_xy = {first};",
        f"let {result}_zw = {second};",
        f"let {result} = {pair};",
    ]


def _across_subgroup(emitter: Emitter, combine: Combine, dtype: DType, result: str) -> list[str]:
    lane = f"{result}_lane"
    if combine not in (Combine.MAX, Combine.MIN):
        return [f"let {result} = {_SUBGROUP[combine].format(lane)};"]
    builtin = "subgroupMax" if combine is Combine.MAX else "subgroupMin"
    if dtype is not DType.F32:
        return [f"let {result} = {builtin}({lane});"]
    test = emitter.call("asg_isnan", 1)
    nan = emitter.number(float("nan"), dtype).text
    return [
        f"let {result}_nan = subgroupAny({test}({lane}));",
        f"let {result} = select({builtin}({lane}), {nan}, {result}_nan);",
    ]


def arg_accumulator(
    name: str, node: Node, width: int, across_lanes: bool, family: str, emitter: Emitter
) -> Accumulator:
    """Return the accumulator of argmax or argmin: the first extreme, NaN counting as one.

    Elements are compared as words, larger where they are better, so that the best of all lanes
    and invocations is a maximum, and its position a minimum. The least word needs no position:
    where nothing is better, all elements are equal, and the first one is at 0.
    """
    kind = node.op.kind
    if not isinstance(kind, ArgReduction):
        raise InternalError(f"codegen: {node.op.name} is no argmax")
    dtype, is_largest = node.inputs[0].type.dtype, kind.largest
    words = (VECTOR if width == LANES else SCALAR)[DType.U32]

    def update(inner: Emitter, operand: Operand, position: Index) -> list[str]:
        key = _order(inner, inner.widen(operand, width), dtype, width, is_largest)
        element = inner.let("key", key)
        take = inner.let("take", f"{element} > {name}")
        is_scalar = width == 1
        at = inner.index(position) if is_scalar else inner.widen(inner.integer(position), width)
        return [
            f"{name} = select({name}, {element}, {take});",
            f"{name}_at = select({name}_at, {at}, {take});",
        ]

    def finish(_: Emitter, result: str) -> list[str]:
        lines: list[str] = []
        key, at = name, f"{name}_at"
        if across_lanes:
            key, at = f"{result}_key", f"{result}_at"
            lines += _joined(key, name, "max({0}, {1})")
            is_best = f"{name} == vec4u({key})"
            lines.append(f"let {result}_each = select(vec4u(0xffffffffu), {name}_at, {is_best});")
            lines += _joined(at, f"{result}_each", "min({0}, {1})")
        if family == "subgroup":
            lines.append(f"let {result}_best = subgroupMax({key});")
            mine = f"select(0xffffffffu, {at}, {key} == {result}_best)"
            lines.append(f"let {result}_first = subgroupMin({mine});")
            at = f"{result}_first"
        if family == "staged":
            lines.append(f"let {result}_pair = reduce_{name}(vec2u({key}, {at}), thread);")
            at = f"{result}_pair.y"
        is_scalar = across_lanes or width == 1
        lines.append(f"let {result} = {'i32' if is_scalar else 'vec4i'}({at});")
        return lines

    return Accumulator(
        name,
        "vec2u",
        f"{words}(0u)",
        update,
        finish,
        extra=(f"var {name}_at = {words}(0u);",),
        combine="select(select(a, b, b.x > a.x), vec2u(a.x, min(a.y, b.y)), a.x == b.x)",
    )


def _order(emitter: Emitter, text: str, dtype: DType, width: int, is_largest: bool) -> str:
    """Return the word of an element: larger where the element is better."""
    words = (VECTOR if width == LANES else SCALAR)[DType.U32]
    match dtype:
        case DType.F32:
            return f"{emitter.call('asg_order', width)}({'' if is_largest else '-'}{text})"
        case DType.I32:
            flipped = "0x80000000u" if is_largest else "0x7fffffffu"
            return f"bitcast<{words}>({text}) ^ {words}({flipped})"
        case DType.U32:
            return text if is_largest else f"~{text}"
        case _:
            raise InternalError(f"codegen: {dtype} elements have no order")
