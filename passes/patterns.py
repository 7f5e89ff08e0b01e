"""Patterns of small ops, written as formulas: `centred / root(mean(square(centred)) + eps)`.

A pattern is matched from its last node down. Operands may come in either order, a division may be a
product with a reciprocal, and numbers may be an f32 away from the right ones. What has one value
for each row is looked at below the views that repeat it: these keep track of which axis of
the pattern's result each axis is (*places*), so a mean along another axis, or one that was turned
meanwhile, does not match.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asg.graph import Node, Value
from asg.op import Op
from asg.ops.arithmetic import add, div, mul, neg, sub
from asg.ops.convert import stop_gradient
from asg.ops.elementwise import pow_, reciprocal, rsqrt, sqrt
from asg.ops.movement import broadcast, reshape
from asg.ops.reduction import reduce_max, reduce_sum
from asg.passes.rewriting import uniform
from asg.types import Shape

MOST_LEAVES = 5  # of a product that is taken apart
MOST_VIEWS = 6

Places = tuple[int, ...]  # the axis of the pattern's result for each axis; -1: one that is 1


@dataclass(frozen=True)
class Found:
    """What is bound so far: values and numbers by name, the axes of reductions, nodes passed."""

    shape: Shape
    values: Mapping[str, Value]
    numbers: Mapping[str, float]
    axes: tuple[int, ...] | None = None
    inside: tuple[Node, ...] = ()

    def passing(self, *nodes: Node) -> Found:
        return replace(self, inside=(*self.inside, *nodes))


@dataclass(frozen=True)
class At:
    """A value, and where its axes stand in the pattern's result."""

    value: Value
    places: Places


class Pattern:
    """Something to match; operators make formulas of patterns and numbers."""

    def match(self, at: At, found: Found) -> Iterator[Found]:
        """Yield every way to match."""
        raise NotImplementedError

    def __add__(self, other: Pattern | float) -> Pattern:
        return Call(add, (self, as_pattern(other)))

    def __radd__(self, other: float) -> Pattern:
        return Call(add, (as_pattern(other), self))

    def __sub__(self, other: Pattern | float) -> Pattern:
        return Call(sub, (self, as_pattern(other)))

    def __mul__(self, other: Pattern | float) -> Pattern:
        return Call(mul, (self, as_pattern(other)))

    def __truediv__(self, other: Pattern) -> Pattern:
        return Either((Call(div, (self, other)), self * inverse(other)))

    def __rtruediv__(self, other: float) -> Pattern:
        return Either((Call(div, (as_pattern(other), self)),))

    def __neg__(self) -> Pattern:
        return Either((Call(neg, (self,)), Product((self,), -1.0)))


@dataclass(frozen=True)
class Var(Pattern):
    """Any value of the result's shape; the same wherever the name stands."""

    name: str

    def match(self, at: At, found: Found) -> Iterator[Found]:
        if at.value.type.shape != found.shape or at.places != tuple(range(len(found.shape))):
            return
        bound = found.values.get(self.name)
        if bound is None:
            yield replace(found, values={**found.values, self.name: at.value})
        elif bound == at.value:
            yield found


@dataclass(frozen=True)
class Num(Pattern):
    """A number that is everywhere the same: this one, or by name any that is not negative."""

    number: float | str

    def match(self, at: At, found: Found) -> Iterator[Found]:
        known = uniform(at.value)
        if known is None:
            return
        if isinstance(self.number, float):
            if is_near(float(known), self.number):
                yield found
        elif 0 <= known == found.numbers.get(self.number, known):
            yield replace(found, numbers={**found.numbers, self.number: float(known)})


@dataclass(frozen=True)
class Call(Pattern):
    """A node of an op, perhaps below views that repeat it."""

    op: Op
    operands: tuple[Pattern, ...]

    def match(self, at: At, found: Found) -> Iterator[Found]:
        reached = below_views(at, found, self.op)
        if reached is None:
            return
        at, found = reached
        node = at.value.node
        found = found.passing(node)
        orders = [node.inputs]
        if (self.op is add or self.op is mul) and self.operands[0] != self.operands[1]:
            orders.append(node.inputs[::-1])
        for inputs in orders:
            yield from _match_all(self.operands, [At(v, at.places) for v in inputs], found)


@dataclass(frozen=True)
class Either(Pattern):
    """One of several patterns."""

    options: tuple[Pattern, ...]

    def match(self, at: At, found: Found) -> Iterator[Found]:
        for option in self.options:
            yield from option.match(at, found)


@dataclass(frozen=True)
class Reduced(Pattern):
    """A reduction of the pattern's own shape, along the same axes wherever one stands."""

    op: Op
    operand: Pattern

    def match(self, at: At, found: Found) -> Iterator[Found]:
        reached = below_views(at, found, self.op)
        if reached is None:
            return
        at, found = reached
        node = at.value.node
        axes = tuple(node.attrs["axes"])
        if found.axes not in (None, axes) or node.inputs[0].type.shape != found.shape:
            return
        kept = [axis for axis in range(len(found.shape)) if axis not in axes]
        is_aligned = all(
            place == axis or found.shape[axis] == 1
            for place, axis in zip(at.places, kept, strict=True)
        )
        if is_aligned:
            whole = At(node.inputs[0], tuple(range(len(found.shape))))
            yield from self.operand.match(whole, replace(found.passing(node), axes=axes))


