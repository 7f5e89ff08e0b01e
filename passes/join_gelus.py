"""Make one function of gelu, which graphs spell out as products and sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Op
from asg.ops.arithmetic import add, mul
from asg.ops.elementwise import erf, tanh
from asg.ops.gelus import CUBIC, ROOT_2_PI, ROOT_HALF, gelu, gelu_tanh
from asg.passes.known import viewed_constant
from asg.tensor import Tensor

IsOurs = Callable[[Value], bool]


@dataclass(frozen=True)
class JoinGelus:
    """Replace 0.5 x (1 + erf(x / √2)) by `gelu`, and its like with tanh by `gelu_tanh`.

    Acts where nobody else reads what is computed between: a backward pass that needs the error
    function too would compute it twice. Needs simple forms: constants folded, views composed.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op in (erf, tanh) for node in graph.nodes):
            return graph

        def is_ours(value: Value) -> bool:
            users = graph.users.get(value, [])
            return value not in graph.results and all(user is users[0] for user in users)

        renamed: dict[Value, Value] = {}

        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            renamed.update(zip(node.inputs, inputs, strict=True))
            found = _gelu_of(node.inputs, is_ours) if node.op is mul else None
            return None if found is None else (found[0](Tensor(renamed[found[1]])).value,)

        return rewrite(graph, change)


def _gelu_of(inputs: tuple[Value, ...], is_ours: IsOurs) -> tuple[Op, Value] | None:
    """Return which gelu the product of `inputs` is, and of what."""
    factors = _leaves(inputs, mul, is_ours, 3)
    if len(factors) != 3:
        return None
    half = _take(factors, lambda value: _is(value, 0.5))
    total = _take(factors, lambda value: value.node.op is add and is_ours(value))
    if half is None or total is None:
        return None
    x = factors[0]
    terms = list(total.node.inputs)
    if _take(terms, lambda value: _is(value, 1.0)) is None or not is_ours(terms[0]):
        return None
    curve = terms[0].node
    if curve.op is erf and _is_scaled(curve.inputs[0], x, ROOT_HALF, is_ours):
        return gelu, x
    if curve.op is tanh and _is_bent(curve.inputs[0], x, is_ours):
        return gelu_tanh, x
    return None


def _is_scaled(value: Value, x: Value, scale: float, is_ours: IsOurs) -> bool:
    """Tell whether `value` is x times a number."""
    if value.node.op is not mul or not is_ours(value):
        return False
    factors = list(value.node.inputs)
    return _take(factors, lambda each: _is(each, scale)) is not None and factors == [x]


def _is_bent(value: Value, x: Value, is_ours: IsOurs) -> bool:
    """Tell whether `value` is √(2/π) (x + 0.044715 x³)."""
    if value.node.op is not mul or not is_ours(value):
        return False
    factors = list(value.node.inputs)
    if _take(factors, lambda each: _is(each, ROOT_2_PI)) is None:
        return False
    if factors[0].node.op is not add or not is_ours(factors[0]):
        return False
    terms = list(factors[0].node.inputs)
    if _take(terms, lambda each: each == x) is None or not is_ours(terms[0]):
        return False
    cube = _leaves((terms[0],), mul, is_ours, 4)
    return _take(cube, lambda each: _is(each, CUBIC)) is not None and cube == [x, x, x]


def _leaves(values: tuple[Value, ...], op: Op, is_ours: IsOurs, most: int) -> list[Value]:
    """Return what nested nodes of `op` combine, up to `most` leaves."""
    found = list(values)
    for position in range(most):
        while position < len(found) < most:
            value = found[position]
            if value.node.op is not op or not is_ours(value):
                break
            found[position : position + 1] = value.node.inputs
    return found


def _take(values: list[Value], wanted: Callable[[Value], bool]) -> Value | None:
    """Remove the first value that is wanted from a list, and return it."""
    for position, value in enumerate(values):
        if wanted(value):
            return values.pop(position)
    return None


def _is(value: Value, number: float) -> bool:
    """Tell whether a value is this number everywhere."""
    array = viewed_constant(value)
    if array is None or array.size == 0:
        return False
    first = float(array.flat[0])
    is_uniform = array.size == 1 or not any(array.strides)
    return is_uniform and math.isclose(first, number, rel_tol=1e-6)
