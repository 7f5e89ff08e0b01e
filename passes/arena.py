"""The arena: which regions the entries need, for how long, and how they are packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asg.graph import Value
from asg.passes.homes import Homes
from asg.passes.liveness import Access, Area, DraftStep, Lives, Root
from asg.passes.persistent import Persistent
from asg.passes.plan_memory import Group, Item, MemoryPlan, PlanMemory
from asg.passes.storage import Location


@dataclass
class DraftEntry:
    """An entry whose steps and homes are decided, but not its place in the arena."""

    name: str
    homes: Homes
    lives: Lives
    saved: dict[Value, Access]
    updates: dict[str, str]
    start: int = 0  # of its steps on the time line of all entries

    @property
    def steps(self) -> list[DraftStep]:
        return self.homes.draft.steps


@dataclass(frozen=True)
class Region:
    """Memory of its own in the arena: a root, and what lives in it when."""

    entry: str
    root: Root
    part: Item | Group


def pack_arenas(
    drafts: Sequence[DraftEntry], memory: PlanMemory, limit: int
) -> list[tuple[MemoryPlan, list[Region]]]:
    """Pack the regions of all entries, one entry after the other in time.

    What does not fit below `limit` goes to the next arena.
    """
    rest: list[Region] = []
    start = 0
    for found in drafts:
        found.start = start
        rest += _regions(found)
        start += len(found.steps) + 1  # a run's results are read after its last step
    arenas: list[tuple[MemoryPlan, list[Region]]] = []
    while rest:
        plan = _pack(rest, memory)
        inside = [region for region in rest if _end(plan, region) <= limit]
        if len(inside) < len(rest):
            inside = inside or rest[:1]
            plan = _pack(inside, memory)
        arenas.append((plan, inside))
        packed = {region.part.name for region in inside}
        rest = [region for region in rest if region.part.name not in packed]
    return arenas


def _pack(regions: Sequence[Region], memory: PlanMemory) -> MemoryPlan:
    items = [region.part for region in regions if isinstance(region.part, Item)]
    groups = [region.part for region in regions if isinstance(region.part, Group)]
    return memory(items, groups)


def _end(plan: MemoryPlan, region: Region) -> int:
    return plan.offsets[region.part.name] + region.part.size


def _regions(found: DraftEntry) -> list[Region]:
    """Return the arena regions of an entry with the lives of their parts."""
    homes, start = found.homes, found.start
    parts: dict[Root, list[tuple[int, Item]]] = {}
    for root, leaves in found.lives.by_root.items():
        if homes.place(Area(root, 0, 0)) is not None:
            continue
        for leaf in leaves:
            area = homes.settle(leaf.access.area)
            item = Item(leaf.access.name, area.nbytes, start + leaf.start, start + leaf.last + 1)
            parts.setdefault(area.root, []).append((area.offset, item))
    for root in _gaps_alone(found):
        parts.setdefault(root, [])
    regions = []
    for root, members in parts.items():
        name = f"{found.name}/{_root_name(found, root)}"
        size = _root_size(root, members)
        is_whole = all((offset, item.size) == (0, size) for offset, item in members)
        if homes.is_join(root) or not is_whole or found.lives.is_repeated(Area(root, 0, size)):
            gaps = tuple(homes.gaps(Area(root, 0, size)))
            part: Item | Group = Group(name, size, tuple(members), gaps)
        else:
            begin = min(item.start for _, item in members)
            part = Item(name, max(size, 1), begin, max(item.end for _, item in members))
        regions.append(Region(found.name, root, part))
    return regions


def _gaps_alone(found: DraftEntry) -> list[Root]:
    """Return the joins of which only gaps are read: no step writes them, but they are zero."""
    draft = found.homes.draft
    read = [each.area for step in found.steps for each in step.reads]
    read += [draft.areas[value] for value in draft.plan.graph.outputs.values()]
    joins = [area for area in read if found.homes.is_join(area.root)]
    return [area.root for area in joins if found.homes.place(area) is None]


def _root_name(found: DraftEntry, root: Root) -> str:
    return root if isinstance(root, str) else found.homes.draft.plan.graph.names[root]


def _root_size(root: Root, members: Sequence[tuple[int, Item]]) -> int:
    if isinstance(root, Value):
        return root.type.nbytes
    return max((offset + item.size for offset, item in members), default=0)


Places = dict[tuple[str, Root], Location]


def arena_places(
    arenas: Sequence[tuple[MemoryPlan, list[Region]]], persistent: Persistent
) -> Places:
    """Add the arena buffers; return the place of every region."""
    places: Places = {}
    for plan, regions in arenas:
        buffer = persistent.add_buffer("arena", plan.size, "arena")
        for region in regions:
            offset = plan.offsets[region.part.name]
            places[region.entry, region.root] = Location(buffer, offset, region.part.size)
    return places
