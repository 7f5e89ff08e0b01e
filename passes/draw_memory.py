"""The memory plan as plain data, for `asg.plan_view.PlanView` to print and to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asg.artefact import Buffer
from asg.passes.plan_memory import MemoryPlan
from asg.passes.storage import EntryStorage, KernelStep


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
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    labels: list[str] = []
    for index, step in enumerate(entry.steps):
        labels.append(step.kernel.name if isinstance(step, KernelStep) else "copy")
        for name in _stored(entry, step):
            first.setdefault(name, index)
            last[name] = index
        for name in step.reads:
            last[name] = index
    for names in entry.needs.values():
        last.update(dict.fromkeys(names, len(labels)))
    values = []
    for name, start in first.items():
        place = entry.locations[name]
        if buffers[place.buffer].role == "arena":
            values.append(
                {
                    "name": name,
                    "buffer": place.buffer,
                    "offset": place.offset,
                    "size": place.nbytes,
                    "first": start,
                    "last": last[name],
                }
            )
    return {"steps": labels, "values": values}


def _stored(entry: EntryStorage, step: Any) -> list[str]:
    """Return the names of what a step stores, without their aliases."""
    if isinstance(step, KernelStep):
        return [entry.plan.graph.names[value] for value in step.kernel.outputs]
    return list(step.writes)
