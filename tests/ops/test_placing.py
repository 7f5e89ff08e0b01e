"""Scatter, gather by coordinates and search, on a device in both families and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asg
from asg.errors import AsgError
from asg.runtime.interpreter import run
from support.variants import CPU, GPU, run_each

Array = np.ndarray[Any, Any]
CHANCE = np.random.default_rng(3)
COMBINES = ("none", "add", "mul", "max", "min")


def by_hand(x: Array, index: Array, updates: Array, axis: int, combine: str) -> Array:
    """One update after the other, as ONNX's reference has it."""
    result = np.array(x)
    for place in np.ndindex(index.shape):
        row = int(index[place])
        row = row + x.shape[axis] if row < 0 else row
        if not 0 <= row < x.shape[axis]:
            continue
        where = (*place[:axis], row, *place[axis + 1 :])
        old, new = result[where], updates[place]
        result[where] = {
            "none": lambda old, new: new,
            "add": lambda old, new: old + new,
            "mul": lambda old, new: old * new,
            "max": np.maximum,
            "min": np.minimum,
        }[combine](old, new)
    return result


def _check(
    outputs: dict[str, asg.Tensor], inputs: dict[str, Array], wanted: dict[str, Array]
) -> None:
    for label, found in run_each(asg.graph(outputs=outputs), inputs, (CPU, GPU)):
        for name, array in wanted.items():
            message = f"{label} {name}"
            if array.dtype.kind == "f":
                np.testing.assert_allclose(found[name], array, 1e-5, 1e-6, err_msg=message)
            else:
                np.testing.assert_array_equal(found[name], array, err_msg=message)


@pytest.mark.device
@pytest.mark.parametrize(
    ("shape", "picked", "axis", "dtype"),
    [
        ((7,), (40,), 0, "f32"),
        ((3, 5, 2), (3, 4, 2), 1, "f32"),
        ((4, 6), (3, 11), 1, "i32"),
        ((1, 1), (1, 1), 0, "u32"),
    ],
)
def test_scatter(shape: tuple[int, ...], picked: tuple[int, ...], axis: int, dtype: str) -> None:
    type_ = asg.spec(shape, dtype).dtype.numpy
    low = 0 if dtype == "u32" else -3
    x = CHANCE.integers(low, 4, shape).astype(type_)
    updates = CHANCE.integers(low, 4, picked).astype(type_)
    index = CHANCE.integers(-shape[axis] - 1, shape[axis] + 2, picked).astype(np.int32)
    symbols = {
        "x": asg.input("x", shape, dtype),
        "index": asg.input("index", picked, "i32"),
        "updates": asg.input("updates", picked, dtype),
    }
    outputs = {name: asg.scatter(*symbols.values(), axis=axis, combine=name) for name in COMBINES}
    wanted = {name: by_hand(x, index, updates, axis, name) for name in COMBINES}
    _check(outputs, {"x": x, "index": index, "updates": updates}, wanted)


