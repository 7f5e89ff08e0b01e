"""Where in the arena each value goes, from the time it is needed: the packing problem and its pass.

Lifetimes are half-open, [start, end): a value written in step 3 and last read in step 5 lives in
[3, 6), and one that begins at 6 may take its place. An `Item` is one value. A `Group` is a rigid
region: members at fixed offsets, each with a lifetime of its own, and gaps (bytes that no member
covers) that are never given to anybody, so that they stay zero for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from asg.errors import InternalError
from asg.passes.packing import Block, Budget, Rect, best_packing, height, lower_bound, place_apart

COMPILE_WORK = 20_000_000  # about half a second, where greedy orders miss the lower bound
TOLERANCE = 0.001  # of it, that no compile spends time on


@dataclass(frozen=True, slots=True)
class Item:
    """A value that needs `size` bytes during [start, end)."""

    name: str
    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """A rigid region of `size` bytes: members at offsets from its base, the rest gaps.

    `gaps` are byte ranges [low, high) that are gaps although a member covers them: a result
    written over the whole region, which is zero there.
    """

    name: str
    size: int
    members: tuple[tuple[int, Item], ...]
    gaps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class MemoryPlan:
    """The offset of every item and group by name, the arena's size, and the least it could be."""

    offsets: Mapping[str, int]
    size: int
    max_live: int


@dataclass(frozen=True)
class PlanMemory:
    """Give every item and group an offset so that nothing live overlaps.

    Needs names to be unique. Afterwards offsets are multiples of `alignment`; the same problem
    gives the same plan, for the search is bounded by `work`, not by time. Without `reuse` every
    value keeps its place for good.
    """

    alignment: int = 256
    reuse: bool = True
    work: int = COMPILE_WORK

    def __call__(self, items: Sequence[Item], groups: Sequence[Group] = ()) -> MemoryPlan:
        horizon = _horizon(items, groups)
        blocks = [_item_block(item, self.alignment) for item in items]
        blocks += [_group_block(group, self.alignment, horizon) for group in groups]
        names = [item.name for item in items] + [group.name for group in groups]
        if len(set(names)) != len(names):
            raise InternalError("plan-memory: two values share a name")
        budget = Budget(self.work, tolerance=TOLERANCE)
        bases = best_packing(blocks, budget) if self.reuse else place_apart(blocks)
        return MemoryPlan(
            {name: base * self.alignment for name, base in zip(names, bases, strict=True)},
            height(blocks, bases) * self.alignment,
            lower_bound(blocks) * self.alignment,
        )


def pack(
    lifetimes: Sequence[tuple[int, int, int]],
    *,
    alignment: int = 1,
    capacity: int | None = None,
    time_limit: float = 10.0,
) -> list[int]:
    """Return an offset for each (start, end, size), lifetimes half-open, peak as low as found.

    Stops when the peak is at most `capacity`, or at the lower bound, or after `time_limit`
    seconds. Meant for problems by themselves; a compile uses `PlanMemory`, which does not look
    at the clock.
    """
    blocks = [_item_block(Item("", size, start, end), alignment) for start, end, size in lifetimes]
    target = 0 if capacity is None else capacity // alignment
    bases = best_packing(blocks, Budget(work=1 << 60, seconds=time_limit), target)
    return [base * alignment for base in bases]


def max_live(items: Sequence[Item], groups: Sequence[Group] = (), *, alignment: int = 1) -> int:
    """Return the lower bound of any plan: live bytes at the worst time, gaps always live."""
    horizon = _horizon(items, groups)
    blocks = [_item_block(item, alignment) for item in items]
    blocks += [_group_block(group, alignment, horizon) for group in groups]
    return lower_bound(blocks) * alignment


def _horizon(items: Sequence[Item], groups: Sequence[Group]) -> tuple[int, int]:
    everything = [*items, *(item for group in groups for _, item in group.members)]
    if not everything:
        return 0, 1
    return min(item.start for item in everything), max(item.end for item in everything)


def _item_block(item: Item, alignment: int) -> Block:
    if item.size <= 0 or item.start >= item.end:
        return ()  # takes no memory, so any place will do
    return (Rect(0, -(-item.size // alignment), item.start, item.end),)


def _group_block(group: Group, alignment: int, horizon: tuple[int, int]) -> Block:
    """Return the group in whole units; a unit that holds any byte of a gap is always taken."""
    # Offset, end, start and end of life; all in bytes and steps.
    lives: list[tuple[int, int, int, int]] = [(*gap, *horizon) for gap in group.gaps]
    reached = 0
    for offset, item in sorted(group.members, key=lambda member: member[0]):
        if offset > reached:
            lives.append((reached, offset, *horizon))
        lives.append((offset, offset + item.size, item.start, item.end))
        reached = max(reached, offset + item.size)
    if reached < group.size:
        lives.append((reached, group.size, *horizon))
    return _to_units(lives, alignment)


def _to_units(lives: Sequence[tuple[int, int, int, int]], alignment: int) -> Block:
    """Cut byte ranges into ranges of whole units, each with the times when it is taken."""
    lives = [life for life in lives if life[0] < life[1]]
    cuts = sorted({edge for low, high, _, _ in lives for edge in _edges(low, high, alignment)})
    position = {cut: index for index, cut in enumerate(cuts)}
    times: list[list[tuple[int, int]]] = [[] for _ in cuts[1:]]
    for low, high, start, end in lives:
        first, last = position[low // alignment], position[-(-high // alignment)]
        for index in range(first, last):
            times[index].append((start, end))
    return _join_equal(cuts, [_merged(each) for each in times])


def _merged(times: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join times that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(times):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return tuple(merged)


def _edges(low: int, high: int, alignment: int) -> tuple[int, int, int, int]:
    """Return, in units, where a byte range begins and ends, and its partly covered units."""
    first, last = low // alignment, -(-high // alignment)
    return first, -(-low // alignment), high // alignment, last


def _join_equal(cuts: Sequence[int], times: Sequence[tuple[tuple[int, int], ...]]) -> Block:
    """Return rectangles, those of neighbours that live at the same times joined."""
    rects: list[Rect] = []
    for key, run in groupby(range(len(times)), key=times.__getitem__):
        positions = list(run)
        low, high = cuts[positions[0]], cuts[positions[-1] + 1]
        rects += [Rect(low, high - low, *time) for time in key]
    return tuple(rects)
