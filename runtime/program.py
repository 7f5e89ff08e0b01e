"""Which steps of an entry a call needs, and which inputs these read.

Steps know the graph values they read and write, and every value has a place. Going backwards
over the steps with the set of bytes that still matter finds what a call for some outputs needs:
a step is kept when it writes bytes that matter, and what it reads matters from there on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asg.artefact import Artefact, Copy, Dispatch, Entry, Slot
from asg.errors import InputError, InternalError


@dataclass(frozen=True, eq=False)
class Program:
    """The part of an entry that a call runs: positions in `entry.steps`, in order."""

    entry: Entry
    steps: tuple[int, ...]
    inputs: frozenset[str]
    outputs: tuple[Slot, ...]
    parameters: tuple[str, ...]  # that it reads


class Bytes:
    """A set of byte ranges over several buffers."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def touches(self, slot: Slot) -> bool:
        """Whether any byte of the slot is in the set."""
        first, last = _span(slot)
        return any(low < last and first < high for low, high in self._ranges.get(slot.buffer, ()))

    def add(self, slot: Slot) -> None:
        """Put all bytes of the slot in."""
        self.remove(slot)
        first, last = _span(slot)
        if first < last:
            self._ranges.setdefault(slot.buffer, []).append((first, last))

    def remove(self, slot: Slot) -> None:
        """Take all bytes of the slot out."""
        first, last = _span(slot)
        kept: list[tuple[int, int]] = []
        for low, high in self._ranges.get(slot.buffer, ()):
            pieces = ((low, min(high, first)), (max(low, last), high))
            kept += [piece for piece in pieces if piece[0] < piece[1]]
        self._ranges[slot.buffer] = kept


def find_entry(artefact: Artefact, name: str) -> Entry:
    """Return the entry called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in artefact.entries:
        raise InputError(
            f"{artefact.name} has no entry {name!r}; entries: {', '.join(artefact.entries)}"
        )
    return artefact.entries[name]


def plan_program(artefact: Artefact, entry: Entry, outputs: Iterable[str] | None) -> Program:
    """Return the steps that `outputs` (all of them: None) and the entry's updates need.

    Raises:
        InputError: an output does not exist.
    """
    known = {slot.name: slot for slot in entry.outputs}
    names = list(known) if outputs is None else list(dict.fromkeys(outputs))
    for name in names:
        if name not in known:
            raise InputError(
                f"{entry.name} has no output {name!r}; outputs: {', '.join(known) or 'none'}"
            )
    persistent = {slot.name: slot for slot in artefact.persistent}
    places = persistent | {slot.name: slot for slot in entry.inputs} | dict(entry.values)
    matters = Bytes()
    for slot in (*(known[name] for name in names), *(persistent[name] for name in entry.updates)):
        matters.add(slot)
    steps = _needed_steps(entry, places, matters)
    return Program(
        entry=entry,
        steps=tuple(steps),
        inputs=frozenset(slot.name for slot in entry.inputs if matters.touches(slot)),
        outputs=tuple(known[name] for name in names),
        parameters=tuple(
            name
            for name, slot in persistent.items()
            if artefact.roles.get(name) == "parameter" and matters.touches(slot)
        ),
    )


def _needed_steps(entry: Entry, places: Mapping[str, Slot], matters: Bytes) -> list[int]:
    """Sweep backwards; leave in `matters` the bytes that must be there before the first step."""
    # A value may be written by several steps, each a part; it is complete only with the first.
    writers: dict[str, int] = {}
    for step in entry.steps:
        for name in step.writes:
            writers[name] = writers.get(name, 0) + 1
    needed: list[int] = []
    for position in reversed(range(len(entry.steps))):
        step = entry.steps[position]
        written = [(name, _place(entry, position, name, places)) for name in step.writes]
        is_needed = not written or any(matters.touches(slot) for _, slot in written)
        for name, slot in written:
            writers[name] -= 1
            if is_needed and writers[name] == 0:
                matters.remove(slot)
        if is_needed:
            needed.append(position)
            for name in step.reads:
                matters.add(_place(entry, position, name, places))
    needed.reverse()
    return needed


def _place(entry: Entry, position: int, name: str, places: Mapping[str, Slot]) -> Slot:
    if name not in places:
        raise InternalError(
            f"{entry.name}: step {position} ({step_name(entry.steps[position])}) names the value "
            f"{name!r}, which has no place"
        )
    return places[name]


def step_name(step: Dispatch | Copy) -> str:
    """Return what a message calls a step."""
    return step.kernel if isinstance(step, Dispatch) else "copy"


def _span(slot: Slot) -> tuple[int, int]:
    return slot.offset, slot.offset + slot.type.nbytes
