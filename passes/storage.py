"""Where everything lies: what `AssignStorage` yields and code generation turns into an artefact.

Offsets and sizes are in bytes. Names are those of `graph.names`, and three sorts beside them that
no graph knows: `pack[128]` (a member copied into the flat join `pack` at element 128), `w'` (what
the state `w` becomes, copied to its slot at the end) and `w.before` (a state's old value, saved
because it is an output).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from asg.artefact import Buffer, Copy, Range, Slot
from asg.errors import AsgError, InternalError, UnsupportedError
from asg.graph import Value
from asg.passes.kernels import FusedKernel, FusionPlan

ALIGNMENT = 256  # WebGPU's default for the offset of a storage binding
PADDING = 16  # a binding's size, so that a vec4 may be read at its end
WORD = 4  # bytes of an element
MAX_BINDINGS = 8  # WebGPU's default for storage buffers in one stage
MAX_BINDING_BYTES = 128 << 20  # and for the size of one binding


@dataclass(frozen=True, slots=True)
class Location:
    """Bytes of a buffer: position of the buffer, offset and size, unpadded."""

    buffer: int
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        return self.offset + self.nbytes

    def part(self, offset: int, nbytes: int) -> Location:
        """Return the bytes that begin `offset` after this place does."""
        return Location(self.buffer, self.offset + offset, nbytes)

    def overlaps(self, other: Location) -> bool:
        """Tell whether the two have a byte in common."""
        if self.buffer != other.buffer:
            return False
        return max(self.offset, other.offset) < min(self.end, other.end)

    @property
    def range(self) -> Range:
        return Range(self.buffer, self.offset, self.nbytes)


@dataclass(frozen=True)
class BoundRange:
    """One binding of a dispatch: a range, and where each value begins inside it.

    `elements` counts elements of the value from the start of the range. Values that share a binding
    (an in-place pair, a part beside its whole) may differ in element type. What is too large for
    one binding continues in the next ones (`continues`), which hold no values of their own.
    """

    range: Range
    access: Literal["read", "read_write"]
    elements: Mapping[Value, int]
    continues: bool = False


@dataclass(frozen=True)
class KernelStep:
    """A dispatch. `reads` and `writes` also list names that share the bytes.

    A reader of a flat join lists the join and its members, a reader of an alias the alias and
    the value under it; a writer lists what it stores and every alias of that. So a step is needed
    exactly if it writes a name that a needed step reads.
    """

    kernel: FusedKernel
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    bindings: tuple[BoundRange, ...]


StorageStep = KernelStep | Copy


@dataclass(frozen=True)
class EntryStorage:
    """One entry: its steps and the place of every value.

    Attributes:
        plan: the fusion plan as it is run (joins that found no place of their own are copied).
        locations: the place of every stored value, alias and join member, by name, and those of
            the names that only steps use.
        values: the same as slots, with types.
        results: the name in `locations` behind each output.
        needs: the names that must be given or written for each output to be right.
        updates: what each state becomes: the name that lies in its slot after the last step.
    """

    name: str
    plan: FusionPlan
    steps: tuple[StorageStep, ...]
    locations: Mapping[str, Location]
    values: Mapping[str, Slot]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    results: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]
    updates: Mapping[str, str]


@dataclass(frozen=True)
class StoragePlan:
    """Buffers shared by all entries, the slots in them, and each entry's steps.

    Attributes:
        persistent: parameters, state and constants.
        roles: parameter, state or constant, by slot name.
        contents: what slots hold at the start (absent: zero).
        report: the memory plan as plain data, for `asg.plan_view.PlanView`.
    """

    buffers: tuple[Buffer, ...]
    persistent: tuple[Slot, ...]
    roles: Mapping[str, str]
    contents: Mapping[str, np.ndarray[Any, Any]]
    entries: Mapping[str, EntryStorage]
    report: Mapping[str, Any]


def align(nbytes: int, multiple: int = ALIGNMENT) -> int:
    """Round up to a multiple."""
    return -(-nbytes // multiple) * multiple


def bind(
    kernel: FusedKernel,
    places: Mapping[Value, Location],
    is_written_always: Sequence[bool],
    limit: int = MAX_BINDINGS,
    largest: int = MAX_BINDING_BYTES,
    names: Mapping[Value, str] | None = None,
) -> tuple[BoundRange, ...]:
    """Return the bindings of a kernel, in order of first use.

    Overlapping ranges become one binding. A buffer is bound `read` where the kernel writes none
    of it and it is not an arena (`is_written_always`), else `read_write` in all its ranges. If
    there are more than `limit`, neighbours in one buffer are bound together. Of more than
    `largest` bytes, several bindings follow one another.

    Raises:
        UnsupportedError: the kernel needs more bindings than there are, for large values.
        InternalError: it needs them for small ones.
    """
    values = list(dict.fromkeys((*kernel.reads, *kernel.outputs)))
    spans = [_Span.around(value, places[value]) for value in values]
    spans = _merge_overlapping(spans)
    while sum(binding_count(span.end - span.start, largest) for span in spans) > limit:
        merged = _merge_nearest(spans, largest)
        if merged is None:
            raise _too_many(kernel, spans, limit, largest, names or {})
        spans = merged
    written = {places[value].buffer for value in kernel.outputs}
    bound: list[BoundRange] = []
    for span in sorted(spans, key=lambda span: min(map(values.index, span.values))):
        is_written = span.buffer in written or is_written_always[span.buffer]
        elements = {
            value: (places[value].offset - span.start) // value.type.dtype.itemsize
            for value in values
            if value in span.values
        }
        access: Literal["read", "read_write"] = "read_write" if is_written else "read"
        for start in range(span.start, span.end, largest):
            size = min(span.end - start, largest)
            is_first = start == span.start
            held = elements if is_first else {}
            bound.append(BoundRange(Range(span.buffer, start, size), access, held, not is_first))
    return tuple(bound)


def binding_count(nbytes: int, largest: int = MAX_BINDING_BYTES) -> int:
    """Return how many bindings hold so many bytes."""
    return max(1, -(-nbytes // largest))


@dataclass(frozen=True)
class _Span:
    """Bytes to be bound together, with the values inside."""

    buffer: int
    start: int
    end: int
    values: frozenset[Value]

    @staticmethod
    def around(value: Value, place: Location) -> _Span:
        start = place.offset // ALIGNMENT * ALIGNMENT
        end = start + max(align(place.end - start, PADDING), PADDING)
        return _Span(place.buffer, start, end, frozenset({value}))

    def join(self, other: _Span) -> _Span:
        return _Span(
            self.buffer,
            min(self.start, other.start),
            max(self.end, other.end),
            self.values | other.values,
        )


def _merge_overlapping(spans: Iterable[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.buffer, span.start, span.end)):
        last = merged[-1] if merged else None
        if last is not None and last.buffer == span.buffer and span.start < last.end:
            merged[-1] = last.join(span)
        else:
            merged.append(span)
    return merged


def _merge_nearest(spans: list[_Span], largest: int) -> list[_Span] | None:
    """Join two neighbours of one buffer: of those that save a binding, the nearest."""
    pairs = []
    for position, (left, right) in enumerate(pairwise(spans)):
        apart = [binding_count(span.end - span.start, largest) for span in (left, right)]
        together = binding_count(right.end - left.start, largest)
        if left.buffer == right.buffer and together < sum(apart):
            pairs.append((right.start - left.end, position))
    if not pairs:
        return None
    position = min(pairs)[1]
    joined = spans[position].join(spans[position + 1])
    return [*spans[:position], joined, *spans[position + 2 :]]


def _too_many(
    kernel: FusedKernel,
    spans: Sequence[_Span],
    limit: int,
    largest: int,
    names: Mapping[Value, str],
) -> AsgError:
    counts = [binding_count(span.end - span.start, largest) for span in spans]
    first = f"kernel {kernel.name} needs {sum(counts)} bindings, WebGPU offers {limit}"
    if max(counts) == 1:
        return InternalError(f"assign-storage: {first}")
    large = {value for span, count in zip(spans, counts, strict=True) if count > 1
             for value in span.values}  # fmt: skip
    lines = [
        f"  {names.get(value, value.node.op.name)}: {value.type}, {value.type.nbytes:,} bytes"
        for value in dict.fromkeys((*kernel.reads, *kernel.outputs))
        if value in large
    ]
    return UnsupportedError("\n".join([f"{first}; one holds {largest:,} bytes", *lines]))
