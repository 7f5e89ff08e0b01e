"""Fourier transforms, as products with matrices of sines and cosines.

Complex numbers whose count is a product are transformed in two steps, along either factor, which
takes fewer operations than one large matrix. Real ones take one step: it needs half of the
products, and what has no imaginary part gets none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.dtypes import numpy_type
from asg.onnx.operators.sources import LARGEST_RANGE
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

LONGEST = 4096  # its matrix has 16 million elements


def _waves(rows: int, columns: int, length: int, sign: float) -> Any:
    """Return exp(sign 2πi j k / length) for j in rows and k in columns."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    found = np.exp(sign * 2j * np.pi * turns / length)
    # π is rounded, so the zeros of sines and cosines come out as 1e-16.
    found.real[np.abs(found.real) < 1e-15] = 0.0
    found.imag[np.abs(found.imag) < 1e-15] = 0.0
    return found


def _transform(call: Call, x: Tensor, axis: int, sign: float, bins: int) -> Tensor:
    """Return the first bins of a transform of [..., 1 or 2] along an axis, not scaled."""
    length = x.shape[axis]
    if max(length, bins) > LARGEST_RANGE:
        raise call.unsupported(f"a transform of {max(length, bins)}", f"at most {LARGEST_RANGE}")
    few = next((n for n in range(math.isqrt(length), 0, -1) if length % n == 0), 1)
    if few == 1 or x.shape[-1] == 1:
        return _product(call, x, axis, _matrix(call, length, bins, length, sign))
    # x_(i + many b), of which the result is y_(q + few k): over b, then over i.
    many = length // few
    last = _matrix(call, many, many, many, sign)
    parts = F.reshape(x, (*x.shape[:axis], few, many, *x.shape[axis + 1 :]))
    parts = _product(call, parts, axis, _matrix(call, few, few, few, sign))
    turns = _waves(few, many, length, sign).reshape((few, many) + (1,) * (x.ndim - axis - 2))
    cos, sin = (call.constant_tensor(each, DType.F32) for each in (turns.real, turns.imag))
    a, b = parts[..., 0], parts[..., 1]
    turned = F.stack([a * cos - b * sin, a * sin + b * cos], -1)
    found = _product(call, turned, axis + 1, last)
    found = F.reshape(F.swapaxes(found, axis, axis + 1), (*x.shape[:-1], 2))
    return _fitted(found, axis, bins)


def _matrix(call: Call, rows: int, columns: int, length: int, sign: float) -> Any:
    """Return `_waves` that a product may have; larger ones are refused before they are made."""
    if max(rows, columns) > LONGEST:
        raise call.unsupported(f"a transform of {max(rows, columns)}", f"at most {LONGEST}")
    return _waves(rows, columns, length, sign)


def _product(call: Call, x: Tensor, axis: int, matrix: Any) -> Tensor:
    """Return [..., 2]: a complex matrix applied to [..., 1 or 2] along an axis."""
    real = call.constant_tensor(matrix.real, DType.F32)
    imaginary = call.constant_tensor(matrix.imag, DType.F32)

    def along(part: Tensor, weights: Tensor) -> Tensor:
        return F.swapaxes(F.matmul(F.swapaxes(part, axis, -1), weights), axis, -1)

    a = x[..., 0]
    if x.shape[-1] == 1:
        return F.stack([along(a, real), along(a, imaginary)], -1)
    b = x[..., 1]
    return F.stack([along(a, real) - along(b, imaginary), along(a, imaginary) + along(b, real)], -1)


def _fitted(x: Tensor, axis: int, length: int) -> Tensor:
    """Cut an axis, or put zeros at its end."""
    missing = length - x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    return F.pad(x, widths) if missing else x


@converter("DFT", since=17, statics=(1, 2))
def dft(call: Call) -> Tensor:
    """[..., 1] or [..., 2] (real and imaginary) to [..., 2], or back to [..., 1] if one-sided."""
    x = call[0]
    if call.opset >= 20:
        axis = int(call.static(2, "the axis").reshape(())) if call.has(2) else -2
    else:
        axis = call.get_int("axis", 1)
    axis %= x.ndim
    inverse, onesided = bool(call.get_int("inverse", 0)), bool(call.get_int("onesided", 0))
    size = x.shape[axis]
    length = 2 * (size - 1) if inverse and onesided else size
    if call.has(1):
        length = int(call.static(1, "the length").reshape(()))
    if inverse and onesided:
        return _real_inverse(call, x, axis, length)
    bins = length // 2 + 1 if onesided else length
    found = _transform(call, _fitted(x, axis, length), axis, 1 if inverse else -1, bins)
    return found * (1.0 / length) if inverse else found


