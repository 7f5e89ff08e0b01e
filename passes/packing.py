"""Packing boxes in time and memory: greedy placement, and a search over orders.

A `Block` is one or more rectangles (bytes by time) at fixed distances from its base. All sizes are
counted in units of the alignment, so every integer is a legal offset; times are half-open. The
blocks of one problem are placed one after the other, each at the lowest base (or in the tightest
gap) that is free during its life, so an order of blocks determines a packing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[np.int64]]


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
    """When to stop searching: after so many units of work, and after so many seconds.

    Only `work` is deterministic; a compile that must give the same bytes twice sets no `seconds`.
    One unit is the placement of one block.
    """

    work: int
    seconds: float | None = None


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
    enough = max(target, lower_bound(blocks))
    best, _ = greedy(blocks, enough)
    return best


def greedy(blocks: Sequence[Block], enough: int) -> tuple[list[int], list[int]]:
    """Return the best of the classic orders, and that order."""
    best: list[int] | None = None
    best_order: list[int] = []
    for key in _keys(blocks):
        order = sorted(range(len(blocks)), key=key.__getitem__)
        for is_tight in (False, True):
            bases = place(blocks, order, is_tight)
            if best is None or height(blocks, bases) < height(blocks, best):
                best, best_order = bases, order
            if height(blocks, best) <= enough:
                return best, best_order
    return best or [], best_order


def _keys(blocks: Sequence[Block]) -> list[list[int]]:
    """Return sort keys: largest first by size, by contention, by area and by life."""
    sizes = [extent(block) for block in blocks]
    lives = [_life(block) for block in blocks]
    contention = _contention(blocks)
    return [
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
