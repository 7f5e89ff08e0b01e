"""Plans that keep a limit on memory: kernels are run again until the arena is small enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from asg.errors import MemoryLimitError
from asg.passes.assign import AssignStorage
from asg.passes.kernels import FusionPlan
from asg.passes.rematerialize import Rematerialize, least_live

_TRIES = 8  # targets below the limit, while the packing leaves gaps
_STEPS = 32  # of the limit, by which the target falls at least


@dataclass(frozen=True)
class FitMemory:
    """Recompute what is cheap until the arena takes at most `limit` bytes.

    Needs plans in their final order; those that fit are left as they are. Parameters, states,
    constants and inputs are not counted: they must be there whatever the order.
    """

    limit: int
    assign: AssignStorage = field(default_factory=AssignStorage)

    def __call__(self, plans: Mapping[str, FusionPlan]) -> dict[str, FusionPlan]:
        """Return plans that fit.

        Raises:
            MemoryLimitError: there are none; it says the least that was reached.
        """
        if self._arena(plans) <= self.limit:
            return dict(plans)
        least = max(map(least_live, plans.values()))
        for fitted, size in self._tried(plans) if least <= self.limit else ():
            if size <= self.limit:
                return fitted
        reached = []
        for target in sorted({0, least}):
            fitted = self._recomputed(plans, target)
            reached.append(self._arena(fitted))
            if reached[-1] <= self.limit:
                return fitted
        raise MemoryLimitError(
            f"memory_limit is {self.limit:,} bytes; the least that was reached for values "
            f"computed in a run is {min(reached):,} bytes (parameters, state and inputs not "
            "counted)"
        )

    def _tried(
        self, plans: Mapping[str, FusionPlan]
    ) -> Iterator[tuple[dict[str, FusionPlan], int]]:
        """Yield plans for lower and lower targets, each with the size of its arena."""
        target = self.limit
        for _ in range(_TRIES):
            fitted = self._recomputed(plans, target)
            size = self._arena(fitted)
            yield fitted, size
            target = max(target - max(size - self.limit, self.limit // _STEPS), 0)

    def _recomputed(self, plans: Mapping[str, FusionPlan], target: int) -> dict[str, FusionPlan]:
        again = Rematerialize(target)
        return {name: again(plan) for name, plan in plans.items()}

    def _arena(self, plans: Mapping[str, FusionPlan]) -> int:
        size: int = self.assign(plans).report["arena_bytes"]
        return size
