"""Scores of attention: which operands there may be, what they mean, and which keys are hidden.

A key is *hidden* from a query by the mask, by `causal`, by the span, or by a score below `LOWEST`;
it has no weight. That needs no case of its own: the maximum that scores are shifted by is at least
`LOWEST`.

A *span* says at run time where the queries stand among the keys, and how many keys there are: so a
cache of keys grows without compiling anything again, and keys that nobody sees are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs, Value
from asg.op import Array, View
from asg.ops.arithmetic import add, div, maximum, minimum, mul, sub
from asg.ops.convert import cast_
from asg.ops.elementwise import exp, tanh
from asg.ops.linear import matmul_, swap_last
from asg.ops.logic import greater_equal, less, select
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.rules import FLOAT, INTEGER, accept, same_dtype
from asg.ops.sources import constant_, iota
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType

HIDDEN = -1e30  # the score of a hidden key; WGSL has no infinity that can be written
LOWEST = HIDDEN / 2  # scores below it are those of hidden keys
MILD = -1e4  # beside scores of at least this, logarithms of sums have digits to spare
FARTHEST = 1 << 30  # offsets beyond are held there: sums with positions must not wrap

ATTRS = frozenset({"causal", "scale"})
OPTIONAL_ATTRS = frozenset({"softcap"})

T = TypeVar("T")
Operand = TypeVar("Operand", Tensor, Value)


@dataclass(frozen=True)
class Extras(Generic[T]):
    """The operands that may be missing; their types tell them apart."""

    mask: T | None = None
    span: T | None = None


def extras_of(types: Sequence[TensorType], operands: Sequence[T]) -> Extras[T]:
    """Sort what follows the operands that are always there.

    Raises:
        DTypeError: there is something else, or two of a sort.
    """
    found: dict[str, T] = {}
    for type_, operand in zip(types, operands, strict=True):
        role = "span" if type_.dtype in INTEGER else "mask"
        if role in found or (role == "mask" and found):
            raise DTypeError(
                "after q, k, v come a mask (bool or f32), then a span (i32 or u32); got "
                + ", ".join(map(str, types))
            )
        found[role] = operand
    return Extras(**found)


def extras_of_values(operands: Sequence[Operand]) -> Extras[Operand]:
    """Sort tensors, or values of a graph."""
    return extras_of([each.type for each in operands], operands)


# -- types ----------------------------------------------------------------------------------------


def check(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[Shape, Shape, Shape]:
    """Check q [*batch, S, D], k [*batch, T, D], v [*batch, T, E]; return their shapes."""
    for type_ in types[:3]:
        accept(type_, FLOAT)
    same_dtype(types[:3])
    q, k, v = (type_.shape for type_ in types[:3])
    listed = ", ".join(map(str, types[:3]))
    if len(q) < 2 or len(q) != len(k) or len(q) != len(v) or not q[:-2] == k[:-2] == v[:-2]:
        raise ShapeError(f"needs [*batch, S, D], [*batch, T, D] and [*batch, T, E], got {listed}")
    if q[-1] != k[-1]:
        raise ShapeError(f"queries have {q[-1]} channels, keys {k[-1]}: {listed}")
    if k[-2] != v[-2]:
        raise ShapeError(f"there are {k[-2]} keys and {v[-2]} values: {listed}")
    if set(attrs) - OPTIONAL_ATTRS != ATTRS:
        raise ShapeError(f"takes causal and scale, got {', '.join(attrs) or 'nothing'}")
    if not attrs.get("softcap", 0.0) >= 0.0:
        raise ShapeError(f"softcap is positive, or 0 for none, got {attrs['softcap']}")
    return q, k, v


def check_extras(types: tuple[TensorType, ...], count: int, q: Shape, k: Shape) -> None:
    """Check what follows the first `count` operands."""
    if not count <= len(types) <= count + 2:
        raise ShapeError(f"takes {count} operands and perhaps a mask and a span, got {len(types)}")
    found = extras_of(types[count:], types[count:])
    if found.mask is not None:
        mask = found.mask
        if mask.dtype is not DType.BOOL and not mask.dtype.is_float:
            raise DTypeError(f"a mask is bool (true: visible) or f32 (added to scores), got {mask}")
        if mask.shape != (*q[:-1], k[-2]):
            raise ShapeError(f"the mask must have shape {[*q[:-1], k[-2]]}, got {mask}")
    if found.span is not None:
        *lead, pair = found.span.shape or (0,)
        if pair != 2 or tuple(lead) != q[:-2][: len(lead)]:
            raise ShapeError(
                f"the span is an offset and a length, [2] or one for each of the first axes of "
                f"{list(q[:-2])}, got {found.span}"
            )


# -- as nodes -------------------------------------------------------------------------------------


def along(x: Tensor, shape: Shape) -> Tensor:
    """Repeat one number per row along the last axis of `shape`."""
    result: Tensor = broadcast(reshape(x, shape=(*x.shape, 1)), shape=shape)
    return result


def capped_scores(attrs: Attrs, q: Tensor, k: Tensor) -> Tensor:
    """Return the scores before anything is hidden."""
    scores: Tensor = mul(matmul_(q, swap_last(k)), attrs["scale"])
    cap = attrs.get("softcap", 0.0)
    return mul(tanh(div(scores, cap)), cap) if cap else scores


def scores_of(attrs: Attrs, capped: Tensor, extras: Extras[Tensor]) -> Tensor:
    """Hide keys: their scores become HIDDEN or less."""
    scores, mask = capped, extras.mask
    if mask is not None and mask.dtype.is_float:
        scores = add(scores, mask)
    elif mask is not None:
        scores = select(mask, scores, HIDDEN)
    shape = scores.shape
    if extras.span is not None:
        query, key = _positions(shape, DType.I32)
        offset, length = _span_numbers(extras.span, shape)
        scores = select(less(key, length), scores, HIDDEN)
        if attrs["causal"]:
            scores = select(greater_equal(add(query, offset), key), scores, HIDDEN)
    elif attrs["causal"]:
        query, key = _positions(shape, DType.U32)
        scores = select(greater_equal(query, key), scores, HIDDEN)
    return scores


def _positions(shape: Shape, dtype: DType) -> list[Tensor]:
    """Return the numbers of every score's query and key."""
    return [iota(shape=shape, axis=len(shape) + axis, dtype=dtype) for axis in (-2, -1)]


