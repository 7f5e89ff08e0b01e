"""What hides keys from queries where attention is spelt out, and how attention is told.

Softmax and attention differ in rows that see no key. Where hidden scores are finite, softmax weighs
all keys of such a row alike, and so does attention where the mask is no lower than `HIDE`: any
score disappears in it, but it is above the `LOWEST` that attention takes for hidden. Where they are
-inf, softmax yields NaN and attention 0, which is right where the text goes on to make NaN 0, or
where there can be no such row. A score that a `where` replaces by -10000 or less counts as hidden.
Where a `where` stands above another mask, the masks are put one above the other in the same way;
one whose number is above `HIDE` beside numbers that are added is none of attention's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asg.graph import Node, Value
from asg.narrow import evaluate
from asg.op import Contraction, Elementwise, Gather, Reduction, Source, View
from asg.ops.arithmetic import add, maximum, minimum, mul, neg, sub
from asg.ops.bits import bitwise_not
from asg.ops.convert import cast_
from asg.ops.elementwise import sigmoid, tanh
from asg.ops.logic import less, select
from asg.ops.movement import broadcast, reshape
from asg.ops.sources import constant, constant_, input_
from asg.tensor import Tensor
from asg.types import DType, Shape

Array = np.ndarray[Any, Any]

HIDE = float(np.float32(-1e29))
FILL = -1e4  # what a `where` puts in the place of a hidden score, at most
LARGEST = float(np.finfo(np.float32).max)
MOST_ELEMENTS = 1 << 24  # of a mask that is looked at
DEPTH = 24  # nodes above each other that are looked at to learn what a mask may be


@dataclass(frozen=True)
class MaskTerm:
    """A value added to scores; or, with `fill`, the condition for scores to be left as they are
    (`is_denied`: to be replaced)."""

    value: Value
    fill: float | None = None
    is_denied: bool = False


@dataclass(frozen=True)
class Judged:
    """What attention is told: `build` makes its mask, if it takes one, of `operands`."""

    is_causal: bool = False
    operands: tuple[Value, ...] = ()
    build: Callable[..., list[Tensor]] = field(default=lambda *_: [])


@dataclass(frozen=True)
class Range:
    """Numbers that a value may be, short of overflow; -inf is one of them if `has_inf`."""

    low: float = -LARGEST
    high: float = LARGEST
    has_inf: bool = False


UNKNOWN = Range(has_inf=True)


class Scenery:
    """What is known of values before a program runs, remembered while a graph is looked at."""

    def __init__(self) -> None:
        self.arrays: dict[Value, Array | None] = {}

    def array(self, value: Value) -> Array | None:
        """Return what a value always is, if it is made of constants and positions only; axes along
        which it is repeated may be 1."""
        pending = [value]
        while pending:
            last = pending[-1]
            node = last.node
            if last in self.arrays:
                pending.pop()
                continue
            waiting = [] if _is_open(node) else [v for v in node.inputs if v not in self.arrays]
            if waiting:
                pending.extend(waiting)
                continue
            self.arrays[last] = None if _is_open(node) else self._computed(node)
        return self.arrays[value]

    def _computed(self, node: Node) -> Array | None:
        operands = [self.arrays[value] for value in node.inputs]
        if any(each is None for each in operands) or node.type.size > MOST_ELEMENTS:
            return None
        given = [each for each in operands if each is not None]
        if node.op is broadcast:
            (source,) = given
            return source.reshape((1,) * (node.type.rank - source.ndim) + source.shape)
        if not isinstance(node.op.kind, Elementwise):
            given = [
                np.broadcast_to(each, v.type.shape)
                for each, v in zip(given, node.inputs, strict=True)
            ]
        with np.errstate(all="ignore"):
            (found,) = evaluate(node.op, given, node.attrs, node.types)
        return found.astype(node.type.dtype.numpy)

    def range(self, value: Value, depth: int = DEPTH) -> Range:
        """Return what a float value may be."""
        node = value.node
        if depth == 0 or (node.op is input_ and node.attrs["role"] == "input"):
            return UNKNOWN
        if node.op is constant_:
            return _range_of(node.attrs["value"].array)
        if node.op is input_ or isinstance(node.op.kind, (Contraction, Reduction)):
            return Range()
        if node.op is cast_:
            return Range(0.0, 1.0) if node.inputs[0].type.dtype is DType.BOOL else Range()
        if isinstance(node.op.kind, (View, Gather)) and "fill" not in node.attrs:
            return self.range(node.inputs[0], depth - 1)
        below = [self.range(each, depth - 1) for each in node.inputs if each.type.dtype.is_float]
        return _combined(node, below)


def _is_open(node: Node) -> bool:
    """Tell whether a node is known only when a program runs, or isn't worth knowing."""
    if isinstance(node.op.kind, Source):
        return node.op is input_
    return not isinstance(node.op.kind, (Elementwise, View)) or len(node.types) > 1


