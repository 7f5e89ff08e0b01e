"""Whole numbers that stand for others: q = round(x / scale) + zero."""

from __future__ import annotations

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Typed
from asg.onnx.dtypes import NumpyType, computed_type, numpy_type
from asg.onnx.operators.windows import convolved
from asg.onnx.problems import NodeUnsupportedError
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

LONGEST = 1 << 18  # inner axis of a product, which is cut up


def _spread(value: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Return a scale or zero, of the whole, of an axis or of blocks, beside the elements of x."""
    if value.ndim == 0 or value.size == 1:
        return F.reshape(value, (1,) * x.ndim)
    axis %= x.ndim
    if value.ndim == 1:
        return F.reshape(value, (-1, *(1,) * (x.ndim - 1 - axis)))
    repeated = F.broadcast_to(
        F.unsqueeze(value, axis + 1), (*value.shape[: axis + 1], block, *value.shape[axis + 1 :])
    )
    whole = (*value.shape[:axis], value.shape[axis] * block, *value.shape[axis + 1 :])
    cut = tuple(slice(0, size) for size in x.shape)
    return F.reshape(repeated, whole)[cut]


def _quantized(
    call: Call, x: Tensor, scale: Tensor, zero: Tensor | None, target: NumpyType
) -> Typed:
    """Halves go to the even number; what does not fit is cut off."""
    limits = np.iinfo(target)
    rounded = F.round(F.cast(x, DType.F32) / F.cast(scale, DType.F32))
    if zero is not None:
        rounded = rounded + F.cast(zero, DType.F32)
    kind = computed_type(target, call.importer.allow_float64)
    return Typed(F.cast(F.clip(rounded, float(limits.min), float(limits.max)), kind), target)


@converter("QuantizeLinear", since=10)
def quantize(call: Call) -> Typed:
    """Whole numbers of the zero's type."""
    x = call[0]
    if call.has(2):
        target = call.dtype(2)
    elif call.has_attribute("output_dtype") and call.get_int("output_dtype"):
        target = numpy_type(call.get_int("output_dtype"))
    else:
        target = np.dtype(np.uint8)
    if target.kind not in "iu":
        raise call.unsupported(f"quantisation to {target.name}")
    axis, block = call.get_int("axis", 1), call.get_int("block_size", 0)
    scale = _spread(call[1], x, axis, block)
    zero = _spread(call[2], x, axis, block) if call.has(2) else None
    return _quantized(call, x, scale, zero, target)


@converter("DequantizeLinear", since=10)
def dequantize(call: Call) -> Tensor:
    """(q - zero) * scale."""
    x = call[0]
    axis, block = call.get_int("axis", 1), call.get_int("block_size", 0)
    scale = _spread(call[1], x, axis, block)
    number = F.cast(x, DType.I32)
    if call.has(2):
        number = number - F.cast(_spread(call[2], x, axis, block), DType.I32)
    result: Tensor = F.cast(number, DType.F32) * F.cast(scale, DType.F32)
    found: Tensor = result.astype(scale.dtype)
    return found


@converter("DynamicQuantizeLinear", since=11)
def dynamic_quantize(call: Call) -> list[Typed | Tensor]:
    """uint8 numbers with the scale and zero that suit the operand."""
    x, target = call[0], np.dtype(np.uint8)
    high = F.maximum(F.max(x), 0.0)
    low = F.minimum(F.min(x), 0.0)
    scale = (high - low) / 255.0
    safe = F.where(F.equal(scale, 0.0), 1.0, scale)
    zero = F.clip(F.round(-low / safe), 0.0, 255.0)
    kind = computed_type(target, call.importer.allow_float64)
    return [_quantized(call, x, safe, zero, target), scale, Typed(F.cast(zero, kind), target)]


def _centred(call: Call, position: int, zero: int, axis: int) -> Tensor:
    """Return whole numbers minus their zero, as i32; a zero per row or column lies along axis."""
    x = F.cast(call[position], DType.I32)
    if not call.has(zero):
        return x
    z = F.cast(call[zero], DType.I32)
    if z.ndim == 1 and z.size > 1:
        z = F.reshape(z, (-1, 1)) if axis == 0 else z
    return x - (F.reshape(z, ()) if z.size == 1 else z)


def integer_product(x: Tensor, y: Tensor) -> Tensor:
    """Return the exact product of matrices of whole numbers, each of at most 9 bits.

    Products of f32 are exact while sums stay below 2^24; longer inner axes are cut up.
    """
    step, inner = 64, x.shape[-1]
    if inner > LONGEST:
        raise NodeUnsupportedError(f"an inner axis of {inner}", f"at most {LONGEST}")
    total: Tensor | None = None
    for start in range(0, max(inner, 1), step):
        part = F.matmul(
            F.cast(x[..., start : start + step], DType.F32),
            F.cast(y[..., start : start + step, :] if y.ndim > 1 else y[start : start + step],
                   DType.F32),
        )  # fmt: skip
        number = F.cast(part, DType.I32)
        total = number if total is None else total + number
    assert total is not None
    return total


@converter("MatMulInteger", since=10)
def matmul_integer(call: Call) -> Tensor:
    """Product of 8-bit numbers minus their zeros, as i32."""
    return integer_product(_centred(call, 0, 2, 0), _centred(call, 1, 3, 1))


@converter("QLinearMatMul", since=10)
def qlinear_matmul(call: Call) -> Typed:
    """Product of quantised matrices, quantised."""
    x = _with_zero(call[0], call[2])
    y = _with_zero(call[3], call[5], along_last=True)
    product = F.cast(integer_product(x, y), DType.F32)
    a, b, c = (F.cast(call[i], DType.F32) for i in (1, 4, 6))
    a = F.reshape(a, (-1, 1)) if a.ndim == 1 and a.size > 1 else a
    return _quantized(call, product * (a * b), c, call[7], call.dtype(7))


def _with_zero(x: Tensor, zero: Tensor, along_last: bool = False) -> Tensor:
    z = F.cast(zero, DType.I32)
    if z.size == 1:
        z = F.reshape(z, ())
    elif z.ndim == 1 and not along_last:
        z = F.reshape(z, (-1, 1))
    return F.cast(x, DType.I32) - z


def _exact_convolution(call: Call, x: Tensor, w: Tensor) -> Tensor:
    """Return a convolution of whole numbers, exact while sums stay below 2^24."""
    inner = int(np.prod(w.shape[1:]))
    if inner * 255 * 255 >= 1 << 24:
        return _by_channels(call, x, w)
    return F.cast(convolved(call, F.cast(x, DType.F32), F.cast(w, DType.F32)), DType.I32)


def _by_channels(call: Call, x: Tensor, w: Tensor) -> Tensor:
    """Cut long sums: 8-bit numbers are split in halves of 4 bits, whose sums are exact longer."""
    low = F.bitwise_and(w, 15)
    high = F.shift_right(w, 4)
    inner = int(np.prod(w.shape[1:]))
    if inner * 255 * 16 >= 1 << 24:
        raise call.unsupported(f"a sum of {inner} products of whole numbers")
    parts = [
        F.cast(convolved(call, F.cast(x, DType.F32), F.cast(part, DType.F32)), DType.I32)
        for part in (low, high)
    ]
    found: Tensor = parts[0] + F.shift_left(parts[1], 4)
    return found


@converter("ConvInteger", since=10)
def conv_integer(call: Call) -> Tensor:
    """Convolution of 8-bit numbers minus their zeros, as i32."""
    x = F.cast(call[0], DType.I32)
    w = F.cast(call[1], DType.I32)
    if call.has(2):
        x = x - F.reshape(F.cast(call[2], DType.I32), ())
    if call.has(3):
        zero = F.cast(call[3], DType.I32)
        w = w - F.reshape(zero, (-1, *(1,) * (w.ndim - 1)) if zero.size > 1 else ())
    return _exact_convolution(call, x, w)


@converter("QLinearConv", since=10)
def qlinear_conv(call: Call) -> Typed:
    """Convolution of quantised numbers, quantised."""
    x = F.cast(call[0], DType.I32) - F.reshape(F.cast(call[2], DType.I32), ())
    w = F.cast(call[3], DType.I32)
    zero = F.cast(call[5], DType.I32)
    w = w - F.reshape(zero, (-1, *(1,) * (w.ndim - 1)) if zero.size > 1 else ())
    total = _exact_convolution(call, x, w)
    if call.has(8):
        total = total + F.reshape(F.cast(call[8], DType.I32), (-1, *(1,) * (total.ndim - 2)))
    scale = F.cast(call[1], DType.F32) * F.cast(call[4], DType.F32)
    if scale.size > 1:
        scale = F.reshape(scale, (-1, *(1,) * (total.ndim - 2)))
    real = F.cast(total, DType.F32) * scale
    return _quantized(call, real, call[6], call[7], call.dtype(7))
