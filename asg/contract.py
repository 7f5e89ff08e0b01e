"""What every op promises: the largest error against exact arithmetic, and what becomes of NaN,
infinities and integers that do not fit. One table, tested op by op, printed in
docs/numerics.md.

A bound is a function of what an op is given: sums round once for each of their terms, so their
bound grows with the sizes of the terms. It holds on every device, in every order of summing, for
operands that are exact. `asg.tolerances` says how far each function of one element may be off, and
how `asg verify` weighs it: typical errors, not the largest ones that can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.graph import Attrs
from asg.op import Elementwise, Op
from asg.ops import TABLE
from asg.tolerances import ACCURACY, EPSILON, ROUNDING, TINY, Accuracy, rounding

Array = np.ndarray[Any, Any]
Limit = Callable[[Op, Attrs, Sequence[Array], Array], Any]


@dataclass(frozen=True)
class Bound:
    """The largest error of a float result: in words, and as absolute numbers.

    `limit(op, attrs, operands, exact)` takes arrays in float64. Without it, a result is as exact
    as the ops that it is spelt out in make it.
    """

    text: str
    limit: Limit | None


@dataclass(frozen=True)
class Contract:
    """What one op promises. `integers` speaks of ops that take integers, and of casts to them."""

    bound: Bound
    special: str
    integers: str = ""


def _nothing(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    return np.zeros(np.shape(exact))


EXACT = Bound("exact", _nothing)
SPELT = Bound("as the ops that it is spelt out in", None)


def _units(accuracy: Accuracy) -> Bound:
    """Return the bound of a function of one element; what WGSL allows beyond is in it."""
    units = accuracy.ulp + accuracy.allowance

    def limit(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
        size = np.abs(exact)
        if accuracy.of_operand:
            size = np.maximum(size, np.nan_to_num(np.abs(operands[0]), posinf=0.0))
        return 2.0 * units * EPSILON * size + max(TINY, accuracy.least)

    return Bound(f"{units:g} ulp{' of x' if accuracy.of_operand else ''}", limit)


def _ones(operands: Sequence[Array]) -> list[Array]:
    """Return 1 for floats; positions stay as they are."""
    return [np.ones(x.shape) if x.dtype.kind == "f" else x for x in operands]


def _sizes(operands: Sequence[Array]) -> list[Array]:
    return [np.abs(x) if x.dtype.kind == "f" else x for x in operands]


def _sum(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """K - 1 sums round what they have so far."""
    total = op.numpy(*_sizes(operands), **attrs)
    count = op.numpy(*_ones(operands), **attrs)
    return count * EPSILON * total + (count + 1.0) * TINY


def _matmul(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    inner = operands[0].shape[-1]
    return (inner + 1) * (EPSILON * np.matmul(*_sizes(operands)) + TINY)


def _convolution(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """Winograd's sums mix a tile of the image, so that the largest element counts everywhere."""
    x, w = _sizes(operands)
    terms = math.prod(w.shape[1:])
    channels = w.reshape(w.shape[0], -1).sum(1).reshape(1, -1, *(1,) * (x.ndim - 2))
    largest = np.nan_to_num(x, posinf=0.0).max(initial=0.0)
    return np.broadcast_to((terms + 1) * (EPSILON * largest * channels + TINY), exact.shape)


