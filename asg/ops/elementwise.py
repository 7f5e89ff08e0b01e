"""Elementwise functions of floats: exponentials, roots, angles, powers."""

from __future__ import annotations

import math

import numpy as np

from asg.op import Array, BadSample, Elementwise, Example, Op, Sample
from asg.ops.arithmetic import abs_
from asg.ops.bits import bitwise_and, bitwise_not, bitwise_or
from asg.ops.logic import equal, greater, greater_equal, select
from asg.ops.rules import FLOAT, pointwise
from asg.tensor import Tensor

# Many names begin `asg_`: built-in functions of WGSL may be wrong by hundreds of units in the last
# place, and some drivers lose NaN and infinities. The helpers are precise and tested on their own.

# d exp(x) = exp(x) dx
exp = Op(
    name="exp",
    doc="Exponential function.",
    kind=Elementwise("asg_exp({0})", cost=24, falling="asg_exp_down({0})"),
    shape=pointwise(1, FLOAT),
    numpy=np.exp,
    grad=lambda node, g, x: [g * node],
    examples=[Example([[0.0, 1.0, -1.0]], [1.0, 2.7182818, 0.36787944])],
    samples=[Sample(["f32[4, 3]"]), Sample(["f32[]"]), Sample(["f32[9]"], low=-80, high=3)],
    errors=[BadSample(["i32[3]"], match="exp: needs a float input, got i32[3]")],
)

# d log(x) = dx / x
log = Op(
    name="log",
    doc="Natural logarithm; -inf at 0, NaN below.",
    kind=Elementwise("asg_log({0})", cost=24),
    shape=pointwise(1, FLOAT),
    numpy=np.log,
    grad=lambda node, g, x: [g / x],
    examples=[Example([[1.0, 2.7182818, 0.5]], [0.0, 1.0, -0.6931472])],
    samples=[Sample(["f32[4, 3]"], low=0.2, high=9)],
    errors=[BadSample(["i32[3]"], match="log: needs a float input, got i32[3]")],
)

