"""Ops without operands: inputs, constants, coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import DTypeError, GraphError, ShapeError
from asg.graph import ROLES, Attrs, Literal
from asg.op import Array, Example, Op, Sample, Source, not_differentiable
from asg.ops.rules import NUMBER, accept, check_axis, expect
from asg.tensor import Tensor
from asg.types import DType, TensorType, as_dtype, is_floating, spec


def _input_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 0)
    if not isinstance(attrs["name"], str) or not attrs["name"]:
        raise GraphError(f"an input's name is a text, got {attrs['name']!r}")
    if attrs["role"] not in ROLES:
        raise GraphError(f"an input's role is one of {', '.join(ROLES)}, got {attrs['role']!r}")
    result: TensorType = attrs["type"]
    return result


def _input_numpy(**attrs: Any) -> Array:
    raise GraphError(f"input {attrs['name']!r} has no value")


input_ = Op(
    name="input",
    doc="A value given at each run (input), or kept between runs (parameter, state).",
    kind=Source(),
    shape=_input_rule,
    numpy=_input_numpy,
    grad=not_differentiable("an input has no operands"),
    examples=[],
    samples=[],
    errors=[],
)


def input(  # NumPy has no such name, and inside this package nothing reads the console
    name: str, shape: object = (), dtype: object = "f32", *, role: str = "input"
) -> Tensor:
    """Return a symbolic input of a graph: `asg.input("x", (32, 784))`.

    `shape` may also be a whole type, `asg.spec((32, 784), "f32")`.
    """
    type_ = shape if isinstance(shape, TensorType) else spec(shape, dtype)
    result: Tensor = input_(name=name, role=role, type=type_)
    return result


def _constant_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 0)
    array = attrs["value"].array
    return TensorType(array.shape, as_dtype(array.dtype))


constant_ = Op(
    name="constant",
    doc="An array known when the graph is built.",
    kind=Source(),
    shape=_constant_rule,
    numpy=lambda value: value.array,
    grad=not_differentiable("a constant has no operands"),
    examples=[Example([], [1.5, -2.0], {"value": Literal(np.array([1.5, -2.0], np.float32))})],
    samples=[
        Sample([], {"value": Literal(np.array([[1, 2, 3]], np.int32))}),
        Sample([], {"value": Literal(np.array(True))}),
        Sample([], {"value": Literal(np.zeros((0, 2), np.float32))}),
    ],
    errors=[],
)


def constant(value: Any, dtype: object = None) -> Tensor:
    """Return `value` (a number, nested list or array) as a constant.

    Numbers become f32 or i32 unless `dtype` is told, and so do arrays of 64 bits (unsigned ones
    u32). A value that does not fit is refused; rounding is not.

    Raises:
        DTypeError: a value is out of range, or no number.
        ShapeError: lists are not equally long.
    """
    if isinstance(value, Tensor):
        raise DTypeError(f"constant: {value!r} is symbolic already")
    try:
        array = np.array(value)  # a copy: the caller may change his
    except ValueError as error:
        raise ShapeError(f"constant: no array: {error}") from None
    target = as_dtype(dtype) if dtype is not None else _default_dtype(array)
    result: Tensor = constant_(value=Literal(convert_array(array, target)))
    return result


def _default_dtype(array: Array) -> DType:
    """Return an array's own dtype, or that of 32 bits in the place of one of 64."""
    wide = {"float64": DType.F32, "int64": DType.I32, "uint64": DType.U32}
    try:
        return wide.get(array.dtype.name) or as_dtype(array.dtype)
    except DTypeError:
        text = f"constant: {array.dtype} is not supported; use numbers or bools"
        raise DTypeError(text) from None


def convert_array(array: Array, dtype: DType) -> Array:
    """Return `array` in another element type, with every value kept (but for rounding to f32).

    Raises:
        DTypeError: a value is out of the range of `dtype`, or not an integer where it must be.
    """
    if array.dtype == dtype.numpy:
        return array
    if is_floating(array) and array.dtype.kind != "f":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"constant: {array.dtype} is not supported; use numbers or bools")
    with np.errstate(all="ignore"):
        converted = array.astype(dtype.numpy)
        if dtype.is_float:
            wrong = np.isfinite(array) & ~np.isfinite(converted)
        else:
            wrong = np.asarray(converted != array)
            if dtype.is_integer and array.dtype.kind in "iu":
                limits = np.iinfo(dtype.numpy)
                wrong = (array < limits.min) | (array > limits.max)
    if wrong.any():
        raise DTypeError(f"constant: {array[wrong].flat[0]} does not fit {dtype}")
    return converted


def _iota_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 0)
    result = TensorType(attrs["shape"], attrs["dtype"])
    accept(result, NUMBER)
    check_axis(attrs["axis"], result.shape)
    if attrs["axis"] < 0:
        raise ShapeError(f"axis {attrs['axis']} counts from the end; give {len(result.shape)} + it")
    return result


def _iota_numpy(shape: tuple[int, ...], axis: int, dtype: DType) -> Array:
    column = [size if position == axis else 1 for position, size in enumerate(shape)]
    numbers = np.arange(shape[axis], dtype=dtype.numpy).reshape(column)
    return np.broadcast_to(numbers, shape)


iota = Op(
    name="iota",
    doc="The coordinate along `axis`: 0, 1, 2 and so on.",
    kind=Source(index=lambda attrs, coordinates: coordinates[attrs["axis"]]),
    shape=_iota_rule,
    numpy=_iota_numpy,
    grad=not_differentiable("coordinates have no operands"),
    examples=[
        Example([], [[0, 0], [1, 1]], {"shape": (2, 2), "axis": 0, "dtype": DType.I32}),
        Example([], [[0.0, 1.0]], {"shape": (1, 2), "axis": 1, "dtype": DType.F32}),
    ],
    samples=[
        Sample([], {"shape": (3, 4, 2), "axis": 1, "dtype": DType.U32}),
        Sample([], {"shape": (0,), "axis": 0, "dtype": DType.I32}),
    ],
    errors=[],
)

OPS = (input_, constant_, iota)
