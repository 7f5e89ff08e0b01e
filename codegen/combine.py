"""Accumulators: how a reduction starts, takes an element, and ends, as WGSL statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, SCALAR, VECTOR, Operand, literal
from asg.errors import InternalError
from asg.graph import Node
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
    update: Callable[[Emitter, Operand, str], list[str]]
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

    def update(inner: Emitter, operand: Operand, _: str) -> list[str]:
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


def arg_accumulator(name: str, node: Node, width: int, emitter: Emitter) -> Accumulator:
    """Return the accumulator of argmax or argmin: the first extreme, NaN counting as one.

    Serial schedules only.
    """
    kind = node.op.kind
    if not isinstance(kind, ArgReduction):
        raise InternalError(f"codegen: {node.op.name} is no argmax")
    dtype = node.inputs[0].type.dtype
    combine = Combine.MAX if kind.largest else Combine.MIN
    types = VECTOR if width == LANES else SCALAR
    index_type = "vec4i" if width == LANES else "i32"
    sign = ">" if kind.largest else "<"

    def update(inner: Emitter, operand: Operand, position: str) -> list[str]:
        element = inner.let("element", inner.widen(operand, width))
        better = f"({element} {sign} {name})"
        if dtype is DType.F32:
            test = inner.call("asg_isnan", width)
            better = f"(({better} & !{test}({name})) | ({test}({element}) & !{test}({name})))"
        first = f"({name}_at < {index_type}(0))"
        take = inner.let("take", f"{better} | {first}")
        at = f"vec4i(i32({position}))" if width == LANES else f"i32({position})"
        return [
            f"{name} = select({name}, {element}, {take});",
            f"{name}_at = select({name}_at, {at}, {take});",
        ]

    def finish(_: Emitter, result: str) -> list[str]:
        return [f"let {result} = {name}_at;"]

    start = f"{types[dtype]}({identity(emitter, combine, dtype)})"
    extra = (f"var {name}_at = {index_type}(-1);",)
    return Accumulator(name, SCALAR[dtype], start, update, finish, extra)
