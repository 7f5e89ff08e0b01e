"""Map kernels by every variant: sizes that fit nothing, types, results over their operands."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg import functions
from asg.graph import Graph
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run
from support.variants import CPU, artefacts, run_each

BIG = 1 << 16  # elements from which kernels are given several items and wide loads


def _expect(graph: Graph, inputs: dict[str, np.ndarray], kinds: int) -> None:
    wanted = run(graph, inputs)
    labels = []
    for label, found in run_each(graph, inputs):
        labels.append(label)
        for name, array in wanted.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(found[name], array, 2e-6, 1e-6, err_msg=label)
            else:
                np.testing.assert_array_equal(found[name], array, err_msg=label)
    assert len(labels) >= kinds, labels


def _draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


@pytest.mark.device
@pytest.mark.parametrize("size", [1, 7, 8, 63, 65, BIG, BIG + 4, BIG + 12, BIG + 63, 4 * BIG + 8])
def test_every_size(size: int) -> None:
    x, y = asg.input("x", (size,)), asg.input("y", (size,))
    graph = asg.graph(outputs={"sum": x + y, "more": x > y, "less": x * 2.0 - y})
    inputs = {"x": _draw(size), "y": _draw(size)[::-1].copy()}
    _expect(graph, inputs, 3 if size >= BIG and size % 4 == 0 else 2)


@pytest.mark.device
@pytest.mark.parametrize("shape", [(64, 1024), (1024, 68), (3, 5, 4096)], ids=str)
def test_operands_of_other_shapes(shape: tuple[int, ...]) -> None:
    x, row = asg.input("x", shape), asg.input("row", shape[-1:])
    column = asg.input("column", (shape[-2], 1))
    table = asg.input("table", (7, shape[-1]))
    index = asg.input("index", shape[:-1], "i32")
    mask = asg.input("mask", shape, "bool")
    graph = asg.graph(
        outputs={
            "broadcast": x * row + column,
            "chosen": functions.where(mask, x, -row),
            "taken": x + functions.take(table, index, 0),
        }
    )
    random = np.random.default_rng(0)
    inputs = {
        "x": _draw(*shape),
        "row": _draw(shape[-1]),
        "column": _draw(shape[-2], 1),
        "table": _draw(7, shape[-1]),
        "index": random.integers(-7, 7, shape[:-1]).astype(np.int32),
        "mask": random.random(shape) < 0.5,
    }
    _expect(graph, inputs, 3)


@pytest.mark.device
@pytest.mark.parametrize("size", [BIG, BIG + 20, BIG + 1])
def test_a_state_is_updated_in_place(size: int) -> None:
    state, step = asg.state("s", np.ones(size, np.float32)), asg.input("x", (size,))
    graph = asg.graph(outputs={"old": state.sum()}, updates={"s": state * 0.5 + step})
    x = _draw(size)
    for label, artefact in artefacts(graph, CPU):
        with Executable(Executor(artefact, shared_device())) as executable:
            executable({"x": x})
            executable({"x": x})
            found = executable.state_dict()["s"]
        np.testing.assert_allclose(found, 0.25 + 1.5 * x, 1e-6, 1e-6, err_msg=label)


def test_small_maps_have_one_variant() -> None:
    (artefact,) = [
        each for _, each in artefacts(asg.graph(outputs={"y": asg.input("x", (64,)) + 1.0}), CPU)
    ]
    assert [kernel.variants[0].features for kernel in artefact.kernels.values()] == [()]
