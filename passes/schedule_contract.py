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
_CANDIDATES = 8  # so many schedules at most are worth trying

# Staged: workgroups below this number leave cores of a big device idle.
_GPU_WORKGROUPS = 256


def choose(
    problem: ContractProblem, family: str, subgroup_size: int
) -> tuple[ContractSchedule, ...]:
    """Return a kernel's variants for a device family, best first; the last is portable."""
    best, *others = candidates(problem, family, subgroup_size)
    if best.family != "shuffle":
        return (best,)
    return best, next(each for each in others if each.family != "shuffle")


def candidates(
    problem: ContractProblem, family: str, subgroup_size: int
) -> tuple[ContractSchedule, ...]:
    """Return the schedules worth trying on a device of `family` (`cpu`, `gpu`), best first.

    The first is what is used where nobody tries. At least one needs no subgroups.
    """
    if family == "gpu":
        return _staged(problem)
    if subgroup_size != _SUBGROUP:
        return _register(problem)
    shuffled, registers = _shuffle(problem), _register(problem)
    return (*shuffled[: _CANDIDATES - 2], *registers[:2])


def _shuffle(problem: ContractProblem) -> list[ContractSchedule]:
    """Return tiles by estimated time; those that take too long to compile come last."""
    flops = 2 * problem.batch * problem.rows * problem.columns * problem.inner
    tallest = _TALL_ROWS if flops >= _TALL_FLOPS else _ROWS
    found: list[tuple[bool, int, ContractSchedule]] = []
    for is_transposed in (False, True):
        turned = problem.transposed if is_transposed else problem
        heights = (min(rows, max(turned.rows, 1)) for rows in (32, 24, 16, 8, 4, 2, 1))
        for rows in dict.fromkeys(heights):
            trip = _SUM_COST * rows + _LOAD_COST * (-(-rows // _SUBGROUP) + _QUAD) + _TRIP_COST
            tiles = turned.batch * -(-turned.rows // rows)
            tiles *= -(-turned.columns // (_SUBGROUP * _SHUFFLE_COLUMNS))
            cost = max(tiles, _CPU_WORKERS) * trip
            schedule = ContractSchedule(
                "shuffle", rows, _SHUFFLE_COLUMNS, _SUBGROUP, 4, 0, is_transposed
            )
            found.append((rows > tallest, cost, schedule))
    return [schedule for *_, schedule in sorted(found, key=lambda each: each[:2])]


def _register(problem: ContractProblem) -> tuple[ContractSchedule, ...]:
    """Return tiles for invocations that share nothing.

    Tall tiles take one inner step in a trip: with four, the loop's text outgrows the instruction
    cache of a processor. Flat ones have little text and are paid for by the trip.
    """
    is_transposed = problem.columns < _QUAD <= problem.rows
    turned = problem.transposed if is_transposed else problem
    flat = [
        ContractSchedule("register", max(min(rows, turned.rows), 1), 4, 8, 4, 0, is_transposed)
        for rows in (4, 2, 1)
    ]
    if turned.rows <= 2:
        return tuple(dict.fromkeys(flat))
    tall = [
        ContractSchedule("register", min(rows, turned.rows), width, 8, 1, 0, is_transposed)
        for rows, width in ((8, 16), (8, 4), (4, 16))
    ]
    if turned.columns <= 8 * _SUBGROUP:
        tall[:2] = reversed(tall[:2])
    return tuple(dict.fromkeys((*tall, *flat)))


def _staged(problem: ContractProblem) -> tuple[ContractSchedule, ...]:
    """Return tiles of workgroups, first the largest one that still keeps a big device busy."""
    is_transposed = problem.columns < _QUAD <= problem.rows
    turned = problem.transposed if is_transposed else problem
    if turned.rows <= _QUAD:  # nothing to share: each column is read once
        rows = max(turned.rows, 1)
        return tuple(
            ContractSchedule("register", rows, 4, workgroup, 4, 0, is_transposed)
            for workgroup in (64, 32, 128, 256)
        )
    tiles = [
        ContractSchedule("staged", *sizes, is_transposed)
        for sizes in ((8, 8, 256, 4, 8), (4, 4, 256, 4, 16), (4, 4, 64, 4, 16))
    ]
    busy = [tile for tile in tiles if _workgroups(turned, tile) >= _GPU_WORKGROUPS]
    best = busy[0] if busy else tiles[-1]
    register = ContractSchedule("register", 4, 4, 64, 4, 0, is_transposed)
    return tuple(dict.fromkeys((best, *tiles, register)))


def _workgroups(turned: ContractProblem, schedule: ContractSchedule) -> int:
    """Return how many workgroups a staged tile makes."""
    across, down = schedule.threads
    tiles = turned.batch * -(-turned.rows // (down * schedule.rows))
    return tiles * -(-turned.columns // (across * schedule.columns))
