"""How attention is cut into tiles: plain values, chosen from sizes and the kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SUBGROUP = 8
_QUAD = 4
_ROWS = 16  # twice as many are a little faster, and take the driver three times as long to compile
_LEAST_ROWS = 4
_SUMS = 32  # vec4 sums that an invocation holds, at most
_CPU_WORKERS = 8  # tiles below this number leave cores idle


@dataclass(frozen=True)
class AttentionSchedule:
    """Who computes which rows.

    Attributes:
        family: the template. `shuffle`: a subgroup of eight owns `rows` rows. `staged`: a
            workgroup owns a tile, and each of its invocations a part of `rows` of the rows.
        workgroup: invocations in a workgroup.
    """

    family: Literal["shuffle", "staged"]
    rows: int
    workgroup: int

    def __str__(self) -> str:
        return f"{self.family}: {self.rows} rows per invocation, workgroup {self.workgroup}"


@dataclass(frozen=True)
class AttentionProblem:
    """`batch` tiles of `rows` by any number of columns, the widths of what is summed up, and
    whether a mask is read for every row."""

    batch: int
    rows: int
    widths: tuple[int, ...]
    has_mask: bool = False


def choose(
    problem: AttentionProblem, family: str, subgroup_size: int
) -> tuple[AttentionSchedule, ...]:
    """Return schedules for a device family (`cpu`, `gpu`), best first; the last is portable."""
    # Two sums mean two tiles in workgroup memory, of which 16 KiB are sure to be there.
    staged = AttentionSchedule("staged", 4 if len(problem.widths) == 1 else 2, 128)
    if family == "cpu" and subgroup_size == _SUBGROUP:
        return AttentionSchedule("shuffle", _shuffle_rows(problem), _SUBGROUP), staged
    return (staged,)


def _shuffle_rows(problem: AttentionProblem) -> int:
    """Return as many rows as registers hold, fewer where cores would have nothing to do."""
    quads = sum(-(-width // (_QUAD * _SUBGROUP)) for width in problem.widths)
    most = _ROWS // 2 if problem.has_mask or len(problem.widths) > 1 else _ROWS
    rows = min(most, _SUMS // max(quads, 1), problem.rows)
    while rows > _LEAST_ROWS and problem.batch * -(-problem.rows // rows) < _CPU_WORKERS:
        rows = -(-rows // 2)
    return max(rows, 1)
