"""Softmax, norms and activations that are spelt out.

A formula beside what takes its place. Fusion finds one kernel for the parts of nearly all, so it
is gradients that gain: those of whole softmax and whole norms keep nothing but the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asg import functions
from asg.graph import Graph, Node, Value
from asg.op import Op
from asg.ops.arithmetic import add, div, mul, sub
from asg.ops.elementwise import erf, exp, log, pow_, reciprocal, rsqrt, sigmoid, tanh
from asg.ops.movement import broadcast
from asg.ops.normalizing import log_softmax, mean_along, softmax, standardize
from asg.passes.matching import Match, is_private
from asg.passes.patterns import (
    At,
    Call,
    Either,
    Found,
    Mean,
    Num,
    Pattern,
    Product,
    Var,
    inverse_root,
    largest,
    root,
    square,
    stopped,
    total,
)
from asg.tensor import Tensor
from asg.types import DType


@dataclass(frozen=True)
class Formula:
    """What is recognised: `build(found, *values)` makes it of the values in `takes`.

    `roots` are the ops that a match may end with.
    """

    kind: str
    roots: tuple[Op, ...]
    pattern: Pattern
    takes: tuple[str, ...]
    build: Callable[..., Tensor]
    is_single_axis: bool = False


x, w, b = Var("x"), Var("w"), Var("b")
eps = Num("eps")

# -- softmax --------------------------------------------------------------------------------------


def _softmaxes(top: Pattern) -> tuple[Pattern, Pattern]:
    """Softmax and its logarithm, with a maximum taken off before. A gradient does not see that
    where it is the same throughout, so it may be one that no gradient flows through."""
    below = x - top
    powers = Call(exp, (below,))
    log_total = Call(log, (total(powers),))
    return powers / total(powers), Either((below - log_total, x - (log_total + top)))


_softmax, _log_softmax = (
    Either(both)
    for both in zip(_softmaxes(largest(x)), _softmaxes(stopped(largest(x))), strict=True)
)

# -- norms ----------------------------------------------------------------------------------------

_mean = Mean(x)
_centred = x - _mean
_variance = Mean(square(_centred)) + eps
_layer_norm = Either((Call(div, (_centred, root(_variance))), _centred * inverse_root(_variance)))
_scaled_root = inverse_root(_variance) * w
_shifted_norm = x * _scaled_root + (b - _mean * _scaled_root)
_power = Mean(square(x)) + eps
_rms_norm = Either((Call(div, (x, root(_power))), x * inverse_root(_power)))

# -- activations ----------------------------------------------------------------------------------

_cube = Either((Product((x, x, x), 1.0), Call(pow_, (x, Num(3.0))), Product((x, square(x)), 1.0)))
_scaled_cube = Either((Product((x, x, x), 0.044715), Product((_cube,), 0.044715)))
_scaled_square = Either((Product((x, x), 0.044715), Product((square(x),), 0.044715)))
_bent = Either(
    (
        Product((x + _scaled_cube,), math.sqrt(2 / math.pi)),
        Product((x, 1.0 + _scaled_square), math.sqrt(2 / math.pi)),
    )
)
_erf, _tanh = Call(erf, (Product((x,), math.sqrt(0.5)),)), Call(tanh, (_bent,))


def _gelu(curve: Pattern) -> Pattern:
    """x / 2 (1 + curve), in all associations."""
    half = Either((Product((1.0 + curve,), 0.5), 0.5 + Product((curve,), 0.5)))
    return Either((Product((x, 1.0 + curve), 0.5), Product((x, half), 1.0)))


_sigmoid_below = 1.0 + Call(exp, (-x,))
_silu = Call(div, (x, _sigmoid_below))
_sigmoid = 1.0 / _sigmoid_below


def _standardized(found: Found, x: Tensor) -> Tensor:
    result: Tensor = standardize(x, axes=found.axes, eps=found.numbers["eps"])
    return result


def _affine(found: Found, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    result: Tensor = add(mul(_standardized(found, x), w), b)
    return result


def _by_root_of_squares(found: Found, x: Tensor) -> Tensor:
    mean = mean_along(mul(x, x), found.axes or ())
    scale = rsqrt(add(mean, found.numbers["eps"]))
    result: Tensor = mul(x, broadcast(scale, shape=x.shape))
    return result


def _axis(found: Found) -> int:
    (axis,) = found.axes or ()
    return axis


FORMULAS: tuple[Formula, ...] = (
    Formula(
        "softmax", (div, mul), _softmax, ("x",),
        lambda found, x: softmax(x, axis=_axis(found)), is_single_axis=True,
    ),
    Formula(
        "log_softmax", (sub,), _log_softmax, ("x",),
        lambda found, x: log_softmax(x, axis=_axis(found)), is_single_axis=True,
    ),
    Formula("layer_norm", (div, mul), _layer_norm, ("x",), _standardized),
    Formula("layer_norm", (add,), _shifted_norm, ("x", "w", "b"), _affine),
    Formula("rms_norm", (div, mul), _rms_norm, ("x",), _by_root_of_squares),
    Formula("gelu", (mul, div), _gelu(_erf), ("x",), lambda _, x: functions.gelu(x)),
    Formula("gelu", (mul, div), _gelu(_tanh), ("x",), lambda _, x: functions.gelu(x, "tanh")),
    Formula("silu", (div,), _silu, ("x",), lambda _, x: functions.silu(x)),
    Formula("sigmoid", (div, reciprocal), _sigmoid, ("x",), lambda _, x: sigmoid(x)),
)  # fmt: skip


def find_formulas(graph: Graph) -> Mapping[Node, Match]:
    """Return the nodes that are the end of a formula."""
    found: dict[Node, Match] = {}
    for node in graph.nodes:
        for formula in FORMULAS:
            if node.op in formula.roots and node.type.dtype is DType.F32:
                match = _first_match(graph, node, formula)
                if match is not None:
                    found[node] = match
                    break
    return found


def _first_match(graph: Graph, node: Node, formula: Formula) -> Match | None:
    at = At(Value(node), tuple(range(node.type.rank)))
    for found in formula.pattern.match(at, Found(node.type.shape, {}, {})):
        if formula.is_single_axis and len(found.axes or ()) != 1:
            continue
        inside = tuple(dict.fromkeys(each for each in found.inside if each is not node))
        if is_private(graph, node, inside):
            operands = tuple(found.values[name] for name in formula.takes)
            return Match(formula.kind, operands, inside, _maker(formula, found))
    return None


def _maker(formula: Formula, found: Found) -> Callable[..., Tensor]:
    return lambda *values: formula.build(found, *values)
