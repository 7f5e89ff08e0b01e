"""Which group depends on which, while groups are merged.

The groups stand in an order in which each comes after those that it depends on. A merge that
makes a circle would need a group that lies between those to be merged; so only what stands
between them is looked at (after Pearce and Kelly, "A dynamic topological sort algorithm", 2006).
No transitive relation is kept, which would take memory and time by the square.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_GAP = 1 << 64  # between the labels of neighbours
_MOST_BETWEEN = 1000  # groups; what stands farther apart is not merged
_HEAD = -1  # stands before all groups


class GroupOrder:
    """Groups by number, in an order that respects what each depends on.

    Attributes:
        visits: how often a group has been looked at, for tests of how the work grows.
    """

    def __init__(self) -> None:
        self.visits = 0
        self._above: dict[int, dict[int, None]] = {}  # what each depends on directly
        self._merged: dict[int, int] = {}  # a group that is gone -> the one that it became
        self._label = {_HEAD: 0}  # ascending along the order
        self._next = {_HEAD: _HEAD}
        self._previous = {_HEAD: _HEAD}

    def add(self, number: int, above: Iterable[int]) -> None:
        """Put a new group, which depends on those `above`, at the end."""
        self._above[number] = dict.fromkeys(above)
        self._insert([number], self._previous[_HEAD])

    def above(self, number: int) -> list[int]:
        """Return the groups that a group depends on directly."""
        found = dict.fromkeys(map(self._now, self._above[number]))
        found.pop(number, None)
        self._above[number] = found
        return list(found)

    def may_merge(self, numbers: Iterable[int]) -> bool:
        """Tell whether groups can become one: none depends on another by way of a group outside,
        and so few stand between them that this is certain."""
        return self._between(set(numbers)) is not None

    def merge(self, target: int, others: Iterable[int]) -> None:
        """Make `others`, which may be merged with it, part of `target`."""
        numbers = {target, *others}
        between = self._between(numbers)
        assert between is not None, "groups that depend on each other are merged"
        before = self._previous[min(numbers, key=self._label.__getitem__)]
        for number in (*between, *numbers):
            self._remove(number)
        # What the groups depend on stood after the first of them, and must stand before all.
        self._insert([*between, target], before)
        for number in sorted(numbers - {target}):
            self._above[target] |= self._above.pop(number)
            self._merged[number] = target

    def _between(self, numbers: set[int]) -> list[int] | None:
        """Return the groups outside that `numbers` depend on and that stand after the first of
        them, in order; None if one of those depends on `numbers`, or if there are too many."""
        lowest = min(self._label[number] for number in numbers)
        found: set[int] = set()
        pending = [number for each in numbers for number in self.above(each)]
        while pending:
            number = pending.pop()
            if number in found or number in numbers or self._label[number] < lowest:
                continue
            found.add(number)
            self.visits += 1
            above = self.above(number)
            if len(found) > _MOST_BETWEEN or not numbers.isdisjoint(above):
                return None
            pending += above
        return sorted(found, key=self._label.__getitem__)

    def _now(self, number: int) -> int:
        """Return the group that a number is part of by now."""
        root = number
        while root in self._merged:
            root = self._merged[root]
        while number != root:  # a shorter way for the next time
            self._merged[number], number = root, self._merged[number]
        return root

    def _remove(self, number: int) -> None:
        before, after = self._previous.pop(number), self._next.pop(number)
        self._next[before], self._previous[after] = after, before
        del self._label[number]

    def _insert(self, numbers: Sequence[int], before: int) -> None:
        """Put `numbers` one after the other behind `before`."""
        after = self._next[before]
        low = self._label[before]
        step = _GAP if after == _HEAD else (self._label[after] - low) // (len(numbers) + 1)
        for number in numbers:
            low += step
            self._label[number] = low
            self._next[before], self._previous[number] = number, before
            before = number
        self._next[before], self._previous[after] = after, before
        if step == 0:
            self._label_anew()

    def _label_anew(self) -> None:
        """Space all labels evenly again."""
        number = self._next[_HEAD]
        label = 0
        while number != _HEAD:
            label += _GAP
            self._label[number] = label
            number = self._next[number]
