"""Fusion plans become storage: buffers, slots, one arena, and steps with every value's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from asg.artefact import Buffer, Copy, Slot
from asg.graph import Value
from asg.passes.arena import DraftEntry, Places, arena_places, pack_arenas
from asg.passes.copies import changes, detour, end_copies, old_results
from asg.passes.draw_memory import memory_report
from asg.passes.homes import Homes, SlotTable
from asg.passes.inplace import reuse_dying_reads, update_in_place
from asg.passes.kernels import FusionPlan
from asg.passes.liveness import Area, Draft, DraftStep, Lives, Root, draft
from asg.passes.persistent import Persistent, fixed_roots, lay_out
from asg.passes.plan_memory import PlanMemory
from asg.passes.spans import Spans
from asg.passes.storage import (
    ALIGNMENT,
    MAX_BINDING_BYTES,
    BoundRange,
    EntryStorage,
    KernelStep,
    Location,
    StoragePlan,
    StorageStep,
    bind,
)
from asg.types import TensorType

MIB = 1 << 20


@dataclass(frozen=True)
class AssignStorage:
    """Give every stored value of one or several entries its place in a buffer.

    Needs plans whose kernels are in their final order. Afterwards every step finds its reads
    intact, states hold their new values after the last step, and outputs lie where the entry
    says. Entries share parameters, state, constants and the arena. Inputs are never written.

    Attributes:
        memory: how the arena is packed; without its `reuse` no value shares memory with
            another, and nothing is updated in place.
        slot_limit: parameters, states and constants fill buffers up to this size.
        arena_limit: the arena is split into buffers of at most this size.
        max_bindings: of one dispatch.
        max_binding_bytes: what is larger is bound in several ranges.
    """

    memory: PlanMemory = field(default_factory=PlanMemory)
    slot_limit: int = 128 * MIB
    arena_limit: int = 256 * MIB
    max_bindings: int = 8
    max_binding_bytes: int = MAX_BINDING_BYTES

    def __call__(self, plans: Mapping[str, FusionPlan]) -> StoragePlan:
        settled, persistent = lay_out(plans, self.slot_limit)
        drafts = [
            _draft_entry(name, plan, persistent, self.memory.reuse)
            for name, plan in settled.items()
        ]
        arenas = pack_arenas(drafts, self.memory, self.arena_limit)
        places = arena_places(arenas, persistent)
        if not persistent.buffers:
            persistent.buffers.append(Buffer("empty", ALIGNMENT, "arena"))
        is_arena = [buffer.role == "arena" for buffer in persistent.buffers]
        largest = self.max_binding_bytes // ALIGNMENT * ALIGNMENT
        binder = partial(bind, is_written_always=is_arena, limit=self.max_bindings, largest=largest)
        entries = {found.name: _finish(found, places, binder) for found in drafts}
        return StoragePlan(
            buffers=tuple(persistent.buffers),
            persistent=tuple(persistent.slots.values()),
            roles=dict(persistent.roles),
            contents=persistent.contents,
            entries=entries,
            report=memory_report(entries, [plan for plan, _ in arenas], persistent.buffers),
        )


def _draft_entry(name: str, plan: FusionPlan, persistent: Persistent, reuse: bool) -> DraftEntry:
    found = draft(name, plan, fixed_roots(plan, persistent))
    joined = [place.buffer for place in persistent.joins.values()]
    homes = Homes(found, SlotTable(persistent.slots.values(), joined))
    updates = changes(homes)
    saved = old_results(homes, [state for state, _ in updates])
    given = [value for _, value in updates if found.fixed_place(value) is not None]
    last_reads = [found.areas[value] for value in (*saved, *given)]
    updated = update_in_place(homes, updates, last_reads) if reuse else set()
    copied = [(state, value) for state, value in updates if state not in updated]
    ends = end_copies(homes, saved, copied, persistent.scratch)
    found.steps[:] = [*detour(homes, found.steps, persistent.scratch), *ends]
    kept = [
        found.areas[value]
        for value in plan.graph.outputs.values()
        if value not in saved and homes.place(found.areas[value]) is None
    ]
    kept += [copy.area for copy in saved.values()]
    if reuse:
        reuse_dying_reads(homes, kept)
    names = plan.graph.names
    becomes = {state: names[value] if state in updated else f"{state}'" for state, value in updates}
    return DraftEntry(name, homes, Lives(found.steps, kept), saved, becomes)


class _Names:
    """The names that share the bytes of a step's reads and writes."""

    def __init__(self, found: Draft, lives: Lives) -> None:
        self._lives = lives
        names = found.plan.graph.names
        self._given: Spans[str] = Spans()  # inputs
        self._roots: set[Root] = set()  # what they lie in
        for node in found.plan.graph.inputs:
            area = found.areas[Value(node)]
            self._given.add(*area.span, names[Value(node)])
            self._roots.add(area.root)
        self._aliases: dict[str, list[str]] = {}
        for alias, place in found.plan.aliases.items():
            self._aliases.setdefault(names[place.parent], []).append(names[alias])

    def parts(self, area: Area) -> list[str]:
        """Return what must have been given, or written, for `area` to be intact."""
        if area.root in self._roots:  # a step that writes there makes another value of it
            return self._given.find(*area.span)
        return [leaf.access.name for leaf in self._lives.leaves(area)]

    def read(self, step: DraftStep) -> tuple[str, ...]:
        names = [name for each in step.reads for name in (each.name, *self.parts(each.area))]
        return tuple(dict.fromkeys(names))

    def written(self, step: DraftStep) -> tuple[str, ...]:
        names: dict[str, None] = {}
        pending = [each.name for each in reversed(step.writes)]
        while pending:
            name = pending.pop()
            names[name] = None
            pending += [alias for alias in self._aliases.get(name, ()) if alias not in names]
        return tuple(names)


