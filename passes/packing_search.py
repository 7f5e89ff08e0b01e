"""A search for packings of items, for the problems where greedy orders leave a gap to the bound.

Items are placed from the bottom up: each rests at the highest top below it, and offsets never
sink from one placement to the next, so that every packing is met in one order only. What has the
lowest floor forms runs of sections. At the end of a run the choice is small: either an item that
begins there is placed, or nobody takes that floor, and whoever begins there waits for the lowest
top that could still come under it. The memory under an item that has nothing below it in some
section is lost; a section whose lost and remaining bytes exceed the ceiling is a dead end.

It is a beam search: many partial packings grow side by side, as columns of arrays. The ceiling is
below what is known already, and raised only if all columns are stuck. Narrow beams with different
draws find more than a wide one. Later beams keep the lower part of the best packing, often turned
upside down, and search the rest anew.

All scores come from integers, so that every machine finds the same packing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[Any]]

_NARROW = 1 << 29  # sums of sizes below this are counted in 32 bits, which is twice as fast
_WEIGHT = 1 << 20  # of a lost byte where there is one to lose
_CROWD = 3  # candidates looked at for each that is kept, before equals are dropped
_STEP = 10_000  # numbers that could be computed in the time that a step takes beside its columns


@dataclass(frozen=True)
class Sections:
    """The items of a problem over the times at which the most of them live.

    A section is a time with a set of live items that no other time's set contains.

    Attributes:
        sizes: of the items.
        overlaps: [item, item], 1 where both live at a time (never of an item with itself).
        begins, ends: the first section of each item, and that after its last.
        heights: [section, item], the item's size where it lives in the section.
        members, starts: the items of each section one after the other, and where each begins.
        loads: the live bytes of each section.
        areas: size times number of sections of each item: how hard it is to place.
        keys: a random number for each item, equal for equal items; what is placed is known by
            their sum.
    """

    sizes: Ints
    overlaps: Ints
    begins: Ints
    ends: Ints
    heights: Ints
    members: Ints
    starts: Ints
    loads: Ints
    areas: Ints
    keys: Ints

    @property
    def placed(self) -> int:
        """The floor of an item that has its place: higher than anything."""
        return int(np.iinfo(self.sizes.dtype).max) // 2

    @staticmethod
    def of(sizes: Sequence[int], lives: Sequence[tuple[int, int]]) -> Sections:
        begins = np.array([begin for begin, _ in lives], np.int64)
        ends = np.array([end for _, end in lives], np.int64)
        moments = _fullest_moments(begins, ends)
        covers = (begins[None] <= moments[:, None]) & (moments[:, None] < ends[None])
        overlaps = (begins[None] < ends[:, None]) & (begins[:, None] < ends[None])
        np.fill_diagonal(overlaps, False)
        counts = covers.sum(axis=1)
        width = np.int32 if sum(sizes) < _NARROW else np.int64
        heights = np.array(sizes, width)
        first = np.searchsorted(moments, begins)
        last = np.searchsorted(moments, ends)
        kinds = np.unique(np.stack([first, last, heights]), axis=1, return_inverse=True)[1]
        random = np.random.default_rng(0)
        return Sections(
            sizes=heights,
            overlaps=overlaps.astype(width),
            begins=first,
            ends=last,
            heights=covers * heights,
            members=np.nonzero(covers)[1],
            starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
            loads=covers @ heights,
            areas=covers.sum(axis=0, dtype=np.int64) * heights,
            keys=random.integers(1, 1 << 62, len(heights))[kinds.reshape(-1)],
        )


def _fullest_moments(begins: Ints, ends: Ints) -> Ints:
    """Return the times when something begins and the next event is an end."""
    begin_times = np.unique(begins)
    events = np.unique(np.concatenate([begins, ends]))
    following = events[np.searchsorted(events, begin_times, side="right")]
    return begin_times[np.isin(following, ends)]


@dataclass(frozen=True)
class Beam:
    """Partial packings side by side; the last axis of every array counts them.

    Attributes:
        floors: [item], the least offset that each item could have.
        lows: [section], the least floor of its items not yet placed.
        left: [section], bytes of the items not yet placed.
        offsets: [item], of those placed.
        known: a number for the set of items placed.
        done: the area placed.
        waiting: the number of items not placed.
    """

    floors: Ints
    lows: Ints
    left: Ints
    offsets: Ints
    known: Ints
    done: Ints
    waiting: Ints


def beginning(problem: Sections, placed: Sequence[tuple[int, int]] = ()) -> Beam:
    """Return one packing with the (item, offset) pairs `placed`, from the bottom up."""
    count = len(problem.sizes)
    floors = np.zeros(count, problem.sizes.dtype)
    offsets = np.zeros(count, problem.sizes.dtype)
    for item, offset in placed:
        top = offset + problem.sizes[item]
        np.maximum(floors, problem.overlaps[item] * top, out=floors)
        offsets[item] = offset
    items = [item for item, _ in placed]
    floors[items] = problem.placed
    left = problem.loads - problem.heights[:, items].sum(axis=1, dtype=problem.sizes.dtype)
    return Beam(
        floors[:, None],
        _lows(problem, floors[:, None]),
        left[:, None],
        offsets[:, None],
        problem.keys[items].sum(keepdims=True),
        np.array([problem.areas[items].sum()]),
        np.array([count - len(items)]),
    )


@dataclass(frozen=True)
class Goal:
    """Where a search begins to cut (`ceiling`), and what it must stay below (`bound`).

    `is_enough(work)` tells when to give up.
    """

    ceiling: int
    bound: int
    is_enough: Callable[[int], bool]


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    `work` counts numbers computed: for every packing tried, one for each item and for each member
    of a section. If nothing was left out (`is_complete`) and nothing was found, there is nothing.
    """

    offsets: Ints | None
    work: int
    is_complete: bool


