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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_PLACED = 1 << 40  # the floor of what is placed: higher than anything
_UNIT = 1 << 20  # of weights
_CHILDREN = 8  # items tried on one section of one packing
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

    @staticmethod
    def of(sizes: Sequence[int], lives: Sequence[tuple[int, int]]) -> Sections:
        begins = np.array([begin for begin, _ in lives], np.int64)
        ends = np.array([end for _, end in lives], np.int64)
        moments = _fullest_moments(begins, ends)
        covers = (begins[None] <= moments[:, None]) & (moments[:, None] < ends[None])
        overlaps = (begins[None] < ends[:, None]) & (begins[:, None] < ends[None])
        np.fill_diagonal(overlaps, False)
        counts = covers.sum(axis=1)
        heights = np.array(sizes, np.int64)
        random = np.random.default_rng(0)
        return Sections(
            sizes=heights,
            overlaps=overlaps.astype(np.int64),
            covers=covers.astype(np.int64),
            members=np.nonzero(covers)[1],
            starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
            loads=covers @ heights,
            areas=covers.sum(axis=0) * heights,
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


@dataclass
class Beam:
    """Partial packings side by side; the last axis of every array counts them.

    Attributes:
        floors: [item], the least offset that each item could have; `_PLACED` if it has one.
        left: [section], bytes of the items not yet placed.
        lows: [section], the least floor of those items.
        offsets: [item], of those placed.
        known: a number for the set of items placed.
        done: the area placed.
        waiting: the number of items not placed.
    """

    floors: Ints
    left: Ints
    lows: Ints
    offsets: Ints
    known: Ints
    done: Ints
    waiting: Ints

    @staticmethod
    def of(problem: Sections, placed: Sequence[tuple[int, int]] = ()) -> Beam:
        """Return one packing with the (item, offset) pairs that are `placed`, from the bottom."""
        count = len(problem.sizes)
        floors = np.zeros(count, np.int64)
        left = problem.loads.copy()
        offsets = np.zeros(count, np.int64)
        known = np.zeros(1, np.int64)
        for item, offset in placed:
            top = offset + problem.sizes[item]
            np.maximum(floors, problem.overlaps[item] * top, out=floors)
            left -= problem.covers[:, item] * problem.sizes[item]
            offsets[item] = offset
            known ^= problem.keys[item]
        items = [item for item, _ in placed]
        floors[items] = _PLACED
        beam = Beam(
            floors[:, None],
            left[:, None],
            np.zeros((0, 1), np.int64),
            offsets[:, None],
            known,
            np.array([problem.areas[items].sum()]),
            np.array([count - len(items)]),
        )
        beam.lows = _lows(problem, beam.floors)
        return beam


def _lows(problem: Sections, floors: Ints) -> Ints:
    lows: Ints = np.minimum.reduceat(floors[problem.members], problem.starts, axis=0)
    return lows


def search(
    problem: Sections,
    beam: Beam,
    *,
    ceiling: int,
    bound: int,
    width: int,
    style: Style,
    seed: int,
) -> tuple[Ints | None, int]:
    """Return offsets of a packing lower than `bound`, if one is found, and the work done.

    Work is counted in numbers computed: packings tried times items.
    """
    random = np.random.default_rng(seed)
    preference = random.random(len(problem.loads))[:, None]
    work = 0
    while beam.waiting.min() > 0:
        parents, items, heights = _choices(problem, beam, style, preference, random)
        floors, left, lows = _grown(problem, beam, parents, items, heights)
        work += floors.size
        needs = np.where(left > 0, lows + left, 0)
        most = needs.max(axis=0)
        if most.min() > ceiling:
            ceiling = int(most.min())
            if ceiling >= bound:
                return None, work
        alive = np.flatnonzero(most <= ceiling)
        grown = np.where(items >= 0, problem.areas[items], 0)
        done = beam.done[parents] + grown
        lost = np.maximum(needs[:, alive] - problem.loads[:, None], 0)
        slack = ceiling - problem.loads + ceiling // 50 + 1
        score = (lost * (_UNIT // slack)[:, None]).sum(axis=0).astype(np.float64)
        if style.minds_progress:
            score = (score + 1.0) / (done[alive] + 1.0)
        score *= 1.0 + _NOISE * random.random(len(alive))
        chosen = alive[np.argsort(score, kind="stable")[: _CROWD * width]]
        chosen = _distinct(problem, beam, parents, items, lows, chosen)[:width]
        beam = _selected(problem, beam, parents, items, chosen, (floors, left, lows, done))
    return beam.offsets[:, int(beam.waiting.argmin())], work


def _choices(
    problem: Sections, beam: Beam, style: Style, preference: Any, random: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """Return what to try: packing, item (or -1: nobody takes the lowest floor), new height.

    In each packing one section at the lowest floor is looked at.
    """
    lowest = beam.floors.min(axis=0)
    is_low = beam.lows == lowest
    if style.prefers_few_choices:
        at_floor = (beam.floors == lowest).astype(np.int64)
        counts = np.add.reduceat(at_floor[problem.members], problem.starts, axis=0)
        rank = np.where(is_low, counts + preference / 2, np.inf)
    else:
        rank = np.where(is_low, preference - (beam.lows + beam.left), np.inf)
    covered = problem.covers[rank.argmin(axis=0)] > 0  # [packing, item]
    parents, items = np.nonzero(covered & (beam.floors == lowest).T)
    hard = problem.areas[items] * (0.3 + random.random(len(items)))
    order = np.lexsort((-hard, parents))
    parents, items = parents[order], items[order]
    position = np.arange(len(parents)) - np.searchsorted(parents, parents)
    parents, items = parents[position < _CHILDREN], items[position < _CHILDREN]
    everyone = np.arange(beam.floors.shape[1])
    tops = (beam.floors + problem.sizes[:, None]).min(axis=0)
    return (
        np.concatenate([parents, everyone]),
        np.concatenate([items, np.full(len(everyone), -1)]),
        np.concatenate([lowest[parents] + problem.sizes[items], tops]),
    )


def _grown(
    problem: Sections, beam: Beam, parents: Ints, items: Ints, heights: Ints
) -> tuple[Ints, Ints, Ints]:
    """Return floors, bytes left and lowest floors after each choice."""
    raise NotImplementedError
