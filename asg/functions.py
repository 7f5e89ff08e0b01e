"""Functions on tensors, composed of primitives, under the names of NumPy and PyTorch.

Most are methods of `Tensor` too: `asg.sum(x, axis=0)` is `x.sum(axis=0)`. Those about shapes
live in `asg/shaping.py`, random numbers in `asg/random.py`; all are listed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from asg import arranging, ordering, placing, resampling, running, selecting
from asg.arranging import *  # noqa: F403
from asg.errors import DTypeError
from asg.op import Op
from asg.ops import arithmetic, bits, elementwise, hyperbolic, logic, normalizing, reduction
from asg.ops.convert import cast, stop_gradient
from asg.ops.linear import matmul
from asg.ops.sources import constant
from asg.ordering import *  # noqa: F403
from asg.placing import *  # noqa: F403
from asg.random import fold_in, key, random_bernoulli, random_bits, random_uniform
from asg.resampling import *  # noqa: F403
from asg.running import *  # noqa: F403
from asg.selecting import *  # noqa: F403
from asg.shaping import (
    arange,
    broadcast_to,
    concatenate,
    dynamic_slice,
    dynamic_update_slice,
    expand_dims,
    eye,
    flatten,
    flip,
    full,
    full_like,
    getitem,
    normal_axes,
    normal_axis,
    one_hot,
    ones,
    ones_like,
    permute,
    reshape,
    scatter_add,
    split,
    squeeze,
    stack,
    swapaxes,
    take,
    take_along_axis,
    transpose,
    tri,
    tril,
    triu,
    unsqueeze,
    zeros,
    zeros_like,
)
from asg.tensor import Tensor, as_tensor, bind_operators
from asg.types import DType, as_dtype

__all__ = [
    "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "asin", "asinh",
    "atan", "atanh", "bitcast", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor",
    "broadcast_to", "cast", "ceil", "clip", "concatenate", "constant", "cos", "cosh",
    "dynamic_slice", "dynamic_update_slice", "equal",
    "erf", "exp", "expand_dims", "expm1", "eye", "flatten", "flip", "floor", "floor_divide",
    "fmod", "fold_in", "full", "full_like", "gelu", "getitem", "greater", "greater_equal",
    "isfinite", "isinf", "isnan", "key", "less", "less_equal", "log", "log1p", "log_softmax",
    "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "max",
    "maximum", "mean", "min", "minimum", "mul", "neg", "not_equal", "one_hot", "ones",
    "ones_like", "permute", "pow", "prod", "random_bernoulli", "random_bits",
    "random_uniform", "reciprocal", "relu", "remainder", "reshape", "round", "rsqrt",
    "scatter_add", "shift_left", "shift_right", "sigmoid", "sign", "silu", "sin", "sinh",
    "softmax", "softplus", "split", "sqrt", "square", "squeeze", "stack", "std",
    "stop_gradient", "sub", "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh",
    "transpose", "tri", "tril", "triu", "true_divide", "trunc", "trunc_divide", "unsqueeze",
    "var", "where", "zeros", "zeros_like",
]  # fmt: skip
__all__ += ordering.__all__
__all__ += running.__all__
__all__ += placing.__all__
__all__ += arranging.__all__
__all__ += resampling.__all__
__all__ += selecting.__all__

Axis = int | Sequence[int] | None

abs = arithmetic.abs_
add = arithmetic.add
ceil = arithmetic.ceil
floor = arithmetic.floor
fmod = arithmetic.fmod
maximum = arithmetic.maximum
minimum = arithmetic.minimum
mul = arithmetic.mul
neg = arithmetic.neg
remainder = arithmetic.remainder
round = arithmetic.round_
sign = arithmetic.sign
sub = arithmetic.sub
true_divide = arithmetic.true_divide
trunc = arithmetic.trunc
trunc_divide = arithmetic.trunc_divide
cos = elementwise.cos
erf = elementwise.erf
exp = elementwise.exp
expm1 = elementwise.expm1
log = elementwise.log
log1p = elementwise.log1p
reciprocal = elementwise.reciprocal
rsqrt = elementwise.rsqrt
sigmoid = elementwise.sigmoid
sin = elementwise.sin
sqrt = elementwise.sqrt
tan = elementwise.tan
tanh = elementwise.tanh
acos = hyperbolic.acos
acosh = hyperbolic.acosh
asin = hyperbolic.asin
asinh = hyperbolic.asinh
atan = hyperbolic.atan
atanh = hyperbolic.atanh
cosh = hyperbolic.cosh
sinh = hyperbolic.sinh
bitwise_and = bits.bitwise_and
bitwise_not = bits.bitwise_not
bitwise_or = bits.bitwise_or
bitwise_xor = bits.bitwise_xor
shift_left = bits.shift_left
shift_right = bits.shift_right
equal = logic.equal
greater = logic.greater
greater_equal = logic.greater_equal
isnan = logic.isnan
less = logic.less
less_equal = logic.less_equal
not_equal = logic.not_equal
where = logic.select


def bitcast(x: Any, dtype: object) -> Tensor:
    """Return the same 32 bits read as another element type; no bool has any."""
    result: Tensor = bits.bitcast(x, dtype=as_dtype(dtype))
    return result


def floor_divide(x: Any, y: Any) -> Tensor:
    """Return x / y rounded down; for integers 0 where y is 0."""
    result: Tensor
    if _is_integer(x) and _is_integer(y):
        result = arithmetic.floor_divide(x, y)
        return result
    # As NumPy: x - x mod y is a multiple of y, while floor(x / y) may be one too high.
    rest = remainder(x, y)
    multiple = where(equal(y, 0.0), x, x - rest)
    result = where(equal(rest, y), -1.0, round(true_divide(multiple, y)))
    return result


def _is_integer(x: Any) -> bool:
    if isinstance(x, (int, float)):
        return isinstance(x, int)
    return as_tensor(x).dtype.is_integer


def pow(x: Any, y: Any) -> Tensor:
    """Return x to the power y; small whole numbers y become products.

    Raises:
        DTypeError: both are integers and y is no number from 0 to 64.
    """
    is_number = isinstance(y, (int, float, np.integer, np.floating))
    limit = 4 if not _is_integer(x) else 64
    is_whole = is_number and float(y).is_integer()
    if is_whole and 0 <= y <= limit and not isinstance(x, (int, float)):
        return _repeated_product(as_tensor(x), int(y))
    if is_number and y in (0.5, -0.5, -1) and not _is_integer(x):
        function = {0.5: sqrt, -0.5: rsqrt, -1: reciprocal}[y]
        special: Tensor = function(x)
        return special
    if _is_integer(x) and _is_integer(y):
        raise DTypeError("pow: the exponent of an integer is a number from 0 to 64; fix: cast one")
    result: Tensor = elementwise.pow_(x, y)
    return result


def _repeated_product(x: Tensor, count: int) -> Tensor:
    """Multiply by squaring."""
    result = ones_like(x) if count == 0 else None
    while count:
        if count % 2:
            result = x if result is None else result * x
        count //= 2
        x = x * x if count else x
    assert result is not None
    return result


def square(x: Any) -> Tensor:
    """Return x times itself."""
    result: Tensor = mul(x, x)
    return result


def clip(x: Any, low: Any = None, high: Any = None) -> Tensor:
    """Return x, but at least `low` and at most `high`; NaN where any of them is.

    The gradient of x is 1 between the bounds and on them.
    """
    result = as_tensor(x)
    if low is not None:
        result = where(_is_beyond(less, result, low), low, result)
    return result if high is None else where(_is_beyond(greater, result, high), high, result)


def _is_beyond(compare: Op, x: Tensor, bound: Any) -> Tensor:
    """Return whether a bound takes the place of x: NaN does, if it may be."""
    is_beyond: Tensor = compare(x, bound)
    if isinstance(bound, (int, float, np.number)) and bound == bound:
        return is_beyond
    tensor = as_tensor(bound)
    return logical_or(is_beyond, isnan(tensor)) if tensor.dtype.is_float else is_beyond


def isinf(x: Any) -> Tensor:
    """Return whether each element is infinite."""
    result: Tensor = (bitcast(cast(x, DType.F32), dtype=DType.U32) & 0x7FFFFFFF) == 0x7F800000
    return result


def isfinite(x: Any) -> Tensor:
    """Return whether each element is neither infinite nor NaN."""
    result: Tensor = (bitcast(cast(x, DType.F32), dtype=DType.U32) & 0x7FFFFFFF) < 0x7F800000
    return result


def _as_bool(x: Any) -> Tensor:
    return cast(x, DType.BOOL)


def logical_and(x: Any, y: Any) -> Tensor:
    """Return whether both are true (numbers: not 0)."""
    result: Tensor = bitwise_and(_as_bool(x), _as_bool(y))
    return result


def logical_or(x: Any, y: Any) -> Tensor:
    """Return whether one is true (numbers: not 0)."""
    result: Tensor = bitwise_or(_as_bool(x), _as_bool(y))
    return result


def logical_xor(x: Any, y: Any) -> Tensor:
    """Return whether exactly one is true (numbers: not 0)."""
    result: Tensor = bitwise_xor(_as_bool(x), _as_bool(y))
    return result


def logical_not(x: Any) -> Tensor:
    """Return whether x is false (numbers: 0)."""
    result: Tensor = bitwise_not(_as_bool(x))
    return result


def _reduce(op: Op, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = normal_axes(op, x, axis)
    result: Tensor = op(x, axes=axes) if axes else x
    if not keepdims:
        return result
    return reshape(result, [1 if i in axes else size for i, size in enumerate(x.shape)])


def _as_number(x: Any) -> Tensor:
    tensor = as_tensor(x)
    return cast(tensor, DType.I32) if tensor.dtype is DType.BOOL else tensor


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum along axes (all by default); truth values are counted."""
    return _reduce(reduction.reduce_sum, _as_number(x), axis, keepdims)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the product along axes (all by default)."""
    return _reduce(reduction.reduce_prod, _as_number(x), axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element along axes (all by default); NaN where there is one."""
    return _reduce(reduction.reduce_max, as_tensor(x), axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element along axes (all by default); NaN where there is one."""
    return _reduce(reduction.reduce_min, as_tensor(x), axis, keepdims)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return whether one element along axes (all by default) is true."""
    return _reduce(reduction.reduce_any, _as_bool(x), axis, keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return whether every element along axes (all by default) is true."""
    return _reduce(reduction.reduce_all, _as_bool(x), axis, keepdims)


def _position(op: Op, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    tensor = as_tensor(x)
    rank = tensor.ndim
    flat = flatten(tensor) if axis is None else tensor
    place = 0 if axis is None else normal_axis(op, tensor, axis)
    result: Tensor = op(flat, axis=place)
    if not keepdims:
        return result
    return reshape(result, (1,) * rank) if axis is None else unsqueeze(result, place)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the position of the largest element: the first among equals, or the first NaN."""
    return _position(reduction.argmax, x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the position of the smallest element: the first among equals, or the first NaN."""
    return _position(reduction.argmin, x, axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean along axes (all by default); that of f16 is rounded once, at the end."""
    tensor = cast(x, DType.F32)
    total = sum(tensor, axis, keepdims)
    axes = normal_axes(reduction.reduce_sum, tensor, axis)
    count = math.prod(tensor.shape[i] for i in axes)
    return _as_float(total * (1.0 / count if count else math.nan), x)


def _as_float(result: Tensor, x: Any) -> Tensor:
    """Return what was computed in f32 in the type of `x`, if that is a float."""
    dtype = as_tensor(x).dtype
    return cast(result, dtype) if dtype.is_float else result


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Return the mean squared distance from the mean; `ddof=1` divides by one less."""
    tensor = cast(x, DType.F32)
    axes = normal_axes(reduction.reduce_sum, tensor, axis)
    count = math.prod(tensor.shape[i] for i in axes)
    if count == 0:
        return _as_float(sum(tensor, axis, keepdims) * math.nan, x)
    _, _, squares = normalizing.raw_moments(tensor, axes)
    # The maximum with 0 would have half of the second derivatives of equal numbers.
    squares = where(squares < 0.0, 0.0, squares)
    result: Tensor = squares * (count / (count - ddof) if ddof < count else math.nan)
    return _as_float(result if keepdims else squeeze(result, axes), x)


def std(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Return the square root of the variance. Where that is 0, so is the gradient."""
    variance = var(cast(x, DType.F32), axis, keepdims, ddof)
    is_none = equal(variance, 0.0)
    return _as_float(where(is_none, 0.0, sqrt(where(is_none, 1.0, variance))), x)


def _shifted(x: Any, axis: Axis) -> tuple[Tensor, Tensor]:
    """Return x minus its largest element, which is no part of the gradient, and that element."""
    tensor = as_tensor(x)
    largest: Tensor = stop_gradient(max(tensor, axis, keepdims=True))
    return tensor - largest, largest


def softmax(x: Any, axis: Axis = -1) -> Tensor:
    """Return exp(x) divided by its sum along axes."""
    if isinstance(axis, (int, np.integer)):
        return _along(normalizing.softmax, x, axis)
    shifted, _ = _shifted(x, axis)
    weights = exp(shifted)
    result: Tensor = weights / sum(weights, axis, keepdims=True)
    return result


def log_softmax(x: Any, axis: Axis = -1) -> Tensor:
    """Return the logarithm of softmax."""
    if isinstance(axis, (int, np.integer)):
        return _along(normalizing.log_softmax, x, axis)
    shifted, _ = _shifted(x, axis)
    result: Tensor = shifted - log(sum(exp(shifted), axis, keepdims=True))
    return result


def _along(op: Op, x: Any, axis: int | np.integer[Any]) -> Tensor:
    """Apply an op that works along one axis, counted from either end."""
    operand = as_tensor(x)
    result: Tensor = op(operand, axis=normal_axis(op, operand, int(axis)))
    return result


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) along axes (all by default)."""
    shifted, largest = _shifted(x, axis)
    total: Tensor = log(sum(exp(shifted), axis, keepdims=True)) + largest
    total = where(equal(abs(largest), math.inf), largest, total)
    return total if keepdims else squeeze(total, normal_axes(reduction.reduce_sum, shifted, axis))


def relu(x: Any) -> Tensor:
    """Return x where it is positive, 0 elsewhere; NaN stays. The gradient at 0 is 0."""
    tensor = as_tensor(x)
    result: Tensor = where(tensor <= 0, 0, tensor)
    return result


def gelu(x: Any, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """Return x times the normal distribution's probability of being below x."""
    tensor = as_tensor(x)
    squashed: Tensor
    if approximate == "tanh":
        inner = math.sqrt(2.0 / math.pi) * (tensor + 0.044715 * (tensor * tensor * tensor))
        squashed = tanh(inner)
    else:
        squashed = erf(tensor * math.sqrt(0.5))
    return 0.5 * tensor * (1.0 + squashed)


def silu(x: Any) -> Tensor:
    """Return x sigmoid(x)."""
    result: Tensor = mul(x, sigmoid(x))
    return result


def softplus(x: Any) -> Tensor:
    """Return log(1 + exp(x)), without overflow."""
    above, rest = softplus_terms(as_tensor(x))
    result: Tensor = above + rest
    return result


def softplus_terms(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return max(x, 0) and log(1 + exp(-|x|)), each with one formula's slope at 0, so that their
    sum has all its derivatives there, which neither a tie nor the sign of 0 would give it."""
    is_above = x > 0
    return where(is_above, x, 0), log1p(exp(where(is_above, -x, x)))


_METHODS: tuple[Any, ...] = (
    *arranging.METHODS, *ordering.METHODS, *running.METHODS, *selecting.METHODS,
    abs, acos, acosh, all, any, argmax, argmin, asin, asinh, atan, atanh, broadcast_to, cast,
    ceil, clip, cos, cosh, erf, exp, expm1, flatten, flip, floor, gelu, isfinite, isinf, isnan,
    log, log1p, log_softmax, logsumexp, matmul, max, maximum, mean, min, minimum, permute, pow,
    prod, reciprocal, relu, reshape, round, rsqrt, sigmoid, sign, silu, sin, sinh, softmax,
    softplus, split, sqrt, square, squeeze, std, sum, swapaxes, take, tan, tanh, transpose,
    tril, triu, trunc, unsqueeze, var,
)  # fmt: skip


def _name(function: Any) -> str:
    return function.name if isinstance(function, Op) else str(function.__name__)


bind_operators(
    {_name(function): function for function in _METHODS}
    | {
        "astype": cast,
        "expand_dims": expand_dims,
        "floor_divide": floor_divide,
        "getitem": getitem,
        "true_divide": true_divide,
    }
)