def search(
    problem: Sections, beam: Beam, goal: Goal, width: int, noise: float, seed: int
) -> Outcome:
    """Look for a packing lower than the goal's bound, with at most `width` partial ones.

    `noise` blurs the comparison of partial packings.
    """
    random = np.random.default_rng(seed)
    ceiling = goal.ceiling
    work, turn, is_complete = 0, seed, True
    while beam.waiting.min() > 0:
        choices = _choices(problem, beam, turn % 2 == 0, random)
        floors, lows, left = _results(problem, beam, choices)
        turn += 1
        work += floors.shape[1] * (len(problem.sizes) + len(problem.members)) + _STEP
        needs = np.where(left > 0, lows + left, 0)
        most = needs.max(axis=0)
        if most.min() > ceiling:
            ceiling = int(most.min())
            if ceiling >= goal.bound:
                return Outcome(None, work, is_complete)
        if goal.is_enough(work):
            return Outcome(None, work, is_complete=False)
        alive = np.flatnonzero(most <= ceiling)
        done = beam.done[choices.parents[alive]]
        done += np.where(choices.items[alive] >= 0, problem.areas[choices.items[alive]], 0)
        score = (_lost(problem, needs[:, alive], ceiling) + 1.0) / (done + 1.0)
        score *= 1.0 + noise * random.random(len(alive))
        order = np.argsort(score, kind="stable")[: _CROWD * width]
        first = _first_of_equals(problem, beam, choices, floors, alive[order])
        is_complete &= len(order) == len(alive) and len(first) <= width
        order = order[first[:width]]
        best = alive[order]
        grown = _grow(problem, beam, choices, best)
        beam = Beam(
            floors[:, best], lows[:, best], left[:, best], *grown[:2], done[order], grown[2]
        )
    found = beam.offsets[:, int(beam.waiting.argmin())].astype(np.int64)
    return Outcome(found, work, is_complete)


def _lost(problem: Sections, needs: Ints, ceiling: int) -> Ints:
    """Return the lost bytes, each weighed by how few its section can lose."""
    lost = np.maximum(needs - problem.loads[:, None], 0).astype(np.int64)
    weights = _WEIGHT // (ceiling - problem.loads.astype(np.int64) + ceiling // 50 + 1)
    scores: Ints = (weights @ lost).astype(np.float64)
    return scores


def _grow(problem: Sections, beam: Beam, choices: _Choices, best: Ints) -> tuple[Ints, Ints, Ints]:
    """Return offsets, what is placed, and how many items wait, after the `best` choices."""
    parents, items = choices.parents[best], choices.items[best]
    new = np.flatnonzero(items >= 0)
    offsets, known = beam.offsets[:, parents], beam.known[parents]
    waiting = beam.waiting[parents]
    offsets[items[new], new] = choices.offsets[best[new]]
    known[new] += problem.keys[items[new]]
    waiting[new] -= 1
    return offsets, known, waiting


