"""ONNX element types beside those that are computed here."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from asg.errors import DTypeError, GraphError
from asg.onnx.problems import NodeUnsupportedError
from asg.ops.convert import cast
from asg.tensor import Tensor
from asg.types import DType

Array = np.ndarray[Any, Any]
NumpyType = np.dtype[Any]

# The 64-bit types have no counterpart; their values must fit 32 bits.
_COMPUTED = {
    "float32": DType.F32,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "float64": DType.F32,
    "int64": DType.I32,
    "int32": DType.I32,
    "int16": DType.I16,
    "int8": DType.I8,
    "uint64": DType.U32,
    "uint32": DType.U32,
    "uint16": DType.U16,
    "uint8": DType.U8,
    "bool": DType.BOOL,
}

# Whole numbers of few bits are weights only; nothing is computed in them.
PACKED = {"int4": DType.I8, "uint4": DType.U8, "int2": DType.I8, "uint2": DType.U8}

# What outputs of the 64-bit types are handed out as.
WIDE = {"int64": "i64", "uint64": "u64", "float64": "f64"}


def numpy_type(code: int) -> NumpyType:
    """Return the NumPy dtype of an ONNX element type.

    Raises:
        GraphError: there is no such type.
        NodeUnsupportedError: it is no type of numbers.
    """
    if code == onnx.TensorProto.STRING:
        raise NodeUnsupportedError("strings are not computed")
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        raise GraphError(f"{code} is no ONNX element type") from None


def computed_type(dtype: NumpyType, allow_float64: bool) -> DType:
    """Return the type in which values of an ONNX type are computed.

    Raises:
        NodeUnsupportedError: there is none.
    """
    if dtype == np.float64 and not allow_float64:
        raise NodeUnsupportedError(
            "float64 is not computed", 'asg.onnx.load(…, float64="narrow") computes it in f32'
        )
    if dtype.name not in _COMPUTED:
        raise NodeUnsupportedError(f"{dtype.name} is not computed")
    return _COMPUTED[dtype.name]


def constant_type(dtype: NumpyType, allow_float64: bool) -> DType:
    """Return the type in which known values of an ONNX type are held: those of 4 bits in 8.

    Raises:
        NodeUnsupportedError: there is none.
    """
    packed = PACKED.get(dtype.name)
    return computed_type(dtype, allow_float64) if packed is None else packed


def in_type(tensor: Tensor, dtype: NumpyType) -> Tensor:
    """Return a result in the type that ONNX gives it, where the ops computed in a wider one."""
    wanted = _COMPUTED.get(dtype.name, tensor.dtype)
    are_alike = wanted.is_float == tensor.dtype.is_float and DType.BOOL not in (
        wanted,
        tensor.dtype,
    )
    return cast(tensor, wanted) if are_alike and wanted is not tensor.dtype else tensor


def narrowed(array: Array, dtype: DType, name: str) -> Array:
    """Return a known array in the type in which it is computed; whole numbers must fit.

    Raises:
        DTypeError: one does not; the message names the tensor.
    """
    target = dtype.numpy
    if array.dtype == target:
        return array
    if array.dtype.kind in "iu" and array.size:
        low, high = int(array.min()), int(array.max())
        limits = np.iinfo(target)
        if low < limits.min or high > limits.max:
            worst = low if low < limits.min else high
            raise DTypeError(f"{name!r} ({array.dtype}) holds {worst}, which does not fit {dtype}")
    return array.astype(target)