def _real_inverse(call: Call, x: Tensor, axis: int, length: int) -> Tensor:
    """The half that is given stands for its conjugate as well."""
    count = length // 2 + 1
    matrix = _matrix(call, count, length, length, 1) / length
    twice = np.full((count, 1), 2.0)
    twice[0] = 1.0
    if length % 2 == 0:
        twice[-1] = 1.0
    found = _product(call, _fitted(x, axis, count), axis, matrix * twice)
    return found[..., :1]


@converter("STFT", since=17, statics=(1, 3))
def stft(call: Call) -> Tensor:
    """Transforms of frames [batch, frames, bins, 2] of a signal [batch, length, 1 or 2]."""
    x = call[0]
    x = F.unsqueeze(x, -1) if x.ndim == 2 else x
    step = int(call.static(1, "the step").reshape(()))
    window = call.optional(2)
    if call.has(3):
        length = int(call.static(3, "the frame's length").reshape(()))
    elif window is not None:
        length = window.shape[0]
    else:
        raise call.malformed("neither a window nor a frame's length is given")
    frames = 1 + (x.shape[1] - length) // step
    if max(frames, 1) * length > LARGEST_RANGE:
        raise call.unsupported(f"{frames} frames of {length} elements")
    rows = np.arange(frames)[:, None] * step + np.arange(length)
    parts = F.take(x, call.constant_tensor(rows, DType.I32), 1)  # [batch, frames, length, parts]
    if window is not None:
        parts = parts * F.reshape(window, (-1, 1))
    bins = length // 2 + 1 if call.get_int("onesided", 1) else length
    return _transform(call, parts, 2, -1, bins)


@converter("MelWeightMatrix", since=17, statics=(0, 1, 2, 3, 4))
def mel_weight_matrix(call: Call) -> Any:
    """Triangles over the bins of a transform, evenly spaced on the mel scale."""
    count, length, rate = (int(call.static(i, "the sizes").reshape(())) for i in range(3))
    edges = [float(call.static(i, "the edges").reshape(())) for i in (3, 4)]
    low, high = (2595 * np.log10(1 + edge / 700) for edge in edges)
    bins = length // 2 + 1
    if not 0 < count * bins <= LARGEST_RANGE:
        raise call.unsupported(f"a matrix of {bins} by {count}")
    mels = low + np.arange(count + 2) * ((high - low) / (count + 2))
    hertz = 700 * (10 ** (mels / 2595) - 1)
    corners = np.floor((length + 1) * hertz / rate).astype(np.int64)
    found = np.zeros((bins, count))
    for i, (start, centre, end) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        if centre == start:
            found[centre, i] = 1
        else:
            found[start : centre + 1, i] = np.arange(centre - start + 1) / (centre - start)
        if end > centre:
            found[centre:end, i] = (end - np.arange(centre, end)) / (end - centre)
    code = call.get_int("output_datatype", 1)
    return found.astype(numpy_type(code))


_COSINES = {  # how much of the constant, of cos(2πi/n) and of cos(4πi/n)
    "HannWindow": (0.5, -0.5, 0.0),
    "HammingWindow": (25 / 46, -21 / 46, 0.0),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}


@converter(*_COSINES, since=17, statics=(0,))
def window(call: Call) -> Any:
    """Sums of cosines that are small at both ends."""
    size = int(call.static(0, "the size").reshape(()))
    if size > LARGEST_RANGE:
        raise call.unsupported(f"a window of {size} elements")
    turns = np.arange(size) * (
        2 * np.pi / max(size if call.get_int("periodic", 1) else size - 1, 1)
    )
    flat, once, twice = _COSINES[call.op]
    found = flat + once * np.cos(turns) + twice * np.cos(2 * turns)
    return found.astype(numpy_type(call.get_int("output_datatype", 1)))
