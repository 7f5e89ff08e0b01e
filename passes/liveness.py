"""Which bytes each step of an entry reads and writes, before anything has an address.

An `Area` is a range inside a *root*: a stored value that is no part of another one. Members of a
flat join and aliases are areas of their root. A *leaf* is an area that one step writes as a whole:
a kernel's output, or a member copied into a join.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from asg.graph import Value
from asg.passes.kernels import FusedKernel, FusionPlan, Placement
from asg.passes.storage import Location

Root = Value | str  # a name stands for bytes that no graph value has: a saved state


@dataclass(frozen=True, slots=True)
class Area:
    """Bytes inside a root."""

    root: Root
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        return self.offset + self.nbytes

    @property
    def span(self) -> tuple[Root, int, int]:
        """The root, and where in it the area begins and ends."""
        return self.root, self.offset, self.end

    def overlaps(self, other: Area) -> bool:
        """Tell whether the two have a byte in common."""
        if self.root != other.root:
            return False
        return max(self.offset, other.offset) < min(self.end, other.end)

    def within(self, base: Location) -> Location:
        """Return the place of the area where that of its root is known."""
        return base.part(self.offset, self.nbytes)


@dataclass(frozen=True)
class Access:
    """A name that a step reads or writes, and its area."""

    name: str
    area: Area


@dataclass(frozen=True)
class DraftStep:
    """A dispatch (with a kernel) or a copy (without)."""

    kernel: FusedKernel | None
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]


@dataclass
class Draft:
    """An entry on the way to its storage: areas of all values, and the steps so far."""

    name: str
    plan: FusionPlan
    areas: dict[Value, Area]
    fixed: dict[Value, Location]  # roots outside the arena
    steps: list[DraftStep] = field(default_factory=list)

    def fixed_place(self, value: Value) -> Location | None:
        """Return where a value lies that an input, a constant or persistent state holds."""
        area = self.areas[value]
        base = self.fixed.get(area.root) if isinstance(area.root, Value) else None
        return None if base is None else area.within(base)


def areas(plan: FusionPlan) -> dict[Value, Area]:
    """Return the area of every stored value, alias, join and join member."""
    inside: dict[Value, Placement] = {**plan.aliases, **plan.placed}
    values = [Value(node) for node in plan.graph.inputs]
    values += [*plan.stored, *inside, *(place.parent for place in inside.values())]
    values += [value for kernel in plan.kernels for value in (*kernel.reads, *kernel.outputs)]
    values += [value for source, join, _ in plan.copies for value in (source, join)]
    values += plan.graph.results
    return {value: _area(value, inside) for value in dict.fromkeys(values)}


def _area(value: Value, inside: Mapping[Value, Placement]) -> Area:
    root, offset = value, 0
    while root in inside:
        offset += inside[root].offset * value.type.dtype.itemsize
        root = inside[root].parent
    return Area(root, offset, value.type.nbytes)


def draft(name: str, plan: FusionPlan, fixed: dict[Value, Location]) -> Draft:
    """Return the steps of an entry: its kernels, and before each the copies that it needs.

    Copies that only results of the graph need come last.
    """
    found = Draft(name, plan, areas(plan), fixed)
    pending = _PendingCopies(found)
    for kernel in plan.kernels:
        for value in kernel.reads:
            found.steps += pending.take(found.areas[value])
        found.steps.append(_kernel_step(found, kernel))
    for value in plan.graph.results:
        found.steps += pending.take(found.areas[value])
    return found


def access(found: Draft, value: Value) -> Access:
    """Return a value's own name with its area."""
    return Access(found.plan.graph.names[value], found.areas[value])


def _kernel_step(found: Draft, kernel: FusedKernel) -> DraftStep:
    return DraftStep(
        kernel,
        tuple(access(found, value) for value in kernel.reads),
        tuple(access(found, value) for value in kernel.outputs),
    )


class _PendingCopies:
    """Copies into joins that no step has made yet."""

    def __init__(self, found: Draft) -> None:
        self._by_root: dict[Root, list[tuple[int, DraftStep]]] = {}
        names = found.plan.graph.names
        for source, join, offset in found.plan.copies:
            whole = found.areas[join]
            target = Area(
                whole.root, whole.offset + offset * source.type.dtype.itemsize, source.type.nbytes
            )
            written = Access(f"{names[join]}[{offset}]", target)
            step = DraftStep(None, (access(found, source),), (written,))
            self._by_root.setdefault(whole.root, []).append((join.node.serial, step))

    def take(self, area: Area) -> list[DraftStep]:
        """Return, sources first, the copies into `area` and those that they need."""
        taken: list[tuple[int, DraftStep]] = []
        wanted = [area]
        while wanted:
            area = wanted.pop()
            left = []
            for serial, step in self._by_root.get(area.root, ()):
                if step.writes[0].area.overlaps(area):
                    taken.append((serial, step))
                    wanted.append(step.reads[0].area)
                else:
                    left.append((serial, step))
            self._by_root[area.root] = left
        return [step for _, step in sorted(taken, key=lambda pair: pair[0])]


@dataclass
class Leaf:
    """Bytes that one step writes, and the steps between which they must be kept."""

    access: Access
    start: int
    last: int


class Lives:
    """For every root in the arena, its leaves and when each is read last."""

    def __init__(self, steps: Sequence[DraftStep], kept: Iterable[Area]) -> None:
        """`kept` are the areas that must be intact after the last step."""
        self.by_root: dict[Root, list[Leaf]] = {}
        for index, step in enumerate(steps):
            for written in step.writes:
                leaf = Leaf(written, index, index)
                self.by_root.setdefault(written.area.root, []).append(leaf)
        for leaves in self.by_root.values():
            leaves.sort(key=lambda leaf: leaf.access.area.offset)
        self._starts = {
            root: [leaf.access.area.offset for leaf in leaves]
            for root, leaves in self.by_root.items()
        }
        self._ends = {
            root: [leaf.access.area.end for leaf in leaves] for root, leaves in self.by_root.items()
        }
        for index, step in enumerate(steps):
            for read in step.reads:
                self._extend(read.area, index)
        for area in kept:
            self._extend(area, len(steps))

    def leaves(self, area: Area) -> list[Leaf]:
        """Return the leaves that have a byte in `area`."""
        if area.root not in self.by_root:
            return []
        low = bisect_right(self._ends[area.root], area.offset)
        high = bisect_left(self._starts[area.root], area.end)
        return self.by_root[area.root][low:high]

    def is_repeated(self, area: Area) -> bool:
        """Tell whether a step that writes in `area` is run more than once."""
        offsets = [leaf.access.area.offset for leaf in self.leaves(area)]
        return len(set(offsets)) < len(offsets)

    def _extend(self, area: Area, step: int) -> None:
        """Keep the leaves of `area`; of those that are written twice, what was written last."""
        latest: dict[int, Leaf] = {}
        for leaf in self.leaves(area):
            held = latest.setdefault(leaf.access.area.offset, leaf)
            if held.start < leaf.start < step:
                latest[leaf.access.area.offset] = leaf
        for leaf in latest.values():
            leaf.last = max(leaf.last, step)
