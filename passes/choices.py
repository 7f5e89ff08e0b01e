"""Schedules that were measured: which one won, for products of about a size on a class of adapters.

The estimate in `schedule_contract` ranks candidates; what is written here goes before it. The
table beside this file is shipped, so that the same graph and target give the same bytes everywhere.
Tuning on a device makes entries of the same form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from asg.passes.schedule_contract import ContractProblem, ContractSchedule

TABLE = Path(__file__).with_name("choices.json")

Layout = Literal["nn", "nt", "tn", "tt"]
_EXACT = 16  # sizes up to this one are told apart
_NEAR = 2.0  # doublings, in all axes together, up to which another bucket's winner is taken


@dataclass(frozen=True, order=True)
class Bucket:
    """Products that the same schedule suits: sizes to the nearest power of two, and the texture.

    Attributes:
        layout: which axis of the operands is dense: `n` as in a plain product of row-major
            matrices, `t` the other one.
        fused: what else an invocation holds or computes: 0 nothing, 1 some, 2 much.
    """

    batch: int
    rows: int
    columns: int
    inner: int
    layout: Layout
    fused: int

    def distance(self, other: Bucket) -> float:
        """Return how many doublings lie between the sizes; infinite for another texture."""
        if (self.layout, self.fused) != (other.layout, other.fused):
            return math.inf
        pairs = zip(astuple(self)[:4], astuple(other)[:4], strict=True)
        return sum(abs(math.log2(max(one, 1) / max(two, 1))) for one, two in pairs)

    def __str__(self) -> str:
        sizes = f"{self.batch} x [{self.rows}, {self.inner}] [{self.inner}, {self.columns}]"
        return f"{sizes} {self.layout}, fused {self.fused}"


@dataclass(frozen=True)
class Choice:
    """The winner of a bucket."""

    bucket: Bucket
    schedule: ContractSchedule


Choices = tuple[Choice, ...]


def bucket_of(problem: ContractProblem, layout: Layout, fused: int) -> Bucket:
    """Return the bucket of a product."""
    sizes = (problem.batch, problem.rows, problem.columns, problem.inner)
    batch, rows, columns, inner = map(_rounded, sizes)
    return Bucket(batch, rows, columns, inner, layout, fused)


def _rounded(size: int) -> int:
    return size if size <= _EXACT else 1 << round(math.log2(size))


def find(
    choices: Choices, bucket: Bucket, candidates: Sequence[ContractSchedule]
) -> ContractSchedule | None:
    """Return the winner of the nearest bucket that is one of a product's own candidates."""
    fitting = [each for each in choices if each.schedule in candidates]
    nearest = min(fitting, key=lambda each: bucket.distance(each.bucket), default=None)
    if nearest is None or bucket.distance(nearest.bucket) > _NEAR:
        return None
    return nearest.schedule


def merge(*parts: Choices) -> Choices:
    """Return choices in a fixed order; of two for one bucket the later one stands."""
    merged = {each.bucket: each for part in parts for each in part}
    return tuple(merged[bucket] for bucket in sorted(merged))


def encode(choice: Choice) -> dict[str, Any]:
    """Return a choice as plain data."""
    return {"bucket": asdict(choice.bucket), "schedule": asdict(choice.schedule)}


def decode(data: Any) -> Choice | None:
    """Return the choice that plain data mean, or None where they mean none.

    A schedule is only ever used where it is among a product's candidates, so that no number that
    stands here can make a kernel that was not meant to be.
    """
    try:
        bucket, schedule = Bucket(**data["bucket"]), ContractSchedule(**data["schedule"])
    except (TypeError, KeyError):
        return None
    sizes = astuple(bucket)[:4]
    is_right = all(type(size) is int and size >= 0 for size in sizes)
    is_right = is_right and bucket.layout in ("nn", "nt", "tn", "tt")
    return Choice(bucket, schedule) if is_right and bucket.fused in (0, 1, 2) else None


def shipped(adapter: str, subgroup_size: int, templates: str) -> Choices:
    """Return the winners that come with this version, for a class of adapters.

    What was measured with other templates than those of the digest `templates` is stale, and
    does not count.
    """
    return _shipped().get((f"{adapter}/{subgroup_size}", templates), ())


@cache
def _shipped() -> Mapping[tuple[str, str], Choices]:
    data = json.loads(TABLE.read_text(encoding="utf-8"))
    versions = {(name, row.get("templates", "")) for name, rows in data.items() for row in rows}
    return {
        (name, templates): merge(
            tuple(_decoded(row for row in data[name] if row.get("templates", "") == templates))
        )
        for name, templates in sorted(versions)
    }


def _decoded(rows: Iterable[Any]) -> Iterable[Choice]:
    for row in rows:
        choice = decode(row)
        if choice is None:
            raise ValueError(f"{TABLE.name}: {row} is no choice")
        yield choice
