"""Operators that read or write at positions which are numbers in a tensor."""

from __future__ import annotations

import math

import numpy as np

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType


@converter("Gather", since=1)
def gather(call: Call) -> Tensor:
    """Slices at positions along an axis."""
    return F.take(call[0], F.cast(call[1], DType.I32), call.get_int("axis", 0))


@converter("GatherElements", since=11)
def gather_elements(call: Call) -> Tensor:
    """Elements at positions along an axis."""
    x, index, axis = call[0], call[1], call.get_int("axis", 0)
    axis = axis % x.ndim if x.ndim else 0
    # Only the first elements are meant along axes where there are fewer positions.
    part = tuple(slice(None) if i == axis else slice(0, size) for i, size in enumerate(index.shape))
    return F.take_along_axis(x[part], index, axis)


@converter("GatherND", since=11)
def gather_nd(call: Call) -> Tensor:
    """Slices at positions along several axes at once."""
    x, index, batch = call[0], call[1], call.get_int("batch_dims", 0)
    depth = index.shape[-1]
    lead, sizes, rest = x.shape[:batch], x.shape[batch : batch + depth], x.shape[batch + depth :]
    flat = flat_positions(index, sizes)
    count, places = math.prod(lead), math.prod(sizes)
    flat = F.reshape(flat, (count, -1)) + F.arange(count).reshape((-1, 1)) * places
    rows = F.take(F.reshape(x, (count * places, *rest)), F.reshape(flat, (-1,)), 0)
    return F.reshape(rows, (*index.shape[:-1], *rest))


def flat_positions(index: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return [..., depth] positions along axes as positions in all of them; negative ones too."""
    index = F.cast(index, DType.I32)
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    parts = [index[..., i] for i in range(len(sizes))]
    found = [
        F.where(F.less(part, 0), part + size, part) * stride
        for part, size, stride in zip(parts, sizes, strides, strict=True)
    ]
    result = found[0] if found else F.zeros(index.shape[:-1], DType.I32)
    for part in found[1:]:
        result = result + part
    return result


@converter("OneHot", since=9, statics=(1,))
def one_hot(call: Call) -> Tensor:
    """One value at a position, another elsewhere; nothing where the position is out of range."""
    index, values = call[0], call[2]
    depth = int(np.asarray(call.static(1, "the depth")).reshape(()))
    axis = call.get_int("axis", -1)
    axis = axis + index.ndim + 1 if axis < 0 else axis
    if not index.dtype.is_integer:
        index = F.cast(index, DType.I32)
    index = F.cast(index, DType.I32)
    index = F.where(F.less(index, 0), index + depth, index)
    places = F.arange(depth).reshape((-1,) + (1,) * (index.ndim - axis))
    found: Tensor = F.where(F.equal(F.unsqueeze(index, axis), places), values[1], values[0])
    return found
