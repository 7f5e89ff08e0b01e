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
        combine: text of `a` combined with `b`, for the staged template's tree.
    """

    name: str
    type: str
    start: str
    update: Callable[[Emitter, Operand], list[str]]
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

    `across_lanes`: the four lanes hold elements of one row, to be combined at the end.
    """
    kind = node.op.kind
    assert isinstance(kind, Reduction)
    dtype = node.inputs[0].type.dtype
    wide = combine_text(emitter, kind.combine, dtype, width)
    narrow = combine_text(emitter, kind.combine, dtype, 1)
    start = identity(emitter, kind.combine, dtype)
    types = VECTOR if width == LANES else SCALAR

    def update(inner: Emitter, operand: Operand) -> list[str]:
        return [f"{name} = {wide.format(name, inner.widen(operand, width))};"]

    def finish(outer: Emitter, result: str) -> list[str]:
        lines: list[str] = []
        text = name
        if across_lanes:
            first = narrow.format(f"{name}.x", f"{name}.y")
            second = narrow.format(f"{name}.z", f"{name}.w")
            lines.append(f"let {result}_xy = {first};")
            lines.append(f"let {result}_zw = {second};")
            text = narrow.format(f"{result}_xy", f"{result}_zw")
        if family == "serial":
            return [*lines, f"let {result} = {text};"]
        if family == "staged":
            return [*lines, f"let {result} = reduce_{name}({text}, thread);"]
        lines.append(f"let {result}_lane = {text};")
        return [*lines, *_across_subgroup(outer, kind.combine, dtype, result)]

    return Accumulator(
        name,
        SCALAR[dtype],
        f"{types[dtype]}({start})",
        update,
        finish,
        combine=narrow.format("a", "b"),
    )


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
    name: str, node: Node, width: int, emitter: Emitter, position: str
) -> Accumulator:
    """Return the accumulator of argmax or argmin: the first extreme, NaN counting as one.

    `position` is the loop variable's name. Serial schedules only.
    """
    kind = node.op.kind
    if not isinstance(kind, ArgReduction):
        raise InternalError(f"codegen: {node.op.name} is no argmax")
    dtype = node.inputs[0].type.dtype
    combine = Combine.MAX if kind.largest else Combine.MIN
    types = VECTOR if width == LANES else SCALAR
    index_type = "vec4i" if width == LANES else "i32"
    sign = ">" if kind.largest else "<"

    def update(inner: Emitter, operand: Operand) -> list[str]:
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
