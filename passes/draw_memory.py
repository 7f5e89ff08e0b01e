"""The memory plan as plain data, for `asg.plan_view.PlanView` to print and to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asg.artefact import Buffer
from asg.passes.plan_memory import MemoryPlan
from asg.passes.storage import EntryStorage, KernelStep, StorageStep


def memory_report(
    entries: Mapping[str, EntryStorage], arenas: Sequence[MemoryPlan], buffers: Sequence[Buffer]
) -> dict[str, Any]:
    """Return dicts, lists, strings and integers only, so that a bundle can carry them."""
    return {
        "arena_bytes": sum(plan.size for plan in arenas),
        "max_live_bytes": sum(plan.max_live for plan in arenas),
        "buffers": [
            {"name": buffer.name, "size": buffer.size, "role": buffer.role} for buffer in buffers
        ],
        "entries": {name: _entry_report(entry, buffers) for name, entry in entries.items()},
    }


def _entry_report(entry: EntryStorage, buffers: Sequence[Buffer]) -> dict[str, Any]:
    """Return the steps and every value that one of them writes to an arena."""
    lives: dict[str, list[list[int]]] = {}  # from the first to the last step, of every run again
    labels: list[str] = []
    for index, step in enumerate(entry.steps):
        label = _label(step)
        is_again = isinstance(step, KernelStep) and label in labels
        labels.append(f"{label} again" if is_again else label)
        for name in _stored(entry, step):
            lives.setdefault(name, []).append([index, index])
        for name in step.reads:
            if name in lives:
                lives[name][-1][1] = index
    for names in entry.needs.values():
        for name in names:
            if name in lives:
                lives[name][-1][1] = len(labels)
    values = []
    for name, all_lives in lives.items():
        place = entry.locations[name]
        if buffers[place.buffer].role != "arena":
            continue
        for first, last in all_lives:
            where = {"buffer": place.buffer, "offset": place.offset, "size": place.nbytes}
            values.append({"name": name, **where, "first": first, "last": last})
    return {"steps": labels, "values": values}


def _label(step: StorageStep) -> str:
    if not isinstance(step, KernelStep):
        return "copy"
    more = sum(bound.continues for bound in step.bindings)
    return f"{step.kernel.name} ({more} more ranges)" if more else step.kernel.name


def _stored(entry: EntryStorage, step: Any) -> list[str]:
    """Return the names of what a step stores, without their aliases."""
    if isinstance(step, KernelStep):
        return [entry.plan.graph.names[value] for value in step.kernel.outputs]
    return list(step.writes)
