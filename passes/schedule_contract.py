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
        family: the template. `register`: an invocation owns a tile and shares nothing.
            `shuffle`: a subgroup of eight owns a tile. `staged`: a workgroup owns a tile and
            keeps parts of both operands in its memory.
        rows, columns: the sums that one invocation holds; columns are a multiple of four. In
            `shuffle` all eight invocations share the same rows.
        workgroup: invocations in a workgroup.
        inner_steps: steps along the inner axis in a trip of the loop.
        depth: inner steps that `staged` keeps at a time.
        is_transposed: the tile's rows run along the result's last axis.
    """

    family: Family
    rows: int
    columns: int
    workgroup: int
    inner_steps: Literal[1, 4] = 4
    depth: int = 0
    is_transposed: bool = False

    @property
    def threads(self) -> tuple[int, int]:
        """Invocations of a staged workgroup, across and down."""
        across = 16 if self.workgroup >= 256 else 8
        return across, self.workgroup // across

    def __str__(self) -> str:
        depth = f", depth {self.depth}" if self.depth else ""
        turned = ", transposed" if self.is_transposed else ""
        tile = f"{self.rows}x{self.columns} per invocation"
        return f"{self.family}: {tile}, workgroup {self.workgroup}{depth}{turned}"


_SUBGROUP = 8
_QUAD = 4

# Shuffle: an invocation holds four columns. A wider tile loads less for each multiplication, but
# what it unrolls to no longer fits the processor's instruction cache.
_SHUFFLE_COLUMNS = 4
# The driver compiles a tile of 32 rows in 0.8 s, of 16 rows in 0.4 s, of 8 rows in 0.2 s. The
# tallest is 5 to 15 % faster, which pays where a product takes milliseconds.
_TALL_ROWS, _ROWS = 32, 16
_TALL_FLOPS = 1 << 28
# Time of a loop trip on a software driver, in units of a quarter of a vec4 multiply-add: sums,
# loads of vec4, the trip itself. Measured with benchmarks/driver_limits.py.
_SUM_COST, _LOAD_COST, _TRIP_COST = 4, 3, 12
_CPU_WORKERS = 8  # tiles below this number leave cores idle

# Staged: workgroups below this number leave cores of a big device idle.
_GPU_WORKGROUPS = 256


def choose(
    problem: ContractProblem, family: str, subgroup_size: int
) -> tuple[ContractSchedule, ...]:
    """Return schedules for a device family (`cpu`, `gpu`), best first; the last is portable."""
    if family == "gpu":
        return (_staged(problem),)
    register = _register(problem)
    if subgroup_size == _SUBGROUP:
        return _shuffle(problem), register
    return (register,)


def _shuffle(problem: ContractProblem) -> ContractSchedule:
    """Return the tile with the least estimated time, of the height that compiles fast enough."""
    flops = 2 * problem.batch * problem.rows * problem.columns * problem.inner
    tallest = _TALL_ROWS if flops >= _TALL_FLOPS else _ROWS
    best: tuple[int, ContractSchedule] | None = None
    for is_transposed in (False, True):
        turned = problem.transposed if is_transposed else problem
        heights = [rows for rows in (32, 24, 16, 8, 4, 2, 1) if rows <= tallest]
        for rows in dict.fromkeys(min(rows, max(turned.rows, 1)) for rows in heights):
            trip = _SUM_COST * rows + _LOAD_COST * (-(-rows // _SUBGROUP) + _QUAD) + _TRIP_COST
            tiles = turned.batch * -(-turned.rows // rows)
            tiles *= -(-turned.columns // (_SUBGROUP * _SHUFFLE_COLUMNS))
            cost = max(tiles, _CPU_WORKERS) * trip
            if best is None or cost < best[0]:
                schedule = ContractSchedule(
                    "shuffle", rows, _SHUFFLE_COLUMNS, _SUBGROUP, 4, 0, is_transposed
                )
                best = cost, schedule
    assert best is not None
    return best[1]


def _register(problem: ContractProblem) -> ContractSchedule:
    """Return a tile for invocations that share nothing.

    Tall tiles take one inner step in a trip: with four, the loop's text outgrows the instruction
    cache of a processor. Flat ones have little text and are paid for by the trip.
    """
    is_transposed = problem.columns < _QUAD <= problem.rows
    rows = problem.columns if is_transposed else problem.rows
    if rows <= 2:
        return ContractSchedule("register", max(rows, 1), 4, 8, 4, 0, is_transposed)
    columns = problem.rows if is_transposed else problem.columns
    width = 16 if columns > 8 * _SUBGROUP else 4
    return ContractSchedule("register", min(rows, 8), width, 8, 1, 0, is_transposed)


def _staged(problem: ContractProblem) -> ContractSchedule:
    """Return the largest tile that still keeps a big device busy."""
    is_transposed = problem.columns < _QUAD <= problem.rows
    turned = problem.transposed if is_transposed else problem
    if turned.rows <= _QUAD:  # nothing to share: each column is read once
        return ContractSchedule("register", max(turned.rows, 1), 4, 64, 4, 0, is_transposed)
    candidates = (
        ContractSchedule("staged", 8, 8, 256, 4, 8, is_transposed),
        ContractSchedule("staged", 4, 4, 256, 4, 16, is_transposed),
        ContractSchedule("staged", 4, 4, 64, 4, 16, is_transposed),
    )
    for schedule in candidates:
        across, down = schedule.threads
        tiles = turned.batch * -(-turned.rows // (down * schedule.rows))
        tiles *= -(-turned.columns // (across * schedule.columns))
        if tiles >= _GPU_WORKGROUPS:
            return schedule
    return candidates[-1]
