"""Tiles of products that sum up what they hold for a norm (`tile_moments.py`).

A tile is as wide as the tiles that the graph speaks of, whatever else would be quicker, and each of
its invocations has four rows, whose sums are one vec4.
"""

from __future__ import annotations

from asg.passes.contract_costs import STAGED
from asg.passes.schedule_contract import (
    ContractProblem,
    ContractSchedule,
    candidates,
    staged_cost,
)

ROWS = 4  # of an invocation
REGISTER = ContractSchedule("register", ROWS, 16, 8, 1)
# What two loads of an element cost on a graphics card, in multiply-adds; an estimate.
SAVED = 64


def moment_block(problem: ContractProblem, family: str, *, by_cost: bool) -> int | None:
    """Return how many columns a tile has, if such tiles can be had.

    With `by_cost`, they must also cover most columns, and take no longer in comparison with the
    tile that would be chosen otherwise than reading the result twice would.
    """
    if min(problem.batch, problem.inner) == 0 or problem.rows < ROWS:
        return None
    found = [each for each in schedules(family) if width(each) <= problem.columns]
    if family == "gpu":
        found.sort(key=lambda each: staged_cost(problem, each))
    if not found:
        return None
    best = found[0]
    if by_cost and not _is_worthwhile(problem, family, best):
        return None
    return width(best)


def moment_schedule(family: str, block: int) -> ContractSchedule:
    """Return the schedule whose tiles have `block` columns; every device can run it."""
    return next(each for each in schedules(family) if width(each) == block)


def schedules(family: str) -> list[ContractSchedule]:
    """Return the tiles that there are on devices of a family."""
    if family != "gpu":
        return [REGISTER]
    tiles = [ContractSchedule("staged", *sizes) for sizes in STAGED.tiles]
    return [tile for tile in tiles if tile.rows == ROWS and tile.is_portable]


def width(schedule: ContractSchedule) -> int:
    """Return the columns of a tile, of all that exchange what they have."""
    return schedule.columns * (schedule.threads[0] if schedule.family == "staged" else 1)


def _is_worthwhile(problem: ContractProblem, family: str, tile: ContractSchedule) -> bool:
    """Tell whether a tile is about as good as others; on processors the estimate has no say."""
    other = candidates(problem, family, 0)[0]
    if family != "gpu" or other.family != "staged" or other.is_transposed:
        return False
    if problem.columns // width(tile) * width(tile) * 2 <= problem.columns:
        return False
    cost, least = staged_cost(problem, tile), staged_cost(problem, other)
    return (cost - least) * problem.inner <= SAVED * least