def _span_numbers(span: Tensor, shape: Shape) -> list[Tensor]:
    """Return offset and length, repeated for every score."""
    lead = span.shape[:-1]
    found: list[Tensor] = []
    for part in range(2):
        starts, stops = (*(0,) * len(lead), part), (*lead, part + 1)
        number = slice_(span, starts=starts, stops=stops, steps=(1,) * span.ndim)
        number = minimum(maximum(cast_(number, dtype=DType.I32), -FARTHEST), FARTHEST)
        aligned = reshape(number, shape=(*lead, *(1,) * (len(shape) - len(lead))))
        found.append(broadcast(aligned, shape=shape))
    return found


def weights_of(
    attrs: Attrs, q: Tensor, k: Tensor, lse: Tensor, extras: Extras[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the weights of all keys, given the logarithms of the sums, and the scores before
    anything was hidden."""
    capped = capped_scores(attrs, q, k)
    scores = scores_of(attrs, capped, extras)
    return exp(sub(scores, along(lse, scores.shape))), capped


def leaves_scores(mask: Tensor) -> bool:
    """Tell whether every row of a float mask surely has a number that a score still counts beside,
    or hides its keys by -inf: then the logarithm of the sum of weights is exact."""
    shapes: list[tuple[Value, Shape]] = [(mask.value, mask.shape)]  # (): rows are not the mask's
    seen = set(shapes)
    while shapes:
        value, shape = shapes.pop()
        node = value.node
        if node.op is constant_:
            if not _has_mild_rows(node.attrs["value"].array, shape):
                return False
            continue
        if node.op is cast_ and node.inputs[0].type.dtype is DType.BOOL:
            continue
        if not isinstance(node.op.kind, View) and node.op is not select and node.op is not add:
            return False
        rows = shape if node.op is broadcast else ()
        below = {(each, rows) for each in node.inputs if each.type.dtype.is_float} - seen
        seen |= below
        shapes += below
    return True


def _has_mild_rows(array: Array, shape: Shape) -> bool:
    """Tell the same of numbers that are repeated to `shape`."""
    is_low = (array < MILD) & (array > LOWEST)
    if not is_low.any():
        return True
    is_whole = array.ndim > 0 and array.shape[-1:] == shape[-1:]
    return is_whole and bool(((array >= MILD).any(-1) | ~is_low.any(-1)).all())


# -- in NumPy -------------------------------------------------------------------------------------


def single(scale: float) -> float:
    """Return the f32 that kernels multiply by."""
    return float(np.float32(scale))


def extras_of_arrays(operands: Sequence[Array]) -> Extras[Array]:
    """Sort arrays as `extras_of` sorts operands."""
    found = {"span" if each.dtype.kind in "iu" else "mask": each for each in operands}
    return Extras(**found)


def capped_numpy(q: Array, k: Array, scale: float, softcap: float) -> Array:
    """`capped_scores` of arrays."""
    scores: Array = np.matmul(q, np.swapaxes(k, -1, -2)) * single(scale)
    return np.asarray(np.tanh(scores / single(softcap)) * single(softcap)) if softcap else scores


def scores_numpy(capped: Array, extras: Extras[Array], causal: bool, dtype: Any) -> Array:
    """`scores_of` arrays."""
    scores, mask = capped, extras.mask
    if mask is not None:
        scores = np.where(mask, scores, HIDDEN) if mask.dtype == bool else scores + mask
    rows, columns = scores.shape[-2:]
    offset, length = np.zeros((), np.int64), np.asarray(columns)
    if extras.span is not None:
        span = np.clip(extras.span.astype(np.int64), -FARTHEST, FARTHEST)
        span = span.reshape(*span.shape[:-1], *(1,) * (scores.ndim - span.ndim + 1), 2)
        offset, length = span[..., 0], span[..., 1]
    key = np.arange(columns)
    visible = key < length
    if causal:
        visible = visible & (key <= np.arange(rows)[:, None] + offset)
    return np.asarray(np.where(visible, scores, HIDDEN), dtype)
