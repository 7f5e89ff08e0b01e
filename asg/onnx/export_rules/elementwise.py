"""Arithmetic, functions, comparisons and casts.

Runtimes compute ONNX's u32 in few operators, so sums and products of u32 go through i32, which have
the same bits; ONNX's casts between integers keep the low ones.
"""

from __future__ import annotations

import numpy as np

from asg.graph import Node
from asg.onnx.writer import ELEMENT, FLOAT, I32, I64, U32, Rule, Writer
from asg.ops import gelus
from asg.types import DType

_SAME = {
    "neg": "Neg", "abs": "Abs", "floor": "Floor", "ceil": "Ceil", "round": "Round", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "tanh": "Tanh", "sigmoid": "Sigmoid", "erf": "Erf", "asin": "Asin",
    "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "isnan": "IsNaN", "div": "Div", "pow": "Pow",
}  # fmt: skip
_WRAPPING = {"add": "Add", "sub": "Sub", "mul": "Mul"}
_COMPARING = {
    "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
}  # fmt: skip


def dtype_of(node: Node, operand: int = 0) -> DType:
    """Return an operand's element type."""
    return node.inputs[operand].type.dtype


def same(to: Writer, node: Node, *x: str) -> str:
    """ONNX has the op."""
    return to(_SAME[node.op.name], *x)


def wrapping(to: Writer, node: Node, x: str, y: str) -> str:
    """Integers wrap around."""
    return wrapped(to, _WRAPPING[node.op.name], x, y, node.type.dtype)


def wrapped(to: Writer, op: str, x: str, y: str, dtype: DType) -> str:
    """Write a sum, difference or product."""
    if dtype is not DType.U32:
        return to(op, x, y)
    return to.cast(to(op, to.cast(x, I32), to.cast(y, I32)), U32)


def gelu(to: Writer, node: Node, x: str) -> str:
    """Spelt out, since older opsets have none."""
    if node.op is gelus.gelu:
        curve = to("Erf", _scaled(to, x, gelus.ROOT_HALF))
    else:
        cube = to("Mul", to("Mul", x, x), _scaled(to, x, gelus.CUBIC))
        curve = to("Tanh", _scaled(to, to("Add", x, cube), gelus.ROOT_2_PI))
    one = to("Add", curve, to.constant(1.0, np.float32))
    return to("Mul", _scaled(to, x, 0.5), one)


def _scaled(to: Writer, x: str, number: float) -> str:
    return to("Mul", x, to.constant(number, np.float32))


def sign(to: Writer, node: Node, x: str) -> str:
    """NaN has none."""
    if not node.type.dtype.is_float:
        return to("Sign", x)
    return to("Where", to("IsNaN", x), x, to("Sign", x))


def trunc(to: Writer, node: Node, x: str) -> str:
    """ONNX rounds down or up."""
    return to("Where", to("Less", x, to.constant(0.0, np.float32)), to("Ceil", x), to("Floor", x))


def rsqrt(to: Writer, node: Node, x: str) -> str:
    """One over the root."""
    return to("Reciprocal", to("Sqrt", x))


def log1p(to: Writer, node: Node, x: str) -> str:
    """log(u) x / (u - 1) with u = 1 + x rounded: the error of u cancels."""
    one = to.constant(1.0, np.float32)
    u = to("Add", x, one)
    found = to("Mul", to("Log", u), to("Div", x, to("Sub", u, one)))
    is_plain = to("Or", to("Equal", u, one), to("IsInf", u, detect_negative=0))
    return to("Where", is_plain, x, found)


def expm1(to: Writer, node: Node, x: str) -> str:
    """(u - 1) x / log(u) with u = exp(x) rounded: the error of u cancels."""
    one = to.constant(1.0, np.float32)
    u = to("Exp", x)
    below = to("Sub", u, one)
    found = to("Mul", below, to("Div", x, to("Log", u)))
    is_far = to("Or", to("IsInf", u), to("Equal", u, to.constant(0.0, np.float32)))
    found = to("Where", is_far, below, found)
    return to("Where", to("Equal", u, one), x, found)


def maximum(to: Writer, node: Node, x: str, y: str) -> str:
    """The larger or smaller; NaN if one is."""
    op = {"maximum": "Max", "minimum": "Min"}[node.op.name]
    return larger(to, op, x, y, node.type.dtype)


def larger(to: Writer, op: str, x: str, y: str, dtype: DType) -> str:
    """Write `Max` or `Min`."""
    found = to(op, x, y)
    if not dtype.is_float:
        return found
    return to("Where", to("IsNaN", x), x, to("Where", to("IsNaN", y), y, found))