def _range_of(array: Array) -> Range:
    numbers = array[np.isfinite(array)]
    has_inf = bool(np.any(array == -np.inf))
    if numbers.size == 0:
        return Range(has_inf=has_inf)
    return Range(float(numbers.min()), float(numbers.max()), has_inf)


def _combined(node: Node, below: Sequence[Range]) -> Range:
    """Return what a node may be that is computed of numbers in these ranges."""
    has_inf = any(each.has_inf for each in below)
    lows, highs = [each.low for each in below], [each.high for each in below]
    if node.op is select:
        return Range(min(lows), max(highs), has_inf)
    if node.op is maximum:
        return Range(max(lows), max(highs), all(each.has_inf for each in below))
    if node.op is minimum:
        return Range(min(lows), min(highs), has_inf)
    if node.op is tanh or node.op is sigmoid:
        return Range(-1.0, 1.0)
    if has_inf:
        return UNKNOWN
    if node.op is add:
        return Range(_held(sum(lows)), _held(sum(highs)))
    if node.op is sub:
        return Range(_held(lows[0] - highs[1]), _held(highs[0] - lows[1]))
    if node.op is mul:
        corners = [_held(x * y) for x in (lows[0], highs[0]) for y in (lows[1], highs[1])]
        return Range(min(corners), max(corners))
    if node.op is neg:
        return Range(-highs[0], -lows[0])
    return UNKNOWN


def _held(number: float) -> float:
    return min(max(number, -LARGEST), LARGEST)


# -- judging --------------------------------------------------------------------------------------


def judged(
    terms: Sequence[MaskTerm],
    shape: Shape,
    scenery: Scenery,
    is_guarded: bool,
    is_differentiated: bool = False,
) -> Judged | None:
    """Return what attention over scores of `shape` is told, or None where it can't be.

    `terms` stand from the outermost to the innermost; `is_guarded`: NaN in the weights becomes 0.
    If a gradient is wanted, scores that a finite number replaces must have no weight, as where
    each row keeps others: attention's gradient goes to all that have.
    """
    parts: list[_Part] = []
    for term in reversed(terms):
        array = scenery.array(term.value)
        found: _Open | Array | None
        if array is None:
            found = _judged_open(term, shape, scenery, is_guarded)
        else:
            found = _added(array, term, shape)
        if found is None:
            return None
        parts.append(_Part(term, found))
    if not _is_level(parts, scenery):
        return None
    is_open = any(isinstance(part.found, _Open) for part in parts)
    if is_differentiated and any(
        part.is_finite_fill and (is_open or part.has_empty_rows()) for part in parts
    ):
        return None
    if not any(part.is_finite_fill for part in parts[1:]):
        known = np.zeros((1,) * len(shape), np.float32)
        for part in parts:
            known = known if isinstance(part.found, _Open) else known + part.found
        open_ = [part.found for part in parts if isinstance(part.found, _Open)]
        return _joined(known, open_, shape, is_guarded)
    return _composed(parts, shape, is_guarded)


