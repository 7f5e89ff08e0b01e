"""Reductions and row kernels in every schedule family, on shapes that are nobody's friend."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asg
from asg import functions
from asg.compiler import lower, target_for
from asg.graph import Graph
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run

Array = np.ndarray[Any, Any]

SHAPES = [
    (),
    (1,),
    (7,),
    (64,),
    (5, 3),
    (16, 64),
    (3, 1, 9),
    (4, 32, 5),
    (2, 3, 4, 8),
    (0, 4),
    (4, 0),
]
FAMILIES = ("cpu", "gpu", "portable")


def _run(graph: Graph, inputs: dict[str, Array], family: str) -> dict[str, Array]:
    device = shared_device()
    schedule = "cpu" if family == "portable" else family
    adapter = device.adapter_class
    if family == "portable":
        adapter = replace(adapter, subgroup_size=0)
    artefact = lower({"main": graph}, target=target_for(adapter, schedule))
    with Executable(Executor(artefact, device)) as executable:
        return {name: np.asarray(array) for name, array in executable(inputs).items()}


def _axes(rank: int) -> list[tuple[int, ...]]:
    counts = range(1, rank + 1)
    return [axes for count in counts for axes in itertools.combinations(range(rank), count)]


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_reduction_over_every_axis(shape: tuple[int, ...], family: str) -> None:
    t = asg.input("x", shape)
    outputs = {}
    for axes in _axes(len(shape)):
        stem = "_".join(map(str, axes))
        outputs[f"sum_{stem}"] = functions.sum(t, axis=axes)
        outputs[f"any_{stem}"] = functions.any(t > 1.0, axis=axes)
        outputs[f"all_{stem}"] = functions.all(t > -1.0, axis=axes)
        if 0 not in shape:
            outputs[f"max_{stem}"] = functions.max(t, axis=axes)
            outputs[f"min_{stem}"] = functions.min(t * 2.0, axis=axes)
            outputs[f"prod_{stem}"] = functions.prod(t, axis=axes)
    for axis in range(len(shape) if 0 not in shape else 0):
        outputs[f"argmax_{axis}"] = functions.argmax(t, axis=axis)
        outputs[f"softmax_{axis}"] = functions.softmax(t, axis=axis)
    if not outputs:
        outputs = {"same": t + 1.0}
    graph = asg.graph(outputs=outputs)
    x = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    found = _run(graph, {"x": x}, family)
    for name, expected in run(graph, {"x": x}).items():
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found[name], expected, 2e-6, 2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(5, 7), (16, 64)], ids=str)
def test_nan_and_infinity(shape: tuple[int, ...], family: str) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[1, 3], x[2, :], x[3, 2] = np.nan, -np.inf, np.inf
    t = asg.input("x", shape)
    graph = asg.graph(
        outputs={
            "max": functions.max(t, axis=1),
            "min": functions.min(t, axis=1),
            "sum": functions.sum(t, axis=1),
            "argmax": functions.argmax(t, axis=1),
            "columns": functions.max(t, axis=0),
        }
    )
    found = _run(graph, {"x": x}, family)
    with np.errstate(invalid="ignore"):
        for name, expected in run(graph, {"x": x}).items():
            np.testing.assert_allclose(found[name], expected, 1e-5, 1e-5, err_msg=name)


@pytest.mark.device
def test_the_same_inputs_give_the_same_bits() -> None:
    t = asg.input("x", (37, 1000))
    graph = asg.graph(outputs={"y": functions.softmax(t, axis=1), "sum": functions.sum(t)})
    x = np.random.default_rng(0).standard_normal((37, 1000)).astype(np.float32)
    first, second = (_run(graph, {"x": x}, "cpu") for _ in range(2))
    for name in first:
        assert first[name].tobytes() == second[name].tobytes()


@pytest.mark.device
def test_a_long_sum_is_exact_enough() -> None:
    """Two stages of partial sums: far better than adding a million numbers one by one."""
    t = asg.input("x", (1 << 20,))
    x = np.random.default_rng(0).random(1 << 20).astype(np.float32)
    found = _run(asg.graph(outputs={"y": functions.sum(t)}), {"x": x}, "cpu")["y"]
    assert abs(float(found) - x.sum(dtype=np.float64)) < 1e-6 * float(found)
