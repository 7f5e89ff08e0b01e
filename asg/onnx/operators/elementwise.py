"""Operators that work element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Operand, Typed
from asg.onnx.dtypes import NumpyType, computed_type, numpy_type
from asg.onnx.registry import MICROSOFT, converter
from asg.tensor import Tensor
from asg.types import DType

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Acos": F.acos,
    "Acosh": F.acosh,
    "Asin": F.asin,
    "Asinh": F.asinh,
    "Atan": F.atan,
    "Atanh": F.atanh,
    "Cos": F.cos,
    "Cosh": F.cosh,
    "Erf": F.erf,
    "Exp": F.exp,
    "Log": F.log,
    "Mish": lambda x: x * F.tanh(F.softplus(x)),
    "Neg": F.neg,
    "Not": F.logical_not,
    "Reciprocal": F.reciprocal,
    "Sigmoid": F.sigmoid,
    "Sin": F.sin,
    "Sinh": F.sinh,
    "Softplus": F.softplus,
    "Softsign": lambda x: x / (F.abs(x) + 1.0),
    "Sqrt": F.sqrt,
    "Tan": F.tan,
    "Tanh": F.tanh,
}
# Integers are what these make of floats.
_ROUNDING = {"Ceil": F.ceil, "Floor": F.floor, "Round": F.round}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": F.add,
    "And": F.logical_and,
    "BitwiseAnd": F.bitwise_and,
    "BitwiseOr": F.bitwise_or,
    "BitwiseXor": F.bitwise_xor,
    "Equal": F.equal,
    "Greater": F.greater,
    "GreaterOrEqual": F.greater_equal,
    "Less": F.less,
    "LessOrEqual": F.less_equal,
    "Mul": F.mul,
    "Or": F.logical_or,
    "Sub": F.sub,
    "Xor": F.logical_xor,
}


@converter(*_UNARY)
def unary(call: Call) -> Tensor:
    """A function of one operand."""
    return _UNARY[call.op](call[0])


@converter(*_ROUNDING)
def rounding(call: Call) -> Tensor:
    """Whole numbers near floats; halves go to the even one."""
    x = call[0]
    return x if x.dtype.is_integer else _ROUNDING[call.op](x)


@converter(*_BINARY, since=7)
def binary(call: Call) -> Tensor:
    """Operands are broadcast as in NumPy."""
    return _BINARY[call.op](call[0], call[1])


@converter("Abs", "Sign")
def size_and_sign(call: Call) -> Tensor:
    """Unsigned numbers have no sign."""
    x = call[0]
    if x.dtype.is_integer and x.dtype.name.startswith("U"):
        return x if call.op == "Abs" else F.minimum(x, 1)
    found: Tensor = F.abs(x) if call.op == "Abs" else F.sign(x)
    return found


@converter("Div", since=7)
def div(call: Call) -> Tensor:
    """Whole numbers are divided towards zero."""
    x, y = call[0], call[1]
    return F.trunc_divide(x, y) if x.dtype.is_integer else F.true_divide(x, y)


@converter("Mod", since=10)
def mod(call: Call) -> Tensor:
    """The sign of the divisor, or with `fmod` that of the dividend."""
    function = F.fmod if call.get_int("fmod", 0) else F.remainder
    found: Tensor = function(call[0], call[1])
    return found


@converter("Pow", since=7)
def power(call: Call) -> Tensor:
    """The result has the type of the base."""
    x, y = call[0], call[1]
    known = call.constant(1)
    if not x.dtype.is_integer:
        if known is not None and known.size == 1 and np.ndim(known) <= x.ndim:
            return F.broadcast_to(F.pow(x, float(known.item())), _joint(x, y))
        return F.pow(x, F.cast(y, x.dtype))
    if not y.dtype.is_integer:
        return F.cast(F.pow(F.cast(x, DType.F32), y), x.dtype)
    return _integer_power(x, y)


def _joint(x: Tensor, y: Tensor) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(x.shape, y.shape))


def _integer_power(x: Tensor, y: Tensor) -> Tensor:
    """Multiply by squaring, modulo 2^32; 1 / x towards zero for negative powers."""
    x, exponent = F.broadcast_to(x, _joint(x, y)), F.cast(y, DType.U32)
    result, factor = F.ones_like(x), x
    for bit in range(31):
        is_set = F.not_equal(F.bitwise_and(exponent, 1 << bit), 0)
        result = F.where(is_set, result * factor, result)
        factor = factor * factor
    if y.dtype.name.startswith("U"):
        return result
    is_one = F.logical_or(F.equal(x, 1), F.equal(F.abs(x), 1)) if x.dtype is DType.I32 else x == 1
    found: Tensor = F.where(F.logical_or(F.greater_equal(y, 0), is_one), result, F.zeros_like(x))
    return found


@converter("Max", "Min", "Sum", "Mean", since=8)
def variadic(call: Call) -> Tensor:
    """Any number of operands."""
    combine = {"Max": F.maximum, "Min": F.minimum}.get(call.op, F.add)
    result: Tensor = functools.reduce(combine, call.tensors)
    return result / float(call.count) if call.op == "Mean" else result


@converter("Where", since=9)
def where(call: Call) -> Tensor:
    """Elements of one operand or the other."""
    result: Tensor = F.where(call[0], call[1], call[2])
    return result


@converter("Cast", since=6)
def cast(call: Call) -> Tensor | Typed | Operand:
    """Another element type."""
    return converted(call, numpy_type(call.get_int("to")))


@converter("CastLike", since=15)
def cast_like(call: Call) -> Tensor | Typed | Operand:
    """The element type of another operand."""
    return converted(call, call.dtype(1))


def converted(call: Call, target: NumpyType) -> Tensor | Typed | Operand:
    """Return the first operand in another ONNX type."""
    if call.dtype(0) == target:
        return call.operand(0)
    kind = computed_type(target, call.importer.allow_float64)
    return Typed(F.cast(call[0], kind), target)


@converter("BitShift", since=11)
def bit_shift(call: Call) -> Tensor:
    """Bits move to the left or right; all are lost where they move by the width or more."""
    is_left = call.get_text("direction") == "LEFT"
    found: Tensor = (F.shift_left if is_left else F.shift_right)(call[0], call[1])
    return found


@converter("BitwiseNot", since=18)
def bitwise_not(call: Call) -> Tensor:
    """Every bit flipped."""
    found: Tensor = F.bitwise_not(call[0])
    return found


@converter("IsNaN", since=9)
def is_nan(call: Call) -> Tensor:
    """Whether an element is NaN."""
    found: Tensor = F.isnan(call[0])
    return found


@converter("IsInf", since=10)
def is_inf(call: Call) -> Tensor:
    """Whether an element is infinite, on the sides asked for."""
    x = call[0]
    above, below = call.get_int("detect_positive", 1), call.get_int("detect_negative", 1)
    found = F.isinf(x)
    if not above:
        found = F.logical_and(found, F.less(x, 0.0))
    return found if below else F.logical_and(found, F.greater(x, 0.0))


@converter("Clip", since=6)
def clip(call: Call) -> Tensor:
    """Elements between two bounds; the upper one wins."""
    x = call[0]
    if call.opset < 11:
        low, high = call.get_float("min", -np.inf), call.get_float("max", np.inf)
        return F.clip(x, None if low == -np.inf else low, None if high == np.inf else high)
    return F.clip(x, call.optional(1), call.optional(2))


# -- activations ------------------------------------------------------------------------------


@converter("Relu", since=6)
def relu(call: Call) -> Tensor:
    """The larger of x and 0."""
    return F.relu(call[0])


@converter("LeakyRelu", since=6)
def leaky_relu(call: Call) -> Tensor:
    """alpha x below 0."""
    x = call[0]
    found: Tensor = F.where(F.less(x, 0.0), x * call.get_float("alpha", 0.01), x)
    return found


@converter("PRelu", since=7)
def prelu(call: Call) -> Tensor:
    """Slope times x below 0."""
    x = call[0]
    found: Tensor = F.where(F.less(x, 0), x * call[1], x)
    return found


@converter("ThresholdedRelu", since=10)
def thresholded_relu(call: Call) -> Tensor:
    """X above alpha, else 0."""
    x = call[0]
    found: Tensor = F.where(F.greater(x, call.get_float("alpha", 1.0)), x, F.zeros_like(x))
    return found


@converter("Shrink", since=9)
def shrink(call: Call) -> Tensor:
    """0 between -lambd and lambd; what is outside moves by the bias."""
    x, lambd, bias = call[0], call.get_float("lambd", 0.5), call.get_float("bias", 0.0)
    wide = F.cast(x, DType.F32)
    above = F.where(F.greater(wide, lambd), wide - bias, F.zeros_like(wide))
    return F.cast(F.where(F.less(wide, -lambd), wide + bias, above), x.dtype)


def _expm1_below(x: Tensor) -> Tensor:
    """Return exp(x) - 1 below 0, and 0 above, without overflow there."""
    found: Tensor = F.expm1(F.minimum(x, 0.0))
    return found


@converter("Elu", since=6)
def elu(call: Call) -> Tensor:
    """alpha (exp(x) - 1) below 0."""
    x = call[0]
    found: Tensor = F.where(F.greater(x, 0.0), x, _expm1_below(x) * call.get_float("alpha", 1.0))
    return found


@converter("Selu", since=6)
def selu(call: Call) -> Tensor:
    """gamma times `Elu`."""
    x = call[0]
    alpha = call.get_float("alpha", 1.6732632423543772)
    below = _expm1_below(x) * alpha
    found: Tensor = F.where(F.greater(x, 0.0), x, below) * call.get_float(
        "gamma", 1.0507009873554805
    )
    return found


@converter("Celu", since=12)
def celu(call: Call) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    x, alpha = call[0], call.get_float("alpha", 1.0)
    found: Tensor = F.where(F.greater(x, 0.0), x, _expm1_below(x * (1.0 / alpha)) * alpha)
    return found


@converter("HardSigmoid", since=6)
def hard_sigmoid(call: Call) -> Tensor:
    """alpha x + beta between 0 and 1."""
    alpha, beta = call.get_float("alpha", 0.2), call.get_float("beta", 0.5)
    return F.clip(call[0] * alpha + beta, 0.0, 1.0)


@converter("HardSwish", since=14)
def hard_swish(call: Call) -> Tensor:
    """X times a `HardSigmoid` of slope 1/6."""
    x = call[0]
    return x * F.clip(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)


@converter("Swish", since=24)
def swish(call: Call) -> Tensor:
    """X sigmoid(alpha x)."""
    x, alpha = call[0], call.get_float("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * F.sigmoid(x * alpha)


@converter("QuickGelu", domain=MICROSOFT)
def quick_gelu(call: Call) -> Tensor:
    """X sigmoid(alpha x)."""
    x = call[0]
    found: Tensor = x * F.sigmoid(x * call.get_float("alpha", 1.702))
    return found


@converter("Gelu", since=20)
def gelu(call: Call) -> Tensor:
    """The exact form, or the one with tanh."""
    return F.gelu(call[0], "tanh" if call.get_text("approximate", "none") == "tanh" else "none")


@converter("Gelu", "BiasGelu", domain=MICROSOFT)
def contributed_gelu(call: Call) -> Tensor:
    """The exact form, of the sum with a bias."""
    bias = call.optional(1)
    return F.gelu(call[0] if bias is None else call[0] + bias)


@converter("FastGelu", domain=MICROSOFT)
def fast_gelu(call: Call) -> Tensor:
    """The form with tanh, of the sum with a bias."""
    bias = call.optional(1)
    return F.gelu(call[0] if bias is None else call[0] + bias, "tanh")


@converter("BitCast", since=26)
def bit_cast(call: Call) -> Tensor | Typed | Operand:
    """The same bits read as another type."""
    given, target = call.dtype(0), numpy_type(call.get_int("to"))
    if given == target:
        return call.operand(0)
    kind = computed_type(target, call.importer.allow_float64)
    if given.itemsize == target.itemsize == 4:
        return Typed(F.bitcast(call[0], kind), target)
    if given.kind in "iub" and target.kind in "iu" and given.itemsize == target.itemsize < 8:
        return Typed(F.cast(call[0], kind), target)
    raise call.unsupported(f"the bits of {given.name} as {target.name}")