def _added(array: Array, term: MaskTerm, shape: Shape) -> Array | None:
    """Return what a known mask adds to scores, or None where it can't be said."""
    if term.value.type.shape != shape:
        array = np.broadcast_to(array, term.value.type.shape).reshape(shape)
    if term.fill is not None:
        if not term.fill <= FILL:
            return None
        fill = term.fill if term.fill == -math.inf else HIDE
        return np.where(array != term.is_denied, np.float32(0), np.float32(fill))
    if np.isnan(array).any() or np.any(array == np.inf):
        return None
    return np.where(array == -np.inf, array, np.maximum(array, np.float32(HIDE)))


@dataclass(frozen=True)
class _Open:
    """A mask that is known only when a program runs, less its repetition."""

    value: Value
    shape: Shape  # of the term
    fill: float | None
    is_denied: bool
    is_low: bool  # finite numbers may be below HIDE
    has_inf: bool

    @property
    def is_bool(self) -> bool:
        return self.fill == -math.inf

    def visible(self, value: Tensor) -> Tensor:
        """Return where scores are left as they are."""
        found: Tensor = bitwise_not(value) if self.is_denied else value
        return found

    def build(self, value: Tensor) -> Tensor:
        """Return what is added to scores."""
        found = value
        if self.fill is not None:
            found = select(self.visible(value), 0.0, -math.inf if self.is_bool else HIDE)
        elif self.is_low:
            found = maximum(value, HIDE)
            if self.has_inf:
                found = select(less(value, -LARGEST), value, found)
        return found

    def placed(self, found: Tensor, shape: Shape) -> Tensor:
        """Return a mask with axes that fit those of the scores."""
        if self.shape == shape:
            return found
        whole: Tensor = reshape(broadcast(found, shape=self.shape), shape=shape)
        return whole


@dataclass(frozen=True)
class _Part:
    """A term and what is known of it: all that it adds to scores, or how that is made."""

    term: MaskTerm
    found: _Open | Array

    @property
    def is_finite_fill(self) -> bool:
        return self.term.fill is not None and self.term.fill != -math.inf

    def has_empty_rows(self) -> bool:
        """Tell whether a row may be hidden as a whole."""
        return isinstance(self.found, _Open) or bool((self.found != 0).all(-1).any())

    def range(self, scenery: Scenery) -> Range:
        if isinstance(self.found, _Open):
            return scenery.range(self.term.value)
        return _range_of(self.found)


def _is_level(parts: Sequence[_Part], scenery: Scenery) -> bool:
    """Tell whether fills stand for the lowest scores, all of them alike.

    Where a row is hidden as a whole, scores that one mask fills and another lowers are weighed by
    numbers that attention does not have, unless those are so low that scores disappear in them.
    """
    fills = {part.term.fill for part in parts if part.is_finite_fill}
    if not fills or len(parts) == 1:
        return True
    fill = max(each for each in fills if each is not None)
    if len(fills) > 1 or fill <= HIDE:
        return len(fills) == 1
    for index, part in enumerate(parts):
        if part.term.fill is not None:
            continue
        found = part.range(scenery)
        if found.low == found.high == 0:
            continue
        below = [each for each in parts[:index] if each.is_finite_fill]
        is_apart = not below or not (found.has_inf or any(each.has_empty_rows() for each in below))
        if not is_apart or found.low < fill / 2 or found.high > -fill / 2:
            return False
    return True