def _divided(to: Writer, x: str, y: str) -> tuple[str, str, str, str]:
    """Return i64 operands with a divisor that is never 0, where it was, and a 0."""
    zero, one = to.constant(0, np.int64), to.constant(1, np.int64)
    wide, divisor = to.cast(x, I64), to.cast(y, I64)
    is_zero = to("Equal", divisor, zero)
    return wide, to("Where", is_zero, one, divisor), is_zero, zero


def integer_division(to: Writer, node: Node, x: str, y: str) -> str:
    """Quotients rounded down or towards zero, and remainders; 0 where the divisor is 0."""
    name = node.op.name
    wide, divisor, is_zero, zero = _divided(to, x, y)
    if name in ("floor_divide", "remainder"):
        rest = to("Mod", wide, divisor)
        found = to("Div", to("Sub", wide, rest), divisor) if name == "floor_divide" else rest
    else:
        size = to("Div", to("Abs", wide), to("Abs", divisor))
        is_negative = to("Xor", to("Less", wide, zero), to("Less", divisor, zero))
        found = to("Where", is_negative, to("Neg", size), size)
        if name == "fmod":
            found = to("Sub", wide, to("Mul", found, divisor))
    return to.cast(to("Where", is_zero, zero, found), ELEMENT[node.type.dtype])


def remainder(to: Writer, node: Node, x: str, y: str) -> str:
    """With the divisor's sign, or (`fmod`) with that of the other."""
    if not node.type.dtype.is_float:
        return integer_division(to, node, x, y)
    rest = to("Mod", x, y, fmod=1)
    if node.op.name == "fmod":
        return rest
    zero = to.constant(0.0, np.float32)
    is_other = to("Xor", to("Less", rest, zero), to("Less", y, zero))
    is_off = to("And", to("Not", to("Equal", rest, zero)), is_other)
    return to("Where", is_off, to("Add", rest, y), rest)


def compare(to: Writer, node: Node, x: str, y: str) -> str:
    """Comparisons."""
    name = node.op.name
    op = _COMPARING["equal" if name == "not_equal" else name]
    found = to(op, to.ordered(x, dtype_of(node)), to.ordered(y, dtype_of(node)))
    return to("Not", found) if name == "not_equal" else found


def select(to: Writer, node: Node, condition: str, x: str, y: str) -> str:
    """One or the other."""
    return to.where(condition, x, y, node.type.dtype)


def cast(to: Writer, node: Node, x: str) -> str:
    """Floats become integers towards zero, within the range; NaN becomes 0."""
    source, target = dtype_of(node), node.type.dtype
    if source is target:
        return x
    if source.is_float and source.is_narrow:
        x, source = to.cast(x, FLOAT), DType.F32
    zero = to.constant(0.0, np.float32)
    if source.is_float and target is DType.BOOL:
        return to("Not", to("Equal", x, zero))
    if not (source.is_float and target.is_integer):
        return to.cast(x, ELEMENT[target])
    known = to("Where", to("IsNaN", x), zero, x)
    return _whole(to, known, target)


def _whole(to: Writer, x: str, target: DType) -> str:
    """Return numbers as integers of a type, at the ends of its range where they do not fit."""
    limits = np.iinfo(target.numpy)
    # The largest f32 that is in range: the type's largest number may be none.
    last = np.float32(limits.max)
    last = last if int(last) <= limits.max else np.nextafter(last, np.float32(0))
    near = to("Clip", x, to.constant(limits.min, np.float32), to.constant(last))
    if target is DType.U32:  # by halves, which fit an i32
        half = to.constant(2.0**31, np.float32)
        is_high = to("GreaterOrEqual", near, half)
        low = to.cast(to.cast(to("Where", is_high, to("Sub", near, half), near), I32), U32)
        added = to("Where", is_high, to.constant(-(1 << 31), np.int32), to.constant(0, np.int32))
        found = to("BitwiseOr", low, to.cast(added, U32))
    else:
        found = to.cast(to.cast(near, I32), ELEMENT[target])
    if int(last) == limits.max:
        return found
    is_beyond = to("Greater", x, to.constant(last))
    return to.where(is_beyond, to.constant(limits.max, target.numpy), found, target)


def unchanged(to: Writer, node: Node, x: str) -> str:
    """The operand itself."""
    return x


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(_WRAPPING, wrapping),
    **dict.fromkeys((*_COMPARING, "not_equal"), compare),
    **dict.fromkeys(("floor_divide", "trunc_divide"), integer_division),
    **dict.fromkeys(("remainder", "fmod"), remainder),
    **dict.fromkeys(("maximum", "minimum"), maximum),
    **dict.fromkeys(("stop_gradient", "copy"), unchanged),
    **dict.fromkeys(("gelu", "gelu_tanh"), gelu),
    "sign": sign,
    "trunc": trunc,
    "rsqrt": rsqrt,
    "log1p": log1p,
    "expm1": expm1,
    "select": select,
    "cast": cast,
}
