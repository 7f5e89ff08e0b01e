"""Operators that work element by element."""

from __future__ import annotations

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.dtypes import computed_type, numpy_type
from asg.onnx.registry import converter
from asg.tensor import Tensor

_BINARY = {"Add": F.add, "Sub": F.sub, "Mul": F.mul, "Less": F.less}


@converter(*_BINARY, since=7)
def binary(call: Call) -> Tensor:
    """Operands are broadcast as in NumPy."""
    result: Tensor = _BINARY[call.op](call[0], call[1])
    return result


@converter("Where", since=9)
def where(call: Call) -> Tensor:
    """Elements of one operand or the other."""
    result: Tensor = F.where(call[0], call[1], call[2])
    return result


@converter("Cast", since=6)
def cast(call: Call) -> Tensor:
    """Another element type; the narrow ones, which wrap around, are missing."""
    target = numpy_type(call.get_int("to"))
    if target.kind in "iu" and target.itemsize < 4:
        raise call.unsupported(f"a cast to {target.name}")
    return F.cast(call[0], computed_type(target, call.importer.allow_float64))


@converter("Relu", since=6)
def relu(call: Call) -> Tensor:
    """The larger of x and 0."""
    return F.relu(call[0])
