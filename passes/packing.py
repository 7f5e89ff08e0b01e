"""Packing boxes in time and memory: greedy placement, and a search over orders.

A `Block` is one or more rectangles (bytes by time) at fixed distances from its base. All sizes are
counted in units of the alignment, so every integer is a legal offset; times are half-open. The
blocks of one problem are placed one after the other, each at the lowest base (or in the tightest
gap) that is free during its life, so an order of blocks determines a packing.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asg.passes.packing_search import Goal, Sections, beginning, search

IntArray = np.ndarray[Any, np.dtype[np.int64]]

_SMALL = 30  # items; of so few, all packings may be looked at
_ALL = 2000  # partial packings that are still all of them
_SHARE = 0.25  # of the budget, for that
_WIDTHS = (4, 8, 16, 32)  # partial packings that a beam keeps
_NOISES = (0.1, 0.3)
_CEILINGS = (0.0, 0.2, 0.5, 0.8)  # where beams begin to cut, from the bound to the best known
_WHOLE = 6  # beams over everything, before those over an upper part
_AIMED = 0.8  # of the moves of blocks among rigid ones
_WHOLE_SHARE = 0.33  # of the later ones are over everything again


@dataclass(frozen=True, slots=True)
class Rect:
    """`size` units at `offset` above the block's base, taken during [start, end)."""

    offset: int
    size: int
    start: int
    end: int


Block = tuple[Rect, ...]


@dataclass(frozen=True)
class Budget:
    """When to stop searching: after so much work, and after so many seconds.

    Only `work` is deterministic; a compile that must give the same bytes twice sets no `seconds`.
    Work counts numbers computed, some 50 million in a second. A packing that is above the lower
    bound by no more than a `tolerance` of it is good enough.
    """

    work: int
    seconds: float | None = None
    tolerance: float = 0.0


def lower_bound(blocks: Sequence[Block]) -> int:
    """Return the most memory that is live at one time."""
    steps = sorted(
        step
        for block in blocks
        for rect in block
        if rect.size and rect.start < rect.end
        for step in ((rect.start, rect.size), (rect.end, -rect.size))
    )
    live = most = 0
    for _, change in steps:
        live += change
        most = max(most, live)
    return most


def extent(block: Block) -> int:
    """Return the block's size from its base."""
    return max((rect.offset + rect.size for rect in block), default=0)


def height(blocks: Sequence[Block], bases: Sequence[int]) -> int:
    """Return the memory that a packing takes."""
    return max((base + extent(b) for b, base in zip(blocks, bases, strict=True)), default=0)


class _Shelf:
    """Rectangles already placed, in order of offset."""

    def __init__(self, capacity: int) -> None:
        self._rows = np.zeros((4, max(capacity, 1)), np.int64)  # low, high, start, end
        self._count = 0

    def base(self, block: Block, is_tight: bool) -> int:
        """Return the lowest free base, or that of the tightest gap."""
        rows = self._rows[:, : self._count]
        parts = []
        for rect in block:
            mask = (rows[2] < rect.end) & (rows[3] > rect.start)
            low, high = rows[0, mask], rows[1, mask]
            parts.append((low - (rect.offset + rect.size), high - rect.offset))
        if len(parts) == 1:
            lows, highs = parts[0]
        else:
            lows = np.concatenate([low for low, _ in parts])
            highs = np.concatenate([high for _, high in parts])
            order = np.argsort(lows, kind="stable")
            lows, highs = lows[order], highs[order]
        if not len(lows):
            return 0
        reach = np.maximum.accumulate(highs)
        floors = np.empty_like(reach)
        floors[0] = 0
        np.maximum(reach[:-1], 0, out=floors[1:])
        free = np.flatnonzero(lows >= floors)
        if not len(free):
            return max(int(reach[-1]), 0)
        if not is_tight:
            return int(floors[free[0]])
        return int(floors[free[np.argmin(lows[free] - floors[free])]])

    def add(self, block: Block, base: int) -> None:
        for rect in block:
            rows, count = self._rows, self._count
            low = base + rect.offset
            at = int(np.searchsorted(rows[0, :count], low, side="right"))
            rows[:, at + 1 : count + 1] = rows[:, at:count]
            rows[:, at] = (low, low + rect.size, rect.start, rect.end)
            self._count += 1


def place(blocks: Sequence[Block], order: Sequence[int], is_tight: bool = False) -> list[int]:
    """Place blocks in `order`; return the base of each."""
    shelf = _Shelf(sum(len(block) for block in blocks))
    bases = [0] * len(blocks)
    for index in order:
        bases[index] = shelf.base(blocks[index], is_tight)
        shelf.add(blocks[index], bases[index])
    return bases


