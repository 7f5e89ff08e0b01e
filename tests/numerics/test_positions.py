"""Positions of extremes: the first among equals, the first NaN, whatever the schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asg

Array = np.ndarray[Any, Any]

LOW, HIGH = -(2**31), 2**31 - 1


def _rows(kind: str, length: int) -> Array:
    """Rows with many ties; the extremes come late, early, everywhere."""
    chance = np.random.default_rng(length)
    if kind == "u32":
        rows = chance.integers(0, 3, (8, length)).astype(np.uint32)
        rows[1], rows[2], rows[3, -1] = 0, 2**32 - 1, 2**31
        return rows
    if kind == "i32":
        rows = chance.integers(-2, 3, (8, length)).astype(np.int32)
        rows[1], rows[2], rows[3, -1], rows[4, -1] = LOW, HIGH, HIGH, LOW
        return rows
    rows = chance.integers(-2, 3, (8, length)).astype(np.float32)
    rows[1, length // 2 :] = np.nan
    rows[1, length // 3] = -np.nan
    rows[2] = -np.inf
    rows[3] = np.inf
    rows[4] = chance.choice(np.array([0.0, -0.0], np.float32), length)
    rows[5] = -np.nan
    rows[6, -1] = 3e38
    rows[7, length // 2] = -1e-40
    return rows


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("length", [1, 3, 4, 31, 64, 1000, 1031])
@pytest.mark.parametrize("kind", ["f32", "i32", "u32"])
def test_first_extreme(kind: str, length: int, schedule: str) -> None:
    x = _rows(kind, length)
    a, b = asg.input("a", x.shape, kind), asg.input("b", x.T.shape, kind)
    outputs = {
        "largest": asg.argmax(a, axis=1),
        "smallest": asg.argmin(a, axis=1),
        "largest across": asg.argmax(b, axis=0),
        "smallest across": asg.argmin(b, axis=0),
        "softest": asg.argmax(asg.softmax(asg.cast(asg.clip(a, 0, 1), "f32")), axis=1),
    }
    graph = asg.graph(outputs={name.replace(" ", "_"): y for name, y in outputs.items()})
    with asg.compile(graph, schedule=schedule) as executable:
        found = executable({"a": x, "b": np.ascontiguousarray(x.T)})
    for end in ("", "_across"):
        np.testing.assert_array_equal(np.asarray(found[f"largest{end}"]), x.argmax(1))
        np.testing.assert_array_equal(np.asarray(found[f"smallest{end}"]), x.argmin(1))
    # A NaN makes NaN of a whole softmax.
    expected = np.where(np.isnan(x).any(1), 0, np.clip(x, 0, 1).argmax(1))
    np.testing.assert_array_equal(np.asarray(found["softest"]), expected)
