"""A search for packings of items, for the problems where greedy orders leave a gap to the bound.

Items are placed from the bottom up: each rests at the highest top below it, and offsets never
sink from one placement to the next, so that every packing is met in one order only. The memory
under an item that has nothing below it in some section of time is lost; a section whose lost and
remaining bytes exceed the ceiling is a dead end. Where the lowest free floor is, somebody must be
placed or the bytes are lost: the search branches on one section that has that floor.

It is a beam search: many partial packings grow side by side, as columns of arrays. The ceiling is
below what is known already, and raised only if all columns are stuck. Later beams keep the lower
part of the best packing, often turned upside down, and search the rest anew.

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
_CHILDREN = 8  # items tried on one section of one packing, where there are many packings
_CROWD = 3  # candidates looked at for each that is kept, before equals are dropped
_NOISE = 0.1


@dataclass(frozen=True)
class Sections:
    """The items of a problem over the times at which the most of them live.

    A section is a time with a set of live items that no other time's set contains.

    Attributes:
        sizes: of the items.
        overlaps: [item, item], 1 where both live at a time (never of an item with itself).
        covers: [section, item], 1 where the item lives in the section.
        members, starts: the items of each section one after the other, and where each begins.
        loads: the live bytes of each section.
        areas: size times number of sections of each item: how hard it is to place.
        keys: a random number for each item; what is placed is known by their exclusive or.
    """

    sizes: Ints
    overlaps: Ints
    covers: Ints
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
        random = np.random.default_rng(0)
        return Sections(
            sizes=heights,
            overlaps=overlaps.astype(width),
            covers=covers.astype(width),
            members=np.nonzero(covers)[1],
            starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
            loads=covers @ heights,
            areas=covers.sum(axis=0, dtype=np.int64) * heights,
            keys=random.integers(1, 1 << 62, len(heights)),
        )


def _fullest_moments(begins: Ints, ends: Ints) -> Ints:
    """Return the times when something begins and the next event is an end."""
    begin_times = np.unique(begins)
    events = np.unique(np.concatenate([begins, ends]))
    following = events[np.searchsorted(events, begin_times, side="right")]
    return begin_times[np.isin(following, ends)]


@dataclass(frozen=True)
class Style:
    """How a beam chooses: the section to branch on, and whether a packing's loss is measured
    against what it has placed."""

    prefers_few_choices: bool
    minds_progress: bool


STYLES = (Style(True, True), Style(False, True), Style(True, False))


@dataclass(frozen=True)
class Beam:
    """Partial packings side by side; the last axis of every array counts them.

    Attributes:
        floors: [item], the least offset that each item could have.
        lows: [section], the least floor of its items.
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
    known = np.zeros(1, np.int64)
    for item, offset in placed:
        top = offset + problem.sizes[item]
        np.maximum(floors, problem.overlaps[item] * top, out=floors)
        offsets[item] = offset
        known ^= problem.keys[item]
    items = [item for item, _ in placed]
    floors[items] = problem.placed
    left = problem.loads - problem.covers[:, items] @ problem.sizes[items]
    return Beam(
        floors[:, None],
        _lows(problem, floors[:, None]),
        left[:, None],
        offsets[:, None],
        known,
        np.array([problem.areas[items].sum()]),
        np.array([count - len(items)]),
    )


