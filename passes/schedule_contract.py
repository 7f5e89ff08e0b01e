"""How a contraction is cut into tiles: plain values, chosen from sizes and the kind of device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Family = Literal["shuffle", "register", "staged"]


@dataclass(frozen=True)
class ContractProblem:
    """`batch` products `[rows, inner] x [inner, columns]`."""

    batch: int
    rows: int
    columns: int
    inner: int

    @property
    def transposed(self) -> ContractProblem:
        """The same product with rows and columns exchanged."""
        return replace(self, rows=self.columns, columns=self.rows)


@dataclass(frozen=True)
class ContractSchedule:
    """Who computes which part of the result.

    Attributes:
        family: the template. `register`: an invocation owns a tile, nothing is shared.
        rows, columns: size of the tile that one invocation holds in registers; columns is a
            multiple of four.
        workgroup: invocations in a workgroup.
        inner_steps: steps along the inner axis in a trip of the loop.
        is_transposed: rows of the tile run along the result's last axis.
    """

    family: Family
    rows: int
    columns: int
    workgroup: int
    inner_steps: Literal[1, 4] = 4
    is_transposed: bool = False

    def __str__(self) -> str:
        turned = ", transposed" if self.is_transposed else ""
        return f"{self.family} tile {self.rows}x{self.columns}, workgroup {self.workgroup}{turned}"


def choose(problem: ContractProblem, family: str, subgroup_size: int) -> tuple[ContractSchedule, ...]:
    """Return schedules for a device family (`cpu`, `gpu`), best first; the last is portable."""
    is_transposed = problem.columns < 4 <= problem.rows
    register = ContractSchedule("register", 8, 16, 16, 1, is_transposed)
    if family == "cpu" and subgroup_size == 8:
        return ContractSchedule("shuffle", 32, 4, 8, 4, is_transposed), register
    return (register,)
