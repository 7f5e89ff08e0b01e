"""Functions that put elements in order, under PyTorch's names."""

from __future__ import annotations

from typing import Any

from asg.errors import ShapeError
from asg.ops import sorting
from asg.shaping import normal_axis
from asg.tensor import Tensor, as_tensor, explain

__all__ = ["argsort", "sort", "topk"]


def sort(x: Any, axis: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Return elements in order along an axis, and the positions (i32) where they stood.

    Equal elements stay in order. NaN counts as larger than all numbers.
    """
    tensor = as_tensor(x)
    place = normal_axis(sorting.sort, tensor, axis)
    found: tuple[Tensor, Tensor] = sorting.sort(
        tensor, axis=place, descending=bool(descending), count=tensor.shape[place]
    )
    return found


def argsort(x: Any, axis: int = -1, descending: bool = False) -> Tensor:
    """Return the positions of elements in order along an axis, as `sort` has them."""
    return sort(x, axis, descending)[1]


def topk(x: Any, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """Return the `k` largest (or smallest) elements along an axis in order, and their positions.

    Of equal elements the first is taken first.

    Raises:
        ShapeError: there are fewer than `k`.
    """
    tensor = as_tensor(x)
    place = normal_axis(sorting.sort, tensor, axis)
    size = tensor.shape[place]
    if not 0 <= k <= size:
        raise explain(
            ShapeError(f"k is {k}, but axis {place} of {tensor.type} has {size} elements"),
            sorting.sort,
            [tensor.value],
        )
    found: tuple[Tensor, Tensor] = sorting.sort(
        tensor, axis=place, descending=bool(largest), count=int(k)
    )
    return found


METHODS = (argsort, sort, topk)
