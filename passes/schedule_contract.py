"""How a contraction is cut into tiles: plain values, chosen from sizes and the kind of device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from asg.passes.contract_costs import CANDIDATES, SHUFFLE, STAGED

Family = Literal["shuffle", "register", "staged", "sliced"]


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
            keeps parts of both operands in its memory. `sliced`: invocations of a workgroup have
            slices of the inner axis and add up what they got.
        rows, columns: the sums that one invocation holds; columns are a multiple of four. In
            `shuffle` all eight invocations share the same rows.
        workgroup: invocations in a workgroup.
        inner_steps: steps along the inner axis in a trip of the loop.
        depth: inner steps that `staged` keeps at a time.
        is_transposed: the tile's rows run along the result's last axis.
        slices: invocations that share a tile in `sliced`.
        is_wide: loads take two numbers as one of 64 bits, which browsers don't have.
    """

    family: Family
    rows: int
    columns: int
    workgroup: int
    inner_steps: Literal[1, 4] = 4
    depth: int = 0
    is_transposed: bool = False
    is_wide: bool = False
    slices: int = 1

    @property
    def is_portable(self) -> bool:
        """Whether every WebGPU device can run it."""
        return self.family != "shuffle" and not self.is_wide and self.workgroup_bytes <= _MEMORY

    @property
    def workgroup_bytes(self) -> int:
        """Memory of a workgroup, at most: quads of both tiles, lines a quad longer than needed."""
        if self.family == "sliced":
            return self.rows * self.columns // _QUAD * self.workgroup * QUAD_BYTES
        across, down = self.threads
        size = down * self.rows + across * self.columns
        return size * (self.depth // _QUAD + 1) * QUAD_BYTES if self.depth else 0

    @property
    def threads(self) -> tuple[int, int]:
        """Invocations of a staged workgroup, across and down."""
        across = 16 if self.workgroup >= 256 else 8
        return across, self.workgroup // across

    def __str__(self) -> str:
        depth = f", depth {self.depth}" if self.depth else ""
        turned = ", transposed" if self.is_transposed else ""
        tile = f"{self.rows}x{self.columns} per invocation"
        sliced = f", {self.slices} slices" if self.slices > 1 else ""
        wide = ", 64-bit loads" if self.is_wide else ""
        return f"{self.family}: {tile}, workgroup {self.workgroup}{depth}{sliced}{turned}{wide}"


_QUAD = 4
QUAD_BYTES = 16
_MEMORY = 16384  # of a workgroup, in bytes, that every device has


def choose(
    problem: ContractProblem,
    family: str,
    subgroup_size: int,
    winner: ContractSchedule | None = None,
) -> tuple[ContractSchedule, ...]:
    """Return a kernel's variants for a device family, best first; the last is portable.

    Before it come, where they are better, those that need 64-bit words, subgroups, or more memory.
    The best is the first candidate, or the one that measuring found.
    """
    found = candidates(problem, family, subgroup_size)
    plain = [each for each in found if not each.is_wide]
    portable = next(each for each in plain if each.is_portable)
    if winner is None or winner not in found:
        return tuple(dict.fromkeys((found[0], plain[0], portable)))
    if winner.is_portable:
        return (winner,)
    narrow = replace(winner, is_wide=False)
    return tuple(dict.fromkeys((winner, narrow if narrow in found else plain[0], portable)))


def candidates(
    problem: ContractProblem, family: str, subgroup_size: int
) -> tuple[ContractSchedule, ...]:
    """Return the schedules worth trying on a device of `family` (`cpu`, `gpu`), best first.

    The first is what is used where nobody tries. At least one needs no feature.
    """
    if family == "gpu":
        return _staged(problem)
    registers = _register(problem)
    if subgroup_size != SHUFFLE.subgroup:
        return (*(_wide(each) for each in registers[:3]), *registers[:3])
    wide, plain = _shuffle(problem, is_wide=True), _shuffle(problem, is_wide=False)
    last = (*plain[:1], _wide(registers[0]), registers[0])
    return (*wide[: CANDIDATES - len(last)], *last)


def _wide(schedule: ContractSchedule) -> ContractSchedule:
    return replace(schedule, is_wide=True)


def _shuffle(problem: ContractProblem, *, is_wide: bool) -> list[ContractSchedule]:
    """Return tiles by estimated time; those that take too long to compile come last."""
    flops = 2 * problem.batch * problem.rows * problem.columns * problem.inner
    quick = SHUFFLE.largest if flops >= SHUFFLE.worthwhile else SHUFFLE.quick
    found: list[tuple[bool, int, ContractSchedule]] = []
    for is_transposed, columns in product((False, True), SHUFFLE.columns):
        turned = problem.transposed if is_transposed else problem
        for rows in dict.fromkeys(min(rows, max(turned.rows, 1)) for rows in SHUFFLE.rows):
            if rows * columns > (SHUFFLE.largest if columns <= 8 else SHUFFLE.widest):
                continue
            schedule = ContractSchedule(
                "shuffle", rows, columns, SHUFFLE.subgroup, 4, 0, is_transposed, is_wide
            )
            found.append((rows * columns > quick, _shuffle_cost(turned, schedule), schedule))
    return [schedule for *_, schedule in sorted(found, key=lambda each: each[:2])]


def _shuffle_cost(turned: ContractProblem, schedule: ContractSchedule) -> int:
    """Return the instructions that a tile takes, times tiles."""
    rows, quads = schedule.rows, schedule.columns // _QUAD
    load = SHUFFLE.wide_load if schedule.is_wide else SHUFFLE.load
    add = SHUFFLE.add if quads == 1 else SHUFFLE.spilled_add
    trip = load * (-(-rows // SHUFFLE.subgroup) + _QUAD * quads)
    trip += rows * (SHUFFLE.fetch + add * quads) + SHUFFLE.trip
    tiles = turned.batch * -(-turned.rows // rows)
    tiles *= -(-turned.columns // (SHUFFLE.subgroup * schedule.columns))
    trips = -(-turned.inner // _QUAD)
    return max(tiles, SHUFFLE.workers) * (trip * trips + SHUFFLE.start)


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
    if turned.columns <= 64:
        tall[:2] = reversed(tall[:2])
    return tuple(dict.fromkeys((*tall, *flat)))


def _staged(problem: ContractProblem) -> tuple[ContractSchedule, ...]:
    """Return tiles of workgroups by estimated time."""
    is_transposed = problem.columns < _QUAD <= problem.rows
    turned = problem.transposed if is_transposed else problem
    if turned.rows <= _QUAD:  # nothing to share: each column is read once
        return _sliced(turned, is_transposed)
    tiles = [ContractSchedule("staged", *sizes, is_transposed) for sizes in STAGED.tiles]
    tiles.sort(key=lambda tile: staged_cost(turned, tile))
    register = ContractSchedule("register", 4, 4, 64, 4, 0, is_transposed)
    return (*tiles, register)


def _sliced(turned: ContractProblem, is_transposed: bool) -> tuple[ContractSchedule, ...]:
    """Return ways to read many columns once, with slices enough that no core waits for memory."""
    rows = max(turned.rows, 1)
    whole = [
        ContractSchedule("register", rows, 4, workgroup, 4, 0, is_transposed)
        for workgroup in (64, 32, 128, 256)
    ]
    sliced = [
        ContractSchedule("sliced", rows, 4, 256, 4, 0, is_transposed, slices=slices)
        for slices in STAGED.slices
        if turned.inner >= slices * STAGED.slice_steps
    ]
    invocations = turned.batch * -(-turned.columns // _QUAD)
    wanted = STAGED.cores * STAGED.streams
    enough = [each for each in sliced if invocations * each.slices >= wanted]
    best = whole[:1] if invocations >= wanted else enough[:1] or sliced[-1:]
    return tuple(dict.fromkeys((*best, *sliced, *whole)))


def staged_cost(turned: ContractProblem, schedule: ContractSchedule) -> int:
    """Return the time of the core that has most to do."""
    across, down = schedule.threads
    tiles = turned.batch * -(-turned.rows // (down * schedule.rows))
    tiles *= -(-turned.columns // (across * schedule.columns))
    rows, columns = schedule.rows, schedule.columns
    step = rows * columns + STAGED.load * (rows + columns)
    steps = -(-turned.inner // schedule.depth) * (schedule.depth * step + STAGED.stage)
    # A core works on several tiles at once, so small workgroups fill it as large ones do.
    invocations = -(-tiles // STAGED.cores) * schedule.workgroup
    return max(invocations, STAGED.invocations) * (steps + STAGED.start)
