"""What schedules of contract kernels cost, as plain numbers for each kind of adapter.

Tiles are ranked with them, so only ratios matter. The unit is an instruction of a processor core
(`SHUFFLE`), measured by reading what Mesa's software driver compiles and by timing tiles of all
shapes; see benchmarks/driver_limits.py for the ceilings that they are read against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ShuffleCosts:
    """A subgroup of eight owns a tile, on a processor.

    Attributes:
        subgroup: invocations that own a tile.
        rows, columns: heights of tiles, and widths per invocation, that may be tried.
        load, wide_load: reading a quad in all invocations, 32 or 64 bits at a time. Drivers load
            each invocation's numbers one after the other, with two tests for each.
        fetch: passing a row's quad to all invocations.
        add: four inner steps of one sum, kept in registers with its column's quads.
        spilled_add: the same where the columns' quads don't fit into registers.
        trip: the loop itself. start: a tile's beginning and end.
        largest: sums in a tile; beyond, the loop's text no longer fits the instruction cache.
        widest: the same for tiles of more than eight columns per invocation.
        quick: sums in a tile that a driver compiles in a fifth of a second; 128 take twice that.
        worthwhile: multiply-adds, twice, from which on a tile may take longer to compile.
        workers: tiles below this number leave cores idle.
    """

    subgroup: int = 8
    rows: tuple[int, ...] = (32, 24, 16, 8, 4, 2, 1)
    columns: tuple[int, ...] = (4, 8, 16)
    load: int = 300
    wide_load: int = 168
    fetch: int = 8
    add: int = 44
    spilled_add: int = 46
    trip: int = 40
    start: int = 1500
    largest: int = 128
    widest: int = 64
    quick: int = 64
    worthwhile: int = 1 << 28
    workers: int = 8


@dataclass(frozen=True)
class StagedCosts:
    """A workgroup owns a tile, on a graphics card.

    The unit is a multiply-add of an invocation. None of it is measured yet: tiles are those that
    published kernels use, and numbers follow from how such cores are built.

    Attributes:
        tiles: rows and columns per invocation, workgroup, inner steps in a trip, and in a stage.
        load: reading a number of an operand from workgroup memory.
        stage: copying a stage there, with its two barriers.
        start: a tile's beginning and end.
        cores: of a big device.
        invocations: fewer leave a core waiting for numbers.
        streams: invocations of a core that keep memory busy where nothing is read twice.
        slices: invocations that may share a tile then.
        slice_steps: inner steps of a slice, at least.
    """

    tiles: tuple[tuple[int, int, int, Literal[1, 4], int], ...] = (
        (8, 8, 256, 4, 16),  # 128 x 128, with more memory than every device has
        (8, 8, 256, 4, 8),
        (4, 8, 256, 4, 16),  # 64 x 128
        (4, 4, 256, 4, 16),  # 64 x 64
        (4, 4, 64, 4, 16),  # 32 x 32
    )
    load: int = 2
    stage: int = 200
    start: int = 500
    cores: int = 128
    invocations: int = 128
    streams: int = 256
    slices: tuple[int, ...] = (8, 32)
    slice_steps: int = 16


SHUFFLE = ShuffleCosts()
STAGED = StagedCosts()
CANDIDATES = 8  # schedules of a product that are worth trying, at most
