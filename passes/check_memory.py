"""An independent check of a storage plan: it plays the steps and watches every byte.

Shares no code with the planner. Memory is simulated as ranges that remember which value's bytes
they hold; what a value's bytes must be follows from the graph alone. Findings are named:

- `out of range`, `misaligned`: a range leaves its buffer, or WebGPU would refuse its offset;
- `overlap`: ranges that one step uses at a time have bytes in common, or bindings conflict;
- `unwritten`, `clobbered`: a step, an output or a state finds bytes that are not the value's;
- `misplaced`: a binding and the table of locations disagree, or a value has no binding.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from asg.artefact import Buffer, Copy, Range
from asg.errors import InternalError
from asg.graph import Literal as Contents
from asg.graph import Value
from asg.passes.check_values import Piece, gap_is_zero, pieces
from asg.passes.storage import EntryStorage, KernelStep, StoragePlan

Kind = Literal["out of range", "misaligned", "overlap", "unwritten", "clobbered", "misplaced"]
_ZERO = "(zero)"  # stands for a value where a gap was copied
_OFFSET_MULTIPLE, _SIZE_MULTIPLE, _WORD = 256, 16, 4


@dataclass(frozen=True)
class Finding:
    """A fault of a storage plan: its kind, where, and what."""

    kind: Kind
    entry: str
    step: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.entry}, {self.step}: {self.message}"


def check(plan: StoragePlan, *, max_bindings: int = 8, max_binding_bytes: int = 128 << 20) -> None:
    """Refuse a plan that has faults.

    Raises:
        InternalError: there are some; the message lists the first ten.
    """
    found = find_faults(plan, max_bindings=max_bindings, max_binding_bytes=max_binding_bytes)
    if found:
        listed = "\n  ".join(map(str, found[:10]))
        raise InternalError(f"assign-storage: {len(found)} faults\n  {listed}")


def find_faults(
    plan: StoragePlan, *, max_bindings: int = 8, max_binding_bytes: int = 128 << 20
) -> list[Finding]:
    """Return every fault of a plan."""
    found: list[Finding] = []
    _check_buffers(plan, found)
    gaps = _needed_gaps(plan)
    for entry in plan.entries.values():
        player = _Player(plan, entry, gaps, max_bindings, max_binding_bytes, found)
        player.play()
    return found


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A range of a buffer."""

    buffer: int
    start: int
    end: int

    def overlaps(self, other: _Bytes) -> bool:
        if self.buffer != other.buffer:
            return False
        return max(self.start, other.start) < min(self.end, other.end)


class _Memory:
    """What each byte of each buffer holds: byte `shift + position` of the value called `name`."""

    def __init__(self) -> None:
        self._rows: dict[int, list[tuple[int, int, str, int]]] = {}

    def write(self, where: _Bytes, name: str, offset: int = 0) -> None:
        if where.start >= where.end:
            return
        rows = self._rows.setdefault(where.buffer, [])
        low, high = self._touched(rows, where)
        kept = []
        for start, end, other, shift in rows[low:high]:
            if start < where.start:
                kept.append((start, where.start, other, shift))
            if end > where.end:
                kept.append((where.end, end, other, shift))
        kept.append((where.start, where.end, name, offset - where.start))
        rows[low:high] = sorted(kept)

    def read(self, where: _Bytes) -> Iterator[tuple[int, int, str | None, int]]:
        """Yield (start, end, value, byte of it) for consecutive parts; None where unwritten."""
        rows = self._rows.get(where.buffer, [])
        low, high = self._touched(rows, where)
        reached = where.start
        for start, end, name, shift in rows[low:high]:
            start, end = max(start, where.start), min(end, where.end)
            if start > reached:
                yield reached, start, None, 0
            yield start, end, name, start + shift
            reached = end
        if reached < where.end:
            yield reached, where.end, None, 0

    @staticmethod
    def _touched(rows: list[tuple[int, int, str, int]], where: _Bytes) -> tuple[int, int]:
        low = bisect_right(rows, where.start, key=lambda row: row[1])
        high = bisect_left(rows, where.end, key=lambda row: row[0])
        return low, high


