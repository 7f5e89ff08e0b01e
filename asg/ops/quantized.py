"""Weights of a few bits: several in a word, with a scale for each group of rows.

Kept whole until lowering; then it is spelt out in cheap steps, which a product computes while it
loads its operand, so that the weights in f32 lie nowhere in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, ByExpansion, Composite, Example, Op, Sample
from asg.ops.arithmetic import mul, sub
from asg.ops.bits import bit_field, bitcast
from asg.ops.convert import cast_
from asg.ops.movement import broadcast, reshape, slice_
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType, TensorType

WORD_BITS = 32
BITS = (2, 4, 8)  # of a weight: they divide a word


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    if len(types) not in (2, 3):
        raise ShapeError(f"takes words, scales and maybe zero points, got {len(types)} operands")
    bits, rows, group = attrs["bits"], attrs["rows"], attrs["group_size"]
    if bits not in BITS:
        raise ShapeError(f"a weight has {', '.join(map(str, BITS))} bits, got {bits}")
    if group < 1 or rows < 0:
        raise ShapeError(f"needs a group of at least 1 row, got {group} of {rows}")
    words, *others = types
    if words.rank != 2:
        raise ShapeError(f"words have shape [words, columns], got {words}")
    if words.dtype is not DType.U32:
        raise DTypeError(f"words are u32, got {words}")
    columns = words.shape[1]
    per_word = WORD_BITS // bits
    if words.shape[0] != -(-rows // per_word):
        raise ShapeError(f"{rows} rows take {-(-rows // per_word)} words, got {words}")
    wanted = TensorType((-(-rows // group), columns), DType.F32)
    for name, type_ in zip(("scales", "zero points"), others, strict=False):
        if type_ != wanted:
            raise ShapeError(f"{name} of groups of {group} have type {wanted}, got {type_}")
    return TensorType((rows, columns), DType.F32)


def _repeated(x: Tensor, times: int, rows: int) -> Tensor:
    """Repeat each row of `x` so often, and cut what is beyond `rows`."""
    count, columns = x.shape
    each = broadcast(reshape(x, shape=(count, 1, columns)), shape=(count, times, columns))
    return _first(reshape(each, shape=(count * times, columns)), rows)


def _first(x: Tensor, rows: int) -> Tensor:
    if x.shape[0] == rows:
        return x
    result: Tensor = slice_(x, starts=(0, 0), stops=(rows, x.shape[1]), steps=(1, 1))
    return result


def _expand(attrs: Attrs, words: Tensor, scales: Tensor, *zeros: Tensor) -> Tensor:
    bits, rows, group = attrs["bits"], attrs["rows"], attrs["group_size"]
    per_word = WORD_BITS // bits
    count, columns = words.shape
    shape = (count, per_word, columns)
    number = iota(shape=shape, axis=1, dtype=DType.U32)
    each = broadcast(reshape(words, shape=(count, 1, columns)), shape=shape)
    codes = bit_field(each, mul(number, np.uint32(bits)), np.uint32(2**bits - 1))
    # Processors convert signed numbers faster.
    numbers = cast_(bitcast(codes, dtype=DType.I32), dtype=DType.F32)
    numbers = _first(reshape(numbers, shape=(count * per_word, columns)), rows)
    middle = _repeated(zeros[0], group, rows) if zeros else float(2 ** (bits - 1))
    result: Tensor = mul(sub(numbers, middle), _repeated(scales, group, rows))
    return result


def _numpy(
    words: Array, scales: Array, *zeros: Array, bits: int, rows: int, group_size: int
) -> Any:
    codes = unpack(words, bits, rows).astype(scales.dtype)
    group = np.arange(rows) // group_size
    middle = zeros[0][group] if zeros else scales.dtype.type(2 ** (bits - 1))
    return (codes - middle) * scales[group]


def pack(codes: Array, bits: int) -> Array:
    """Return `codes` (integers below 2^bits, [rows, columns]) in words u32, the first of a word's
    rows in its lowest bits; what a last word lacks is 0."""
    rows, columns = codes.shape
    per_word = WORD_BITS // bits
    count = -(-rows // per_word)
    padded = np.zeros((count * per_word, columns), np.uint32)
    padded[:rows] = codes
    shifts = (np.arange(per_word, dtype=np.uint32) * np.uint32(bits))[None, :, None]
    parts = padded.reshape(count, per_word, columns) << shifts
    words: Array = np.bitwise_or.reduce(parts, axis=1)
    return words


def unpack(words: Array, bits: int, rows: int) -> Array:
    """Return the codes u32 [rows, columns] that `pack` has put into words."""
    count, columns = words.shape
    per_word = WORD_BITS // bits
    shifts = (np.arange(per_word, dtype=np.uint32) * np.uint32(bits))[None, :, None]
    codes: Array = (words[:, None, :] >> shifts) & np.uint32(2**bits - 1)
    return codes.reshape(count * per_word, columns)[:rows]


_EXAMPLE = {"bits": 8, "rows": 5, "group_size": 3}

dequantize = Op(
    name="dequantize",
    doc="`(code - zero) * scale`, f32[rows, columns], of weights of `bits` bits. A word holds 32 /"
    " bits of them that follow each other along the rows, the first in the lowest bits. Each"
    " `group_size` rows of a column share a scale and a zero point, which is `2^(bits - 1)` where"
    " none is given.",
    kind=Composite(_expand),
    shape=_rule,
    numpy=_numpy,
    grad=ByExpansion(),
    examples=[
        Example(
            [[[0x017F8183], [0x82]], [[0.5], [2.0]]],
            [[1.5], [0.5], [-0.5], [-254.0], [4.0]],
            _EXAMPLE, ["u32", "f32"],
        ),
        Example(
            [[[0x00000F21]], [[0.5]], [[2.0]]],
            [[-0.5], [0.0], [6.5]],
            {"bits": 4, "rows": 3, "group_size": 4}, ["u32", "f32", "f32"],
        ),
    ],
    samples=[
        Sample(["u32[2, 5]", "f32[2, 5]"], _EXAMPLE, lows=[0, -1], highs=[2**32 - 1, 1]),
        Sample(["u32[4, 3]", "f32[1, 3]", "f32[1, 3]"],
               {"bits": 4, "rows": 29, "group_size": 29},
               lows=[0, -1, 0], highs=[2**32 - 1, 1, 15]),
        Sample(["u32[2, 4]", "f32[1, 4]"], {"bits": 2, "rows": 32, "group_size": 32},
               lows=[0, -1], highs=[2**32 - 1, 1]),
        Sample(["u32[0, 4]", "f32[0, 4]"], {"bits": 4, "rows": 0, "group_size": 32}),
        Sample(["u32[1, 0]", "f32[1, 0]"], {"bits": 8, "rows": 4, "group_size": 8}),
    ],
    errors=[
        BadSample(["u32[2, 4]", "f32[2, 4]"], "dequantize: 20 rows take 3 words, got u32[2, 4]",
                  {"bits": 4, "rows": 20, "group_size": 10}),
        BadSample(["f32[2, 4]", "f32[2, 4]"], "words are u32, got f32[2, 4]",
                  {"bits": 4, "rows": 16, "group_size": 8}),
        BadSample(["u32[2, 4]", "f32[2, 4]"], "scales of groups of 4 have type f32[4, 4]",
                  {"bits": 4, "rows": 16, "group_size": 4}),
        BadSample(["u32[2, 4]", "f32[2, 4]", "f32[1, 4]"], "zero points of groups of 8 have type",
                  {"bits": 4, "rows": 16, "group_size": 8}),
        BadSample(["u32[2, 4]", "f32[2, 4]"], "a weight has 2, 4, 8 bits, got 3",
                  {"bits": 3, "rows": 16, "group_size": 8}),
    ],
)  # fmt: skip

OPS = (dequantize,)
