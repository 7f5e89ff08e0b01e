"""Weights of a few bits, as arrays: how they are made of floats, and what they stand for.

A weight [out, in] is cut along `in` into groups that share a scale s and a zero point z. A weight w
becomes the code q = clip(round(w / s) + z, 0, 2^bits - 1) and stands for

    ŵ = (q - z) s,    |w - ŵ| <= s / 2.

Symmetric: z = 2^(bits - 1), and s = max |w| / (2^(bits - 1) - 1), so that q = 0 stays unused.
With zero points: the range of the group and 0 is cut into 2^bits - 1 steps, so
s = (max(w, 0) - min(w, 0)) / (2^bits - 1) and z = round(-min(w, 0) / s). In both cases 0 stands
for itself. A half is rounded to the even neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.errors import InputError, ShapeError
from asg.ops.quantized import BITS, pack
from asg.ops.quantized import dequantize as dequantize_op

Array = np.ndarray[Any, Any]
LEAST_SCALE = 2.0**-126  # the least normal f32: devices may take smaller ones for 0


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A quantised weight [out, in], stored with `in` first, as products read it.

    Attributes:
        words: u32 [⌈in · bits / 32⌉, out]; the first of a word's codes lies in its lowest bits.
        scales: f32 [⌈in / group_size⌉, out].
        zeros: zero points (whole numbers) like `scales`; None where weights are symmetric.
    """

    words: Array
    scales: Array
    zeros: Array | None
    bits: int
    group_size: int
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        zeros = 0 if self.zeros is None else self.zeros.nbytes
        return self.words.nbytes + self.scales.nbytes + zeros


def quantize_weight(
    weight: Any, bits: int = 4, group_size: int | None = 64, symmetric: bool = True
) -> PackedWeight:
    """Return `weight` [out, in] as codes of `bits` (2, 4 or 8) bits, by the formula above.

    Each `group_size` neighbours along `in` share a scale; with None all of a row do.

    Raises:
        ShapeError: it is no matrix, or there are no such groups or codes.
        InputError: a weight is infinite or NaN.
    """
    array = np.asarray(weight, np.float64)
    if array.ndim != 2:
        raise ShapeError(f"a weight [out, in] is quantised, got shape {list(array.shape)}")
    columns, rows = array.shape
    group = max(rows, 1) if group_size is None else group_size
    check_options(bits, group)
    if not np.isfinite(array).all():
        raise InputError("a weight that is infinite or NaN can't be quantised")
    groups = _groups(array.T, group)
    scales, zeros = _steps(groups, bits, symmetric)
    codes = np.rint(groups / scales[:, None]) + zeros[:, None]
    codes = np.clip(codes, 0, 2**bits - 1).astype(np.uint32)
    words = pack(codes.reshape(-1, columns)[:rows], bits)
    kept = None if symmetric else zeros
    return PackedWeight(words, scales, kept, bits, group, (columns, rows))


def dequantize_weight(packed: PackedWeight) -> Array:
    """Return the weight f32 [out, in] that `packed` stands for."""
    operands = [packed.words, packed.scales, *([] if packed.zeros is None else [packed.zeros])]
    rows = packed.shape[1]
    found: Array = dequantize_op.numpy(
        *operands, bits=packed.bits, rows=rows, group_size=packed.group_size
    )
    return np.ascontiguousarray(found.T)


def check_options(bits: int, group_size: int) -> None:
    """Refuse codes that do not divide a word, and empty groups.

    Raises:
        ShapeError: there are no such codes or groups.
    """
    if bits not in BITS:
        raise ShapeError(f"weights are quantised to {', '.join(map(str, BITS))} bits, not {bits}")
    if group_size < 1:
        raise ShapeError(f"a group holds at least 1 weight, not {group_size}")


def _groups(rows: Array, size: int) -> Array:
    """Return [groups, size, columns]; the last group is filled up with zeros."""
    count, columns = rows.shape
    groups = -(-count // size)
    filled = np.zeros((groups * size, columns))
    filled[:count] = rows
    return filled.reshape(groups, size, columns)


def _steps(groups: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """Return the scale and the zero point of each group and column, both f32."""
    high, low = groups.max(1, initial=0.0), groups.min(1, initial=0.0)
    if symmetric:
        steps = np.maximum(high, -low) / (2 ** (bits - 1) - 1)
    else:
        steps = (high - low) / (2**bits - 1)
    steps = np.where(steps > 0, np.maximum(steps, LEAST_SCALE), 1.0)
    scales = _rounded_up(steps)
    if symmetric:
        return scales, np.full(scales.shape, 2 ** (bits - 1), np.float32)
    return scales, np.rint(-low / scales).astype(np.float32)


def _rounded_up(steps: Array) -> Array:
    """Return the next f32 that is not smaller: so no weight lies beyond the last code."""
    scales = steps.astype(np.float32)
    return np.where(scales < steps, np.nextafter(scales, np.float32(np.inf)), scales)
