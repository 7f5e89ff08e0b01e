"""Where a tile of a product lies."""

from __future__ import annotations

from dataclasses import dataclass

from asg.codegen.emit import Coordinates
from asg.index import Index


@dataclass(frozen=True)
class Place:
    """Where a tile begins: coordinates in the batch, its first row and first column quad; and
    which tile along the rows it is."""

    batch: Coordinates
    row: Index
    quad: Index
    column: Index
