"""Storage bindings as a kernel's text sees them, and where values lie in them."""

from __future__ import annotations

from dataclasses import dataclass

from asg.codegen.text import LANES, STORED, vector_of
from asg.graph import Value
from asg.index import Index, constant
from asg.types import DType


@dataclass
class Binding:
    """A storage binding as the text sees it. How it is accessed decides what it is an array of.

    Attributes:
        is_vector: of four elements.
        is_wide: of four elements in two 64-bit words, which software devices load faster.
    """

    name: str
    dtype: DType
    writable: bool = False
    is_vector: bool = False
    is_wide: bool = False
    vector_uses: int = 0
    scalar_uses: int = 0

    def count(self, is_aligned: bool) -> None:
        """Note an access to four elements: aligned neighbours, or each for itself."""
        if is_aligned:
            self.vector_uses += 1
        else:
            self.scalar_uses += LANES

    @property
    def stored(self) -> str:
        """Type of a single element as it is loaded and stored."""
        return "u32" if self.is_wide else STORED[self.dtype]

    @property
    def element(self) -> str:
        """Element type of the WGSL array."""
        if self.is_wide:
            return "vec2<u64>"
        return f"vec4<{self.stored}>" if self.is_vector else self.stored


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
    if binding.stored != STORED[dtype]:
        text = f"bitcast<{vector_of(STORED[dtype], width)}>({text})"
    if dtype is not DType.BOOL:
        return text
    return f"{text} != vec4u(0u)" if width == LANES else f"{text} != 0u"
