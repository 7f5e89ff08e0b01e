"""Where roots come to lie: in a region of their own, in a state's slot, or over a dead root.

Also knows the gaps: bytes of a flat join that no member covers, which hold zero for ever.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from asg.artefact import Slot
from asg.graph import Value
from asg.passes.kernels import FusedKernel
from asg.passes.liveness import Area, Draft, Root
from asg.passes.storage import Location
from asg.passes.zeros import is_zero_in_gaps

Span = tuple[int, int]  # bytes [low, high)


class SlotTable:
    """The slots of every persistent buffer, by offset."""

    def __init__(self, slots: Iterable[Slot], joined: Iterable[int]) -> None:
        """`joined` are the buffers that hold a flat join."""
        self._joined = frozenset(joined)
        self._slots: dict[int, list[Slot]] = {}
        for slot in sorted(slots, key=lambda slot: (slot.buffer, slot.offset)):
            self._slots.setdefault(slot.buffer, []).append(slot)
        self._ends = {
            buffer: [slot.offset + slot.type.nbytes for slot in slots]
            for buffer, slots in self._slots.items()
        }

    def within(self, place: Location) -> list[Slot]:
        """Return the slots that have a byte in `place`."""
        slots = self._slots.get(place.buffer, [])
        first = bisect_left(self._ends.get(place.buffer, []), place.offset + 1)
        found = []
        for slot in slots[first:]:
            if slot.offset >= place.end:
                break
            found.append(slot)
        return found

    def gaps(self, place: Location) -> list[Span]:
        """Return the bytes of a join in `place` that belong to no slot, counted from its start."""
        if place.buffer not in self._joined:
            return []
        held = [(slot.offset, slot.offset + slot.type.nbytes) for slot in self.within(place)]
        return _uncovered((place.offset, place.end), held)


@dataclass
class Homes:
    """Roots that live elsewhere than in a region of their own.

    `fixed` are roots outside the arena: inputs, constants, state and the results written over
    state. `inside` are results written over a root that has died. `zeroed` are those of them that
    are known to be zero in the gaps of the join whose memory they took.
    """

    draft: Draft
    slots: SlotTable
    fixed: dict[Root, Location] = field(default_factory=dict)
    inside: dict[Root, Area] = field(default_factory=dict)
    zeroed: set[Root] = field(default_factory=set)
    _nearest: dict[Root, Area] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fixed |= dict(self.draft.fixed.items())
        plan, found = self.draft.plan, self.draft.areas
        joins = [place.parent for place in plan.placed.values()]
        joins += [join for _, join, _ in plan.copies]
        self._joins = {found[join].root for join in joins}
        self._members: dict[Root, list[Span]] = {root: [] for root in self._joins}
        for step in self.draft.steps:
            for written in step.writes:
                if written.area.root in self._joins:
                    area = written.area
                    self._members[area.root].append((area.offset, area.end))

    def is_join(self, root: Root) -> bool:
        """Tell whether a root is a flat join."""
        return root in self._joins

    def settle(self, area: Area) -> Area:
        """Return the area in the region that holds it in the end."""
        path: list[Area] = []
        while area.root in self.inside:
            path.append(area)
            home = self._nearest.get(area.root, self.inside[area.root])
            area = Area(home.root, home.offset + area.offset, area.nbytes)
        # A result over a result over a result: the next question about them takes one step.
        for each in path[:-1]:
            self._nearest[each.root] = Area(area.root, area.offset - each.offset, each.nbytes)
        return area

    def place(self, area: Area) -> Location | None:
        """Return where an area lies if that is outside the arena."""
        area = self.settle(area)
        base = self.fixed.get(area.root)
        return None if base is None else area.within(base)

    def gaps(self, area: Area) -> list[Span]:
        """Return the gaps in the memory of an area, counted from its start."""
        area = self.settle(area)
        base = self.fixed.get(area.root)
        if base is not None:
            return self.slots.gaps(area.within(base))
        if area.root not in self._joins:
            return []
        return _uncovered((area.offset, area.end), self._members[area.root])

    def keeps_gaps(self, kernel: FusedKernel, output: Value, gaps: Sequence[Span]) -> bool:
        """Tell whether `output` is known to be zero in `gaps`."""

        def is_zero_leaf(value: Value) -> bool:
            area = self.draft.areas[value]
            if area.nbytes != output.type.nbytes:
                return False
            is_clean = area.root in self._joins or area.root in self.zeroed
            return is_clean and _contains(self.gaps(area), gaps)

        return is_zero_in_gaps(self.draft.plan, kernel, output, is_zero_leaf)


def _uncovered(whole: Span, parts: Iterable[Span]) -> list[Span]:
    """Return what no part covers of `whole`, counted from its start."""
    reached, end = whole
    gaps = []
    for low, high in sorted(parts):
        if low > reached:
            gaps.append((reached - whole[0], min(low, end) - whole[0]))
        reached = max(reached, high)
        if reached >= end:
            return gaps
    gaps.append((reached - whole[0], end - whole[0]))
    return gaps


def _contains(outer: Sequence[Span], inner: Sequence[Span]) -> bool:
    """Tell whether every span of `inner` lies in one of `outer`, both sorted."""
    position = 0
    for low, high in inner:
        while position < len(outer) and outer[position][1] < high:
            position += 1
        if position == len(outer) or outer[position][0] > low:
            return False
    return True
