"""The matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.op import BadSample, Contraction, Example, Op, Sample
from asg.ops.convert import cast
from asg.ops.movement import broadcast, permute, reshape
from asg.ops.rules import FLOAT, accept, expect, same_dtype
from asg.tensor import (
    Tensor,
    as_tensor,
    broadcast_shapes,
    explain,
    operand_labels,
    promoted,
)
from asg.types import TensorType


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 2)
    for type_ in types:
        accept(type_, FLOAT)
    same_dtype(types)
    x, y = (type_.shape for type_ in types)
    if len(x) < 2 or len(x) != len(y) or x[:-2] != y[:-2]:
        raise ShapeError(f"needs [*batch, m, k] and [*batch, k, n], got {types[0]} and {types[1]}")
    if x[-1] != y[-2]:
        last, first = len(x) - 1, len(y) - 2
        raise ShapeError(
            f"inner sizes differ: x has {x[-1]} (axis {last}), y has {y[-2]} (axis {first})"
        )
    return TensorType((*x[:-1], y[-1]), types[0].dtype)


def swap_last(x: Tensor) -> Tensor:
    """Return `x` with its last two axes swapped."""
    lead = tuple(range(x.ndim - 2))
    result: Tensor = permute(x, axes=(*lead, x.ndim - 1, x.ndim - 2))
    return result


# z = x y:  dz = dx y + x dy, so the cotangents are g yᵀ and xᵀ g
matmul_: Op = Op(
    name="matmul",
    doc="Product of matrices [*batch, m, k] and [*batch, k, n].",
    kind=Contraction(),
    shape=_rule,
    numpy=np.matmul,
    grad=lambda node, g, x, y: [matmul_(g, swap_last(y)), matmul_(swap_last(x), g)],
    examples=[
        Example([[[1.0, 2.0], [3.0, 4.0]], [[5.0], [6.0]]], [[17.0], [39.0]]),
    ],
    samples=[
        Sample(["f32[4, 3]", "f32[3, 5]"]),
        Sample(["f32[2, 3, 4, 2]", "f32[2, 3, 2, 3]"]),
        Sample(["f32[1, 1]", "f32[1, 1]"]),
        Sample(["f32[2, 0]", "f32[0, 3]"]),
    ],
    errors=[
        BadSample(
            ["f32[2, 3]", "f32[4, 5]"],
            "matmul: inner sizes differ: x has 3 (axis 1), y has 4 (axis 0)",
        ),
        BadSample(["f32[2, 3]", "f32[3]"], "matmul: needs [*batch, m, k] and [*batch, k, n]"),
        BadSample(["i32[2, 3]", "i32[3, 2]"], "matmul: needs a float input, got i32[2, 3]"),
    ],
)


def matmul(x: Any, y: Any) -> Tensor:
    """Return the product of two tensors, by the rules of `numpy.matmul`.

    A matrix on the right is applied to all rows of the left at once, so that its gradient is a
    single product as well.

    Raises:
        ShapeError: the inner sizes differ, the batch axes do not broadcast, or one has no axes.
    """
    left, right = as_tensor(x), as_tensor(y)
    _check(left, right)
    dtype = promoted(left.dtype, right.dtype)
    left, right = cast(left, dtype), cast(right, dtype)
    rows = left if left.ndim > 1 else reshape(left, shape=(1, *left.shape))
    columns = right if right.ndim > 1 else reshape(right, shape=(*right.shape, 1))
    product = _product(rows, columns)
    shape = list(product.shape)
    if right.ndim == 1:
        del shape[-1]
    if left.ndim == 1:
        del shape[-1 if right.ndim == 1 else -2]
    return product if len(shape) == product.ndim else reshape(product, shape=tuple(shape))


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Multiply operands of two axes or more."""
    result: Tensor
    if y.ndim == 2 and x.ndim > 2:
        count = int(np.prod(x.shape[:-1], dtype=np.int64))
        flat = matmul_(reshape(x, shape=(count, x.shape[-1])), y)
        result = reshape(flat, shape=(*x.shape[:-1], y.shape[-1]))
        return result
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    result = matmul_(_with_batch(x, batch), _with_batch(y, batch))
    return result


def _with_batch(x: Tensor, batch: tuple[int, ...]) -> Tensor:
    shape = (*batch, *x.shape[-2:])
    result: Tensor = x if x.shape == shape else broadcast(x, shape=shape)
    return result


def _check(x: Tensor, y: Tensor) -> None:
    """Raise what the primitive would, in terms of the user's operands."""
    values = [x.value, y.value]
    first, second = operand_labels(values)
    if not x.ndim or not y.ndim:
        scalar = first if not x.ndim else second
        raise explain(ShapeError(f"{scalar} has no axes; fix: use * for scaling"), matmul_, values)
    inner, outer = x.ndim - 1, max(y.ndim - 2, 0)
    if x.shape[inner] != y.shape[outer]:
        fix = f"; fix: make {second} {y.dtype}[{x.shape[-1]}, n]" if y.ndim == 2 else ""
        message = (
            f"inner sizes differ: {first} has {x.shape[inner]} (axis {inner}), "
            f"{second} has {y.shape[outer]} (axis {outer}){fix}"
        )
        raise explain(ShapeError(message), matmul_, values)
    try:
        broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ShapeError as error:
        raise explain(ShapeError(f"batch {error}"), matmul_, values) from None


OPS = (matmul_,)
