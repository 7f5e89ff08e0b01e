"""The memory plan of a compiled model, to be read: a table, a picture, the totals.

Takes the plain data that an artefact's report carries, so that a bundle loaded where there is no
compiler can show its plan too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 960, 480  # of the picture's plot, in pixels
_LEFT, _TOP, _BOTTOM = 90, 40, 60
_MOST_SHARING = 3  # names listed of the values that a value shares its bytes with
_COLOURS = ("#8ecae6", "#ffb703", "#90be6d", "#f4978e", "#cdb4db", "#a3b18a", "#f9c74f", "#9fa8da")


@dataclass(frozen=True)
class PlannedValue:
    """A value in the arena: its bytes, and the first and the last step that touch it.

    `last` is the number of steps for a value that is read after the run.
    """

    name: str
    buffer: int
    offset: int
    size: int
    first: int
    last: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    def shares_with(self, other: PlannedValue) -> bool:
        """Tell whether the two have bytes in common, at whatever time."""
        return self.buffer == other.buffer and self.offset < other.end and other.offset < self.end


@dataclass(frozen=True)
class EntryPlan:
    """The steps of one entry and the values that they keep in the arena."""

    name: str
    steps: tuple[str, ...]
    values: tuple[PlannedValue, ...]

    def live(self) -> list[int]:
        """Return the live bytes at each step, a byte that two values share counted once."""
        change = [0] * (len(self.steps) + 2)
        for value in _merged(self.values):
            change[value.first] += value.size
            change[value.last + 1] -= value.size
        live: list[int] = []
        for delta in change[:-1]:
            live.append(delta + (live[-1] if live else 0))
        return live


@dataclass(frozen=True)
class PlanView:
    """The plan of all entries; printing it prints the table.

    Attributes:
        arena_bytes: what the arena takes.
        max_live_bytes: the least that any arena could take, for these steps in this order.
    """

    arena_bytes: int
    max_live_bytes: int
    buffers: tuple[Mapping[str, Any], ...]
    entries: Mapping[str, EntryPlan]

    @staticmethod
    def from_report(plan: Mapping[str, Any]) -> PlanView:
        """Read what `artefact.report["plan"]` holds."""
        entries = {
            name: EntryPlan(
                name,
                tuple(entry["steps"]),
                tuple(PlannedValue(**value) for value in entry["values"]),
            )
            for name, entry in plan["entries"].items()
        }
        return PlanView(
            plan["arena_bytes"], plan["max_live_bytes"], tuple(plan["buffers"]), entries
        )

    @property
    def ratio(self) -> float:
        """The arena's size over its lower bound: 1.0 is as good as can be."""
        return self.arena_bytes / self.max_live_bytes if self.max_live_bytes else 1.0

    def __str__(self) -> str:
        lines = [
            f"arena {self.arena_bytes:,} bytes, at least {self.max_live_bytes:,} live at a time "
            f"(ratio {self.ratio:.3f})"
        ]
        lines += [
            f"buffer {buffer['name']}: {buffer['size']:,} bytes, {buffer['role']}"
            for buffer in self.buffers
        ]
        for entry in self.entries.values():
            lines += ["", f"entry {entry.name}: {len(entry.steps)} steps"]
            lines += [
                f"step {index}: {label}"
                for index, label in enumerate(entry.steps)
                if label.endswith((" again", " more ranges)"))
            ]
            lines += _table(entry)
        return "\n".join(lines)

    def to_svg(self, entry: str | None = None) -> str:
        """Draw an entry (the first unless told): steps to the right, bytes upwards."""
        name = next(iter(self.entries)) if entry is None else entry
        return _draw(self, self.entries[name])


def _table(entry: EntryPlan) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("name", "buffer", "offset", "size", "first", "last", "shares with")
    ]
    for value, sharing in zip(entry.values, _sharing(entry.values), strict=True):
        numbers = (value.buffer, value.offset, value.size, value.first, value.last)
        rows.append((value.name, *map(str, numbers), sharing))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [row[column].rjust(widths[column]) for column in range(1, 6)]
            + [row[6]]
        ).rstrip()
        for row in rows
    ]