def _recurrence(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """Each of the K steps before rounds twice."""
    length = exact.shape[attrs.get("axis", exact.ndim - 1)] if exact.ndim else 1
    return (2 * length + 1) * (EPSILON * op.numpy(*_sizes(operands), **attrs) + TINY)


def _scatter(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """Choices are exact, sums and products round at every step."""
    combine = attrs["combine"]
    if combine in ("none", "max", "min"):
        return np.zeros(exact.shape)
    x, places, updates = operands
    steps = op.numpy(np.ones(x.shape), places, np.ones(updates.shape), combine="add")
    sizes = np.abs(exact)
    if combine == "add":
        sizes = op.numpy(np.abs(x), places, np.abs(updates), combine="add")
    return steps * (EPSILON * sizes + TINY)


def _product(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    x = operands[0]
    axes = attrs.get("axes", (attrs.get("axis", x.ndim - 1),))
    return (math.prod(x.shape[a] for a in axes) + 1) * (EPSILON * np.abs(exact) + TINY)


def _segment_product(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    factors = (operands[2] - operands[1] + 1)[:, None]
    return np.maximum(factors, 1) * (EPSILON * np.abs(exact) + TINY)


def _below(x: Array, axis: int) -> Array:
    """Return how far elements lie below the largest one of their row."""
    if x.shape[axis] == 0:
        return x
    found: Array = np.nan_to_num(x.max(axis, keepdims=True) - x, posinf=0.0)
    return found


def _softmax(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    (x,), axis = operands, attrs["axis"]
    units = _below(x, axis) + 2.0 * x.shape[axis] + 12.0
    return units * EPSILON * np.abs(exact) + TINY


def _log_softmax(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    (x,), axis = operands, attrs["axis"]
    units = _below(x, axis) + np.abs(np.nan_to_num(exact, neginf=0.0))
    return (units + 2.0 * x.shape[axis] + 12.0) * EPSILON


def _cross_entropy(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    x, axis = operands[0], attrs["axis"]
    units = 2.0 * _below(x, axis).max(axis, initial=0.0) + np.abs(exact)
    return (units + 3.0 * x.shape[axis] + 12.0) * EPSILON


def _standardize(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """The mean is off by its rounding, which is taken off again; the variance sums squares."""
    (x,), axes = operands, tuple(attrs["axes"])
    if x.size == 0:
        return np.zeros(exact.shape)
    count = math.prod(x.shape[axis] for axis in axes)
    centred = x - x.mean(axes, keepdims=True)
    first = count * EPSILON * np.abs(x).max(axes, keepdims=True)
    spread = np.abs(centred) + np.abs(centred).mean(axes, keepdims=True) + first
    variance = (centred * centred).mean(axes, keepdims=True) + attrs["eps"]
    root = 1.0 / np.sqrt(variance)
    squares = 1.0 + (first * first) / variance
    return (count + 8.0) * EPSILON * (root * spread + np.abs(exact) * squares) + TINY


def _dequantize(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    return 4.0 * EPSILON * np.abs(exact) + TINY


def _cast(op: Op, attrs: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    return EPSILON * np.abs(exact) + TINY


_NUMPY = "as NumPy"
_KEPT = "moved as they are"
_NAN_STAYS = "NaN where there is one"
_IN_SUMS = "as NumPy; infinite where a partial sum overflows"
_IN_ROWS = "a row with NaN or +infinity is NaN; -infinity has no weight"

_SUMS: Mapping[str, Bound] = {
    **dict.fromkeys(
        ["sum", "scan_sum", "cumsum", "scatter_add", "segments_sum"],
        Bound("K 2^-24 times the sum of the K terms' sizes", _sum),
    ),
    "matmul": Bound("(K + 1) 2^-24 times the sum of the sizes of the K products", _matmul),
    "convolution": Bound(
        "(K + 1) 2^-24 times the largest element times the sum of the K weights' sizes",
        _convolution,
    ),
    **dict.fromkeys(
        ["linear_recurrence", "recur_rows"],
        Bound("(2K + 1) 2^-24 times the recurrence of the sizes, K steps long", _recurrence),
    ),
}  # fmt: skip

_FACTORS = Bound("(K + 1) 2^-24 of the result of K factors", _product)
_PRODUCTS: Mapping[str, Bound] = {
    **dict.fromkeys(["prod", "scan_prod", "cumprod"], _FACTORS),
    "segments_prod": Bound(_FACTORS.text, _segment_product),
}

_COMPOSED: Mapping[str, Contract] = {
    "softmax": Contract(
        Bound("(d + 2K + 12) 2^-24 of the result, d below the largest of K elements", _softmax),
        _IN_ROWS,
    ),
    "log_softmax": Contract(
        Bound("(d + |y| + 2K + 12) 2^-24, d below the largest of K elements", _log_softmax),
        _IN_ROWS,
    ),
    "cross_entropy": Contract(
        Bound("(2d + |y| + 3K + 12) 2^-24, d the span of a row of K elements", _cross_entropy),
        _IN_ROWS,
    ),
    "standardize": Contract(
        Bound("(K + 8) 2^-24 of the result and of its row's, K elements in a row", _standardize),
        "a row with NaN or an infinity is NaN",
    ),
    "attention": Contract(SPELT, "queries that see no key have 0; NaN as in softmax"),
    "attention_query_grad": Contract(SPELT, "as `attention`"),
    "attention_key_grad": Contract(SPELT, "as `attention`"),
    "dequantize": Contract(Bound("2 ulp", _dequantize), _NUMPY),
    "scatter_rows": Contract(
        Bound("exact, but sums and products of K updates: (K + 1) 2^-24", _scatter), _NUMPY,
        "sums and products wrap",
    ),
}  # fmt: skip

_WRAPS = "the lower bits of the type, as in C"
_INTEGERS: Mapping[str, str] = {
    **dict.fromkeys(["add", "sub", "mul", "sum", "prod", "cumsum", "cumprod"], _WRAPS),
    **dict.fromkeys(["scan_sum", "scan_prod", "segments_sum", "segments_prod"], _WRAPS),
    **dict.fromkeys(["scatter_add", "scatter_rows"], _WRAPS),
    **dict.fromkeys(["neg", "abs"], f"{_WRAPS}: the least number stays itself"),
    "floor_divide": "rounded down; 0 where the divisor is 0; the least by -1 is the least",
    "remainder": "the divisor's sign; 0 where it is 0; the least by -1 is 0",
    "trunc_divide": "towards zero; 0 where the divisor is 0; the least by -1 is the least",
    "fmod": "the sign of x; 0 where the divisor is 0; the least by -1 is 0",
    "shift_left": "the lower bits; 0 for amounts below 0 or above 31",
    "shift_right": "the sign is kept; 0 or -1 for amounts below 0 or above 31",
    "cast": "from integers the lower bits; from floats towards zero, the nearest end where it does"
    " not fit, 0 for NaN; to floats the nearest number",
}

_SPECIAL: Mapping[str, str] = {
    **dict.fromkeys(["max", "min", "scan_max", "scan_min", "cummax", "cummin"], _NAN_STAYS),
    **dict.fromkeys(["segments_max", "segments_min", "first_max"], _NAN_STAYS),
    **dict.fromkeys(["argmax", "argmin"], "the first NaN counts as the extreme"),
    **dict.fromkeys(["sort", "sort_rows", "merge_rows"], "NaN is last, before all where it falls"),
    "cast": "rounded to nearest, ties to even; infinity beyond the largest number",
    "sign": "NaN stays; the sign of 0 is 0",
}  # fmt: skip


def contract(op: Op) -> Contract:
    """Return what an op promises."""
    found = _COMPOSED.get(op.name)
    if found is not None:
        return found
    special = _SPECIAL.get(op.name, "")
    integers = _INTEGERS.get(op.name, "")
    for family in (_SUMS, _PRODUCTS):
        if op.name in family:
            return Contract(family[op.name], special or _IN_SUMS, integers)
    if rounding(op) is ROUNDING["exact"]:
        return Contract(EXACT, special or (_NUMPY if op.name in ACCURACY else _KEPT), integers)
    if op.name == "cast":
        return Contract(Bound("0.5 ulp of the result's type", _cast), special, integers)
    if op.name in ACCURACY:
        return Contract(_units(ACCURACY[op.name]), special or _NUMPY, integers)
    if isinstance(op.kind, Elementwise) and op.name in WITHOUT_FLOATS:
        return Contract(EXACT, "", integers)
    raise LookupError(f"{op.name} promises nothing: asg/contract.py")


# Elementwise ops whose results are integers or truth values: exact.
WITHOUT_FLOATS = frozenset(
    {
        "floor_divide", "trunc_divide", "equal", "not_equal", "less", "less_equal", "greater",
        "greater_equal", "isnan", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not",
        "shift_left", "shift_right", "bitcast", "bit_field", "threefry2x32",
    }
)  # fmt: skip


def contracts() -> dict[str, Contract]:
    """Return what every op promises, by name."""
    return {name: contract(op) for name, op in TABLE.items()}


# -- functions made of several ops, under their own names

FunctionLimit = Callable[[Attrs, Sequence[Array], Array], Any]


@dataclass(frozen=True)
class Composed:
    """The largest error of a function: in words, and as absolute numbers, as in `Bound`.

    `limit(options, operands, exact)`: options are those of the call.
    """

    text: str
    limit: FunctionLimit


def _row(x: Array, options: Attrs) -> tuple[int, tuple[int, ...]]:
    """Return how many elements a row has, and the axes that it lies along."""
    axis = options.get("axis")
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return math.prod(x.shape[each] for each in axes), tuple(axes)


def _mean(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    count, axes = _row(operands[0], options)
    return (count + 3.0) * EPSILON * np.abs(operands[0]).mean(axes) + TINY


def _variance(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """The mean is off by up to K roundings of the largest element, the square of which is taken
    off again."""
    count, axes = _row(operands[0], options)
    first = count * EPSILON * np.abs(operands[0]).max(axes)
    unbiased = count / max(count - options.get("ddof", 0), 1)
    return (count + 8.0) * EPSILON * (exact + unbiased * first * first) + TINY


def _deviation(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    square = exact * exact
    off = _variance(options, operands, square)
    low = np.sqrt(np.maximum(square - off, 0.0))
    return np.maximum(np.sqrt(square + off) - exact, exact - low) + 9.0 * EPSILON * exact


def _logsumexp(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    count, axes = _row(operands[0], options)
    largest = np.abs(np.nan_to_num(operands[0].max(axes), posinf=0.0, neginf=0.0))
    return (2.0 * count + 12.0 + largest + np.abs(exact)) * EPSILON


def _rms_norm(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    return (operands[0].shape[-1] + 12.0) * EPSILON * np.abs(exact) + TINY


def _resize(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    x = operands[0]
    shrink = max(n / size for n, size in zip(x.shape, options["shape"], strict=True))
    taps = (4 if options["mode"] == "cubic" else 2) * max(shrink, 1.0)
    largest = np.abs(x).max(initial=0.0)
    return np.full(exact.shape, x.ndim * (taps + 12.0) * EPSILON * largest)


def _grid_sample(options: Attrs, operands: Sequence[Array], exact: Array) -> Any:
    """Places are off by roundings of the size of an axis, and results by their slopes there."""
    x, grid = operands
    steepness = 32.0 if options["mode"] == "bicubic" else 8.0
    reach = sum(x.shape[2:]) * (1.0 + np.abs(grid).max(initial=0.0))
    largest = np.abs(x).max(initial=0.0)
    return np.full(exact.shape, (steepness * reach + 16.0) * EPSILON * largest)


FUNCTIONS: Mapping[str, Composed] = {
    "mean": Composed("(K + 3) 2^-24 times the mean of the K sizes", _mean),
    "var": Composed("(K + 8) 2^-24 of the result and of (K 2^-24 max)²", _variance),
    "std": Composed("what the variance may be off, and 9 2^-24 of the result", _deviation),
    "logsumexp": Composed("(2K + 12 + |max| + |y|) 2^-24", _logsumexp),
    "rms_norm": Composed("(K + 12) 2^-24 of the result, K elements in a row", _rms_norm),
    "resize": Composed(
        "(T + 12) 2^-24 of the largest element for each axis, T elements in a sum", _resize
    ),
    "grid_sample": Composed(
        "(8 S + 16) 2^-24 of the largest element, S the sizes times 1 + |grid|; bicubic 32 S",
        _grid_sample,
    ),
}