def search(
    problem: Sections, beam: Beam, goal: Goal, width: int, style: Style, seed: int
) -> Outcome:
    """Look for a packing lower than the goal's bound, with at most `width` partial ones."""
    random = np.random.default_rng(seed)
    preference = random.random(len(problem.loads))[:, None] / 2
    ceiling = goal.ceiling
    work, is_complete = 0, True
    while beam.waiting.min() > 0:
        choices = _choices(problem, beam, style, preference, random)
        is_complete &= choices.is_complete
        floors, lows, left = _results(problem, beam, choices)
        work += floors.shape[1] * (len(problem.sizes) + len(problem.members))
        needs = np.where(left > 0, lows + left, 0)
        most = needs.max(axis=0)
        if most.min() > ceiling:
            ceiling = int(most.min())
            if ceiling >= goal.bound:
                return Outcome(None, work, is_complete)
        if goal.is_enough(work):
            return Outcome(None, work, is_complete=False)
        alive = np.flatnonzero(most <= ceiling)
        placed = choices.items[alive]
        done = beam.done[choices.parents[alive]]
        done += np.where(placed >= 0, problem.areas[placed], 0)
        lost = np.maximum(needs[:, alive] - problem.loads[:, None], 0).astype(np.int64)
        weights = _WEIGHT // (ceiling - problem.loads + ceiling // 50 + 1)
        score = (weights @ lost).astype(np.float64)
        if style.minds_progress:
            score = (score + 1.0) / (done + 1.0)
        score *= 1.0 + _NOISE * random.random(len(alive))
        order = np.argsort(score, kind="stable")[: _CROWD * width]
        best = alive[order]
        first = _first_of_equals(problem, beam, choices, floors, best)
        is_complete &= len(order) == len(alive) and len(first) <= width
        first = first[:width]
        best, order = best[first], order[first]
        parents, items = choices.parents[best], choices.items[best]
        new = np.flatnonzero(items >= 0)
        offsets, known = beam.offsets[:, parents], beam.known[parents]
        waiting = beam.waiting[parents]
        offsets[items[new], new] = choices.offsets[best[new]]
        known[new] ^= problem.keys[items[new]]
        waiting[new] -= 1
        beam = Beam(
            floors[:, best], lows[:, best], left[:, best], offsets, known, done[order], waiting
        )
    found = beam.offsets[:, int(beam.waiting.argmin())].astype(np.int64)
    return Outcome(found, work, is_complete)


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    `work` counts numbers computed: for every packing tried, one for each item and for each member
    of a section. If nothing was left out (`is_complete`) and nothing was found, there is nothing.
    """

    offsets: Ints | None
    work: int
    is_complete: bool


@dataclass(frozen=True)
class Goal:
    """Where a search begins to cut (`ceiling`), and what it must stay below (`bound`).

    `is_enough(work)` tells when to give up.
    """

    ceiling: int
    bound: int
    is_enough: Callable[[int], bool]


@dataclass(frozen=True)
class _Choices:
    """What to try: in packing `parents`, `items` at `offsets`, and the `tops` so reached.

    The item is -1 where nobody takes the lowest floor of the section `pivots`.
    """

    parents: Ints
    items: Ints
    offsets: Ints
    tops: Ints
    pivots: Ints
    is_complete: bool


def _choices(
    problem: Sections, beam: Beam, style: Style, preference: Any, random: np.random.Generator
) -> _Choices:
    """Branch on one section with the lowest floor in each packing."""
    lowest = beam.floors.min(axis=0)
    at_floor = beam.floors == lowest
    if style.prefers_few_choices:
        rows = at_floor.astype(np.int32)[problem.members]
        rank = np.add.reduceat(rows, problem.starts, axis=0) + preference
    else:
        rank = preference - (beam.lows + beam.left)
    pivots = np.where(beam.lows == lowest, rank, np.inf).argmin(axis=0)
    parents, items = np.nonzero((problem.covers[pivots] > 0) & at_floor.T)
    hard = problem.areas[items] * (0.3 + random.random(len(items)))
    order = np.lexsort((-hard, parents))
    parents, items = parents[order], items[order]
    is_tried = np.arange(len(parents)) - np.searchsorted(parents, parents) < _CHILDREN
    parents, items = parents[is_tried], items[is_tried]
    everyone = np.arange(len(pivots))
    next_tops = (beam.floors + problem.sizes[:, None]).min(axis=0)
    return _Choices(
        np.concatenate([parents, everyone]),
        np.concatenate([items, np.full(len(everyone), -1)]),
        np.concatenate([lowest[parents], lowest]),
        np.concatenate([lowest[parents] + problem.sizes[items], next_tops]),
        pivots[np.concatenate([parents, everyone])],
        bool(is_tried.all()),
    )


def _results(problem: Sections, beam: Beam, choices: _Choices) -> tuple[Ints, Ints, Ints]:
    """Return floors, lowest floors and bytes left after each choice."""
    is_placed = choices.items >= 0
    count = int(is_placed.sum())  # placements come first
    items, columns = choices.items[:count], np.arange(count)
    lift = np.empty((len(problem.sizes), len(choices.items)), problem.sizes.dtype)
    np.multiply(problem.overlaps[:, items], choices.tops[:count], out=lift[:, :count])
    skipped = problem.covers[choices.pivots[count:]].T
    np.multiply(skipped, choices.tops[count:], out=lift[:, count:])
    floors = beam.floors[:, choices.parents]
    np.maximum(floors, lift, out=floors)
    floors[items, columns] = problem.placed
    left = beam.left[:, choices.parents]
    left[:, :count] -= problem.covers[:, items] * problem.sizes[items]
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
    known ^= np.where(items >= 0, problem.keys[items], 0)
    with np.errstate(over="ignore"):
        known ^= (floors[:, chosen] * problem.keys[:, None]).sum(axis=0)
    first: Ints = np.unique(known, return_index=True)[1]
    first.sort()
    return first