def _sharing(values: Sequence[PlannedValue]) -> list[str]:
    """Return, for each value, the names of some that have bytes in common with it."""
    found: dict[PlannedValue, list[str]] = {value: [] for value in values}
    open_: list[PlannedValue] = []
    for value in sorted(found, key=lambda value: (value.buffer, value.offset)):
        open_ = [other for other in open_ if other.shares_with(value)]
        for other in open_:
            found[value].append(other.name)
            found[other].append(value.name)
        open_.append(value)
    return [_shortened(found[value]) for value in values]


def _shortened(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_SHARING])
    more = len(names) - _MOST_SHARING
    return f"{listed} and {more} more" if more > 0 else listed


def _merged(values: Sequence[PlannedValue]) -> list[PlannedValue]:
    """Make values that follow one another in place one value."""
    merged: dict[tuple[int, int, int], list[PlannedValue]] = {}
    for value in sorted(values, key=lambda value: value.first):
        row = merged.setdefault((value.buffer, value.offset, value.size), [])
        if row and row[-1].last >= value.first:
            row[-1] = PlannedValue(
                row[-1].name, value.buffer, value.offset, value.size, row[-1].first, value.last
            )
        else:
            row.append(value)
    return [value for row in merged.values() for value in row]


def _draw(plan: PlanView, entry: EntryPlan) -> str:
    bases, top = _stacked(plan, entry)
    across = _WIDTH / (len(entry.steps) + 1)
    up = _HEIGHT / max(top, 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 20}" '
        f'height="{_TOP + _HEIGHT + _BOTTOM}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(entry.name)}: arena '
        f"{plan.arena_bytes:,} bytes, at least {plan.max_live_bytes:,}</text>",
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        'stroke="#888"/>',
    ]
    for position, value in enumerate(entry.values):
        x = _LEFT + value.first * across
        y = _TOP + _HEIGHT - (bases[value.buffer] + value.end) * up
        width, height = (value.last - value.first + 1) * across, max(value.size * up, 0.5)
        lines += _box(value, (x, y, width, height), _COLOURS[position % len(_COLOURS)])
    lines += _axes(entry, across, top)
    lines += _level(plan.max_live_bytes, up, "max live")
    return "\n".join([*lines, "</svg>", ""])


def _stacked(plan: PlanView, entry: EntryPlan) -> tuple[dict[int, int], int]:
    """Return where each arena begins when they are drawn on top of one another."""
    bases: dict[int, int] = {}
    top = 0
    for number in sorted({value.buffer for value in entry.values}):
        bases[number] = top
        top += int(plan.buffers[number]["size"])
    return bases, max(top, plan.max_live_bytes)


def _box(value: PlannedValue, box: tuple[float, float, float, float], colour: str) -> list[str]:
    x, y, width, height = box
    text = escape(value.name, quote=True)
    lines = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}" stroke="#333" stroke-width="0.5"><title>{text}: {value.size:,} bytes '
        f"at {value.offset:,}, steps {value.first} to {value.last}</title></rect>"
    ]
    if height >= 11 and width >= 7 * len(value.name):
        lines.append(f'<text x="{x + 3:.1f}" y="{y + height / 2 + 4:.1f}">{text}</text>')
    return lines


def _axes(entry: EntryPlan, across: float, top: int) -> list[str]:
    floor = _TOP + _HEIGHT
    every = max(1, len(entry.steps) // 20)
    lines = [
        f'<text x="{_LEFT + (step + 0.5) * across:.1f}" y="{floor + 16}" '
        f'text-anchor="middle">{step}<title>{escape(label)}</title></text>'
        for step, label in enumerate(entry.steps)
        if step % every == 0
    ]
    lines.append(f'<text x="{_LEFT + _WIDTH / 2:.1f}" y="{floor + 36}">step</text>')
    for quarter in range(5):
        y = floor - _HEIGHT * quarter / 4
        lines.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * quarter // 4:,}</text>'
        )
    return lines


def _level(nbytes: int, up: float, label: str) -> list[str]:
    y = _TOP + _HEIGHT - nbytes * up
    return [
        f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#c1121f" '
        'stroke-dasharray="6 3"/>',
        f'<text x="{_LEFT + _WIDTH - 4}" y="{y - 4:.1f}" text-anchor="end" fill="#c1121f">'
        f"{label}</text>",
    ]