@pytest.mark.device
def test_many_updates() -> None:
    """Long segments and sorted runs; sums of equal length in the order of the updates."""
    x = CHANCE.standard_normal(1009).astype(np.float32)
    index = (CHANCE.integers(0, 1009, 5003) ** 2 // 1009).astype(np.int32)
    updates = CHANCE.standard_normal(5003).astype(np.float32)
    symbols = [asg.input("x", (1009,)), asg.input("index", (5003,), "i32")]
    symbols.append(asg.input("updates", (5003,)))
    outputs = {name: asg.scatter(*symbols, combine=name) for name in ("none", "add", "max")}
    wanted = {name: by_hand(x, index, updates, 0, name) for name in outputs}
    _check(outputs, {"x": x, "index": index, "updates": updates}, wanted)


@pytest.mark.device
def test_scatter_nd_and_gather_nd() -> None:
    x = CHANCE.standard_normal((4, 5, 3)).astype(np.float32)
    index = np.array([[[0, 0], [3, -1]], [[0, 0], [2, 7]]], np.int32)  # the last lies outside
    updates = CHANCE.standard_normal((2, 2, 3)).astype(np.float32)
    symbols = {
        "x": asg.input("x", x.shape),
        "index": asg.input("index", index.shape, "i32"),
        "updates": asg.input("updates", updates.shape),
    }
    outputs = {name: asg.scatter_nd(*symbols.values(), combine=name) for name in COMBINES}
    outputs["gather"] = asg.gather_nd(symbols["x"], symbols["index"])
    wanted: dict[str, Array] = {}
    for name in COMBINES:
        flat = np.array([0, 19, 0, 99], np.int32)[:, None].repeat(3, 1)
        done = by_hand(x.reshape(20, 3), flat, updates.reshape(4, 3), 0, name)
        wanted[name] = done.reshape(x.shape)
    wanted["gather"] = np.array([[x[0, 0], x[3, 4]], [x[0, 0], x[2, 4]]])
    _check(outputs, {"x": x, "index": index, "updates": updates}, wanted)


@pytest.mark.device
def test_gather_nd_with_batches() -> None:
    x = CHANCE.integers(-9, 9, (2, 3, 4, 2)).astype(np.int32)
    index = CHANCE.integers(0, 4, (2, 3, 5, 1)).astype(np.int32)
    y = asg.gather_nd(asg.input("x", x.shape, "i32"), asg.input("index", index.shape, "i32"), 2)
    wanted = np.stack([[x[i, j][index[i, j, :, 0]] for j in range(3)] for i in range(2)])
    _check({"y": y}, {"x": x, "index": index}, {"y": wanted})


@pytest.mark.device
@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool) -> None:
    keys = np.sort(np.round(CHANCE.standard_normal(301) * 8) / 8).astype(np.float32)
    keys[-2:] = np.inf, np.nan
    wanted = np.array([[-9, -0.0, keys[5]], [np.inf, np.nan, 0.5]], np.float32)
    y = asg.searchsorted(asg.input("keys", (301,)), asg.input("x", (2, 3)), right)
    found = np.searchsorted(keys, wanted, "right" if right else "left").astype(np.int32)
    _check({"y": y}, {"keys": keys, "x": wanted}, {"y": found})


@pytest.mark.device
@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_put(size: int) -> None:
    x = np.arange(3 * size, dtype=np.float32).reshape(3, size)
    outputs = {
        name: asg.scatter(
            asg.input("x", x.shape),
            asg.input("index", (0, size), "i32"),
            asg.input("updates", (0, size)),
            combine=name,
        )
        for name in COMBINES
    }
    empty = {"index": np.zeros((0, size), np.int32), "updates": np.zeros((0, size), np.float32)}
    _check(outputs, {"x": x, **empty}, dict.fromkeys(outputs, x))


def test_a_large_unsigned_position_lies_beyond_the_end() -> None:
    index = np.array([2**32 - 1, 1], np.uint32)
    x = asg.input("x", (3,))
    outputs = {"put": asg.scatter(x, index, [5.0, 7.0]), "got": asg.gather_elements(x, index)}
    found = run(asg.graph(outputs=outputs), {"x": np.float32([1, 2, 3])})
    np.testing.assert_array_equal(found["put"], [1, 7, 3])
    np.testing.assert_array_equal(found["got"], [3, 2])


def test_an_element_gets_its_last_update_and_only_that_has_a_gradient() -> None:
    x, updates = asg.input("x", (3,)), asg.input("updates", (4,))
    index = np.array([2, 0, 2, 5], np.int32)
    y = asg.scatter(x, index, updates)
    weights = np.array([1, 10, 100], np.float32)
    graph = asg.graph(outputs={"y": y, "loss": (y * weights).sum()})
    joint = asg.value_and_grad(graph, of="loss", wrt=["x", "updates"])
    found = run(joint, {"x": np.zeros(3, np.float32), "updates": np.float32([5, 6, 7, 8])})
    np.testing.assert_array_equal(found["y"], [6, 0, 7])
    np.testing.assert_array_equal(found["x.grad"], [0, 10, 0])
    np.testing.assert_array_equal(found["updates.grad"], [0, 1, 100, 0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: asg.scatter(x, np.zeros((5, 2), np.int32), 1.0, axis=1), "scatter of f32"),
        (lambda x: asg.scatter(x, np.zeros((2, 2), np.float32), 1.0), "must be i32 or u32"),
        (lambda x: asg.gather_nd(x, np.zeros((2, 3), np.int32)), "holds no coordinates in f32"),
        (lambda x: asg.scatter_nd(x, np.zeros((2, 1), np.int32), 1.0), r"the shape \[2, 4\]"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(AsgError, match=message):
        build(asg.input("x", (3, 4)))
