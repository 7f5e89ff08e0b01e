"""Operators that read or write at positions which are numbers in a tensor."""

from __future__ import annotations

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
    return F.gather_elements(call[0], call[1], call.get_int("axis", 0))


@converter("GatherND", since=11)
def gather_nd(call: Call) -> Tensor:
    """Slices at positions along several axes at once."""
    return F.gather_nd(call[0], call[1], call.get_int("batch_dims", 0))


@converter("ScatterElements", since=11)
@converter("Scatter", since=9)
def scatter_elements(call: Call) -> Tensor:
    """Elements written at positions along an axis; of several the last stays, or they combine."""
    combine = call.get_text("reduction", "none") if call.opset >= 16 else "none"
    return F.scatter(call[0], call[1], call[2], call.get_int("axis", 0), combine)


@converter("ScatterND", since=11)
def scatter_nd(call: Call) -> Tensor:
    """Slices written at positions along several axes at once."""
    combine = call.get_text("reduction", "none") if call.opset >= 16 else "none"
    return F.scatter_nd(call[0], call[1], call[2], combine)


@converter("OneHot", since=9, statics=(1,))
def one_hot(call: Call) -> Tensor:
    """One value at a position, another elsewhere; nothing where the position is out of range."""
    depth = int(np.asarray(call.static(1, "the depth")).reshape(()))
    index, values = F.cast(call[0], DType.I32), call[2]
    return F.one_hot_values(index, depth, values[0], values[1], call.get_int("axis", -1))


@converter("TensorScatter", since=24)
def tensor_scatter(call: Call) -> Tensor:
    """A cache with an update written into each batch from a place of its own on."""
    cache, update = call[0], call[1]
    axis = call.get_int("axis", -2) % cache.ndim
    size, count = cache.shape[axis], update.shape[axis]
    places = F.reshape(F.arange(size), (-1,) + (1,) * (cache.ndim - 1 - axis))
    if call.has(2):
        starts = F.reshape(F.cast(call[2], DType.I32), (-1,) + (1,) * (cache.ndim - 1))
        places = F.reshape(places, (*(1,) * axis, *places.shape)) - starts
    if call.get_text("mode", "linear") == "circular":
        places = F.remainder(places, size)
    inside = F.logical_and(F.greater_equal(places, 0), F.less(places, count))
    index = F.broadcast_to(F.clip(places, 0, count - 1), cache.shape)
    found: Tensor = F.where(inside, F.take_along_axis(update, index, axis), cache)
    return found
