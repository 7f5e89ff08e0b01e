"""The copies that end a run, and the way of copies whose source and target share a buffer.

WebGPU copies between two buffers, never within one; where both ends lie in one buffer the bytes
go through the buffer `scratch`. States that swap their values go that way too: everything is read
before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asg.graph import Value
from asg.passes.homes import Homes
from asg.passes.inplace import Update
from asg.passes.liveness import Access, Area, DraftStep, access
from asg.passes.storage import Location

Scratch = Callable[[int, int], Location]  # (offset, nbytes) -> place in the scratch buffer


def old_results(homes: Homes, changed: Sequence[str]) -> dict[Value, Access]:
    """Return the outputs that are old values of states that the run changes, and their copies."""
    draft = homes.draft
    graph = draft.plan.graph
    slots = [draft.fixed_place(Value(graph.input(state))) for state in changed]
    saved: dict[Value, Access] = {}
    for value in graph.outputs.values():
        place = draft.fixed_place(value)
        if place is None or value in saved:
            continue
        if any(slot is not None and slot.overlaps(place) for slot in slots):
            name = f"{graph.names[value]}.before"
            saved[value] = Access(name, Area(name, 0, value.type.nbytes))
    return saved


def changes(homes: Homes) -> list[Update]:
    """Return the updates that change something: those that are not the slot's own contents."""
    draft = homes.draft
    return [
        (state, value)
        for state, value in draft.plan.graph.updates.items()
        if value.type.size
        and draft.fixed_place(value) != draft.fixed_place(Value(draft.plan.graph.input(state)))
    ]


def end_copies(
    homes: Homes, saved: dict[Value, Access], updates: Sequence[Update], scratch: Scratch
) -> list[DraftStep]:
    """Return the copies after the last kernel: outputs saved, then states given their values."""
    draft = homes.draft
    steps = [DraftStep(None, (access(draft, value),), (copy,)) for value, copy in saved.items()]
    targets = [draft.areas[Value(draft.plan.graph.input(state))] for state, _ in updates]
    places = [homes.place(area) for area in targets]
    used = 0
    last: list[DraftStep] = []
    for (state, value), target, place in zip(updates, targets, places, strict=True):
        read, written = access(draft, value), Access(f"{state}'", target)
        source = homes.place(read.area)
        if (
            source is not None
            and place is not None
            and any(source.overlaps(other) for other in places if other is not None)
        ):
            held = _through(homes, written, scratch, used)
            used += read.area.nbytes
            steps.append(DraftStep(None, (read,), (held,)))
            last.append(DraftStep(None, (held,), (written,)))
        else:
            last.append(DraftStep(None, (read,), (written,)))
    # Copies that need the scratch buffer only on their way must not write over what waits there.
    return [*steps, *detour(homes, last, scratch, used)]


def detour(
    homes: Homes, steps: Sequence[DraftStep], scratch: Scratch, used: int = 0
) -> list[DraftStep]:
    """Return the steps with every copy within one buffer made two, by way of scratch."""
    routed: list[DraftStep] = []
    for step in steps:
        if step.kernel is not None or not _is_within_one(homes, step):
            routed.append(step)
            continue
        held = _through(homes, step.writes[0], scratch, used)
        routed.append(DraftStep(None, step.reads, (held,)))
        routed.append(DraftStep(None, (held,), step.writes))
    return routed


def _is_within_one(homes: Homes, step: DraftStep) -> bool:
    source = homes.place(step.reads[0].area)
    target = homes.place(step.writes[0].area)
    if source is None or target is None:
        return source is target  # both in the arena
    return source.buffer == target.buffer


def _through(homes: Homes, written: Access, scratch: Scratch, offset: int) -> Access:
    """Return the stop in scratch of a copy to `written`."""
    name = f"{written.name}.copy"
    homes.fixed[name] = scratch(offset, written.area.nbytes)
    return Access(name, Area(name, 0, written.area.nbytes))