def place_apart(blocks: Sequence[Block]) -> list[int]:
    """Give every block a place that no other ever uses."""
    bases: list[int] = []
    top = 0
    for block in blocks:
        bases.append(top)
        top += extent(block)
    return bases


def best_packing(blocks: Sequence[Block], budget: Budget, target: int = 0) -> list[int]:
    """Return bases of the lowest packing found; stop at `target` or at the lower bound."""
    watch = _Watch(budget)
    bases = [0] * len(blocks)
    for part in _apart(blocks):
        mine = [blocks[index] for index in part]
        least = lower_bound(mine)
        found, order = greedy(mine, max(target, least), watch)
        enough = max(target, int(least * (1 + budget.tolerance)))
        if height(mine, found) > enough and not watch.is_over:
            if all(len(block) == 1 for block in mine):
                found = _search(mine, found, enough, watch)
            else:
                found = _reorder(mine, order, found, enough, watch)
        for index, base in zip(part, found, strict=True):
            bases[index] = base
    return bases


@dataclass
class _Watch:
    """How much of a budget is left."""

    budget: Budget
    work: int = 0
    start: float = field(default_factory=time.perf_counter)

    def limit(self, share: float = 1.0) -> Callable[[int], bool]:
        """Return what tells when a `share` of the rest is used up, from the work done since."""
        most = (self.budget.work - self.work) * share
        end: float | None = None
        if self.budget.seconds is not None:
            now = time.perf_counter()
            end = now + (self.start + self.budget.seconds - now) * share
        return lambda work: work > most or (end is not None and time.perf_counter() > end)

    @property
    def is_over(self) -> bool:
        seconds = self.budget.seconds
        if seconds is not None and time.perf_counter() - self.start > seconds:
            return True
        return self.work >= self.budget.work


def _apart(blocks: Sequence[Block]) -> list[list[int]]:
    """Cut the problem at times over which nothing lives; the parts can't disturb each other."""
    lives = [_life(block) for block in blocks]
    parts: list[list[int]] = []
    reached: int | None = None
    taking = [index for index, block in enumerate(blocks) if block]
    for index in sorted(taking, key=lambda index: lives[index]):
        start, end = lives[index]
        if reached is None or start >= reached:
            parts.append([])
            reached = end
        parts[-1].append(index)
        reached = max(reached, end)
    return parts


def _search(blocks: Sequence[Block], bases: list[int], enough: int, watch: _Watch) -> list[int]:
    """Improve a packing of single rectangles by beams: whole ones, then of the upper part."""
    problem = Sections.of([block[0].size for block in blocks], [_life(block) for block in blocks])
    best = np.array(bases, np.int64)
    draw = random.Random(0)
    if len(blocks) <= _SMALL:
        best, is_lowest = _exhaust(problem, best, enough, watch)
        if is_lowest:
            return [int(base) for base in best]
    for trial in itertools.count():
        lowest = height(blocks, best.tolist())
        if lowest <= enough or watch.is_over:
            return [int(base) for base in best]
        width, noise = draw.choice(_WIDTHS), draw.choice(_NOISES)
        is_whole = trial < _WHOLE or draw.random() < _WHOLE_SHARE
        kept = [] if is_whole else _lower_part(problem, best, lowest, draw)
        ceiling = enough + int((lowest - enough) * draw.choice(_CEILINGS))
        # A part may end as high as the best: another packing to go on from.
        bound = lowest if is_whole else lowest + 1
        goal = Goal(min(ceiling, lowest - 1), bound, watch.limit())
        outcome = search(problem, beginning(problem, kept), goal, width, noise, trial)
        watch.work += outcome.work
        if outcome.offsets is not None:
            best = outcome.offsets
    raise AssertionError  # the loop has no other end


def _exhaust(
    problem: Sections, best: IntArray, enough: int, watch: _Watch
) -> tuple[IntArray, bool]:
    """Improve a packing of few items by looking at all others, and tell whether that was done."""
    while not watch.is_over:
        lowest = int((best + problem.sizes).max())
        if lowest <= enough:
            return best, True
        goal = Goal(lowest - 1, lowest, watch.limit(_SHARE))
        outcome = search(problem, beginning(problem), goal, _ALL, 0.0, 0)
        watch.work += outcome.work
        if outcome.offsets is None:
            return best, outcome.is_complete
        best = outcome.offsets
    return best, False


def _lower_part(
    problem: Sections, offsets: IntArray, top: int, draw: random.Random
) -> list[tuple[int, int]]:
    """Return the lower part of a packing, at times turned upside down, each item at rest."""
    if draw.random() < 0.5:
        offsets = top - offsets - problem.sizes
    order = np.argsort(offsets, kind="stable")
    floors = np.zeros(len(order), np.int64)
    placed: list[tuple[int, int]] = []
    for item in order[: int(len(order) * draw.uniform(0.1, 0.95))].tolist():
        placed.append((item, int(floors[item])))
        top_ = floors[item] + problem.sizes[item]
        np.maximum(floors, problem.overlaps[item] * top_, out=floors)
    return placed


