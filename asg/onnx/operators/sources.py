"""Constants, shapes, and operators that change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.functions import ones_like
from asg.onnx.call import Call, Operand, Typed
from asg.onnx.dtypes import Array
from asg.onnx.registry import converter
from asg.types import DType

LARGEST_RANGE = 1 << 26


@converter("Constant", since=1)
def constant(call: Call) -> Array:
    """A value in one of several attributes."""
    if call.has_attribute("value"):
        return call.get_array("value")
    if call.has_attribute("value_float"):
        return np.array(call.get_float("value_float"), np.float32)
    if call.has_attribute("value_floats"):
        return np.array(call.get_floats("value_floats"), np.float32)
    if call.has_attribute("value_int"):
        return np.array(call.get_int("value_int"), np.int64)
    if call.has_attribute("value_ints"):
        return np.array(call.get_ints("value_ints"), np.int64)
    if call.has_attribute("sparse_value"):
        return call.get_array("sparse_value")
    raise call.unsupported("strings are not computed")


@converter("Identity", since=1)
def identity(call: Call) -> Operand:
    """The operand itself."""
    return call.operand(0)


@converter("Dropout", since=7)
def dropout(call: Call) -> list[Any]:
    """In inference nothing is dropped."""
    if call.has(2) and bool(call.static(2, "training_mode")):
        ratio = call.constant(1)
        if ratio is None or float(ratio) != 0.0:
            raise call.unsupported("it drops at random", "export the model for inference")
    mask = Typed(ones_like(call[0]).astype(DType.BOOL), np.dtype(np.bool_))
    return [call.operand(0), mask]


@converter("Shape", since=1)
def shape(call: Call) -> Array:
    """Sizes are known whenever a graph is made."""
    start, end = call.get_int("start", 0), call.get_int("end", 2**31)
    return np.array(call.shape(0)[start:end], np.int64)


@converter("Size", since=1)
def size(call: Call) -> Array:
    """The number of elements."""
    return np.array(np.prod(call.shape(0), dtype=np.int64))


@converter("ConstantOfShape", since=9, statics=(0,))
def constant_of_shape(call: Call) -> Typed:
    """One number everywhere, where there are too many places to write them out."""
    sizes = [int(each) for each in call.static(0, "the shape")]
    value = call.get_array("value") if call.has_attribute("value") else np.zeros(1, np.float32)
    number = call.importer.tensor(Operand("value", value.dtype, array=value.reshape(())))
    return Typed(number.broadcast_to(sizes), value.dtype)


@converter("Range", since=11, statics=(0, 1, 2))
def arange(call: Call) -> Array:
    """Its length must be known, so all of it is."""
    start, limit, delta = (call.static(i, "the range").reshape(()) for i in range(3))
    count = max(int(np.ceil((limit - start) / delta)), 0)
    if count > LARGEST_RANGE:
        raise call.unsupported(f"a range of {count} elements")
    return np.asarray(start + np.arange(count) * delta).astype(start.dtype)


@converter("OptionalHasElement", since=15)
def has_element(call: Call) -> Array:
    """Whether an operand is given."""
    return np.array(call.has(0))


@converter("OptionalGetElement", since=15)
def get_element(call: Call) -> Operand:
    """An operand that must be given."""
    return call.operand(0)