@dataclass(frozen=True)
class Mean(Pattern):
    """A sum over its number of elements."""

    operand: Pattern

    def match(self, at: At, found: Found) -> Iterator[Found]:
        for op in (mul, div):
            reached = below_views(at, found, op)
            if reached is None:
                continue
            inner, passed = reached
            node = inner.value.node
            number = uniform(node.inputs[1])
            total = node.inputs[0]
            if number is None and op is mul:
                number, total = uniform(node.inputs[0]), node.inputs[1]
            if number is None:
                continue
            for each in Reduced(reduce_sum, self.operand).match(
                At(total, inner.places), passed.passing(node)
            ):
                count = float(np.prod([found.shape[axis] for axis in each.axes or ()]))
                if count and is_near(float(number), 1 / count if op is mul else count):
                    yield each


@dataclass(frozen=True)
class Product(Pattern):
    """A product of patterns and a number, in any order and with any brackets."""

    factors: tuple[Pattern, ...]
    number: float

    def match(self, at: At, found: Found) -> Iterator[Found]:
        for leaves, number, nodes in _taken_apart(at.value, MOST_LEAVES):
            if len(leaves) != len(self.factors) or not nodes or not is_near(number, self.number):
                continue
            passed = found.passing(*nodes)
            yield from self._match_leaves(self.factors, leaves, at.places, passed)

    def _match_leaves(
        self, factors: tuple[Pattern, ...], leaves: list[Value], places: Places, found: Found
    ) -> Iterator[Found]:
        if not factors:
            yield found
            return
        for position, leaf in enumerate(leaves):
            others = [*leaves[:position], *leaves[position + 1 :]]
            for each in factors[0].match(At(leaf, places), found):
                yield from self._match_leaves(factors[1:], others, places, each)


def _taken_apart(value: Value, left: int) -> list[tuple[list[Value], float, list[Node]]]:
    """Return the ways to see a value as a product of other values and a number."""
    found: list[tuple[list[Value], float, list[Node]]] = [([value], 1.0, [])]
    node = value.node
    if left <= 1 or (node.op is not mul and node.op is not div):
        return found
    one, other = node.inputs
    number = uniform(other)
    if number is None and node.op is mul:
        number = uniform(one)
        one = other if number is not None else one
    if number is not None:
        factor = float(number) if node.op is mul else (1 / float(number) if number else np.nan)
        for leaves, by, nodes in _taken_apart(one, left - 1):
            found.append((leaves, by * factor, [*nodes, node]))
    elif node.op is mul:
        for leaves, by, nodes in _taken_apart(one, left - 1):
            for more, further, others in _taken_apart(other, left - len(leaves)):
                found.append(([*leaves, *more], by * further, [*nodes, *others, node]))
    return found


def _match_all(patterns: tuple[Pattern, ...], ats: list[At], found: Found) -> Iterator[Found]:
    if not patterns:
        yield found
        return
    for each in patterns[0].match(ats[0], found):
        yield from _match_all(patterns[1:], ats[1:], each)


def below_views(at: At, found: Found, op: Op) -> tuple[At, Found] | None:
    """Return the node of an op that a value repeats, or is."""
    for _ in range(MOST_VIEWS):
        node = at.value.node
        if node.op is op:
            return at, found
        places = _places_below(node, at.places)
        if places is None:
            return None
        at, found = At(node.inputs[0], places), found.passing(node)
    return None


def _places_below(node: Node, places: Places) -> Places | None:
    """Return the places of a view's operand, if the view only repeats it or adds axes of 1."""
    if node.op is broadcast:
        rank = node.inputs[0].type.rank
        return places[len(places) - rank :]
    if node.op is not reshape:
        return None
    before, after = node.inputs[0].type.shape, node.type.shape
    if [size for size in before if size != 1] != [size for size in after if size != 1]:
        return None
    wide = iter([place for place, size in zip(places, after, strict=True) if size != 1])
    return tuple(-1 if size == 1 else next(wide) for size in before)


def is_near(number: float, right: float) -> bool:
    """Tell whether a number is an f32 next to the right one, or that one."""
    return bool(abs(number - right) <= 1.01 * float(np.spacing(np.float32(abs(right)))))


def as_pattern(x: Any) -> Pattern:
    """Return a number as a pattern."""
    return x if isinstance(x, Pattern) else Num(float(x))


# -- words of formulas ----------------------------------------------------------------------------


def square(x: Pattern) -> Pattern:
    """Match the square of x."""
    return Either((Call(mul, (x, x)), Call(pow_, (x, Num(2.0)))))


def root(x: Pattern) -> Pattern:
    """Match the square root of x."""
    return Either((Call(sqrt, (x,)), Call(pow_, (x, Num(0.5)))))


def inverse(x: Pattern) -> Pattern:
    """Match 1 / x."""
    return Either((Call(reciprocal, (x,)), Call(div, (Num(1.0), x))))


def inverse_root(x: Pattern) -> Pattern:
    """Match 1 / sqrt(x)."""
    return Either((Call(rsqrt, (x,)), inverse(root(x)), Call(pow_, (x, Num(-0.5)))))


def total(x: Pattern) -> Pattern:
    """Match a sum."""
    return Reduced(reduce_sum, x)


def largest(x: Pattern) -> Pattern:
    """Match a maximum."""
    return Reduced(reduce_max, x)


def stopped(x: Pattern) -> Pattern:
    """Match what no gradient flows through."""
    return Call(stop_gradient, (x,))
