"""How attention is cut into tiles: plain values, chosen from sizes and the kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_SUBGROUP = 8
_QUAD = 4
_SUMS = 32  # vec4 sums that an invocation holds, at most: more do not fit registers and cache


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


def choose(widths: Sequence[int], family: str, subgroup_size: int) -> tuple[AttentionSchedule, ...]:
    """Return schedules for sums of these widths, best first; the last is portable."""
    quads = sum(-(-width // (_QUAD * _SUBGROUP)) for width in widths)
    staged = AttentionSchedule("staged", 4 if len(widths) == 1 else 2, 128)
    if family == "cpu" and subgroup_size == _SUBGROUP:
        rows = max(1, min(16, _SUMS // max(quads, 1)))
        return AttentionSchedule("shuffle", rows, _SUBGROUP), staged
    return (staged,)