# d log(1 + x) = dx / (1 + x)
log1p = Op(
    name="log1p",
    doc="Logarithm of 1 + x, exact for small x.",
    kind=Elementwise("asg_log1p({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.log1p,
    grad=lambda node, g, x: [g / (1.0 + x)],
    examples=[Example([[0.0, 1.0, 1e-10]], [0.0, 0.6931472, 1e-10])],
    samples=[Sample(["f32[4, 3]"], low=-0.7, high=9)],
    errors=[BadSample(["i32[3]"], match="log1p: needs a float input, got i32[3]")],
)

# d (exp(x) - 1) = exp(x) dx = (node + 1) dx
expm1 = Op(
    name="expm1",
    doc="Exponential function minus 1, exact for small x.",
    kind=Elementwise("asg_expm1({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.expm1,
    grad=lambda node, g, x: [g * (node + 1.0)],
    examples=[Example([[0.0, 1.0, 1e-10]], [0.0, 1.7182818, 1e-10])],
    samples=[Sample(["f32[4, 3]"])],
    errors=[BadSample(["i32[3]"], match="expm1: needs a float input, got i32[3]")],
)

# d sqrt(x) = dx / (2 sqrt(x))
sqrt = Op(
    name="sqrt",
    doc="Square root; NaN below 0.",
    kind=Elementwise("sqrt({0})", cost=4),
    shape=pointwise(1, FLOAT),
    numpy=np.sqrt,
    grad=lambda node, g, x: [g * 0.5 / node],
    examples=[Example([[4.0, 2.25, 0.0]], [2.0, 1.5, 0.0])],
    samples=[Sample(["f32[4, 3]"], low=0.2, high=9)],
    errors=[BadSample(["i32[3]"], match="sqrt: needs a float input, got i32[3]")],
)

# d x^(-1/2) = -1/2 x^(-3/2) dx
rsqrt = Op(
    name="rsqrt",
    doc="One over the square root.",
    kind=Elementwise("inverseSqrt({0})", cost=4),
    shape=pointwise(1, FLOAT),
    numpy=lambda x: 1.0 / np.sqrt(x),
    grad=lambda node, g, x: [g * -0.5 * (node * node * node)],
    examples=[Example([[4.0, 0.25]], [0.5, 2.0])],
    samples=[Sample(["f32[4, 3]"], low=0.2, high=9)],
    errors=[BadSample(["i32[3]"], match="rsqrt: needs a float input, got i32[3]")],
)

# d (1 / x) = -dx / x^2
reciprocal = Op(
    name="reciprocal",
    doc="One over every element.",
    kind=Elementwise("1.0 / {0}", cost=4),
    shape=pointwise(1, FLOAT),
    numpy=lambda x: 1.0 / x,
    grad=lambda node, g, x: [-g * (node * node)],
    examples=[Example([[4.0, -0.5]], [0.25, -2.0])],
    samples=[Sample(["f32[4, 3]"], low=0.5, high=3)],
    errors=[BadSample(["i32[3]"], match="reciprocal: needs a float input, got i32[3]")],
)

# d sin(x) = cos(x) dx
sin = Op(
    name="sin",
    doc="Sine of an angle in radians.",
    kind=Elementwise("asg_sin({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.sin,
    grad=lambda node, g, x: [g * cos(x)],
    examples=[Example([[0.0, 1.5707964, 0.5235988]], [0.0, 1.0, 0.5])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="sin: needs a float input, got i32[3]")],
)

# d cos(x) = -sin(x) dx
cos: Op = Op(
    name="cos",
    doc="Cosine of an angle in radians.",
    kind=Elementwise("asg_cos({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.cos,
    grad=lambda node, g, x: [-g * sin(x)],
    examples=[Example([[0.0, 3.1415927, 1.0471976]], [1.0, -1.0, 0.5])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="cos: needs a float input, got i32[3]")],
)

# d tan(x) = (1 + tan(x)^2) dx
tan = Op(
    name="tan",
    doc="Tangent of an angle in radians.",
    kind=Elementwise("asg_tan({0})", cost=50),
    shape=pointwise(1, FLOAT),
    numpy=np.tan,
    grad=lambda node, g, x: [g * (1.0 + node * node)],
    examples=[Example([[0.0, 0.78539816]], [0.0, 1.0])],
    samples=[Sample(["f32[4, 3]"], low=-1.2, high=1.2)],
    errors=[BadSample(["i32[3]"], match="tan: needs a float input, got i32[3]")],
)

# d tanh(x) = (1 - tanh(x)^2) dx
tanh = Op(
    name="tanh",
    doc="Hyperbolic tangent.",
    kind=Elementwise("asg_tanh({0})", cost=34),
    shape=pointwise(1, FLOAT),
    numpy=np.tanh,
    grad=lambda node, g, x: [g * (1.0 - node * node)],
    examples=[Example([[0.0, 1.0, -200.0]], [0.0, 0.7615942, -1.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["f32[]"]), Sample(["f32[2, 1, 5]"], low=-40, high=40)],
    errors=[BadSample(["i32[3]"], match="tanh: needs a float input, got i32[3]")],
)


def _sigmoid(x: Array) -> Array:
    """Never exp of a positive number, which could overflow."""
    small = np.exp(-np.abs(x))
    result: Array = np.where(x < 0, small, 1.0) / (1.0 + small)
    return result


# d sigmoid(x) = sigmoid(x) (1 - sigmoid(x)) dx
sigmoid = Op(
    name="sigmoid",
    doc="1 / (1 + exp(-x)).",
    kind=Elementwise("asg_sigmoid({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=_sigmoid,
    grad=lambda node, g, x: [g * node * (1.0 - node)],
    examples=[Example([[0.0, 1.0, -200.0]], [0.5, 0.7310586, 0.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["f32[9]"], low=-40, high=40)],
    errors=[BadSample(["i32[3]"], match="sigmoid: needs a float input, got i32[3]")],
)

_erf = np.vectorize(math.erf, otypes=[np.float64])

# d erf(x) = 2 / sqrt(pi) exp(-x^2) dx
erf = Op(
    name="erf",
    doc="Error function; exact gelu needs it and WGSL has none.",
    kind=Elementwise("asg_erf({0})", cost=44),
    shape=pointwise(1, FLOAT),
    numpy=_erf,
    grad=lambda node, g, x: [g * (2.0 / math.sqrt(math.pi)) * exp(-(x * x))],
    examples=[Example([[0.0, 1.0, -0.5, 9.0]], [0.0, 0.84270079, -0.52049988, 1.0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["f32[0]"])],
    errors=[BadSample(["i32[3]"], match="erf: needs a float input, got i32[3]")],
)


def _pow_grad(node: Tensor, g: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """d x^y = y x^(y-1) dx + x^y log(x) dy.

    At y = 0 the first term is 0 whatever x is, and at x = 0 the second one, unless y is negative:
    there 1 stands for x, so that no infinity meets a 0. A negative x has no power beside y, so
    that the second term is NaN.
    """
    is_zero = equal(y, 0.0)
    has_power = bitwise_or(greater(abs_(x), 0.0), bitwise_not(is_zero))
    is_flat = bitwise_and(equal(x, 0.0), greater_equal(y, 0.0))
    return [
        g * y * pow_(select(has_power, x, 1.0), y - 1.0),
        g * (node * log(select(is_flat, 1.0, x))),
    ]


pow_: Op = Op(
    name="pow",
    doc="Power of two floats: 1 for x^0, NaN for a negative x and a fractional y.",
    kind=Elementwise("asg_pow({0}, {1})", cost=70),
    shape=pointwise(2, FLOAT),
    numpy=np.power,
    grad=_pow_grad,
    examples=[
        Example([[2.0, -2.0, 9.0, 0.0], [10.0, 3.0, 0.5, 0.0]], [1024.0, -8.0, 3.0, 1.0]),
    ],
    samples=[Sample(["f32[4, 3]", "f32[4, 3]"], lows=[0.3, -2], highs=[3, 3])],
    errors=[BadSample(["i32[2]", "i32[2]"], match="pow: needs a float input, got i32[2]")],
    broadcasts=True,
    promotes=True,
)

OPS = (
    exp, log, log1p, expm1, sqrt, rsqrt, reciprocal, sin, cos, tan, tanh, sigmoid, erf, pow_,
)  # fmt: skip