def _reorder(
    blocks: Sequence[Block], order: list[int], bases: list[int], enough: int, watch: _Watch
) -> list[int]:
    """Improve a packing with rigid blocks by moving blocks in the order of placement: most often
    what reaches the top, or is in its way."""
    draw = random.Random(0)
    best, lowest = bases, height(blocks, bases)
    while lowest > enough and not watch.is_over:
        tried = list(order)
        is_aimed = draw.random() < _AIMED
        if is_aimed:
            position = tried.index(_in_the_way(blocks, best, lowest, draw))
            tried.insert(draw.randrange(position + 1), tried.pop(position))
        for _ in range(draw.randint(0, 1) if is_aimed else draw.randint(1, 4)):
            tried.insert(draw.randrange(len(tried)), tried.pop(draw.randrange(len(tried))))
        found = place(blocks, tried, is_tight=draw.random() < 0.5)
        watch.work += _placing_work(blocks)
        if height(blocks, found) <= lowest:
            best, lowest, order = found, height(blocks, found), tried
    return best


def _in_the_way(
    blocks: Sequence[Block], bases: Sequence[int], top: int, draw: random.Random
) -> int:
    """Return a block that reaches the top, or one that lives beside it."""
    highest = [
        index
        for index, (block, base) in enumerate(zip(blocks, bases, strict=True))
        if base + extent(block) == top
    ]
    chosen = draw.choice(highest)
    if draw.random() < 0.5:
        return chosen
    start, end = _life(blocks[chosen])
    lives = [_life(block) for block in blocks]
    return draw.choice([i for i, (a, b) in enumerate(lives) if a < end and start < b])


def greedy(blocks: Sequence[Block], enough: int, watch: _Watch) -> tuple[list[int], list[int]]:
    """Return the best of the classic orders, and that order."""
    best: list[int] | None = None
    best_order: list[int] = []
    for key in _keys(blocks):
        order = sorted(range(len(blocks)), key=key.__getitem__)
        for is_tight in (False, True):
            if best is not None and watch.is_over:
                return best, best_order
            bases = place(blocks, order, is_tight)
            watch.work += _placing_work(blocks)
            if best is None or height(blocks, bases) < height(blocks, best):
                best, best_order = bases, order
            if height(blocks, best) <= enough:
                return best, best_order
    return best or [], best_order


def _placing_work(blocks: Sequence[Block]) -> int:
    """Return about how many numbers could be computed in the time that an order takes."""
    return sum(map(len, blocks)) * (1000 + len(blocks) // 4)


def _keys(blocks: Sequence[Block]) -> list[list[int]]:
    """Return sort keys: largest first by size, by contention, by area and by life.

    Where there are rigid blocks, they come last, on top of what lives longest: what makes their
    members from below then finds its room in their holes.
    """
    sizes = [extent(block) for block in blocks]
    lives = [_life(block) for block in blocks]
    contention = _contention(blocks)
    last = 1 + max((end - start for start, end in lives), default=0)
    rigid = [
        start - end + last * (len(block) > 1)
        for block, (start, end) in zip(blocks, lives, strict=True)
    ]
    return [
        *([rigid] if any(len(block) > 1 for block in blocks) else []),
        [-size for size in sizes],
        [-live for live in contention],
        [-size * (end - start) for size, (start, end) in zip(sizes, lives, strict=True)],
        [start - end for start, end in lives],
    ]


def _life(block: Block) -> tuple[int, int]:
    starts = [rect.start for rect in block]
    return min(starts, default=0), max((rect.end for rect in block), default=0)


def _contention(blocks: Sequence[Block]) -> list[int]:
    """Return for each block the sizes of all rectangles that live at the same time, summed."""
    rects = [rect for block in blocks for rect in block]
    starts = sorted((rect.start, rect.size) for rect in rects)
    ends = sorted((rect.end, rect.size) for rect in rects)
    begun = _Prefix(starts)
    ended = _Prefix(ends)
    return [begun.before(end) - ended.before(start + 1) for start, end in map(_life, blocks)]


class _Prefix:
    """Sums of sizes over the events before a time."""

    def __init__(self, events: Sequence[tuple[int, int]]) -> None:
        self._times = np.array([moment for moment, _ in events], np.int64)
        self._sums = np.concatenate([[0], np.cumsum([size for _, size in events], dtype=np.int64)])

    def before(self, moment: int) -> int:
        return int(self._sums[np.searchsorted(self._times, moment, side="left")])
