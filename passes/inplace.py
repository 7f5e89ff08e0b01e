"""Which results take the memory of something else: of the state they update, or of a dying read.

Both decisions follow the steps as they are ordered. What can't be updated in place is copied to
its slot at the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asg.graph import Value
from asg.passes.homes import Homes, SlotTable
from asg.passes.kernels import FusedKernel
from asg.passes.liveness import Area, Draft, Lives, Root
from asg.passes.spans import Spans
from asg.passes.storage import ALIGNMENT, Location

Update = tuple[str, Value]  # a state's name and what it becomes


def update_in_place(
    homes: Homes, updates: Sequence[Update], last_reads: Sequence[Area]
) -> set[str]:
    """Write results straight into the slots of the state that they update, where that is safe.

    Safe means: every slot that the result covers is updated by just that part of it, all readers
    of the old contents run before, and the kernel itself reads them in place or not at all.
    `last_reads` are areas that are read after the last step. Returns the states so updated.
    """
    draft = homes.draft
    readers = _Readers(draft, last_reads)
    wanted: dict[Root, list[tuple[str, Area]]] = {}
    for state, value in updates:
        area = draft.areas[value]
        wanted.setdefault(area.root, []).append((state, area))
    updated: set[str] = set()
    for step, kernel, output in _outputs(draft):
        if draft.areas[output].root != output:
            continue
        for state, area in wanted.get(output, ()):
            slot = draft.fixed_place(Value(draft.plan.graph.input(state)))
            if state in updated or slot is None or slot.offset < area.offset:
                continue
            target = Location(slot.buffer, slot.offset - area.offset, output.type.nbytes)
            covered = _covered(homes.slots, target, wanted[output])
            if not covered or not updated.isdisjoint(covered):
                continue
            pairs = _pairs_on(homes, kernel, output, target)
            if not readers.all_before(step, target, pairs):
                continue
            gaps = homes.slots.gaps(target)
            if gaps and not homes.keeps_gaps(kernel, output, gaps):
                continue
            homes.fixed[output] = target
            homes.zeroed.add(output)
            updated.update(covered)
            break
    return updated


def reuse_dying_reads(homes: Homes, kept: Sequence[Area]) -> None:
    """Let results take the memory of what their kernel reads last, where it allows that.

    `kept` are areas that must be intact after the last step.
    """
    lives = Lives(homes.draft.steps, kept)
    taken: dict[Root, list[Area]] = {}
    for step, kernel, output in _outputs(homes.draft):
        area = homes.draft.areas[output]
        if area.root != output or output in homes.fixed or homes.is_join(output):
            continue
        if lives.is_repeated(area):
            continue
        for read, written in kernel.in_place:
            if written != output or output in homes.inside:
                continue
            over = homes.draft.areas[read]
            if not _is_dying(homes, lives, kernel, read, output, step):
                continue
            if any(over.overlaps(other) for other in taken.get(over.root, ())):
                continue
            gaps = homes.gaps(over)
            if gaps and not homes.keeps_gaps(kernel, output, gaps):
                continue
            homes.inside[output] = over
            homes.zeroed.add(output)
            taken.setdefault(over.root, []).append(over)


def _is_dying(
    homes: Homes, lives: Lives, kernel: FusedKernel, read: Value, output: Value, step: int
) -> bool:
    """Tell whether `output` may be written over `read`, which nothing reads afterwards."""
    over = homes.draft.areas[read]
    if over.nbytes != output.type.nbytes or not over.nbytes:
        return False
    if homes.place(over) is not None or homes.settle(over).offset % ALIGNMENT:
        return False
    if lives.is_repeated(over) or any(leaf.last > step for leaf in lives.leaves(over)):
        return False
    in_place = {value for value, written in kernel.in_place if written == output}
    return all(
        value in in_place and homes.draft.areas[value] == over
        for value in kernel.reads
        if homes.draft.areas[value].overlaps(over)
    )


def _outputs(draft: Draft) -> Iterator[tuple[int, FusedKernel, Value]]:
    for index, step in enumerate(draft.steps):
        if step.kernel is not None:
            for output in step.kernel.outputs:
                yield index, step.kernel, output


def _covered(slots: SlotTable, target: Location, parts: Sequence[tuple[str, Area]]) -> list[str]:
    """Return the states that `target` holds if the result updates them all, else nothing."""
    updated = {(state, area.offset, area.nbytes) for state, area in parts}
    names = []
    for slot in slots.within(target):
        if (slot.name, slot.offset - target.offset, slot.type.nbytes) not in updated:
            return []
        names.append(slot.name)
    return names


def _pairs_on(homes: Homes, kernel: FusedKernel, output: Value, target: Location) -> list[Value]:
    """Return what `kernel` may read of `target` while it writes `output` there."""
    return [
        read
        for read, written in kernel.in_place
        if written == output and homes.draft.fixed_place(read) == target
    ]


class _Readers:
    """The steps that read each buffer outside the arena, as it is before the run."""

    def __init__(self, draft: Draft, last_reads: Sequence[Area]) -> None:
        self._reads: Spans[tuple[int, Value | None]] = Spans()
        for index, step in enumerate(draft.steps):
            for position, read in enumerate(step.reads):
                value = step.kernel.reads[position] if step.kernel else None
                self._add(draft, index, read.area, value)
        for area in last_reads:
            self._add(draft, len(draft.steps), area, None)

    def _add(self, draft: Draft, step: int, area: Area, value: Value | None) -> None:
        base = draft.fixed.get(area.root) if isinstance(area.root, Value) else None
        if base is not None:
            place = area.within(base)
            self._reads.add(place.buffer, place.offset, place.end, (step, value))

    def all_before(self, step: int, target: Location, allowed: Sequence[Value]) -> bool:
        """Tell whether nothing reads `target` from `step` on, but `allowed` in the step itself."""
        found = self._reads.find(target.buffer, target.offset, target.end)
        return not any(
            index > step or (index == step and value not in allowed) for index, value in found
        )
