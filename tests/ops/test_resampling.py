"""Resizing by ONNX's formulas, beside its reference evaluator; borders and letters beside NumPy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import asg
from asg.errors import AsgError
from asg.runtime.interpreter import run
from support.targets import REFERENCES
from support.variants import CPU, GPU, run_each

RESIZE: dict[str, Any] = json.loads((REFERENCES / "resize.json").read_text())
CHANCE = np.random.default_rng(5)


@pytest.mark.parametrize("number", range(len(RESIZE["cases"])))
def test_resize_as_onnx_has_it(number: int) -> None:
    case = RESIZE["cases"][number]
    y = asg.resize(
        asg.input("x", (len(RESIZE["x"]),)),
        (len(case["y"]),),
        mode=case["mode"],
        coordinates=case["coordinate_transformation_mode"],
        nearest=case["nearest_mode"],
        exclude_outside=bool(case["exclude_outside"]),
        antialias=bool(case["antialias"]),
        scales=case["scale"] and [case["scale"]],
        roi=[tuple(np.array(RESIZE["roi"], np.float32).tolist())],
        extrapolation=case["extrapolation_value"],
    )
    found = run(asg.graph(outputs={"y": y}), {"x": np.array(RESIZE["x"], np.float32)})["y"]
    np.testing.assert_allclose(found, case["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.device
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_on_a_device(mode: Any) -> None:
    x = CHANCE.standard_normal((2, 3, 5, 7)).astype(np.float32)
    for antialias in (False, True):
        y = asg.resize(asg.input("x", x.shape), (2, 3, 3, 11), mode=mode, antialias=antialias)
        graph = asg.graph(outputs={"y": y})
        wanted = run(graph, {"x": x}, dtype="f64")["y"]
        for label, found in run_each(graph, {"x": x}, (CPU, GPU)):
            np.testing.assert_allclose(found["y"], wanted, 1e-5, 1e-5, err_msg=label)


def test_integers_are_resized_too() -> None:
    y = asg.resize(asg.input("x", (3,), "i32"), (6,), coordinates="asymmetric", nearest="floor")
    found = run(asg.graph(outputs={"y": y}), {"x": np.array([7, 8, 9], np.int32)})["y"]
    np.testing.assert_array_equal(found, [7, 7, 8, 8, 9, 9])


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("widths", [((0, 1),), ((7, 9),), ((3, -1),)])
def test_borders_as_numpy_has_them(mode: Any, widths: Any) -> None:
    x = np.arange(4, dtype=np.int32)
    y = asg.pad(asg.input("x", (4,), "i32"), widths, mode=mode)
    found = run(asg.graph(outputs={"y": y}), {"x": x})["y"]
    (low, high) = widths[0]
    cut = x[: len(x) + min(high, 0)]
    np.testing.assert_array_equal(found, np.pad(cut, (low, max(high, 0)), mode=mode))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij->ji", [(3, 4)]),
        ("ij", [(3, 4)]),
        ("ba", [(3, 4)]),
        ("ii", [(4, 4)]),
        ("iji->j", [(4, 3, 4)]),
        ("ij,jk", [(3, 4), (4, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("i,i,i->", [(5,), (5,), (5,)]),
        ("ij,kl->", [(2, 3), (4, 5)]),
        ("bij,bkj,bk->ib", [(2, 3, 4), (2, 5, 4), (2, 5)]),
        ("ij,j->ij", [(3, 4), (4,)]),
        ("i...,i->...", [(3, 2, 2), (3,)]),
        (",i->i", [(), (3,)]),
        ("ij,jk->ik", [(0, 4), (4, 5)]),
    ],
)
def test_einsum_as_numpy_has_it(equation: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [CHANCE.standard_normal(shape).astype(np.float32) for shape in shapes]
    symbols = [asg.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    graph = asg.graph(outputs={"y": asg.einsum(equation, *symbols)})
    found = run(graph, {f"x{i}": array for i, array in enumerate(arrays)})["y"]
    np.testing.assert_allclose(found, np.einsum(equation, *arrays), rtol=1e-5, atol=1e-5)


def test_einsum_of_integers() -> None:
    x, y = (CHANCE.integers(-9, 9, shape).astype(np.int32) for shape in ((3, 4), (4, 5)))
    symbols = asg.input("x", (3, 4), "i32"), asg.input("y", (4, 5), "i32")
    graph = asg.graph(outputs={"z": asg.einsum("ij,jk->ki", *symbols)})
    np.testing.assert_array_equal(run(graph, {"x": x, "y": y})["z"], (x @ y).T)


def test_blocks_and_sequences_by_hand() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2)
    symbol = asg.input("x", x.shape)
    steps = asg.input("steps", (4, 3))
    outputs = {
        "same": asg.depth_to_space(asg.space_to_depth(symbol, 2), 2),
        "depth": asg.space_to_depth(symbol, 2),
        "back": asg.reverse_sequence(steps, np.array([1, 3, 4], np.int32)),
        "hot": asg.one_hot_values(np.array([1, -1, 5], np.int32), 3, 2.0, 7.0, axis=0),
    }
    given = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = run(asg.graph(outputs=outputs), {"x": x, "steps": given})
    np.testing.assert_array_equal(found["same"], x)
    np.testing.assert_array_equal(
        found["depth"].reshape(-1), [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    )
    back = [[0, 7, 11], [3, 4, 8], [6, 1, 5], [9, 10, 2]]
    np.testing.assert_array_equal(found["back"], back)
    np.testing.assert_array_equal(found["hot"], [[2, 2, 2], [7, 2, 2], [2, 7, 2]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: asg.resize(x, (2,)), r"\[2\] is no size for f32\[3, 4\]"),
        (lambda x: asg.resize(x, (3, 8), mode="lanczos"), "resize knows no lanczos"),
        (lambda x: asg.pad(x, ((1, 1),), mode="edge"), "widths need 2 pairs"),
        (lambda x: asg.pad(x, ((1, 1), (0, 0)), mode="mean"), "mode is one of"),
        (lambda x: asg.einsum("ij,jk", x), "has 2 operands"),
        (lambda x: asg.einsum("ijk", x), "does not name the axes"),
        (lambda x: asg.einsum("ii", x), "make no square"),
        (lambda x: asg.einsum("ij->ik", x), "has no such result"),
        (lambda x: asg.einsum("ij,ij->", x, x[:, :3]), "j is 4 and 3"),
        (lambda x: asg.depth_to_space(x, 2), "has no channels for blocks"),
        (lambda x: asg.diagonal(x), "make no square"),
        (lambda x: asg.grid_sample(x, x), "has no places in"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(AsgError, match=message):
        build(asg.input("x", (3, 4)))
