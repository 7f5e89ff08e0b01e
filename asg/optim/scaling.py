"""Loss scaling: gradients that f16 would flush to zero are computed of a multiple of the loss.

By the rules of `torch.amp.GradScaler`, as a part of the step: where a gradient is infinite or NaN
nothing is updated and the scale shrinks; after `growth_interval` updates without one it grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from asg import functions
from asg.site import scope
from asg.tensor import Tensor
from asg.tracing import state
from asg.types import DType

PREFIX = "loss_scaling"
SCALE, GOOD_STEPS = f"{PREFIX}.scale", f"{PREFIX}.good_steps"
LEAST = 2.0**-126  # the least normal f32: a scale of 0 could never grow again
LARGEST = float(np.finfo(np.float32).max)
_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000  # the bits of f32


@dataclass(frozen=True)
class LossScaling:
    """How the factor of the loss changes; the defaults are PyTorch's.

    Raises:
        ValueError: a factor would not do what its name says.
    """

    init_scale: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        if not LEAST <= self.init_scale <= LARGEST:
            raise ValueError(f"init_scale must be positive and finite, got {self.init_scale}")
        if not self.growth_factor > 1.0:
            raise ValueError(f"growth_factor must be more than 1, got {self.growth_factor}")
        if not 0.0 < self.backoff_factor < 1.0:
            raise ValueError(f"backoff_factor must lie in 0 … 1, got {self.backoff_factor}")
        if self.growth_interval < 1:
            raise ValueError(f"growth_interval must be positive, got {self.growth_interval}")


class Scaler:
    """The scale of one step, kept as state between steps; `good_steps` counts updates since it
    last changed."""

    def __init__(self, options: LossScaling) -> None:
        self.options = options
        with scope(PREFIX):
            self.scale = state(SCALE, np.array(options.init_scale, np.float32))
            self.good_steps = state(GOOD_STEPS, np.array(0, np.int32))

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss that is differentiated."""
        with scope(PREFIX):
            result: Tensor = loss * self.scale
        return result

    def unscaled(self, gradients: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the gradients of the loss itself, and whether all of them are finite.

        A gradient is finite where its bits, without the sign, are below those of infinity.
        """
        with scope(PREFIX):
            largest = [
                functions.max(functions.bitcast(g, dtype=DType.I32) & _MAGNITUDE) for g in gradients
            ]
            is_finite = reduce(functions.maximum, largest) < _INFINITY
            factor = 1.0 / self.scale
            return [g * factor for g in gradients], is_finite

    def updates(self, is_finite: Tensor) -> Mapping[str, Tensor]:
        """Return what the scale and its count become."""
        options = self.options
        with scope(PREFIX):
            count = self.good_steps + 1
            is_due = count >= options.growth_interval
            grown = self.scale * options.growth_factor
            may_grow = functions.logical_and(is_due, functions.isfinite(grown))
            after_good = functions.where(may_grow, grown, self.scale)
            after_bad = functions.maximum(self.scale * options.backoff_factor, LEAST)
            kept = functions.logical_and(is_finite, functions.logical_not(is_due))
            return {
                SCALE: functions.where(is_finite, after_good, after_bad),
                GOOD_STEPS: functions.where(kept, count, 0),
            }


def as_scaling(value: LossScaling | bool | None) -> LossScaling | None:
    """Return the options that `loss_scaling=` means: True stands for the defaults."""
    if value is True:
        return LossScaling()
    return value or None
