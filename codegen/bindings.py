"""Storage bindings as a kernel's text sees them, and where values lie in them."""

from __future__ import annotations

from dataclasses import dataclass, field

from asg.codegen.text import LANES, STORED, vector_of
from asg.graph import Value
from asg.index import Index, constant
from asg.types import WORD, DType


@dataclass
class Binding:
    """A storage binding as the text sees it. How it is accessed decides what it is an array of.

    Attributes:
        is_vector: of quads, four elements each: as many words as an element has bytes.
        is_wide: of quads in 64-bit words, which software devices load faster.
        is_paired: of two such quads, the first even, which are loaded and stored together.
        is_atomic: of atomic words, since invocations write parts of one word.
        is_half: of f16, as which the device loads and stores them.
        itemsizes: of the values in it.
        parts: where what is too large for one binding continues in the next: their names, and the
            words before each.
        calls: the functions that find an element among the parts, as far as they are used.
    """

    name: str
    dtype: DType
    writable: bool = False
    is_vector: bool = False
    is_wide: bool = False
    is_paired: bool = False
    is_atomic: bool = False
    is_half: bool = False
    itemsizes: frozenset[int] = frozenset({4})
    vector_uses: int = 0
    scalar_uses: int = 0
    partial_writes: int = 0
    lone_uses: int = 0
    halves: dict[Index, str] = field(default_factory=dict)
    parts: tuple[tuple[str, int], ...] = ()
    calls: set[str] = field(default_factory=set)

    def read(self, index: str) -> str:
        """Return the array's element."""
        if self.parts:
            self.calls.add("at")
            return f"{self.name}_at({index})"
        text = f"{self.name}[{index}]"
        return f"atomicLoad(&{text})" if self.is_atomic else text

    def write(self, index: str, text: str) -> str:
        """Return the statement that sets the array's element."""
        if self.parts:
            self.calls.add("put")
            return f"{self.name}_put({index}, {text});"
        if self.is_atomic:
            return f"atomicStore(&{self.name}[{index}], {text});"
        return f"{self.name}[{index}] = {text};"

    def merge(self, index: str, mask: str, bits: str) -> str:
        """Return the statement that sets the bits of a word that are 0 in `mask`.

        Others may set other bits of the word at the same time.
        """
        self.calls.add("merge")
        return f"{self.name}_merge({index}, {mask}, {bits});"

    def accessors(self) -> list[str]:
        """Return the functions that find an element among the parts, or write a part of one."""
        names = [self.name, *(name for name, _ in self.parts)]
        starts = [self._position(start) for _, start in self.parts]
        moved = self._held if self.is_atomic else self.element
        heads = {
            "at": f"fn {self.name}_at(i: u32) -> {moved} {{",
            "merge": f"fn {self.name}_merge(i: u32, mask: u32, bits: u32) {{",
            "put": f"fn {self.name}_put(i: u32, value: {moved}) {{",
        }
        lines: dict[str, list[str]] = {call: [] for call in heads}
        for name, start, end in zip(names, [0, *starts], [*starts, None], strict=True):
            place = f"{name}[i - {start}u]" if start else f"{name}[i]"
            guard = "" if end is None else f"if (i < {end}u) "
            read = f"atomicLoad(&{place})" if self.is_atomic else place
            store = f"atomicStore(&{place}, value)" if self.is_atomic else f"{place} = value"
            merge = f"atomicAnd(&{place}, mask); atomicOr(&{place}, bits);"
            lines["at"].append(f"{guard}{{ return {read}; }}" if guard else f"return {read};")
            lines["put"].append(f"{guard}{{ {store}; }}")
            lines["merge"].append(f"{guard}{{ {merge} }}" if self.parts else merge)
        bodies = {
            "at": lines["at"],
            "merge": [" else ".join(lines["merge"])],
            "put": [" else ".join(lines["put"])],
        }
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

    def load_half(self, quad: Index) -> None:
        """Note the load of a quad: of a pair, if it is known which of the two it is."""
        self.lone_uses += not (quad % 2).is_const

    def store_half(self, quad: Index, text: str) -> str | None:
        """Note the store of a quad. Of the second of a pair, return the first one's text."""
        if not (quad % 2).is_const:
            self.lone_uses += 1
            return None
        if (quad % 2).const == 0:
            self.halves[quad // 2] = text
            return None
        first = self.halves.pop(quad // 2, None)
        self.lone_uses += first is None
        return first

    def settle(self, wide: bool, is_aligned: bool, pairs: bool = False) -> None:
        """Decide, by the accesses that were noted, what the binding is an array of.

        `wide`: whether 64-bit words may be used; `is_aligned`: whether all values begin at a quad;
        `pairs`: whether they are made of pairs of quads.
        """
        is_whole = self.scalar_uses == 0
        words = 0 if self.partial_writes else self.quad_words or 0
        self.is_atomic = self.partial_writes > 0
        self.is_vector = self.vector_uses > 0 and is_aligned and words > 0
        self.is_vector &= is_whole or not self.parts
        self.is_wide = wide and self.is_vector and is_whole and words > 1 and not self.is_half
        are_halves = self.lone_uses == 0 and not self.halves and not self.parts
        self.is_paired = self.is_wide and pairs and are_halves and words == LANES
        self.calls.clear()
        self.halves.clear()

    @property
    def quad_words(self) -> int | None:
        """Words of four elements; None where values differ in that."""
        (size, *others) = self.itemsizes
        return None if others else size

    @property
    def is_packed(self) -> bool:
        """Whether several elements make a word of the array."""
        return min(self.itemsizes) < WORD and not self.is_half

    @property
    def stored(self) -> str:
        """Type of a single word, or of an f16, as it is loaded and stored."""
        if self.is_half:
            return "f16"
        return "u32" if self.is_wide or self.is_packed else STORED[self.dtype]

    @property
    def element(self) -> str:
        """Element type of the WGSL array."""
        if self.is_paired:
            return "vec4<u64>"
        if self.is_wide:
            return "vec2<u64>" if self.quad_words == LANES else "u64"
        return "atomic<u32>" if self.is_atomic else self._held

    def _position(self, words: int) -> int:
        """Return how many elements of the array lie in so many words."""
        if self.is_vector:
            return words // (self.quad_words or 1)
        return words * WORD // min(self.itemsizes) if self.is_half else words

    @property
    def _held(self) -> str:
        words = self.quad_words if self.is_vector else 1
        if self.is_half:
            return vector_of(self.stored, LANES if self.is_vector else 1)
        return f"vec{words}<{self.stored}>" if words and words > 1 else self.stored


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
