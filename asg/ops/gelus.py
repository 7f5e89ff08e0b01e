"""x times the normal distribution's probability of being below x, exact and by tanh.

`asg.functions.gelu` spells them out; a pass puts them together again (`passes/join_gelus.py`),
since one function of x is computed faster than the error function, and a product and a sum.
"""

from __future__ import annotations

import math

import numpy as np

from asg.op import Array, BadSample, Elementwise, Example, Op, Sample
from asg.ops.elementwise import erf, exp, tanh
from asg.ops.rules import FLOAT, pointwise
from asg.tensor import Tensor

ROOT_HALF = math.sqrt(0.5)
ROOT_2_PI = math.sqrt(2.0 / math.pi)
CUBIC = 0.044715


def _gelu(x: Array) -> Array:
    result: Array = 0.5 * x * (1.0 + erf.numpy(x * ROOT_HALF))
    return result


def _gelu_tanh(x: Array) -> Array:
    result: Array = 0.5 * x * (1.0 + np.tanh(ROOT_2_PI * (x + CUBIC * x * x * x)))
    return result


def _slope(x: Tensor) -> Tensor:
    density = exp(-0.5 * (x * x)) * (0.5 * ROOT_2_PI)
    result: Tensor = 0.5 * (1.0 + erf(x * ROOT_HALF)) + x * density
    return result


def _slope_tanh(x: Tensor) -> Tensor:
    square = x * x
    curve = tanh(ROOT_2_PI * (x + CUBIC * (square * x)))
    inner = ROOT_2_PI * (1.0 + 3.0 * CUBIC * square)
    result: Tensor = 0.5 * (1.0 + curve) + 0.5 * x * (1.0 - curve * curve) * inner
    return result


# d x P(x) = (P(x) + x p(x)) dx, p being the normal density
gelu = Op(
    name="gelu",
    doc="The operand times the normal distribution's probability of being below x.",
    kind=Elementwise("asg_gelu({0})", cost=40),
    shape=pointwise(1, FLOAT),
    numpy=_gelu,
    grad=lambda node, g, x: [g * _slope(x)],
    examples=[Example([[0.0, 1.0, -1.0, 9.0]], [0.0, 0.8413447, -0.15865525, 9.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["f32[]"]), Sample(["f32[9]"], low=-40, high=40)],
    errors=[BadSample(["i32[3]"], match="gelu: needs a float input, got i32[3]")],
)

# With u = sqrt(2 / pi) (x + c x^3) and t = tanh(u): d x (1 + t) / 2 =
# ((1 + t) / 2 + x (1 - t^2) u' / 2) dx
gelu_tanh = Op(
    name="gelu_tanh",
    doc="`gelu` with the probability approximated by tanh.",
    kind=Elementwise("asg_gelu_tanh({0})", cost=34),
    shape=pointwise(1, FLOAT),
    numpy=_gelu_tanh,
    grad=lambda node, g, x: [g * _slope_tanh(x)],
    examples=[Example([[0.0, 1.0, -1.0, 9.0]], [0.0, 0.841192, -0.158808, 9.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["f32[]"]), Sample(["f32[9]"], low=-40, high=40)],
    errors=[BadSample(["i32[3]"], match="gelu_tanh: needs a float input, got i32[3]")],
)

OPS = [gelu, gelu_tanh]