@dataclass(frozen=True)
class _Choices:
    """What to try: in packing `parents`, `items` at `offsets`, and the `tops` so reached.

    The item is -1 where nobody takes the floor; `waiting` [item, packing] marks who then waits.
    Placements come first.
    """

    parents: Ints
    items: Ints
    offsets: Ints
    tops: Ints
    waiting: Ints


def _choices(
    problem: Sections, beam: Beam, is_first: bool, random: np.random.Generator
) -> _Choices:
    """Branch at an end of the first or last run with the lowest floor of each packing."""
    lowest = beam.lows.min(axis=0)
    begin, end = _run(beam.lows == lowest, is_first)
    begins, ends = problem.begins[:, None], problem.ends[:, None]
    at_floor = beam.floors == lowest
    at_begin, at_end = at_floor & (begins == begin), at_floor & (ends == end)
    fewer = at_begin.sum(axis=0) - at_end.sum(axis=0) + random.random(len(lowest)) < 0.5
    chosen = np.where(fewer, at_begin, at_end)
    low = np.where(chosen, begins, len(beam.lows)).min(axis=0)
    high = np.where(chosen, ends, 0).max(axis=0)
    # Who is not placed here comes to rest on something that is placed later.
    under = ~chosen & (begins < high) & (ends > low) & (beam.floors < problem.placed)
    tops = np.where(under, beam.floors + problem.sizes[:, None], problem.placed).min(axis=0)
    parents, items = np.nonzero(chosen.T)
    may_wait = np.flatnonzero(tops < problem.placed)
    return _Choices(
        np.concatenate([parents, may_wait]),
        np.concatenate([items, np.full(len(may_wait), -1)]),
        np.concatenate([lowest[parents], lowest[may_wait]]),
        np.concatenate([lowest[parents] + problem.sizes[items], tops[may_wait]]),
        chosen[:, may_wait],
    )


def _run(is_low: Ints, is_first: bool) -> tuple[Ints, Ints]:
    """Return where the first (or last) run of marked sections begins and ends, in each column."""
    if not is_first:
        begin, end = _run(is_low[::-1], True)
        return len(is_low) - end, len(is_low) - begin
    begin = is_low.argmax(axis=0)
    after = ~is_low & (np.arange(len(is_low))[:, None] > begin)
    return begin, np.where(after.any(axis=0), after.argmax(axis=0), len(is_low))


def _results(problem: Sections, beam: Beam, choices: _Choices) -> tuple[Ints, Ints, Ints]:
    """Return floors, lowest floors and bytes left after each choice."""
    count = len(choices.items) - choices.waiting.shape[1]
    items, columns = choices.items[:count], np.arange(count)
    lift = np.empty((len(problem.sizes), len(choices.items)), problem.sizes.dtype)
    np.multiply(problem.overlaps[:, items], choices.tops[:count], out=lift[:, :count])
    np.multiply(choices.waiting, choices.tops[count:], out=lift[:, count:])
    floors = beam.floors[:, choices.parents]
    np.maximum(floors, lift, out=floors)
    floors[items, columns] = problem.placed
    left = beam.left[:, choices.parents]
    left[:, :count] -= problem.heights[:, items]
    return floors, _lows(problem, floors), left


def _lows(problem: Sections, floors: Ints) -> Ints:
    lows: Ints = np.minimum.reduceat(floors[problem.members], problem.starts, axis=0)
    return lows


def _first_of_equals(
    problem: Sections, beam: Beam, choices: _Choices, floors: Ints, chosen: Ints
) -> Ints:
    """Return the positions in `chosen` of choices that lead to a packing not met before it."""
    items = choices.items[chosen]
    known = beam.known[choices.parents[chosen]]
    known += np.where(items >= 0, problem.keys[items], 0)
    with np.errstate(over="ignore"):
        known ^= (floors[:, chosen] * problem.keys[:, None]).sum(axis=0)
    first: Ints = np.unique(known, return_index=True)[1]
    first.sort()
    return first
