"""Inverse trigonometric functions; hyperbolic functions and their inverses."""

from __future__ import annotations

import math

import numpy as np

from asg.op import BadSample, Elementwise, Example, Op, Sample
from asg.ops.elementwise import sqrt
from asg.ops.rules import FLOAT, pointwise

# WGSL's built-in functions of these names may be wrong by thousands of units in the last place.

# d asin(x) = dx / sqrt(1 - x^2)
asin = Op(
    name="asin",
    doc="Inverse sine; NaN outside -1 … 1.",
    kind=Elementwise("asg_asin({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.arcsin,
    grad=lambda node, g, x: [g / sqrt((1.0 - x) * (1.0 + x))],
    examples=[Example([[0.0, 1.0, -0.5]], [0.0, 1.5707963, -0.5235988])],
    samples=[Sample(["f32[4, 3]"], low=-0.9, high=0.9)],
    errors=[BadSample(["i32[3]"], match="asin: needs a float input, got i32[3]")],
)

# d acos(x) = -dx / sqrt(1 - x^2)
acos = Op(
    name="acos",
    doc="Inverse cosine; NaN outside -1 … 1.",
    kind=Elementwise("asg_acos({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.arccos,
    grad=lambda node, g, x: [-g / sqrt((1.0 - x) * (1.0 + x))],
    examples=[Example([[1.0, 0.0, -1.0, 0.5]], [0.0, 1.5707963, 3.1415927, 1.0471976])],
    samples=[Sample(["f32[4, 3]"], low=-0.9, high=0.9)],
    errors=[BadSample(["i32[3]"], match="acos: needs a float input, got i32[3]")],
)

# d atan(x) = dx / (1 + x^2)
atan = Op(
    name="atan",
    doc="Inverse tangent.",
    kind=Elementwise("asg_atan({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.arctan,
    grad=lambda node, g, x: [g / (1.0 + x * x)],
    examples=[Example([[0.0, 1.0, -1e30]], [0.0, 0.78539816, -1.5707963])],
    samples=[Sample(["f32[4, 3]"], low=-4, high=4)],
    errors=[BadSample(["i32[3]"], match="atan: needs a float input, got i32[3]")],
)

# d sinh(x) = cosh(x) dx
sinh = Op(
    name="sinh",
    doc="Hyperbolic sine.",
    kind=Elementwise("asg_sinh({0})", cost=36),
    shape=pointwise(1, FLOAT),
    numpy=np.sinh,
    grad=lambda node, g, x: [g * cosh(x)],
    examples=[Example([[0.0, 1.0, -2.0]], [0.0, 1.1752012, -3.6268604])],
    samples=[Sample(["f32[4, 3]"])],
    errors=[BadSample(["i32[3]"], match="sinh: needs a float input, got i32[3]")],
)

# d cosh(x) = sinh(x) dx
cosh: Op = Op(
    name="cosh",
    doc="Hyperbolic cosine.",
    kind=Elementwise("asg_cosh({0})", cost=30),
    shape=pointwise(1, FLOAT),
    numpy=np.cosh,
    grad=lambda node, g, x: [g * sinh(x)],
    examples=[Example([[0.0, 1.0, -2.0]], [1.0, 1.5430806, 3.7621957])],
    samples=[Sample(["f32[4, 3]"])],
    errors=[BadSample(["i32[3]"], match="cosh: needs a float input, got i32[3]")],
)

# d asinh(x) = dx / sqrt(x^2 + 1)
asinh = Op(
    name="asinh",
    doc="Inverse hyperbolic sine.",
    kind=Elementwise("asg_asinh({0})", cost=42),
    shape=pointwise(1, FLOAT),
    numpy=np.arcsinh,
    grad=lambda node, g, x: [g / sqrt(x * x + 1.0)],
    examples=[Example([[0.0, 1.1752012, -3.6268604]], [0.0, 1.0, -2.0])],
    samples=[Sample(["f32[4, 3]"], low=-9, high=9)],
    errors=[BadSample(["i32[3]"], match="asinh: needs a float input, got i32[3]")],
)

# d acosh(x) = dx / sqrt(x^2 - 1)
acosh = Op(
    name="acosh",
    doc="Inverse hyperbolic cosine; NaN below 1.",
    kind=Elementwise("asg_acosh({0})", cost=42),
    shape=pointwise(1, FLOAT),
    numpy=np.arccosh,
    grad=lambda node, g, x: [g / sqrt((x - 1.0) * (x + 1.0))],
    examples=[Example([[1.0, 1.5430806, 3.7621957]], [0.0, 1.0, 2.0])],
    samples=[Sample(["f32[4, 3]"], low=1.2, high=9)],
    errors=[BadSample(["i32[3]"], match="acosh: needs a float input, got i32[3]")],
)

# d atanh(x) = dx / (1 - x^2)
atanh = Op(
    name="atanh",
    doc="Inverse hyperbolic tangent; NaN outside -1 … 1.",
    kind=Elementwise("asg_atanh({0})", cost=42),
    shape=pointwise(1, FLOAT),
    numpy=np.arctanh,
    grad=lambda node, g, x: [g / ((1.0 - x) * (1.0 + x))],
    examples=[Example([[0.0, 0.7615942, 1.0]], [0.0, 1.0, math.inf])],
    samples=[Sample(["f32[4, 3]"], low=-0.9, high=0.9)],
    errors=[BadSample(["i32[3]"], match="atanh: needs a float input, got i32[3]")],
)

OPS = (asin, acos, atan, sinh, cosh, asinh, acosh, atanh)