def _composed(parts: Sequence[_Part], shape: Shape, is_guarded: bool) -> Judged | None:
    """Return masks one above the other: a fill hides in the same way what was hidden below it."""
    known = np.zeros((1,) * len(shape), np.float32)
    operands = tuple(part.found.value for part in parts if isinstance(part.found, _Open))
    for part in parts:
        if isinstance(part.found, _Open):
            continue
        if part.is_finite_fill and not operands:
            known = np.where(part.found < 0, part.found, known)
        else:
            known = known + part.found
    if not operands:
        return _joined(known, [], shape, is_guarded)
    if not is_guarded and (np.broadcast_to(known, shape) == -np.inf).all(-1).any():
        return None

    def build(*values: Tensor) -> list[Tensor]:
        pending = list(values)
        total: Tensor = constant(np.float32(0))
        for part in parts:
            if isinstance(part.found, _Open):
                made = part.found.placed(part.found.build(pending.pop(0)), shape)
            else:
                made = constant(_small(part.found))
            total = select(less(made, 0.0), made, total) if part.is_finite_fill else total + made
        return [_spread(total, shape)]

    return Judged(False, operands, build)


def _judged_open(term: MaskTerm, shape: Shape, scenery: Scenery, is_guarded: bool) -> _Open | None:
    value = term.value
    source = value.node.inputs[0] if value.node.op is broadcast else value
    if term.fill is not None:
        is_usable = term.fill <= FILL and (is_guarded or term.fill != -math.inf)
        found = _Open(source, value.type.shape, term.fill, term.is_denied, False, False)
        return found if is_usable else None
    if value.type.dtype is not DType.F32:
        return None
    range_ = scenery.range(value)
    if range_.has_inf and not is_guarded:
        return None
    return _Open(source, value.type.shape, None, False, range_.low <= HIDE, range_.has_inf)


def _joined(known: Array, open_: list[_Open], shape: Shape, is_guarded: bool) -> Judged | None:
    whole_rows = np.broadcast_to(known, (*known.shape[:-2], *shape[-2:]))
    hidden = whole_rows <= HIDE
    is_empty = hidden.all(-1, keepdims=True)
    is_gone = is_empty & (whole_rows == -np.inf).all(-1, keepdims=True)
    if is_gone.any() and not is_guarded:
        return None
    # Rows where finite numbers hide everything need the numbers, and so do keys that a further
    # mask may level with the rest of their row.
    by_position = not (is_empty & ~is_gone).any() and not (
        open_ and np.any(hidden & (whole_rows != -np.inf))
    )
    is_plain = by_position and not np.any(whole_rows[~hidden])
    operands = tuple(each.value for each in open_)
    if not is_plain:
        return Judged(False, operands, _maker(known, open_, shape))
    is_causal = bool(np.array_equal(~hidden, np.broadcast_to(_lower(shape), hidden.shape)))
    if not open_:
        if is_causal or not hidden.any():
            return Judged(is_causal and bool(hidden.any()))
        return Judged(False, (), lambda: [_spread(constant(_small(~hidden)), shape)])
    if hidden.any() and not is_causal:
        return Judged(False, operands, _maker(known, open_, shape))
    return Judged(is_causal, operands, _maker(None, open_, shape))


def _lower(shape: Shape) -> Array:
    found: Array = np.tri(shape[-2], shape[-1], dtype=bool)
    return found


def _small(array: Array) -> Array:
    """Return an array with axes of 1 where it repeats."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, array.shape), array):
            array = first
    return np.ascontiguousarray(array)


def _maker(known: Array | None, open_: list[_Open], shape: Shape) -> Callable[..., list[Tensor]]:
    """Return what makes the mask of the values that are known only later."""

    def build(*values: Tensor) -> list[Tensor]:
        if known is None and len(open_) == 1 and open_[0].is_bool:
            visible = open_[0].visible(values[0])
            return [_spread(open_[0].placed(visible, shape), shape)]
        parts = [
            each.placed(each.build(value), shape) for each, value in zip(open_, values, strict=True)
        ]
        if known is not None:
            parts.append(constant(_small(known)))
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part)
        return [_spread(total, shape)]

    return build


def _spread(x: Tensor, shape: Shape) -> Tensor:
    result: Tensor = x if x.shape == shape else broadcast(x, shape=shape)
    return result
