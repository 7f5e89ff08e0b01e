"""Sorting rows of all lengths on a device, in both families: NumPy's stable order, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asg
from asg.codegen.sort_kernel import exchanges
from asg.compiler import PIPELINE, lower
from asg.errors import ShapeError, UnsupportedError
from asg.ops.sorting import order_of
from asg.passes.split_sorts import SplitSorts
from asg.types import as_dtype
from support.variants import CPU, GPU, run_each

Array = np.ndarray[Any, Any]


def _draw(shape: tuple[int, ...], dtype: str) -> Array:
    x = np.round(np.random.default_rng(len(shape)).standard_normal(shape) * 40) / 8
    if dtype != "f32":
        return (np.abs(x) if dtype == "u32" else x).astype(as_dtype(dtype).numpy)
    flat = x.reshape(-1)
    if flat.size > 8:
        flat[:: max(flat.size // 5, 3)] = np.nan
        flat[1], flat[2], flat[4], flat[5] = np.inf, -np.inf, -0.0, 0.0
    return x.astype(np.float32)


@pytest.mark.device
@pytest.mark.parametrize(
    ("shape", "axis", "count", "dtype"),
    [
        ((1,), 0, 1, "f32"),
        ((2,), 0, 2, "f32"),
        ((13, 16), 1, 16, "f32"),
        ((17,), 0, 17, "f32"),
        ((3, 1031), 1, 1031, "f32"),
        ((1031, 3), 0, 7, "f32"),
        ((2, 33, 5), 1, 33, "i32"),
        ((2, 1024), 1, 1024, "u32"),
        ((2, 2100), 1, 1500, "bool"),
        ((70001,), 0, 70001, "f32"),
        ((100003,), 0, 9, "f32"),
        ((0, 3), 1, 2, "f32"),
        ((0,), 0, 0, "i32"),
    ],
)
def test_order(shape: tuple[int, ...], axis: int, count: int, dtype: str) -> None:
    x = _draw(shape, dtype)
    tensor = asg.input("x", shape, dtype)
    for descending in (False, True):
        values, order = asg.topk(tensor, count, axis, largest=descending)
        graph = asg.graph(outputs={"values": values, "order": order})
        wanted = np.take(order_of(x, axis, descending=descending), range(count), axis)
        for label, found in run_each(graph, {"x": x}, (CPU, GPU)):
            np.testing.assert_array_equal(found["order"], wanted, err_msg=label)
            sorted_ = np.take_along_axis(x, wanted, axis)
            assert found["values"].tobytes() == sorted_.tobytes(), label


@pytest.mark.parametrize("count", range(34))
def test_network_sorts(count: int) -> None:
    """By the zero-one principle a network that sorts bits sorts everything."""
    pairs = list(exchanges(count))
    chance = np.random.default_rng(count)
    rows = [chance.integers(0, 2, count) for _ in range(200)]
    rows += [(np.arange(count) >= split).astype(int)[::-1] for split in range(count + 1)]
    for row in rows:
        for low, high in pairs:
            if row[low] > row[high]:
                row[low], row[high] = row[high], row[low]
        assert (np.diff(row) >= 0).all()


def test_long_rows_become_runs_and_merges() -> None:
    _, order = asg.topk(asg.input("x", (3, 100)), 5)
    graph = asg.graph(outputs={"order": order})
    kinds = [kernel.kind for kernel in lower({"main": graph}, target=CPU).kernels.values()]
    assert kinds.count("sort") == 1
    # 100 elements are 7 runs, of which 5 elements each are kept: 4, 2, then 1.
    dispatches = lower({"main": graph}, target=CPU).report["dispatches"]
    assert dispatches["merge"] == 3
    assert lower({"main": graph}, target=GPU).report["dispatches"] == {"sort": 1}


def test_without_the_pass_long_rows_are_refused() -> None:
    graph = asg.graph(outputs={"order": asg.argsort(asg.input("x", (2000,)))})
    passes = tuple(each for each in PIPELINE if not isinstance(each, SplitSorts))
    with pytest.raises(UnsupportedError, match="the pipeline needs the pass SplitSorts"):
        lower({"main": graph}, target=CPU, passes=passes)


def test_too_many_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"k is 4, but axis 1 of f32\[2, 3\] has 3 elements"):
        asg.topk(asg.input("x", (2, 3)), 4)


def test_gradient_of_equals_goes_to_the_first() -> None:
    x = asg.input("x", (5,))
    values, _ = asg.topk(x, 2)
    graph = asg.graph(outputs={"loss": (values * np.array([1.0, 10.0], np.float32)).sum()})
    exe = asg.compile(asg.grad(graph, of="loss", wrt=["x"]), target="numpy")
    found = exe({"x": np.array([1, 3, 3, 0, 3], np.float32)})["x.grad"]
    np.testing.assert_array_equal(found, [0, 1, 10, 0, 0])
