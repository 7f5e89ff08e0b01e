"""Random numbers: functions of a key and a counter, with the bits of `jax.random`.

A key is a `u32[2]`. The same key gives the same bits on every device and in the interpreter, so
whoever needs two independent draws folds a different number into the key for each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.ops.bits import bitcast, threefry2x32
from asg.ops.convert import cast
from asg.ops.logic import equal, less, select
from asg.ops.sources import constant, iota
from asg.shaping import full, getitem, reshape
from asg.tensor import Tensor, as_tensor
from asg.types import DType, as_shape

_WORD = 2**32


def key(seed: int) -> Tensor:
    """Return the key for a seed (its low 32 bits): `jax.random.key_data(jax.random.key(seed))`."""
    return constant(np.array([0, seed % _WORD], np.uint32))


def fold_in(key: Any, data: Any) -> Tensor:
    """Return a new key made of a key and a number, as `jax.random.fold_in`."""
    number = constant(data % _WORD, DType.U32) if isinstance(data, int) else as_tensor(data)
    if number.ndim:
        raise ShapeError(f"fold_in: needs a single number, got {number.type}")
    first, second = _words(key)
    # One elementwise computation on two elements, rather than two joined.
    y0, y1 = threefry2x32(first, second, constant(0, DType.U32), cast(number, DType.U32))
    is_first = equal(iota(shape=(2,), axis=0, dtype=DType.U32), 0)
    result: Tensor = select(is_first, y0, y1)
    return result


def _words(key: Any) -> tuple[Tensor, Tensor]:
    tensor = as_tensor(key)
    if tensor.dtype is not DType.U32 or tensor.shape != (2,):
        raise DTypeError(f"a random key is u32[2], got {tensor.type}; fix: use asg.key(seed)")
    return getitem(tensor, 0), getitem(tensor, 1)


def random_bits(key: Any, shape: Any) -> Tensor:
    """Return 32 random bits per element, as `jax.random.bits` (partitionable threefry).

    The counter of an element is its row-major position.
    """
    sizes = as_shape(shape)
    count = math.prod(sizes)
    if count > _WORD:
        raise ShapeError(f"random_bits: {list(sizes)} has more than 2**32 elements")
    first, second = _words(key)
    counter = reshape(iota(shape=(count,), axis=0, dtype=DType.U32), sizes)
    y0, y1 = threefry2x32(first, second, constant(0, DType.U32), counter)
    result: Tensor = y0 ^ y1
    return result


def random_uniform(key: Any, shape: Any, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return floats from `low` to below `high`, as `jax.random.uniform`: 23 random bits each."""
    bits = (random_bits(key, shape) >> 9) | 0x3F800000  # 1.0 and a random fraction
    numbers: Tensor = bitcast(bits, dtype=DType.F32) - 1.0
    if (low, high) == (0.0, 1.0):
        return numbers
    return numbers * (high - low) + low


def random_bernoulli(key: Any, p: Any, shape: Any) -> Tensor:
    """Return truth values that hold with probability `p`, as `jax.random.bernoulli`."""
    if isinstance(p, Tensor):
        uniform: Tensor = less(random_uniform(key, shape), p)
        return uniform
    # uniform < p  <=>  bits >> 9 < p * 2^23  <=>  bits < ceil(p * 2^23) * 2^9
    threshold = math.ceil(float(np.float32(p)) * 2**23) << 9
    if threshold <= 0 or threshold >= _WORD:
        return full(shape, threshold > 0)
    result: Tensor = less(random_bits(key, shape), threshold)
    return result
