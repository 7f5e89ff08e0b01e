"""Statistics of hostile rows beside float64: large offsets, long rows, huge and tiny numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.nn import functional

Array = np.ndarray[Any, Any]

_CHANCE = np.random.default_rng(0)
NORMAL = _CHANCE.standard_normal((8, 1000))

# What the rows hold, and how large the offset is beside their spread.
ROWS: dict[str, tuple[Array, float]] = {
    "normal": (NORMAL, 1.0),
    "offset 1e4": (1e4 + NORMAL, 1e4),
    "offset 1e6": (1e6 + NORMAL, 1e6),
    "offset -1e4 on a prime length": (NORMAL[:, :997] - 1e4, 1e4),
    "long rows with an offset": (1e4 + _CHANCE.standard_normal((3, 65536)), 1e4),
    "a row of a million": (_CHANCE.uniform(0, 1, (1, 1 << 20)), 2.0),
    "tiny": (1e-18 * NORMAL, 1.0),
    "large": (1e15 * NORMAL, 1.0),
    "logits of 1e4": (1e4 * NORMAL, 1.0),
    "all equal": (np.full((4, 333), 1e4), 1e4),
}

EPSILON = 2.0**-24


def _on_device(function: Callable[[Any], Any], x: Array, schedule: str) -> Array:
    graph = asg.graph(outputs={"y": function(asg.input("x", x.shape))})
    with asg.compile(graph, schedule=schedule) as executable:
        return np.asarray(executable({"x": x})["y"]).astype(np.float64)


def _rows(name: str) -> tuple[Array, Array, float]:
    rows, offset = ROWS[name]
    single = rows.astype(np.float32)
    return single, single.astype(np.float64), offset


def _mean_error(x: Array, offset: float) -> float:
    """How far a computed mean may be off, in standard deviations: a sum of K terms errs by some
    roundings, and by no more than the root of K of them."""
    return 4 * EPSILON * offset * min(math.sqrt(x.shape[1]), 64)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ROWS)
def test_variance(name: str, schedule: str) -> None:
    x, exact, offset = _rows(name)
    found = _on_device(lambda x: asg.var(x, axis=1), x, schedule)
    expected = exact.var(axis=1)
    # The mean is off by some roundings of the offset; what that adds is taken off again.
    relative = EPSILON * (64 + 8 * _mean_error(x, offset) ** 2)
    spread = expected if name != "all equal" else np.ones(len(x))
    assert (np.abs(found - expected) <= relative * spread).all()
    assert (found >= 0).all()


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("tiny", "all equal")])
def test_layer_norm(name: str, schedule: str) -> None:
    x, exact, offset = _rows(name)

    eps = 1e-12

    def norm(x: Any) -> Any:
        return functional.layer_norm(x, x.shape[1:], eps=eps)

    found = _on_device(norm, x, schedule)
    centred = exact - exact.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(exact.var(axis=1, keepdims=True) + eps)
    absolute = EPSILON * (16 + 8 * _mean_error(x, offset))
    np.testing.assert_allclose(found, expected, rtol=64 * EPSILON, atol=absolute)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ROWS)
def test_softmax_and_logsumexp(name: str, schedule: str) -> None:
    x, exact, _ = _rows(name)
    shifted = exact - exact.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    rounds = 8 + min(math.sqrt(x.shape[1]), 64)
    # x - max rounds once, beside the larger of the two.
    sharpness = 1 + np.abs(shifted)
    found = _on_device(asg.softmax, x, schedule)
    expected = np.exp(shifted) / total
    bound = EPSILON * (rounds + sharpness) * 2 * expected + 2.0**-126
    assert (np.abs(found - expected) <= bound).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=2 * rounds * EPSILON)
    found = _on_device(lambda x: asg.logsumexp(x, axis=1), x, schedule)
    expected = (np.log(total) + exact.max(axis=1, keepdims=True))[:, 0]
    size = np.maximum(np.abs(exact).max(axis=1), 1)
    assert (np.abs(found - expected) <= 2 * rounds * EPSILON * size).all()


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ROWS)
def test_sums(name: str, schedule: str) -> None:
    x, exact, _ = _rows(name)
    found = _on_device(lambda x: asg.sum(x, axis=1), x, schedule)
    # Every addition rounds its partial sum; K roundings of random sign add up to the root of K.
    # Four lanes or more halve the partial sums at least twice.
    partial = np.abs(exact.cumsum(axis=1)).max(axis=1)
    squares = np.sqrt((exact**2).sum(axis=1))
    bound = EPSILON * math.sqrt(x.shape[1]) * (partial / 4 + squares) + EPSILON * partial
    assert (np.abs(found - exact.sum(axis=1)) <= bound).all()
