"""The random generator that initial weights come from, and the seed of a model's randomness."""

from __future__ import annotations

import numpy as np


class _Source:
    """The default generator and the seed that it began with."""

    def __init__(self, seed: int) -> None:
        self.begin(seed)

    def begin(self, seed: int) -> None:
        self.seed = seed
        self.generator = np.random.default_rng(seed)


_source = _Source(0)


def manual_seed(seed: int) -> np.random.Generator:
    """Begin the default generator anew; everything made afterwards is the same bit for bit.

    It holds for initial weights and for the key that dropout starts with. A process that never
    calls this begins with seed 0.
    """
    _source.begin(seed)
    return _source.generator


def default_generator() -> np.random.Generator:
    """Return the generator that initialisers draw from when none is given."""
    return _source.generator


def initial_seed() -> int:
    """Return the seed in force."""
    return _source.seed
