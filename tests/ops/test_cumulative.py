"""Running sums over rows of all lengths on a device, in both families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.compiler import lower
from asg.ops import cumulative
from asg.runtime.interpreter import run
from support.variants import CPU, GPU, run_each

Array = np.ndarray[Any, Any]
CHANCE = np.random.default_rng(7)

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cumsum": asg.cumsum,
    "cumprod": asg.cumprod,
    "cummax": asg.cummax,
    "cummin": asg.cummin,
}


def _compare(graph: asg.Graph, inputs: dict[str, Array]) -> None:
    exact = run(graph, inputs, dtype="f64")
    for label, found in run_each(graph, inputs, (CPU, GPU)):
        for name, array in exact.items():
            if array.dtype.kind != "f":
                np.testing.assert_array_equal(found[name], array, err_msg=f"{label} {name}")
                continue
            scale = max(1.0, float(np.abs(np.nan_to_num(array, posinf=0, neginf=0)).max(initial=0)))
            np.testing.assert_allclose(found[name], array, 1e-5, 1e-6 * scale, err_msg=label)


@pytest.mark.device
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(1,), (257,), (3, 1031), (70001,), (5000, 3)], ids=str)
def test_long_rows(name: str, shape: tuple[int, ...]) -> None:
    x = CHANCE.uniform(-1, 1, shape).astype(np.float32)
    if name == "cumprod":
        x = (1 + x / 64).astype(np.float32)
    found = FUNCTIONS[name](asg.input("x", shape), -1)
    results = found if isinstance(found, tuple) else (found,)
    _compare(asg.graph(outputs={f"y{i}": y for i, y in enumerate(results)}), {"x": x})


@pytest.mark.device
@pytest.mark.parametrize("shape", [(1,), (2, 301), (2100,)], ids=str)
def test_recurrence(shape: tuple[int, ...]) -> None:
    a, b = (asg.input(name, shape) for name in "ab")
    y = asg.linear_recurrence(a, b)
    graph = asg.graph(outputs={"loss": (y * y).sum(), "y": y})
    joint = asg.value_and_grad(graph, of="loss", wrt=["a", "b"])
    inputs = {name: CHANCE.uniform(-1, 1, shape).astype(np.float32) for name in "ab"}
    _compare(asg.graph(outputs={"y": y}), inputs)
    _compare(joint, inputs)


@pytest.mark.device
def test_what_is_no_number_stays() -> None:
    """A NaN reaches all that follows; infinities of both signs add up to one."""
    x = np.zeros((4, 1100), np.float32)
    x[0, 700], x[1, 5], x[1, 900], x[2, 300] = np.nan, np.inf, -np.inf, -np.inf
    tensor = asg.input("x", x.shape)
    outputs = {"sum": asg.cumsum(tensor), "max": asg.cummax(tensor)[0]}
    for label, found in run_each(asg.graph(outputs=outputs), {"x": x}, (CPU, GPU)):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(found["sum"], np.cumsum(x, 1), err_msg=label)
        np.testing.assert_array_equal(found["max"], np.maximum.accumulate(x, 1), err_msg=label)


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["i32", "u32", "bool"])
def test_integers_are_exact(dtype: str) -> None:
    x = CHANCE.integers(0, 2 if dtype == "bool" else 2**31 - 1, (2, 1500))
    array = x.astype(asg.spec((1,), dtype).dtype.numpy)
    wanted = np.cumsum(array, 1, dtype=np.int32 if dtype == "bool" else array.dtype)
    graph = asg.graph(outputs={"y": asg.cumsum(asg.input("x", x.shape, dtype))})
    for label, found in run_each(graph, {"x": array}, (CPU, GPU)):
        np.testing.assert_array_equal(found["y"], wanted, err_msg=label)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_exclusive_and_reverse(exclusive: bool, reverse: bool) -> None:
    x = asg.input("x", (4,))
    outputs = {
        "sum": asg.cumsum(x, 0, exclusive=exclusive, reverse=reverse),
        "prod": asg.cumprod(x, 0, exclusive=exclusive, reverse=reverse),
    }
    found = run(asg.graph(outputs=outputs), {"x": np.array([2, 3, 5, np.inf], np.float32)})
    sums = {
        (False, False): [2, 5, 10, np.inf],
        (True, False): [0, 2, 5, 10],
        (False, True): [np.inf, np.inf, np.inf, np.inf],
        (True, True): [np.inf, np.inf, np.inf, 0],
    }
    products = {
        (False, False): [2, 6, 30, np.inf],
        (True, False): [1, 2, 6, 30],
        (False, True): [np.inf, np.inf, np.inf, np.inf],
        (True, True): [np.inf, np.inf, np.inf, 1],
    }
    np.testing.assert_array_equal(found["sum"], sums[exclusive, reverse])
    np.testing.assert_array_equal(found["prod"], products[exclusive, reverse])


def test_few_long_rows_go_in_blocks() -> None:
    graph = asg.graph(outputs={"y": asg.cumsum(asg.input("x", (2, 70000)))})
    # 70000 elements are 274 blocks, whose totals are scanned as they are.
    assert lower({"main": graph}, target=CPU).report["dispatches"]["scan"] == 2
    many = asg.graph(outputs={"y": asg.cumsum(asg.input("x", (300, 2000)))})
    assert lower({"main": many}, target=CPU).report["dispatches"] == {"scan": 1}


def test_product_of_zeros_has_a_gradient() -> None:
    y = cumulative.cumprod(asg.input("x", (4,)), axis=0)
    graph = asg.grad(asg.graph(outputs={"loss": y.sum()}), of="loss", wrt=["x"])
    found = run(graph, {"x": np.array([2, 0, 3, 0], np.float32)})["x.grad"]
    # y = x0, x0 x1, x0 x1 x2, x0 x1 x2 x3
    np.testing.assert_array_equal(found, [1, 8, 0, 0])
