"""What an imported model holds that can't be compiled: one record for each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asg.errors import UnsupportedError


class NodeUnsupportedError(UnsupportedError):
    """One node can't be converted; `fix` says what would help, where that is known."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


@dataclass(frozen=True)
class Problem:
    """A node of a model that can't be compiled, and why."""

    node: str
    op: str
    domain: str
    opset: int
    dtypes: tuple[str, ...]
    reason: str
    fix: str

    @property
    def title(self) -> str:
        """The operator with its domain and opset: `com.microsoft.Gelu-1`."""
        version = f"-{self.opset}" if self.opset else ""
        return f"{self.domain + '.' if self.domain else ''}{self.op}{version}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def table(problems: Sequence[Problem]) -> str:
    """Return the problems as a table for people: a line for each node."""
    heads = ("node", "operator", "types", "reason", "what would help")
    rows = [
        (each.node, each.title, ", ".join(each.dtypes), each.reason, each.fix or "-")
        for each in problems
    ]
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
    return "\n".join(lines)


def unsupported(label: str, problems: Sequence[Problem]) -> UnsupportedError:
    """Return the one error that lists everything."""
    return UnsupportedError(
        f"{label}: {len(problems)} node(s) can't be compiled\n{table(problems)}"
    )