def _check_buffers(plan: StoragePlan, found: list[Finding]) -> None:
    for buffer in plan.buffers:
        if buffer.size % _OFFSET_MULTIPLE or buffer.size <= 0:
            text = f"buffer {buffer.name} has {buffer.size} bytes, no multiple of 256"
            found.append(Finding("misaligned", "all", "buffers", text))
    slots = sorted(plan.persistent, key=lambda slot: (slot.buffer, slot.offset))
    for slot in slots:
        if slot.offset + slot.type.nbytes > plan.buffers[slot.buffer].size:
            text = f"slot {slot.name} ends at {slot.offset + slot.type.nbytes}"
            found.append(Finding("out of range", "all", "buffers", text))
    for left, right in itertools.pairwise(slots):
        if left.buffer == right.buffer and left.offset + left.type.nbytes > right.offset:
            text = f"slots {left.name} and {right.name}"
            found.append(Finding("overlap", "all", "buffers", text))


def _needed_gaps(plan: StoragePlan) -> list[tuple[_Bytes, str]]:
    """Return the bytes that must be zero for ever, because a flat join has gaps there."""
    gaps: list[tuple[_Bytes, str]] = []
    for entry in plan.entries.values():
        computed = _leaves(entry)
        for value, name in entry.plan.graph.names.items():
            place = entry.locations.get(name)
            if place is None:
                continue
            for piece in pieces(value, computed, entry.plan.aliases):
                if piece.value is None:
                    start = place.offset + piece.start
                    where = _Bytes(place.buffer, start, start + piece.nbytes)
                    gaps.append((where, f"{entry.name}/{name}"))
    return gaps


def _leaves(entry: EntryStorage) -> frozenset[Value]:
    """Return the values that are written as a whole or given: all others are made of them."""
    outputs = [value for kernel in entry.plan.kernels for value in kernel.outputs]
    return frozenset([*outputs, *(Value(node) for node in entry.plan.graph.inputs)])


