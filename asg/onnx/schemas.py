"""What the `onnx` package knows of operators: schemas, types of results, function bodies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import defs

from asg.errors import GraphError
from asg.onnx.call import Call, Operand
from asg.onnx.dtypes import NumpyType
from asg.types import DType

_TO_NUMPY = {
    f"tensor({name})": np.dtype(dtype)
    for name, dtype in {
        "float": np.float32,
        "double": np.float64,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint64": np.uint64,
        "uint32": np.uint32,
        "uint16": np.uint16,
        "uint8": np.uint8,
        "bool": np.bool_,
        "float16": np.float16,
    }.items()
}
# Attributes that name the element type of the first result.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")


@cache
def find_schema(domain: str, op: str, opset: int) -> Any:
    """Return ONNX's schema of an operator, or None where it has none."""
    try:
        return defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return None


def result_type(call: Call, position: int, computed: DType) -> NumpyType:
    """Return the ONNX type of a result: from the schema, operands or attributes of its node."""
    formal = _formal(call.schema.outputs, position) if call.schema is not None else None
    if formal is not None and formal.type_str in _TO_NUMPY:
        return _TO_NUMPY[formal.type_str]
    for name in _TYPE_ATTRIBUTES:
        if call.has_attribute(name) and position == 0 and call.get_int(name):
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(call.get_int(name)))
    if formal is not None:
        for place, operand in enumerate(call.operands):
            given = _formal(call.schema.inputs, place)
            if operand is not None and given is not None and given.type_str == formal.type_str:
                return operand.dtype
    found: NumpyType = computed.numpy
    like = next((each.dtype for each in call.operands if each is not None), found)
    return like if call.schema is None and like.kind == found.kind else found


def _formal(formals: Sequence[Any], position: int) -> Any:
    """Return the declared operand or result at a position; the last one may repeat."""
    if position < len(formals):
        return formals[position]
    is_variadic = formals and formals[-1].option == defs.OpSchema.FormalParameterOption.Variadic
    return formals[-1] if is_variadic else None


def function_body(call: Call) -> Any:
    """Return the body that ONNX gives an operator as a function of others, or None.

    Raises:
        GraphError: the node does not fit its schema.
    """
    if call.schema is None:
        return None
    try:
        text = _body(call)
    except Exception as error:  # the package raises what comes up
        raise GraphError(f"it is no function of its operands: {error}") from error
    if not text:
        return None
    return text if isinstance(text, onnx.FunctionProto) else onnx.FunctionProto.FromString(text)


def _body(call: Call) -> Any:
    schema = call.schema
    if schema.has_function:
        version = _version(schema.function_opset_versions, call)
        return schema.get_function_with_opset_version(version)
    if schema.has_context_dependent_function:
        version = _version(schema.context_dependent_function_opset_versions, call)
        types = [_type_proto(each) for each in call.operands]
        node = call.node.SerializeToString()
        return schema.get_context_dependent_function_with_opset_version(version, node, types)
    return None


def _version(versions: Sequence[int], call: Call) -> int:
    """Return the newest body that is not newer than the model's opset."""
    return max((each for each in versions if each <= call.importer.opset("")), default=versions[0])


def _type_proto(operand: Operand | None) -> bytes:
    if operand is None:
        return b""
    code = onnx.helper.np_dtype_to_tensor_dtype(operand.dtype)
    found: bytes = onnx.helper.make_tensor_type_proto(code, operand.shape).SerializeToString()
    return found
