"""Learning rates that depend on how many updates were made; part of the compiled step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from asg import functions
from asg.tensor import Tensor


@dataclass(frozen=True)
class Schedule:
    """A learning rate f32[] as a function of the number of updates made before, i32[].

    The first update has step 0, like the epoch of PyTorch's `LambdaLR`.
    """

    text: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, step: Tensor) -> Tensor:
        return self.function(step)

    def __repr__(self) -> str:
        return self.text


def constant(value: float) -> Schedule:
    """Return a rate that stays as it is."""
    return Schedule(f"constant({value})", lambda step: step.cast("f32") * 0.0 + value)


def linear(start: float, end: float, total_steps: int) -> Schedule:
    """Return a rate that goes evenly from `start` to `end` within `total_steps`, and stays."""
    _check_positive(total_steps=total_steps)

    def rate(step: Tensor) -> Tensor:
        part = functions.minimum(step.cast("f32") / float(total_steps), 1.0)
        result: Tensor = start + (end - start) * part
        return result

    return Schedule(f"linear({start}, {end}, {total_steps})", rate)


def step_decay(start: float, factor: float, every: int) -> Schedule:
    """Return start * factor^(step // every), as PyTorch's `StepLR`.

    Raises:
        ValueError: `factor` or `every` is not positive.
    """
    _check_positive(factor=factor, every=every)

    def rate(step: Tensor) -> Tensor:
        times = functions.floor_divide(step, every).cast("f32")
        result: Tensor = start * functions.exp(times * math.log(factor))
        return result

    return Schedule(f"step_decay({start}, {factor}, {every})", rate)


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int, final: float = 0.0) -> Schedule:
    """Return a rate that rises evenly to `peak`, then falls by half a cosine to `final`.

    peak (step + 1) / warmup_steps while step < warmup_steps; afterwards, with u from 0 to 1
    until `total_steps`, final + (peak - final) (1 + cos(pi u)) / 2 (Loshchilov and Hutter 2017).

    Raises:
        ValueError: the warm-up is longer than the whole.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"a warm-up of {warmup_steps} steps does not fit into {total_steps}")

    def rate(step: Tensor) -> Tensor:
        t = step.cast("f32")
        left = functions.maximum(float(total_steps) - t, 0.0) / float(total_steps - warmup_steps)
        half = functions.sin(left * (0.5 * math.pi))  # (1 + cos(pi u)) / 2, without cancellation
        result: Tensor = final + (peak - final) * (half * half)
        if warmup_steps:
            rising = (t + 1.0) * (peak / warmup_steps)
            result = functions.where(step < warmup_steps, rising, result)
        return result

    return Schedule(f"warmup_cosine({peak}, {warmup_steps}, {total_steps}, {final})", rate)


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if number <= 0:
            raise ValueError(f"{name} must be positive, got {number}")
