"""What the values of a compiled entry should be, by the names that its steps use.

Beside the names of graph values there are three sorts that storage makes: `pack[128]` (a member
of the flat join `pack`, copied to element 128), `w'` (what the state `w` becomes) and `w.before`
(what it was).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from asg.artefact import Entry, Step
from asg.comparison import Array, Yardstick, exactly
from asg.extract import extract
from asg.graph import Graph, Value
from asg.tolerances import Numerics
from asg.yardstick import collect, measure

_MEMBER = re.compile(r"(.+)\[(\d+)\]")


class Oracle:
    """The interpreter's values of one entry; `graph` is the one whose names the entry uses."""

    def __init__(
        self,
        graph: Graph,
        entry: Entry,
        given: Mapping[str, Any],
        numerics: Numerics = "precise",
    ) -> None:
        self.graph = graph
        self.entry = entry
        self.given = given
        self.numerics = numerics
        self.by_name = {name: value for value, name in graph.names.items()}

    @cached_property
    def _single(self) -> dict[Value, Array]:
        stored = [self.by_name[name] for name in self.entry.values if name in self.by_name]
        return collect(self.graph, self.given, [*stored, *self.graph.results])

    def array(self, name: str) -> Array | None:
        """Return what should lie under a name, or None for a name that nobody explains."""
        value = self.by_name.get(name)
        if value is not None:
            return self._single[value]
        if name.endswith("'") and name[:-1] in self.graph.updates:
            return self._single[self.graph.updates[name[:-1]]]
        if name.endswith(".before"):
            return self.array(name.removesuffix(".before"))
        return self._member(name)

    def _member(self, name: str) -> Array | None:
        match = _MEMBER.fullmatch(name)
        if match is None or name not in self.entry.values:
            return None
        whole = self.array(match[1])
        if whole is None:
            return None
        type_ = self.entry.values[name].type
        first = int(match[2])
        return whole.reshape(-1)[first : first + type_.size].reshape(type_.shape)

    @cached_property
    def writers(self) -> dict[str, int]:
        """How many steps write each name; a join may be written in parts."""
        counts: dict[str, int] = {}
        for step in self.entry.steps:
            for name in step.writes:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def written(self, step: Step) -> list[str]:
        """Return the names that a step writes whole, with something in them."""
        slots = self.entry.values
        return [
            name
            for name in step.writes
            if name in slots and slots[name].type.size and self.writers[name] == 1
        ]

    def part(self, names: Iterable[str], step: Step) -> Graph:
        """Return the graph of what a step does: `names` computed from what it reads."""
        outputs = {name: self.by_name[name] for name in names if name in self.by_name}
        boundary = [self.by_name[name] for name in step.reads if name in self.by_name]
        return extract(self.graph, outputs, boundary, name="part")

    def feeds(self, part: Graph) -> dict[str, Array]:
        """Return arrays for the inputs of a part."""
        found: dict[str, Array] = {}
        for name in part.input_names():
            array = self.array(name)
            assert array is not None, name
            found[name] = array
        return found

    def yardsticks(self, step: Step) -> dict[str, Yardstick]:
        """Return how exactly each value that a step writes can be computed from what it reads."""
        names = self.written(step)
        part = self.part(names, step)
        measured = measure(part, self.feeds(part), numerics=self.numerics)
        found = {name: measured[value] for name, value in part.outputs.items()}
        for name in names:
            array = None if name in found else self.array(name)
            if array is not None:  # a copy
                found[name] = exactly(array)
        return found
