"""Batches of arrays, in an order that a seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from asg.errors import InputError

Array = np.ndarray[Any, Any]


class Batches:
    """Batches of `size` rows of arrays that are equally long: `Batches({"x": x, "y": y}, 32)`.

    Every pass over it is an epoch with an order of its own, the same in every run; a rest that
    fills no batch is left out. `set_epoch` says which epoch comes next.

    Raises:
        InputError: the arrays differ in length, or hold less than one batch.
    """

    def __init__(
        self, arrays: Mapping[str, Any], size: int, *, shuffle: bool = True, seed: int = 0
    ) -> None:
        self.arrays: dict[str, Array] = {name: np.asarray(each) for name, each in arrays.items()}
        lengths = {name: len(each) for name, each in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise InputError(f"arrays of batches must be equally long: {listed or 'none given'}")
        self.rows = next(iter(lengths.values()))
        if not 0 < size <= self.rows:
            raise InputError(f"{self.rows} rows hold no batch of {size}")
        self.size, self.shuffle, self.seed, self.epoch = size, shuffle, seed, 0

    def __len__(self) -> int:
        return self.rows // self.size

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be that of `epoch`, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Array]]:
        order = np.arange(self.rows)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        self.epoch += 1
        for start in range(0, len(self) * self.size, self.size):
            chosen = order[start : start + self.size]
            yield {name: each[chosen] for name, each in self.arrays.items()}
