"""How far a device may be from exact arithmetic: the rounding of each kind of op, in one place.

A single tolerance for a whole result is either too wide for a copy or too narrow for a long sum.
So each node says how much it may round, and a run in float64 in which every node is off by that
much shows what becomes of it further on (`asg.yardstick`). Rounding to f16 or bf16 is no such
scatter: all runs round where the graph says, so what is stored may be off by half a step and by
what moves a number across a tie, not by a multiple of steps. What is left then are the constants
below: how many such disturbed runs, and how far beyond them a result may lie.

`ACCURACY` is a promise in the other direction: how far each function's shader may be from exact
arithmetic, in units in the last place. `tools/ulp.py` measures it on a device, `docs/numerics.md`
prints it.

Values that are no floats must be exact, unless a disturbed run changes them too: where the two
largest elements differ by a rounding, `argmax` may say either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np

from asg.graph import Node
from asg.op import (
    ArgReduction,
    Attention,
    Combine,
    Composite,
    Contraction,
    Cut,
    Elementwise,
    Gather,
    Join,
    Op,
    Procedure,
    Reduction,
    Scatter,
    Source,
    View,
    Written,
)
from asg.types import DType

Array = np.ndarray[Any, Any]
Numerics = Literal["precise", "fast"]
NUMERICS: tuple[Numerics, ...] = ("precise", "fast")

EPSILON = 2.0**-24  # half the distance of neighbouring f32, relatively: one correct rounding
TINY = 2.0**-126  # the least normal f32; devices may flush what is smaller to zero

# The same of the types that results are rounded to: half the distance of neighbours, relatively to
# the power of two below; half of that distance at zero; and what rounds to infinity.
STORED: Mapping[DType, tuple[float, float, float]] = {
    DType.F32: (EPSILON, TINY, 2.0**128 * (1 - 2.0**-25)),
    DType.F16: (2.0**-11, 2.0**-25, 65520.0),
    DType.BF16: (2.0**-8, TINY, 2.0**128 * (1 - 2.0**-9)),
}

# A few disturbed runs see a typical deviation, not the largest one that can be. With 8 on top of
# the 4 roundings of a sum of K terms, its relative tolerance is 32 EPSILON sqrt(K), that is
# 2e-6 sqrt(K).
SAFETY = 8.0
SAMPLES = 4
# Faster forms of functions are off by what is promised, not by a typical part of it: runs in which
# several deviations cancel by chance must not be all there are.
FAST_SAMPLES = 12

# An error of this part of a tensor's size is never called right: where rounding explains it, the
# element is undecided.
MEANINGLESS = 1e-3


@dataclass(frozen=True)
class Rounding:
    """What a node may add, in EPSILONs.

    `result`: relative to its result. `terms`: relative to its result and to the root of the sum
    of its terms' squares, times the root of their number. `operands`: its result may be that of
    operands which are off by this much.
    """

    result: float
    terms: float
    operands: float
    reason: str


@dataclass(frozen=True)
class Accuracy:
    """How far a function may be from exact arithmetic, in units in the last place of the result.

    `ulp` holds wherever sums, products, quotients and roots are rounded correctly, which sums and
    products are everywhere. `allowance` is what WGSL lets quotients and roots add elsewhere.
    `of_operand`: in units in the last place of the largest operand, where the result is smaller:
    terms cancel, by the function's formula. Results below `least` may be 0, as a factor of theirs
    is below the least normal number.
    """

    ulp: float
    allowance: float = 0.0
    of_operand: bool = False
    least: float = TINY


_EXACT = Accuracy(0)
_ROUNDED = Accuracy(0.5)

# Elementwise ops that make floats of floats.
ACCURACY: Mapping[str, Accuracy] = {
    **dict.fromkeys(["neg", "abs", "sign", "floor", "ceil", "round", "trunc"], _EXACT),
    **dict.fromkeys(["maximum", "minimum", "select", "stop_gradient", "copy", "fmod"], _EXACT),
    **dict.fromkeys(["add", "sub", "mul", "remainder"], _ROUNDED),
    "div": Accuracy(0.5, 2.0),
    "reciprocal": Accuracy(0.5, 2.0),
    "sqrt": Accuracy(0.5, 4.0),
    "rsqrt": Accuracy(1.5, 0.5),
    "exp": Accuracy(1.3),
    "expm1": Accuracy(1.5),
    "log": Accuracy(1.0),
    "log1p": Accuracy(1.5),
    "pow": Accuracy(1.5),
    "sin": Accuracy(1.6),
    "cos": Accuracy(1.6),
    "tan": Accuracy(2.0, 2.0),
    "asin": Accuracy(2.5, 4.0),
    "acos": Accuracy(2.0, 4.0),
    "atan": Accuracy(2.5, 2.0),
    "sinh": Accuracy(2.0, 2.0),
    "cosh": Accuracy(2.0, 2.0),
    "asinh": Accuracy(2.5, 4.0),
    "acosh": Accuracy(3.0, 4.0),
    "atanh": Accuracy(2.5, 2.0),
    "tanh": Accuracy(1.3, 2.0),
    "sigmoid": Accuracy(2.0, 2.0),
    "erf": Accuracy(1.5),
    "gelu": Accuracy(2.0, of_operand=True),
    "gelu_tanh": Accuracy(2.0, of_operand=True),
}

# Those that have a faster form, which `numerics="fast"` chooses (`shaders/helpers/fast/`).
FAST: Mapping[str, Accuracy] = {
    "exp": Accuracy(128.0, least=2 * TINY),
    "sigmoid": Accuracy(128.0, 2.0),
    "tanh": Accuracy(32.0, 2.0),
    "erf": Accuracy(512.0),
    "gelu": Accuracy(512.0, of_operand=True),
    "gelu_tanh": Accuracy(512.0, of_operand=True),
}

# Functions made of ops.
COMPOSED: Mapping[str, Accuracy] = {
    "square": _ROUNDED,
    "relu": _EXACT,
    "silu": Accuracy(3.0, 2.0, least=128 * TINY),
    "softplus": Accuracy(3.0),
}

# Those of them that are made of faster forms.
FAST_COMPOSED: Mapping[str, Accuracy] = {
    "silu": Accuracy(130.0, 2.0, least=128 * TINY),
    "softplus": Accuracy(128.0, least=2 * TINY),
}

ROUNDING: Mapping[str, Rounding] = {
    "exact": Rounding(0, 0, 0, "moves or compares elements, and computes none"),
    "simple": Rounding(1, 0, 0, "rounds once; less where a driver fuses a product with a sum"),
    "sum": Rounding(
        1, 4, 0, "terms are added in another order than NumPy's pairwise one; the errors of K "
        "additions grow with sqrt(K)",
    ),
    "product": Rounding(1, 4, 0, "K factors round K times"),
    "composite": Rounding(16, 0, 8, "several functions and a sum, spelt out before it is lowered"),
    "fast composite": Rounding(
        272, 0, 264, "the same, of which one is an exponential function in its faster form"
    ),
}  # fmt: skip


# Composites that choose among elements, and compute none.
CHOOSING = frozenset({"sort", "first_max", "cummax", "cummin"})


def promise(name: str, numerics: Numerics = "precise") -> Accuracy | None:
    """Return what is promised of a function, if anything is."""
    every = {**ACCURACY, **COMPOSED}
    fast = {**FAST, **FAST_COMPOSED} if numerics == "fast" else {}
    return fast.get(name) or every.get(name)


def rounding(op: Op, numerics: Numerics = "precise") -> Rounding:
    """Return what a node of this op may add."""
    kind = op.kind
    match kind:
        case View() | Join() | Gather() | Source() | ArgReduction() | Scatter(adds=False) | Cut():
            return ROUNDING["exact"]
        case Procedure(written=Written(ulp=ulp), is_sum=False):
            return Rounding(2.0 * ulp, 0, 8, "as its definition says")
        case Procedure(combine=Combine.SUM) | Procedure(is_sum=True):
            return ROUNDING["sum"]
        case Procedure(combine=Combine.PROD):
            return ROUNDING["product"]
        case Procedure():
            return ROUNDING["exact"]
        case Elementwise():
            if kind.ulp is not None:
                return Rounding(2.0 * kind.ulp, 0, 8, "as its definition says")
            promised = promise(op.name, numerics)
            if promised is _EXACT:
                return ROUNDING["exact"]
            if promised is None or promised is _ROUNDED:
                return ROUNDING["simple"]
            # A unit in the last place is two EPSILONs of the least number that has it.
            result = 2.0 * (promised.ulp + promised.allowance)
            reason = "its accuracy, and what WGSL allows beyond"
            if promised.of_operand:
                return Rounding(0, result, 0, reason)
            return Rounding(result, 0, 0, reason)
        case Reduction(Combine.SUM):
            return ROUNDING["sum"]
        case Reduction(Combine.PROD):
            return ROUNDING["product"]
        case Reduction():
            return ROUNDING["exact"]
        case Composite() if op.name in CHOOSING:
            return ROUNDING["exact"]
        case Contraction() | Scatter() | Composite(is_sum=True):
            return ROUNDING["sum"]
        case Composite() | Attention():
            return ROUNDING["fast composite" if numerics == "fast" else "composite"]
        case _:
            assert_never(kind)


def half_step(array: Array, dtype: DType) -> Array:
    """Return half the distance of neighbours in a type: what one correct rounding may add."""
    relative, least, _ = STORED[dtype]
    _, exponent = np.frexp(array)
    step: Array = np.maximum(np.ldexp(relative, exponent - 1), least)
    return step


def terms(node: Node, operands: Sequence[Array], result: Array) -> tuple[Array, Array | float]:
    """Return the root of the sum of the squares of each element's terms, and their number.

    Of a product, which has no terms, it is the result itself; of an elementwise function whose
    error counts beside its operand, the operand.
    """
    kind = node.op.kind
    match kind:
        case Reduction(Combine.SUM):
            squares = node.op.numpy(_square(operands[0]), **node.attrs)
            return np.sqrt(squares), operands[0].size / max(result.size, 1)
        case Elementwise():
            return np.abs(operands[0]), 1.0
        case Contraction():
            squares = node.op.numpy(*map(_square, operands), **node.attrs)
            return np.sqrt(squares), operands[0].shape[-1]
        case Scatter(adds=True):
            x, index, updates = operands
            squares = node.op.numpy(_square(x), index, _square(updates), **node.attrs)
            zeros, ones = np.zeros(x.shape), np.ones(updates.shape)
            return np.sqrt(squares), 1 + node.op.numpy(zeros, index, ones, **node.attrs)
        case Procedure(combine=Combine.SUM):
            squares = node.op.numpy(*map(_floats_squared, operands), **node.attrs)
            each_one = (np.ones(x.shape) if x.dtype.kind == "f" else x for x in operands)
            return np.sqrt(squares), np.maximum(node.op.numpy(*each_one, **node.attrs), 1)
        case Composite(is_sum=True) | Procedure(form="written", is_sum=True):
            squares = node.op.numpy(*map(_square, operands), **node.attrs)
            each_one = (np.ones(operand.shape) for operand in operands)
            return np.sqrt(squares), np.maximum(node.op.numpy(*each_one, **node.attrs), 1)
        case _:
            return np.abs(result), operands[0].size / max(result.size, 1)


def _square(array: Array) -> Array:
    return array * array


def _floats_squared(array: Array) -> Array:
    """Leave positions among operands as they are."""
    return _square(array) if array.dtype.kind == "f" else array
