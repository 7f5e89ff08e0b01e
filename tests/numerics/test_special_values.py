"""Infinity, NaN, zeros and the ends of the range: a device gives what the interpreter gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.op import Elementwise
from asg.ops import TABLE

Array = np.ndarray[Any, Any]

HOSTILE = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 3.0, np.inf, -np.inf, np.nan, -np.nan,
     2.0**-126, -(2.0**-126), 3.4028235e38, -3.4028235e38, 1e30, -1e30, 88.7, -87.0, -103.0,
     2.0**31, 2.0**32, 16777217.0, -0.99999994],
    np.float32,
)  # fmt: skip

FLOATS = [
    op
    for op in TABLE.values()
    if isinstance(op.kind, Elementwise)
    and op.name not in ("cast", "bitcast")
    and set(op.samples[0].types) == {op.samples[0].types[0]}
    and op.samples[0].types[0].startswith("f32")
]

COMPOSED: dict[str, Callable[[Any], Any]] = {
    "x - x": lambda x: x - x,
    "x * 0": lambda x: x * 0.0,
    "0 * x + 1": lambda x: 0.0 * x + 1.0,
    "x / x": lambda x: x / x,
    "x == x": lambda x: x == x,
    "x != x": lambda x: x != x,
    "relu": asg.relu,
    "silu": asg.silu,
    "softplus": asg.softplus,
    "square": asg.square,
    "clip": lambda x: asg.clip(x, -1, 1),
    "isinf": asg.isinf,
    "isfinite": asg.isfinite,
    "floor_divide": lambda x: asg.floor_divide(x, 3.0),
    "maximum with 0": lambda x: asg.maximum(x, 0.0),
    "minimum with 0": lambda x: asg.minimum(0.0, x),
    "softmax of one": lambda x: asg.softmax(x.reshape(-1, 1)),
    "log_softmax of one": lambda x: asg.log_softmax(x.reshape(-1, 1)),
    "logsumexp of one": lambda x: asg.logsumexp(x.reshape(-1, 1), axis=1),
    "variance of one": lambda x: asg.var(x.reshape(-1, 1), axis=1),
}

ROWS: dict[str, Callable[[Any], Any]] = {
    "softmax": asg.softmax,
    "log_softmax": asg.log_softmax,
    "logsumexp": lambda x: asg.logsumexp(x, axis=1),
    "sum": lambda x: asg.sum(x, axis=1),
    "prod": lambda x: asg.prod(x, axis=1),
    "max": lambda x: asg.max(x, axis=1),
    "min": lambda x: asg.min(x, axis=1),
    "argmax": lambda x: asg.argmax(x, axis=1),
    "argmin": lambda x: asg.argmin(x, axis=1),
    "mean": lambda x: asg.mean(x, axis=1),
    "var": lambda x: asg.var(x, axis=1),
}


def _compare(function: Callable[..., Any], *operands: Array, schedule: str | None = None) -> None:
    names = [f"a{i}" for i in range(len(operands))]
    tensors = [asg.input(name, x.shape) for name, x in zip(names, operands, strict=True)]
    graph = asg.graph(outputs={"y": function(*tensors)})
    given = dict(zip(names, operands, strict=True))
    expected = np.asarray(asg.compile(graph, target="numpy")(given)["y"])
    with asg.compile(graph, schedule=schedule) as executable:
        found = np.asarray(executable(given)["y"])
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=2.0**-119)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.device
@pytest.mark.parametrize("count", [len(HOSTILE) // 4 * 4, 25], ids=["vec4", "scalar"])
@pytest.mark.parametrize("op", FLOATS, ids=lambda op: op.name)
def test_ops(op: Any, count: int) -> None:
    if len(op.samples[0].types) == 1:
        _compare(op, np.resize(HOSTILE, 28 if count % 4 == 0 else 27))
        return
    x, y = (np.ascontiguousarray(grid).reshape(-1) for grid in np.meshgrid(HOSTILE, HOSTILE))
    length = x.size if count % 4 == 0 else x.size - 1
    _compare(op, x[:length], y[:length])


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", COMPOSED)
def test_composed(name: str, schedule: str) -> None:
    _compare(COMPOSED[name], HOSTILE, schedule=schedule)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("length", [1, 2, 37, 64])
@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, length: int, schedule: str) -> None:
    rows = np.random.default_rng(0).standard_normal((6, length)).astype(np.float32)
    rows[0, length // 3] = np.nan
    rows[1, length // 2] = np.inf
    rows[2, length - 1] = -np.inf
    rows[3] = -np.inf
    rows[4] = np.inf
    _compare(ROWS[name], rows, schedule=schedule)
