"""Finds what overlaps a range, among many ranges that may lie inside each other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Spans(Generic[T]):
    """Things that take a range of something; each range is `start` up to, not with, `end`.

    Ranges are kept by length, in classes that double. In a class those that overlap a range are
    neighbours, but for a few; so a question costs no more than what it finds, and a logarithm.
    """

    def __init__(self) -> None:
        self._count = 0
        self._classes: dict[Hashable, dict[int, list[tuple[int, int, int, T]]]] = {}
        self._is_sorted = True

    def add(self, where: Hashable, start: int, end: int, thing: T) -> None:
        """Note a thing; an empty range overlaps nothing."""
        if start < end:
            lengths = self._classes.setdefault(where, {})
            group = lengths.setdefault((end - start).bit_length(), [])
            group.append((start, self._count, end, thing))
            self._count += 1
            self._is_sorted = False

    def find(self, where: Hashable, start: int, end: int) -> list[T]:
        """Return what overlaps a range, in the order in which it was added."""
        if not self._is_sorted:
            self._sort()
        found: list[tuple[int, T]] = []
        for bits, group in self._classes.get(where, {}).items() if start < end else ():
            low = bisect_right(group, start - (1 << bits), key=lambda each: each[0])
            high = bisect_left(group, end, key=lambda each: each[0])
            found += [(each[1], each[3]) for each in group[low:high] if each[2] > start]
        return [thing for _, thing in sorted(found, key=lambda pair: pair[0])]

    def _sort(self) -> None:
        for lengths in self._classes.values():
            for group in lengths.values():
                group.sort(key=lambda each: each[:2])
        self._is_sorted = True
