"""Watches device memory during a run: is what a step reads still what was written for it?

Roof: uses the runtime. Bits are compared, so nothing is a matter of rounding. A value that was
overwritten is reported with the step that did it. A join that several steps write in parts is
compared with its members when the last part is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from asg.artefact import Entry, Slot, Step
from asg.checks import Check
from asg.comparison import Array
from asg.extract import extract
from asg.graph import Graph
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run
from asg.runtime.program import step_name


def watch_memory(
    executor: Executor, entry: str, graph: Graph, inputs: Mapping[str, Array]
) -> list[Check]:
    """Run an entry; return a fault for every value that was damaged before a step read it."""
    watch = _Watch(executor, executor.artefact.entries[entry], graph)
    watch.note_beginning(inputs)
    watch.check_reads(0)
    executor.run_steps(entry, inputs, watch.observe)
    watch.check_results()
    return watch.faults


@dataclass
class _Watch:
    executor: Executor
    entry: Entry
    graph: Graph
    written: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # bits, by which step
    faults: list[Check] = field(default_factory=list)
    blamed: set[str] = field(default_factory=set)

    def note_beginning(self, inputs: Mapping[str, Array]) -> None:
        """Remember inputs, parameters, states and constants as they are before the first step."""
        slots = self.entry.values
        kept = {slot.name for slot in self.executor.artefact.persistent}
        for name in slots:
            if name in inputs:
                self.executor.write_value(self.entry.name, name, inputs[name])
            if name in inputs or name in kept:
                self.written[name] = self.read(name).tobytes(), -1

    def read(self, name: str) -> Array:
        return self.executor.read_value(self.entry.name, name)

    def observe(self, position: int, step: Step) -> None:
        for name in step.writes:
            if name in self.entry.values:
                self.written[name] = self.read(name).tobytes(), position
        for name in step.writes:
            self.check_join(name, position)
        if position + 1 < len(self.entry.steps):
            self.check_reads(position + 1)

    def check_reads(self, position: int) -> None:
        if position >= len(self.entry.steps):
            return
        step = self.entry.steps[position]
        for name in step.reads:
            self.check_unchanged(name, position, f"{step_name(step)} (step {position}) reads it")

    def check_results(self) -> None:
        """Check that outputs are still there at the end."""
        for output in self.entry.outputs:
            place = output.type, output.buffer, output.offset
            for name, slot in self.entry.values.items():
                if (slot.type, slot.buffer, slot.offset) == place and self.is_output(name, output):
                    why = f"it is output {output.name!r}"
                    self.check_unchanged(name, len(self.entry.steps), why)

    def is_output(self, name: str, output: Slot) -> bool:
        """Tell whether an output is found under a name, and not just at the same place."""
        stored = self.graph.names[self.graph.outputs[output.name]]
        return name in (stored, f"{stored}.before")

    def check_unchanged(self, name: str, position: int, why: str) -> None:
        if name not in self.written or name not in self.entry.values or name in self.blamed:
            return
        bits, since = self.written[name]
        if self.read(name).tobytes() == bits:
            return
        self.blamed.add(name)
        origin = "was there at the beginning"
        if since >= 0:
            origin = f"was written by {step_name(self.entry.steps[since])} (step {since})"
        culprits = [self.describe(each) for each in self.overwriters(name, since, position)]
        note = f"{name} {origin} and is damaged when {why}"
        note += f"\noverwritten by {'; '.join(culprits) or 'a step that does not say so'}"
        first = next(self.overwriters(name, since, position), None)
        where = "?" if first is None else step_name(self.entry.steps[first])
        self.faults.append(
            Check("memory", self.entry.name, where, note=note, is_fault=True, step=first)
        )

    def overwriters(self, name: str, since: int, position: int) -> Iterator[int]:
        """Yield the steps after `since` and before `position` that write bytes of `name`."""
        place = self.entry.values[name]
        for index in range(since + 1, position):
            for other in self.entry.steps[index].writes:
                slot = self.entry.values.get(other)
                if slot is not None and overlap(place, slot):
                    yield index
                    break

    def describe(self, position: int) -> str:
        step = self.entry.steps[position]
        return f"{step_name(step)} (step {position}), which writes {', '.join(step.writes)}"

    def check_join(self, name: str, position: int) -> None:
        """Compare a value that steps write in parts with what its parts make."""
        last = [at for at, step in enumerate(self.entry.steps) if name in step.writes]
        if len(last) < 2 or last[-1] != position or name in self.blamed:
            return
        values = {each: value for value, each in self.graph.names.items()}
        if name not in values:
            return
        boundary = [values[each] for each in self.written if each in values and each != name]
        part = extract(self.graph, {name: values[name]}, boundary, name="join")
        found = run(part, {each: self.read(each) for each in part.input_names()})[name]
        if found.tobytes() != self.read(name).tobytes():
            self.blamed.add(name)
            note = f"{name} is written in parts, and is not what its parts make"
            where = step_name(self.entry.steps[position])
            self.faults.append(
                Check("memory", self.entry.name, where, note=note, is_fault=True, step=position)
            )


def overlap(one: Slot, other: Slot) -> bool:
    """Tell whether two places have a byte in common."""
    if one.buffer != other.buffer:
        return False
    first, last = one.offset, one.offset + one.type.nbytes
    return first < other.offset + other.type.nbytes and other.offset < last
