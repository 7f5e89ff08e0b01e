"""Stores random bits of JAX in random.json. Run it where JAX is installed; the tests need it not.

python tests/references/make_jax_reference.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

SEEDS = (0, 1, 42, 2**31 - 1, 2**32 - 1, 2**40 + 7, -1)
SHAPES = ((), (1,), (2,), (7,), (3, 5), (2, 3, 4), (0,), (257,))


def _list(array: Any) -> Any:
    return np.asarray(array).tolist()


def _key_data(seed: int) -> Any:
    return _list(jax.random.key_data(jax.random.key(seed)))


def _case(seed: int, folded: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    key = jax.random.key(seed)
    for number in folded:
        key = jax.random.fold_in(key, number)
    return {
        "seed": seed,
        "folded": folded,
        "shape": shape,
        "key": _list(jax.random.key_data(key)),
        "bits": _list(jax.random.bits(key, shape, "uint32")),
        "uniform": _list(jax.random.uniform(key, shape, np.float32)),
        "range": _list(jax.random.uniform(key, shape, np.float32, -3.0, 5.0)),
        "bernoulli": _list(jax.random.bernoulli(key, 0.3, shape).astype(int)),
    }


def main() -> None:
    """Write the file beside this script."""
    jax.config.update("jax_threefry_partitionable", True)
    stored = {
        "jax": jax.__version__,
        "keys": [[seed, _key_data(seed)] for seed in SEEDS],
        "cases": [
            *(_case(42, (), shape) for shape in SHAPES[:-1]),
            *(_case(7, (number,), (5,)) for number in (0, 1, 2**31, 2**32 - 1)),
            _case(0, (3, 1, 4), (3, 3)),
            _case(1, (), SHAPES[-1]),
        ],
    }
    path = Path(__file__).with_name("random.json")
    path.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
