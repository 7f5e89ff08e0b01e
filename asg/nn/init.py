"""Initial weights: arrays from a seeded NumPy generator, and PyTorch's in-place names for them.

Every function draws from `rng`, or from the generator that `nn.manual_seed` began. The formulas
are those of `torch.nn.init`; the numbers are not, since the generators differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from asg.errors import ShapeError
from asg.nn.parameter import StoredTensor
from asg.seed import default_generator, manual_seed

__all__ = [
    "calculate_fan",
    "constant",
    "constant_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "manual_seed",
    "normal",
    "normal_",
    "ones",
    "ones_",
    "trunc_normal",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros",
    "zeros_",
]

Array = np.ndarray[Any, Any]
Rng = np.random.Generator | None
Stored = TypeVar("Stored", bound=StoredTensor)


def calculate_fan(shape: Sequence[int]) -> tuple[int, int]:
    """Return (fan-in, fan-out) of a weight [out, in, …].

    Raises:
        ShapeError: the weight has fewer than two axes.
    """
    if len(shape) < 2:
        raise ShapeError(f"fan-in and fan-out need two axes or more, got {list(shape)}")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def uniform(shape: Sequence[int], low: float = 0.0, high: float = 1.0, rng: Rng = None) -> Array:
    """Return f32 numbers drawn evenly from `low … high`."""
    return (rng or default_generator()).uniform(low, high, tuple(shape)).astype(np.float32)


def normal(shape: Sequence[int], mean: float = 0.0, std: float = 1.0, rng: Rng = None) -> Array:
    """Return f32 numbers from a normal distribution."""
    drawn = (rng or default_generator()).standard_normal(tuple(shape))
    return (mean + std * drawn).astype(np.float32)


def trunc_normal(
    shape: Sequence[int],
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    rng: Rng = None,
) -> Array:
    """Return f32 numbers from a normal distribution, those outside `low … high` drawn again.

    Raises:
        ValueError: the interval is empty, or so far out that nothing falls inside.
    """
    if not low < high or low > mean + 6 * std or high < mean - 6 * std:
        raise ValueError(f"no number of mean {mean} and deviation {std} is in {low} … {high}")
    generator = rng or default_generator()
    drawn = mean + std * generator.standard_normal(math.prod(shape))
    outside = np.flatnonzero((drawn < low) | (drawn > high))
    while outside.size:
        drawn[outside] = mean + std * generator.standard_normal(outside.size)
        outside = outside[(drawn[outside] < low) | (drawn[outside] > high)]
    return drawn.reshape(tuple(shape)).astype(np.float32)


def kaiming_uniform(shape: Sequence[int], a: float = 0.0, rng: Rng = None) -> Array:
    """Return U(-b, b), b = sqrt(6 / ((1 + a²) fan_in)): He et al. 2015, for leaky slope `a`."""
    bound = math.sqrt(6.0 / ((1.0 + a * a) * max(calculate_fan(shape)[0], 1)))
    return uniform(shape, -bound, bound, rng)


def kaiming_normal(shape: Sequence[int], a: float = 0.0, rng: Rng = None) -> Array:
    """Return N(0, 2 / ((1 + a²) fan_in)): He et al. 2015, for leaky slope `a`."""
    return normal(shape, 0.0, math.sqrt(2.0 / ((1.0 + a * a) * calculate_fan(shape)[0])), rng)


def xavier_uniform(shape: Sequence[int], gain: float = 1.0, rng: Rng = None) -> Array:
    """Return U(-b, b), b = gain sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6.0 / sum(calculate_fan(shape)))
    return uniform(shape, -bound, bound, rng)


def xavier_normal(shape: Sequence[int], gain: float = 1.0, rng: Rng = None) -> Array:
    """Return N(0, gain² 2 / (fan_in + fan_out)): Glorot and Bengio 2010."""
    return normal(shape, 0.0, gain * math.sqrt(2.0 / sum(calculate_fan(shape))), rng)


def constant(shape: Sequence[int], value: float) -> Array:
    """Return f32 numbers that are all `value`."""
    return np.full(tuple(shape), value, np.float32)


def zeros(shape: Sequence[int]) -> Array:
    """Return f32 zeros."""
    return np.zeros(tuple(shape), np.float32)


def ones(shape: Sequence[int]) -> Array:
    """Return f32 ones."""
    return np.ones(tuple(shape), np.float32)


def _set(stored: Stored, data: Array) -> Stored:
    stored.data = data
    return stored


def uniform_(stored: Stored, low: float = 0.0, high: float = 1.0, rng: Rng = None) -> Stored:
    """Give a parameter the numbers of `uniform`."""
    return _set(stored, uniform(stored.shape, low, high, rng))


def normal_(stored: Stored, mean: float = 0.0, std: float = 1.0, rng: Rng = None) -> Stored:
    """Give a parameter the numbers of `normal`."""
    return _set(stored, normal(stored.shape, mean, std, rng))


def trunc_normal_(
    stored: Stored,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    rng: Rng = None,
) -> Stored:
    """Give a parameter the numbers of `trunc_normal`."""
    return _set(stored, trunc_normal(stored.shape, mean, std, low, high, rng))


def kaiming_uniform_(stored: Stored, a: float = 0.0, rng: Rng = None) -> Stored:
    """Give a parameter the numbers of `kaiming_uniform`."""
    return _set(stored, kaiming_uniform(stored.shape, a, rng))


def kaiming_normal_(stored: Stored, a: float = 0.0, rng: Rng = None) -> Stored:
    """Give a parameter the numbers of `kaiming_normal`."""
    return _set(stored, kaiming_normal(stored.shape, a, rng))


def xavier_uniform_(stored: Stored, gain: float = 1.0, rng: Rng = None) -> Stored:
    """Give a parameter the numbers of `xavier_uniform`."""
    return _set(stored, xavier_uniform(stored.shape, gain, rng))


def xavier_normal_(stored: Stored, gain: float = 1.0, rng: Rng = None) -> Stored:
    """Give a parameter the numbers of `xavier_normal`."""
    return _set(stored, xavier_normal(stored.shape, gain, rng))


def constant_(stored: Stored, value: float) -> Stored:
    """Give a parameter one number everywhere."""
    return _set(stored, constant(stored.shape, value))


def zeros_(stored: Stored) -> Stored:
    """Give a parameter zeros."""
    return _set(stored, zeros(stored.shape))


def ones_(stored: Stored) -> Stored:
    """Give a parameter ones."""
    return _set(stored, ones(stored.shape))
