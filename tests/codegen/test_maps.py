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


PERMUTED = [
    # one tile and several; blocks of 16 rows and of 4; sizes that no block fits
    ((64, 64), (1, 0)), ((128, 256), (1, 0)), ((132, 68), (1, 0)), ((63, 68), (1, 0)),
    ((68, 63), (1, 0)), ((3, 64, 48), (0, 2, 1)), ((3, 64, 48), (2, 1, 0)),
    ((2, 16, 9, 48), (0, 2, 3, 1)), ((16, 48, 5, 4), (3, 2, 1, 0)),
]  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize(("shape", "axes"), PERMUTED, ids=str)
def test_operands_read_across(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x, mask = asg.input("x", shape), asg.input("mask", shape, "bool")
    result = tuple(shape[axis] for axis in axes)
    other, row = asg.input("other", result), asg.input("row", result[-1:])
    turned, chosen = x.permute(*axes), mask.permute(*axes)
    graph = asg.graph(
        outputs={"y": turned * row + other, "z": functions.where(chosen, other, turned)}
    )
    inputs = {
        "x": _draw(*shape),
        "mask": _draw(*shape) > 0,
        "other": _draw(*result),
        "row": _draw(result[-1]),
    }
    _expect(graph, inputs, 2)


@pytest.mark.device
def test_a_part_read_across() -> None:
    """Slices begin inside a vec4, and a pad reads beyond the operand."""
    x = asg.input("x", (80, 72))
    sliced = functions.pad(x[3:67, 5:69].T, ((0, 0), (4, 4)), 2.0)
    graph = asg.graph(outputs={"y": sliced + 1.0, "z": x[4:68, 4:68].T * 2.0})
    _expect(graph, {"x": _draw(80, 72)}, 2)


def test_transpositions_are_blocks() -> None:
    graph = asg.graph(outputs={"y": asg.input("x", (256, 128)).T * 2.0})
    kernels = [kernel for _, each in artefacts(graph, CPU) for kernel in each.kernels.values()]
    assert [kernel.variants[0].schedule for kernel in kernels] == [
        "16 x 4 elements per invocation, workgroup 64"
    ] * 2
