"""Change of element type, and the end of a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.graph import Attrs
from asg.op import Array, BadSample, Elementwise, Example, Op, Sample, not_differentiable
from asg.ops.rules import ANY, expect, pointwise
from asg.tensor import Tensor, as_tensor
from asg.types import DType, TensorType, as_dtype, is_floating


def _cast_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 1)
    return TensorType(types[0].shape, as_dtype(attrs["dtype"]))


def _cast_numpy(x: Array, dtype: DType) -> Array:
    """Floats become integers towards zero, at the nearest end of the range where they do not fit;
    NaN becomes 0. Integers that do not fit wrap: the low bits stay."""
    if dtype.is_float:
        return x if is_floating(x) else x.astype(np.float64)
    if dtype.is_integer and is_floating(x):
        limits = np.iinfo(dtype.numpy)
        whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0))
        return np.clip(whole, limits.min, limits.max).astype(dtype.numpy)
    return x.astype(dtype.numpy)


def _cast_text(source: DType, target: DType) -> str:
    if target.is_narrow and not source.is_float:
        if source is DType.BOOL:
            return "{R}({0})"
        return f"asg_f32_to_{target}({{F}}({{0}}))" if target.is_float else _low_bits(target)
    if source.is_float:
        return f"asg_f32_to_{target}({{0}})" if not target.holds(source) else "{0}"
    return "{R}({0})"


def _low_bits(target: DType) -> str:
    return f"asg_bits_to_{target}({{U}}({{0}}))"


cast_ = Op(
    name="cast",
    doc="Another element type. Floats to integers: towards zero, clamped to the range, NaN is 0;"
    " integers to fewer bits wrap; floats to fewer bits are rounded to nearest, ties to even.",
    kind=Elementwise(_cast_text),
    shape=_cast_rule,
    numpy=_cast_numpy,
    grad=lambda node, g, x: [cast(g, x.dtype) if x.dtype.is_float else None],
    examples=[
        Example([[1.7, -1.7, 3e9, float("nan")]], [1, -1, 2**31 - 1, 0], {"dtype": DType.I32}),
        Example([[1.7, -1.7, 5e9]], [1, 0, 2**32 - 1], {"dtype": DType.U32}),
        Example([[0.0, -0.5, float("nan")]], [False, True, True], {"dtype": DType.BOOL}),
        Example([[3, -4]], [3.0, -4.0], {"dtype": DType.F32}, dtypes=["i32"]),
        Example([[-1]], [2**32 - 1], {"dtype": DType.U32}, dtypes=["i32"]),
        Example([[True, False]], [1.0, 0.0], {"dtype": DType.F32}, dtypes=["bool"]),
        # 1 + 2^-11 lies in the middle of two neighbours of f16, 65520 in the middle of the largest
        # one and what would come next.
        Example([[1.00048828125, 1.001, 65519.0, 65520.0, -2e-8, 3e-8]],
                [1.0, 1.0009765625, 65504.0, float("inf"), -0.0, 5.9604645e-08],
                {"dtype": DType.F16}),
        Example([[1.00390625, 1.01171875, 3.4e38]], [1.0, 1.015625, float("inf")],
                {"dtype": DType.BF16}),
        Example([[1.5, float("-inf")]], [1.5, float("-inf")], {"dtype": DType.F32},
                dtypes=["f16"]),
        Example([[300, -129, 127, -1]], [44, 127, 127, -1], {"dtype": DType.I8}, dtypes=["i32"]),
        Example([[300.7, -300.0, 1.9, float("nan")]], [127, -128, 1, 0], {"dtype": DType.I8}),
        Example([[-1, -32768]], [65535, 32768], {"dtype": DType.U16}, dtypes=["i16"]),
        Example([[255, 7]], [-1, 7], {"dtype": DType.I8}, dtypes=["u8"]),
    ],
    samples=[
        Sample(["f32[4, 3]"], {"dtype": DType.I32}, low=-9, high=9),
        Sample(["f32[4, 3]"], {"dtype": DType.F32}),
        Sample(["i32[5]"], {"dtype": DType.BOOL}),
        Sample(["u32[5]"], {"dtype": DType.F32}, low=0, high=2**32 - 1),
        Sample(["bool[2, 3]"], {"dtype": DType.U32}),
    ],
    errors=[BadSample(["f32[2]"], match="cast: dtype float64 is not", attrs={"dtype": "float64"})],
)  # fmt: skip


def cast(x: Any, dtype: object) -> Tensor:
    """Return `x` with another element type; `x` itself where it has it already."""
    tensor = as_tensor(x)
    target = as_dtype(dtype)
    if tensor.dtype is target:
        return tensor
    result: Tensor = cast_(tensor, dtype=target)
    return result


stop_gradient = Op(
    name="stop_gradient",
    doc="The operand itself, taken as a constant by differentiation.",
    kind=Elementwise("{0}", cost=0),
    shape=pointwise(1, ANY),
    numpy=lambda x: x,
    grad=not_differentiable("it ends the gradient, that is its purpose"),
    examples=[Example([[1.0, 2.0]], [1.0, 2.0])],
    samples=[Sample(["f32[4, 3]"], gradient=False), Sample(["bool[2]"])],
    errors=[BadSample(["f32[2]", "f32[2]"], match="stop_gradient: takes 1 operand, got 2")],
)

copy = Op(
    name="copy",
    doc="The operand itself, in memory of its own where a kernel written by hand reads it.",
    kind=Elementwise("{0}", cost=0),
    shape=pointwise(1, ANY),
    numpy=lambda x: x,
    grad=lambda node, g, x: [g],
    examples=[Example([[1.0, 2.0]], [[1.0, 2.0]][0])],
    samples=[Sample(["f32[4, 3]"]), Sample(["bool[2]"]), Sample(["f32[0]"])],
    errors=[BadSample(["f32[2]", "f32[2]"], match="copy: takes 1 operand, got 2")],
)

OPS = (cast_, stop_gradient, copy)
