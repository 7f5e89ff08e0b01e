"""Operators that move elements, and compute nothing."""

from __future__ import annotations

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.registry import converter
from asg.tensor import Tensor


@converter("Reshape", since=5, statics=(1,))
def reshape(call: Call) -> Tensor:
    """0 keeps a size, -1 is what is left."""
    x = call[0]
    sizes = [int(each) for each in call.static(1, "the shape")]
    if not call.get_int("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return F.reshape(x, sizes)


@converter("Transpose", since=1)
def transpose(call: Call) -> Tensor:
    """Axes in another order, backwards unless told."""
    x = call[0]
    order = call.get_ints("perm") if call.has_attribute("perm") else tuple(range(x.ndim))[::-1]
    return F.permute(x, order)


@converter("Concat", since=4)
def concat(call: Call) -> Tensor:
    """Operands one after the other."""
    return F.concatenate(call.tensors, call.get_int("axis"))
