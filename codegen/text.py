"""WGSL spelling: types, numbers, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asg.index import Opaque, Var
from asg.types import DType

LANES = 4
_VECTOR = {DType.F32: "vec4f", DType.I32: "vec4i", DType.U32: "vec4u", DType.BOOL: "vec4<bool>"}
# What numbers of a dtype are held in, and what memory with such numbers is an array of.
SCALAR = {dtype: str(dtype.compute) for dtype in DType}
VECTOR = {dtype: _VECTOR[dtype.compute] for dtype in DType}
STORED = {dtype: "u32" if dtype.is_narrow or dtype is DType.BOOL else str(dtype) for dtype in DType}


@dataclass(frozen=True)
class Operand:
    """Text of an expression, how many lanes it has (1 or 4), and its dtype."""

    text: str
    width: int
    dtype: DType


def lane_variable() -> Var:
    """Return the variable that runs over the four lanes of a vector."""
    return Var("lane_in_vector", 0, LANES - 1)


def literal(value: float | int | bool, dtype: DType) -> Operand:
    """Return a finite number as WGSL text."""
    if dtype.is_narrow:
        wide = literal(value, dtype.compute)
        return Operand(wide.text, 1, dtype)
    if dtype is DType.BOOL:
        return Operand("true" if value else "false", 1, dtype)
    if dtype is DType.U32:
        return Operand(f"{int(value)}u", 1, dtype)
    if dtype is DType.I32:
        text = f"i32({int(value)})" if value < 0 else f"{int(value)}i"
        return Operand("bitcast<i32>(0x80000000u)" if value == -(2**31) else text, 1, dtype)
    return Operand(_float_text(np.float32(value)), 1, dtype)


def _float_text(number: np.floating) -> str:
    """Write a finite f32 so that naga and Tint read the same bits back."""
    text = (
        repr(float(number))
        if abs(float(number)) > 3.4e38
        else np.format_float_scientific(number, unique=True, trim="0")
    )
    short = np.format_float_positional(number, unique=True, trim="0")
    text = short if len(short) <= 12 else text
    return f"({text}f)" if text.startswith("-") else f"{text}f"


def identifier(name: str, prefix: str) -> str:
    """Return a WGSL identifier made of a graph name; the prefix keeps reserved words away."""
    clean = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    while "__" in clean:
        clean = clean.replace("__", "_")
    return prefix + clean.strip("_")


def atom_name(atom: Var | Opaque) -> str:
    """Return what an index expression's variable is called in the text."""
    return atom.name if isinstance(atom, Var) else str(atom.key)


def vector_of(scalar: str, width: int) -> str:
    """Return the type of `width` (1 or 4) numbers of type `scalar`."""
    return f"vec4<{scalar}>" if width == LANES else scalar


def helper_calls(template: str) -> list[str]:
    """Return the names of helpers (`asg_…`) that an op's expression calls."""
    names: dict[str, None] = {}
    for part in template.split("(")[:-1]:
        start = len(part)
        while start > 0 and (part[start - 1].isalnum() or part[start - 1] == "_"):
            start -= 1
        if part[start:].startswith("asg_"):
            names[part[start:]] = None
    return list(names)


def number_dtype(value: bool | int | float) -> DType:
    """Return the dtype that a number among an op's attributes has in its expression."""
    if isinstance(value, bool):
        return DType.BOOL
    return DType.F32 if isinstance(value, float) else DType.I32


def fill(
    template: str,
    operands: Sequence[str],
    numbers: Mapping[str, str],
    width: int,
    result: DType,
) -> str:
    """Fill an op's WGSL expression with texts of `width` lanes (`asg.op.Elementwise`)."""
    types = VECTOR if width == LANES else SCALAR
    letters = {"F": DType.F32, "I": DType.I32, "U": DType.U32, "B": DType.BOOL, "R": result}
    named = {letter: types[dtype] for letter, dtype in letters.items()}
    return template.format(*operands, **named, **numbers, r=SCALAR[result])