@dataclass
class _Player:
    """One entry's run."""

    plan: StoragePlan
    entry: EntryStorage
    gaps: Sequence[tuple[_Bytes, str]]
    max_bindings: int
    max_binding_bytes: int
    found: list[Finding]
    memory: _Memory = field(default_factory=_Memory)
    step: str = "start"

    def play(self) -> None:
        self.names = self.entry.plan.graph.names
        self.values = {name: value for value, name in self.names.items()}
        self.computed = _leaves(self.entry)
        self.copied: dict[str, list[Piece]] = {}
        self._load()
        for index, step in enumerate(self.entry.steps):
            if isinstance(step, KernelStep):
                self.step = f"step {index} ({step.kernel.name})"
                self._dispatch(step)
            else:
                self.step = f"step {index} (copy)"
                self._copy(step)
        self.step = "end"
        self._check_results()

    def fault(self, kind: Kind, message: str) -> None:
        self.found.append(Finding(kind, self.entry.name, self.step, message))

    def _load(self) -> None:
        """Put slots and inputs into memory."""
        given = {self.names[Value(node)] for node in self.entry.plan.graph.inputs}
        for slot in self.plan.persistent:
            where = _Bytes(slot.buffer, slot.offset, slot.offset + slot.type.nbytes)
            is_own = slot.name in given and self.plan.roles[slot.name] != "constant"
            self.memory.write(where, slot.name if is_own else f"slot {slot.name}")
        for slot in self.entry.inputs:
            where = _Bytes(slot.buffer, slot.offset, slot.offset + slot.type.nbytes)
            self._in_range(where, slot.name)
            self.memory.write(where, slot.name)
        written = {value for kernel in self.entry.plan.kernels for value in kernel.outputs}
        for value in self.entry.plan.stored:
            if value not in written:
                self._load_constant(value)

    def _load_constant(self, value: Value) -> None:
        held = [x for x in value.node.attrs.values() if isinstance(x, Contents)]
        if value.node.inputs or not held:
            return
        where = self._location(self.names[value])
        for slot in self.plan.persistent:
            if where is None or (slot.buffer, slot.offset) != (where.buffer, where.start):
                continue
            if np.array_equal(self.plan.contents[slot.name], held[0].array, equal_nan=True):
                self.memory.write(where, self.names[value])

    def _location(self, name: str) -> _Bytes | None:
        place = self.entry.locations.get(name)
        if place is None:
            self.fault("misplaced", f"{name} has no location")
            return None
        where = _Bytes(place.buffer, place.offset, place.offset + place.nbytes)
        return where if self._in_range(where, name) else None

    def _in_range(self, where: _Bytes, name: str) -> bool:
        buffers: Sequence[Buffer] = self.plan.buffers
        if not 0 <= where.buffer < len(buffers):
            self.fault("out of range", f"{name} lies in buffer {where.buffer}")
            return False
        size = buffers[where.buffer].size
        if where.start < 0 or where.end > size:
            text = f"{name} at {where.start} … {where.end} of {size} bytes"
            self.fault("out of range", text)
            return False
        if where.start % _WORD:
            self.fault("misaligned", f"{name} at byte {where.start}")
        return True

    def _dispatch(self, step: KernelStep) -> None:
        places = self._bound(step)
        self._check_bindings(step)
        kernel = step.kernel
        for value in kernel.reads:
            if value in places:
                self._expect(value, places[value])
        writes = [(value, places[value]) for value in kernel.outputs if value in places]
        for position, (value, where) in enumerate(writes):
            for other, elsewhere in writes[:position]:
                if where.overlaps(elsewhere):
                    self.fault("overlap", f"writes {self.names[value]} over {self.names[other]}")
            for read in kernel.reads:
                if read in places and where.overlaps(places[read]):
                    is_pair = (read, value) in kernel.in_place
                    if not is_pair or places[read] != where:
                        text = f"writes {self.names[value]} while reading {self.names[read]}"
                        self.fault("overlap", text)
            self._spare_gaps(step, value, where, places)
        for value, where in writes:
            self.memory.write(where, self.names[value])

    def _bound(self, step: KernelStep) -> dict[Value, _Bytes]:
        """Return where the bindings put each value."""
        places: dict[Value, _Bytes] = {}
        for position, bound in enumerate(step.bindings):
            reach = self._reach(step, position)
            for value, element in bound.elements.items():
                start = bound.range.offset + element * value.type.dtype.itemsize
                where = _Bytes(bound.range.buffer, start, start + value.type.nbytes)
                if where.end > reach or element < 0:
                    self.fault("out of range", f"{self.names[value]} leaves its binding")
                if value in places:
                    self.fault("overlap", f"{self.names[value]} is bound twice")
                places[value] = where
        for value in (*step.kernel.reads, *step.kernel.outputs):
            name = self.names[value]
            if value not in places:
                self.fault("misplaced", f"{name} is not bound")
            elif self._location(name) != places[value]:
                self.fault("misplaced", f"{name} is bound elsewhere than it lies")
        return places

    def _reach(self, step: KernelStep, position: int) -> int:
        """Return where a binding and those that continue it end."""
        first = step.bindings[position]
        reach = first.range.offset + first.range.size
        for other in step.bindings[position + 1 :]:
            if not other.continues:
                break
            if other.elements or (other.range.buffer, other.access) != (
                first.range.buffer,
                first.access,
            ):
                self.fault("misplaced", "a binding continues another one's buffer or values")
            if other.range.offset != reach:
                self.fault("misplaced", f"a binding at {other.range.offset} continues at {reach}")
            reach = other.range.offset + other.range.size
        return reach

    def _check_bindings(self, step: KernelStep) -> None:
        """Check what WebGPU asks of the bindings of one dispatch."""
        if len(step.bindings) > self.max_bindings:
            self.fault("misplaced", f"{len(step.bindings)} bindings")
        written = {
            bound.range.buffer
            for bound in step.bindings
            if any(value in bound.elements for value in step.kernel.outputs)
        }
        ranges = [_of(bound.range) for bound in step.bindings]
        for position, bound in enumerate(step.bindings):
            where = ranges[position]
            self._in_range(where, "a binding")
            if where.start % _OFFSET_MULTIPLE or (where.end - where.start) % _SIZE_MULTIPLE:
                self.fault("misaligned", f"binding {where.start} … {where.end}")
            if where.end - where.start > self.max_binding_bytes:
                self.fault("out of range", f"a binding of {where.end - where.start} bytes")
            is_arena = self.plan.buffers[where.buffer].role == "arena"
            wanted = "read_write" if is_arena or where.buffer in written else "read"
            if bound.access != wanted:
                self.fault("overlap", f"binding {position} is {bound.access}, not {wanted}")
            if any(where.overlaps(other) for other in ranges[:position]):
                self.fault("overlap", f"binding {position} and one before it")

    def _copy(self, step: Copy) -> None:
        source, target = _of(step.source), _of(step.target)
        if step.source.size != step.target.size:
            self.fault("misplaced", f"copies {step.source.size} to {step.target.size} bytes")
        if source.buffer == target.buffer:
            self.fault("overlap", "copies within one buffer")
        if not self._in_range(source, "source") or not self._in_range(target, "target"):
            return
        name = step.reads[0]
        if name in self.values:
            self._expect(self.values[name], source)
        held = list(self.memory.read(source))
        for start, end, value, offset in held:
            shifted = target.start + start - source.start
            where = _Bytes(target.buffer, shifted, shifted + end - start)
            if value == _ZERO or self._is_gap(_Bytes(source.buffer, start, end)):
                self.memory.write(where, _ZERO)
                continue
            for gap, owner in self.gaps:
                if gap.overlaps(where):
                    self.fault("clobbered", f"writes a gap of {owner}")
            if value is None:
                self.fault("unwritten", f"copies {name}, which nobody wrote")
            else:
                self.memory.write(where, value, offset)

    def _expect(self, value: Value, where: _Bytes) -> None:
        """Find the bytes of `value` at `where`, whoever brought them there."""
        name = self.names[value]
        for piece in pieces(value, self.computed, self.entry.plan.aliases):
            start = where.start + piece.start
            part = _Bytes(where.buffer, start, start + piece.nbytes)
            if piece.value is None and self._is_gap(part):
                continue  # zero at the start, and no step writes it
            owner = _ZERO if piece.value is None else self.names[piece.value]
            for start, _, held, offset in self.memory.read(part):
                if held is None:
                    self.fault("unwritten", f"{name} at byte {start - where.start}")
                elif held != owner or (
                    held != _ZERO and offset != piece.offset + start - part.start
                ):
                    self.fault("clobbered", f"{name} holds {held} at byte {start - where.start}")

    def _spare_gaps(
        self, step: KernelStep, value: Value, where: _Bytes, places: Mapping[Value, _Bytes]
    ) -> None:
        """Find gaps that a result is written over, unless it is zero there."""
        for gap, owner in self.gaps:
            if not gap.overlaps(where):
                continue
            start, end = max(gap.start, where.start), min(gap.end, where.end)
            zeros = [
                read
                for read, place in places.items()
                if read in step.kernel.reads
                and place.end - place.start == where.end - where.start
                and self._is_gap(
                    _Bytes(
                        place.buffer,
                        place.start + start - where.start,
                        place.start + end - where.start,
                    )
                )
            ]
            if not gap_is_zero(step.kernel, value, zeros):
                self.fault("clobbered", f"writes {self.names[value]} over a gap of {owner}")

    def _is_gap(self, where: _Bytes) -> bool:
        return any(
            gap.buffer == where.buffer and gap.start <= where.start and where.end <= gap.end
            for gap, _ in self.gaps
        )

    def _check_results(self) -> None:
        graph = self.entry.plan.graph
        for slot, (name, value) in zip(self.entry.outputs, graph.outputs.items(), strict=True):
            where = _Bytes(slot.buffer, slot.offset, slot.offset + slot.type.nbytes)
            if slot.name != name:
                self.fault("misplaced", f"output {name} is called {slot.name}")
            if self._in_range(where, name):
                self._expect(value, where)
        for slot in self.plan.persistent:
            where = _Bytes(slot.buffer, slot.offset, slot.offset + slot.type.nbytes)
            if slot.name in graph.updates:
                self._expect(graph.updates[slot.name], where)
            elif slot.name in graph.input_names("parameter", "state"):
                self._expect(Value(graph.input(slot.name)), where)
            else:
                self._untouched(slot.name, where)

    def _untouched(self, name: str, where: _Bytes) -> None:
        """Find that a slot of no concern to this entry holds what it held."""
        for start, _, held, offset in self.memory.read(where):
            own = held == f"slot {name}" or self._is_constant_of(held, name)
            if not own or offset != start - where.start:
                self.fault("clobbered", f"slot {name} holds {held}")

    def _is_constant_of(self, held: str | None, slot: str) -> bool:
        if held is None or self.plan.roles[slot] != "constant":
            return False
        value = self.values.get(held)
        return value is not None and not value.node.inputs and "role" not in value.node.attrs


def _of(range_: Range) -> _Bytes:
    return _Bytes(range_.buffer, range_.offset, range_.offset + range_.size)
