"""Storage bindings as a kernel's text sees them, and where values lie in them."""

from __future__ import annotations

from dataclasses import dataclass

from asg.codegen.text import LANES, STORED, stored_type
from asg.graph import Value
from asg.index import Index, constant
from asg.types import DType


@dataclass
class Binding:
    """A storage binding as the text sees it. `is_vector` is decided by how it is accessed."""

    name: str
    dtype: DType
    writable: bool = False
    is_vector: bool = False
    vector_uses: int = 0
    scalar_uses: int = 0

    @property
    def element(self) -> str:
        """Element type of the WGSL array."""
        stored = STORED[self.dtype]
        return f"vec4<{stored}>" if self.is_vector else stored


@dataclass(frozen=True)
class Place:
    """Where a value is bound: a binding and the value's element offset inside it."""

    binding: Binding
    offset: int = 0


def in_range(position: Index, place: Place, value: Value) -> Index:
    """Return a constant position moved into the value; others as they are.

    Beyond a guard (in a pad, a join) a position may lie outside, where what is read is thrown
    away; but compilers refuse a constant that is out of range.
    """
    if not position.is_const:
        return position
    last = place.offset + max(value.type.size - 1, 0)
    return constant(min(max(position.const, place.offset), last))


def loaded(text: str, binding: Binding, value: Value, width: int) -> str:
    """Return an array element as the value's type; values of two types may share a binding."""
    dtype = value.type.dtype
    if STORED[binding.dtype] != STORED[dtype]:
        text = f"bitcast<{stored_type(dtype, width)}>({text})"
    if dtype is not DType.BOOL:
        return text
    return f"{text} != vec4u(0u)" if width == LANES else f"{text} != 0u"
