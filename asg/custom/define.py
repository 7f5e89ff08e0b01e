"""New ops, by an expression in WGSL or by other ops.

hard_swish = asg.define_op(
    "hard_swish",
    numpy=lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    wgsl="{0} * clamp({0} / 6.0 + {F}(0.5), {F}(0.0), {F}(1.0))",
    gradient=lambda g, y, x: g * asg.where((x > -3) & (x < 3), x / 3 + 0.5, x > 0),
)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from asg.custom.gradients import Body
from asg.custom.rules import (
    Signature,
    Types,
    as_tuple,
    check_name,
    guard_expansion,
    guard_gradient,
    guard_numpy,
    guard_types,
)
from asg.errors import GraphError, ShapeError
from asg.graph import Attrs
from asg.op import (
    ByExpansion,
    Composite,
    Elementwise,
    GradRule,
    Kind,
    NoGradient,
    Op,
    ShapeRule,
    no_gradient,
)
from asg.ops.rules import FLOAT, pointwise
from asg.types import TensorType, as_dtype

Function = Callable[..., Any]
Expressions = str | Mapping[Any, str]
LETTERS = ("F", "I", "U", "B", "R", "r")  # stand for types in an expression
ULP = 8.0  # what an expression of a few operations may be off
COST = 8


def define_op(
    name: str,
    *,
    numpy: Callable[..., Any] | None = None,
    wgsl: Expressions | None = None,
    expand: Callable[..., Any] | None = None,
    types: Callable[..., Types] | None = None,
    gradient: Callable[..., Any] | NoGradient | None = None,
    doc: str = "",
    ulp: float = ULP,
    cost: int = COST,
    is_sum: bool = False,
) -> Op:
    """Return a new op: an expression per element (`wgsl`), or a function of other ops (`expand`).

    Operands are given by position. Attributes are the keyword-only parameters of `numpy` (of
    `expand` where that is all there is); every other function gets them too.

    Args:
        numpy: what the op means: `numpy(*arrays, **attributes)`. With `expand` it may be left
            out; where it is there, the two are compared by every check.
        wgsl: an expression with `{0}`, `{1}` … for operands, which have one or four lanes: write
            `{F}(0.5)` for a number, `{top}` for a number that is the attribute `top`.
            `asg.op.Elementwise` says more. A mapping chooses by the first operand's dtype.
            Operands are broadcast to one shape and promoted.
        expand: `expand(*tensors, **attributes)` gives the result, or a tuple.
        types: `types(*operand_types, **attributes)` gives the type of the result, or a tuple.
            Unless told: that of the expansion, or floats of one type in and out.
        gradient: `gradient(cotangent, result, *operands, **attributes)` gives a cotangent (or
            None) for each operand; or `asg.op.not_differentiable("why")`. Unless told, that of
            the expansion; an expression has none.
        ulp: how far the expression may be from exact arithmetic, in units in the last place.
        cost: arithmetic operations per element, to judge whether it is computed again.
        is_sum: each result element is a sum of products of elements, and rounds like one.

    Raises:
        GraphError: what is given does not make an op; the message names it.
    """
    check_name(name)
    if (wgsl is None) == (expand is None):
        raise GraphError(f"{name}: give either wgsl or expand")
    meaning = numpy or expand
    if meaning is None:  # no expansion, so there is an expression
        raise GraphError(f"{name}: an expression needs numpy=, which says what it means")
    signature = Signature.of(name, meaning)
    given = _Given(name, signature, numpy, types, gradient)
    if expand is not None:
        made = _by_expansion(given, expand, is_sum)
    else:
        made = _by_expression(given, wgsl or "", cost, ulp)
    return Op(
        name=name,
        doc=doc or inspect.getdoc(meaning) or "An op of the user's own.",
        kind=made.kind,
        shape=made.rule,
        numpy=made.run,
        grad=made.grad,
        examples=(),
        samples=(),
        errors=(),
        broadcasts=made.is_joint,
        promotes=made.is_joint,
        defaults=signature.defaults,
    )


@dataclass(frozen=True)
class _Given:
    """What a definition says, whichever way the op is lowered."""

    name: str
    signature: Signature
    numpy: Function | None
    types: Callable[..., Types] | None
    gradient: Function | NoGradient | None

    def grad(self, default: GradRule) -> GradRule:
        """Return the gradient rule; `default` where none is given."""
        if self.gradient is None or isinstance(self.gradient, NoGradient):
            return self.gradient or default
        return guard_gradient(self.name, self.gradient)


@dataclass(frozen=True)
class _Made:
    """The rules of an op. `is_joint`: several operands meet in one shape and dtype."""

    kind: Kind
    rule: ShapeRule
    run: Function
    grad: GradRule
    is_joint: bool = False


def _by_expansion(given: _Given, expand: Function, is_sum: bool) -> _Made:
    name, types = given.name, given.types
    body = Body(name, given.signature, expand)
    rule = body.types if types is None else guard_types(given.signature, types)
    return _Made(
        kind=Composite(guard_expansion(name, rule, expand), is_sum, is_call=True),
        rule=rule,
        run=body.run if given.numpy is None else guard_numpy(name, rule, given.numpy),
        grad=given.grad(ByExpansion()),
    )


def _by_expression(given: _Given, wgsl: Expressions, cost: int, ulp: float) -> _Made:
    name = given.name
    assert given.numpy is not None
    count = _check_expressions(name, given.signature, wgsl)
    rule = _pointwise(given.signature, count, given.types)
    by_dtype = wgsl if isinstance(wgsl, str) else {as_dtype(k): text for k, text in wgsl.items()}
    return _Made(
        kind=Elementwise(by_dtype, cost=cost, ulp=ulp),
        rule=rule,
        run=guard_numpy(name, rule, given.numpy),
        grad=given.grad(no_gradient("its definition gives none")),
        is_joint=count > 1,
    )


def _check_expressions(name: str, signature: Signature, wgsl: Expressions) -> int:
    """Return how many operands the op has; its expressions must name no others, and no attribute
    that it has not.

    Raises:
        GraphError: an expression can't be filled.
    """
    texts = [wgsl] if isinstance(wgsl, str) else list(wgsl.values())
    used: set[int] = set()
    for text in texts:
        used |= _operands_in(name, text, (*signature.required, *signature.defaults))
    count = max(used, default=-1) + 1
    if signature.operands and not signature.is_open:
        count = len(signature.operands)
    for place in sorted(used):
        if place >= count:
            raise GraphError(f"{name}: its WGSL names operand {{{place}}}, it has {count}")
    if not used:
        raise GraphError(f"{name}: its WGSL names no operand; {{0}} is the first")
    return count


def _operands_in(name: str, text: str, attributes: Sequence[str]) -> set[int]:
    try:
        fields = [found for _, found, _, _ in Formatter().parse(text) if found is not None]
    except ValueError as error:
        raise GraphError(f"{name}: its WGSL has a brace that names nothing: {error}") from None
    for found in fields:
        if not found.isdigit() and found not in (*LETTERS, *attributes):
            known = ", ".join(f"{{{each}}}" for each in (*LETTERS, *attributes))
            raise GraphError(f"{name}: its WGSL names {{{found}}}; known: {{0}}, {{1}} …, {known}")
    return {int(found) for found in fields if found.isdigit()}


def _pointwise(signature: Signature, count: int, types: Callable[..., Types] | None) -> ShapeRule:
    """Return the type rule of an expression: whatever the dtypes, all shapes are one."""
    same = pointwise(count, FLOAT)

    def default(*operands: TensorType, **attrs: Any) -> Types:
        return same(operands, attrs)

    guarded = guard_types(signature, types or default)

    def rule(operands: tuple[TensorType, ...], attrs: Attrs) -> Types:
        found = guarded(operands, attrs)
        shapes = {each.shape for each in (*operands, *as_tuple(found))}
        if len(shapes) > 1:
            listed = ", ".join(map(str, (*operands, *as_tuple(found))))
            raise ShapeError(f"an expression per element keeps one shape, got {listed}")
        return found

    return rule