@dataclass(frozen=True)
class _Located:
    """The place of every value and name of an entry."""

    by_value: dict[Value, Location]
    slots: dict[str, Slot]


_Binder = Callable[..., tuple[BoundRange, ...]]


def _finish(found: DraftEntry, places: Places, binder: _Binder) -> EntryStorage:
    """Give every name its location and every dispatch its bindings."""
    graph, areas = found.homes.draft.plan.graph, found.homes.draft.areas
    located = _locate_all(found, places)
    names = _Names(found.homes.draft, found.lives)
    steps: list[StorageStep] = []
    for step in found.steps:
        if step.kernel is not None:
            bindings = binder(step.kernel, located.by_value, names=graph.names)
            steps.append(KernelStep(step.kernel, names.read(step), names.written(step), bindings))
            continue
        source, target = (_place_of(located.slots[each.name]) for each in step.reads + step.writes)
        steps.append(Copy(source.range, target.range, names.read(step), names.written(step)))
    results: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for name, value in graph.outputs.items():
        saved = found.saved.get(value)
        results[name] = graph.names[value] if saved is None else saved.name
        needs[name] = tuple(names.parts(areas[value] if saved is None else saved.area))
    return EntryStorage(
        name=found.name,
        plan=found.homes.draft.plan,
        steps=tuple(steps),
        locations={name: _place_of(slot) for name, slot in located.slots.items()},
        values=located.slots,
        inputs=tuple(located.slots[name] for name in graph.input_names("input")),
        outputs=tuple(
            replace(located.slots[held], name=name, interface=graph.interfaces.get(name, ""))
            for name, held in results.items()
        ),
        results=results,
        needs=needs,
        updates=found.updates,
    )


def _locate_all(found: DraftEntry, places: Places) -> _Located:
    names = found.homes.draft.plan.graph.names
    located = _Located({}, {})

    def note(name: str, type_: TensorType, area: Area) -> Location | None:
        place = _locate(found, area, places)
        if place is not None:
            located.slots[name] = Slot(name, type_, place.buffer, place.offset)
        return place

    for value, area in found.homes.draft.areas.items():
        place = note(names[value], value.type, area)
        if place is not None:
            located.by_value[value] = place
    for step in found.steps:
        if step.kernel is None:
            type_ = located.slots[step.reads[0].name].type
            note(step.writes[0].name, type_, step.writes[0].area)
    return located


def _locate(found: DraftEntry, area: Area, places: Places) -> Location | None:
    """Return where an area lies; None if nothing computes it."""
    fixed = found.homes.place(area)
    if fixed is not None:
        return fixed
    area = found.homes.settle(area)
    base = places.get((found.name, area.root))
    if base is None and area.nbytes == 0:
        return Location(0, 0, 0)  # no kernel computes what has no elements
    return None if base is None else area.within(base)


def _place_of(slot: Slot) -> Location:
    return Location(slot.buffer, slot.offset, slot.type.nbytes)
