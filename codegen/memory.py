"""Loads and stores of elements, as text: plain words, f16, or several elements packed in a word.

Narrow elements lie side by side, the first lowest. Whoever stores them owns whole words: a quad
is one word of 8-bit elements or two of 16-bit ones. Where a loop can't own whole words, an element
is set by atomic operations, which leave the other bits alone; each bit has one owner, so the result
does not depend on the order.

Where a device has f16, arrays hold these themselves, and no word is shared. What is stored is an
f16 already (`cast` rounds by bits), so the device's conversions, however they round, are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from asg.codegen.bindings import Binding
from asg.codegen.text import LANES, STORED, VECTOR, Operand, vector_of
from asg.errors import InternalError
from asg.graph import Value
from asg.index import ZERO, Index
from asg.types import DType


class Writer(Protocol):
    """What is needed of an emitter."""

    def index(self, index: Index) -> str: ...
    def call(self, name: str, width: int) -> str: ...
    def let(self, stem: str, text: str) -> str: ...
    def pair(self, binding: Binding, index: Index) -> str: ...


def read_one(writer: Writer, binding: Binding, position: Index, value: Value) -> str:
    """Return the element at `position`."""
    dtype = value.type.dtype
    if binding.is_half:
        return f"f32({_element(writer, binding, position)})"
    if not dtype.is_narrow:
        return _typed(_element(writer, binding, position), binding, dtype, 1)
    bits = _word(writer, binding, position // dtype.per_word)
    lane = position % dtype.per_word
    if lane != ZERO:
        bits = f"{bits} >> {_shift(writer, lane, dtype)}"
    if dtype is DType.F16:
        return f"unpack2x16float({bits}).x"
    return f"{writer.call(f'asg_bits_to_{dtype}', 1)}({bits})"


def read_quad(writer: Writer, binding: Binding, position: Index, value: Value) -> str:
    """Return the four elements from `position` on, a multiple of four, of an array of quads."""
    dtype = value.type.dtype
    quad = position // LANES
    if binding.is_paired:
        half = "zw" if (quad % 2).const else "xy"
        text = f"{writer.pair(binding, quad // 2)}.{half}"
    else:
        text = binding.read(writer.index(quad))
    if binding.is_half:
        return f"vec4f({text})"
    if binding.is_wide:
        helper = "asg_unpack_wide_16" if dtype.is_narrow else "asg_unpack"
        text = f"{writer.call(helper, 1)}({text})"
    if not dtype.is_narrow:
        return _typed(text, binding, dtype, LANES)
    if dtype.is_float:
        return f"{writer.call(f'asg_unpack_{dtype}', 1)}({text})"
    bits = f"{writer.call(f'asg_unpack_{8 * dtype.itemsize}', 1)}({text})"
    return f"{writer.call(f'asg_bits_to_{dtype}', LANES)}({bits})" if dtype.is_signed else bits


def write_one(writer: Writer, binding: Binding, position: Index, operand: Operand) -> str:
    """Return the statement that stores an element."""
    dtype = operand.dtype
    if not binding.is_packed:
        text = _as_stored(operand, binding)
        if binding.parts or binding.is_atomic:  # never of vectors where elements are accessed
            return binding.write(writer.index(position), text)
        return f"{_element(writer, binding, position)} = {text};"
    binding.partial_writes += 1
    mask = "0xffu" if dtype.itemsize == 1 else "0xffffu"
    bits = f"({_bits(writer, operand)} & {mask})"
    lane = position % dtype.per_word
    if lane != ZERO:
        shift = _shift(writer, lane, dtype)
        bits, mask = f"{bits} << {shift}", f"({mask} << {shift})"
    word = writer.index(position // dtype.per_word)
    return binding.merge(word, f"~{mask}", bits)


def write_quad(writer: Writer, binding: Binding, position: Index, operand: Operand) -> list[str]:
    """Return the statements that store four elements from `position` on, a multiple of four."""
    dtype = operand.dtype
    if not dtype.is_narrow or binding.is_half:
        text = _as_stored(operand, binding)
        if operand.width != LANES:
            text = f"{vector_of(binding.stored, LANES)}({text})"
        if binding.is_wide:
            text = f"{writer.call('asg_pack', 1)}({text})"
        quad = position // LANES
        if binding.is_paired:
            held = binding.store_half(quad, text)
            if quad % 2 == ZERO:
                return []
            if held is None:
                raise InternalError(f"codegen: half a pair is written to {binding.name}")
            return [binding.write(writer.index(quad // 2), f"vec4<u64>({held}, {text})")]
        return [binding.write(writer.index(position // LANES), text)]
    bits = _bits(writer, operand)
    if operand.width != LANES:
        bits = f"vec4u({bits})"
    words = f"{writer.call(f'asg_pack_{8 * dtype.itemsize}', 1)}({bits})"
    if binding.is_wide:
        words = f"{writer.call('asg_pack_wide_16', 1)}({words})"
    if binding.is_vector or dtype.itemsize == 1:
        return [binding.write(writer.index(position // LANES), words)]
    words = writer.let("words", words)
    first = position // dtype.per_word
    return [
        binding.write(writer.index(first + number), f"{words}.{'xy'[number]}")
        for number in range(dtype.itemsize)
    ]


def write_words(
    writer: Writer, binding: Binding, position: Index, operands: Sequence[Operand]
) -> list[str]:
    """Return the statements that store narrow elements as whole words, filled up with zeros."""
    dtype = operands[0].dtype
    if binding.is_half:
        binding.scalar_uses += len(operands)
        pairs = enumerate(operands)
        return [write_one(writer, binding, position + lane, operand) for lane, operand in pairs]
    if position % dtype.per_word != ZERO:
        raise InternalError(f"codegen: {binding.name} is written from within a word on")
    lines: list[str] = []
    for start in range(0, len(operands), dtype.per_word):
        mask = "0xffu" if dtype.itemsize == 1 else "0xffffu"
        parts = []
        for lane, operand in enumerate(operands[start : start + dtype.per_word]):
            bits = f"({_bits(writer, operand)} & {mask})"
            parts.append(f"({bits} << {8 * dtype.itemsize * lane}u)" if lane else bits)
        word = (position + start) // dtype.per_word
        binding.scalar_uses += 1
        text = " | ".join(parts)
        if binding.is_vector and dtype.itemsize > 1 and not binding.parts:
            lines.append(f"{_word(writer, binding, word)} = {text};")
        else:
            lines.append(binding.write(writer.index(word), text))
    return lines


def _word(writer: Writer, binding: Binding, word: Index) -> str:
    """Return a word of an array of words or of pairs of them."""
    if not binding.is_vector or binding.quad_words == 1:
        return binding.read(writer.index(word))
    pair = binding.read(writer.index(word // 2))
    half = word % 2
    return f"{pair}.{'xy'[half.const]}" if half.is_const else f"{pair}[{writer.index(half)}]"


def _element(writer: Writer, binding: Binding, position: Index) -> str:
    if not binding.is_vector:
        return binding.read(writer.index(position))
    row, lane = position // LANES, position % LANES
    if lane.is_const:
        return f"{binding.read(writer.index(row))}.{'xyzw'[lane.const]}"
    return f"{binding.read(writer.index(row))}[{writer.index(lane)}]"


def _shift(writer: Writer, lane: Index, dtype: DType) -> str:
    bits = 8 * dtype.itemsize
    return f"{bits * lane.const}u" if lane.is_const else f"({writer.index(lane * bits)})"


def _bits(writer: Writer, operand: Operand) -> str:
    """Return the bits of narrow elements, of which only the low ones count."""
    if operand.dtype.is_float:
        return f"{writer.call(f'asg_{operand.dtype}_bits', operand.width)}({operand.text})"
    return f"{VECTOR[DType.U32] if operand.width == LANES else 'u32'}({operand.text})"


def _typed(text: str, binding: Binding, dtype: DType, width: int) -> str:
    """Return an array element as the value's type; values of two types may share a binding."""
    if binding.stored != STORED[dtype]:
        text = f"bitcast<{vector_of(STORED[dtype], width)}>({text})"
    if dtype is not DType.BOOL:
        return text
    return f"{text} != vec4u(0u)" if width == LANES else f"{text} != 0u"


def _as_stored(operand: Operand, binding: Binding) -> str:
    """Return an operand of 32 bits, or an f16, as the binding's type."""
    text = operand.text
    if binding.is_half:
        return f"{vector_of(binding.stored, operand.width)}({text})"
    if operand.dtype is DType.BOOL:
        zero, one = ("vec4u(0u)", "vec4u(1u)") if operand.width == LANES else ("0u", "1u")
        text = f"select({zero}, {one}, {text})"
    if binding.stored != STORED[operand.dtype]:
        text = f"bitcast<{vector_of(binding.stored, operand.width)}>({text})"
    return text
