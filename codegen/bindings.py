"""Storage bindings as a kernel's text sees them, and where values lie in them."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        parts: where what is too large for one binding continues in the next: their names, and the
            elements before each.
        calls: the functions that find an element among the parts, as far as they are used.
    """

    name: str
    dtype: DType
    writable: bool = False
    is_vector: bool = False
    is_wide: bool = False
    vector_uses: int = 0
    scalar_uses: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    calls: set[str] = field(default_factory=set)

    def read(self, index: str) -> str:
        """Return the array's element."""
        if not self.parts:
            return f"{self.name}[{index}]"
        self.calls.add("at")
        return f"{self.name}_at({index})"

    def write(self, index: str, text: str) -> str:
        """Return the statement that sets the array's element."""
        if not self.parts:
            return f"{self.name}[{index}] = {text};"
        self.calls.add("put")
        return f"{self.name}_put({index}, {text});"

    def accessors(self) -> list[str]:
        """Return the functions that find an element among the parts."""
        names = [self.name, *(name for name, _ in self.parts)]
        starts = [start // (LANES if self.is_vector else 1) for _, start in self.parts]
        lines: dict[str, list[str]] = {"at": [], "put": []}
        for name, start, end in zip(names, [0, *starts], [*starts, None], strict=True):
            place = f"{name}[i - {start}u]" if start else f"{name}[i]"
            guard = "" if end is None else f"if (i < {end}u) "
            lines["at"].append(f"{guard}{{ return {place}; }}" if guard else f"return {place};")
            lines["put"].append(f"{guard}{{ {place} = value; }}")
        heads = {
            "at": f"fn {self.name}_at(i: u32) -> {self.element} {{",
            "put": f"fn {self.name}_put(i: u32, value: {self.element}) {{",
        }
        bodies = {"at": lines["at"], "put": [" else ".join(lines["put"])]}
        return [
            "\n".join([heads[call], *(f"    {line}" for line in bodies[call]), "}"])
            for call in sorted(self.calls)
        ]

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
