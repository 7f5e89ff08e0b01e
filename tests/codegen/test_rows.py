"""Reductions and row kernels in every schedule family, on shapes that are nobody's friend."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asg
from asg import functions, nn
from asg.compiler import lower, target_for
from asg.graph import Graph
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run, run_with_updates
from support.variants import CPU, GPU, artefacts, run_each

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
@pytest.mark.parametrize("family", FAMILIES)
def test_exponentials_of_what_is_never_positive(family: str) -> None:
    x = np.zeros((7, 64), np.float32)
    x[0, 1:] = -np.inf
    x[1, 5], x[2, 3], x[3, :] = np.nan, np.inf, -np.inf
    x[4, 1:] = -np.linspace(80, 110, 63)
    x[5, 7] = -1e30
    x[6, :] = np.linspace(-20, 3, 64)
    graph = asg.graph(outputs={"y": functions.softmax(asg.input("x", x.shape), axis=1)})
    with np.errstate(invalid="ignore"):
        expected = run(graph, {"x": x}, dtype="f64")["y"]
    found = _run(graph, {"x": x}, family)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2.0**-126)


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


ROWS = [
    # fewer elements than a vec4, a subgroup, a workgroup; one more or less than some of each
    (3, 1), (8, 7), (67, 9), (5, 31), (64, 33), (2, 63), (9, 65), (4, 132), (65, 260), (1, 997),
    (130, 1000), (3, 1023), (1, 2052), (1, 100_000), (0, 64),
    # enough rows that a subgroup takes several in turn, the last ones fewer
    (1024, 64), (1031, 64), (1027, 65), (4100, 36), (1030, 1040),
]  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_every_length_by_every_variant(shape: tuple[int, int]) -> None:
    """Held in registers, in loops, with chunks left over, with rows left over."""
    x, weight = asg.input("x", shape), asg.input("weight", shape[1:])
    centred = x - x.max(axis=1, keepdims=True)
    graph = asg.graph(
        outputs={
            "softmax": functions.softmax(x, axis=1),
            "norm": nn.functional.layer_norm(x, shape[1:], weight),
            "smallest": centred.min(axis=1),
            "norms": functions.sqrt((x * x).sum(axis=1)),
            "any": functions.any(x > 3.0, axis=1),
        }
    )
    random = np.random.default_rng(shape[1])
    inputs = {
        "x": random.standard_normal(shape, dtype=np.float32),
        "weight": random.standard_normal(shape[1:], dtype=np.float32),
    }
    wanted = run(graph, inputs, dtype="f64")
    for label, found in run_each(graph, inputs):
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, 1e-5, 2e-6, err_msg=f"{name}, {label}")


@pytest.mark.device
def test_large_norms_by_every_variant() -> None:
    """Rows are held, weight and bias are loaded once for several; the last group has fewer."""
    shape = (2050, 512)
    x, weight, bias = asg.input("x", shape), asg.input("weight", (512,)), asg.input("bias", (512,))
    graph = asg.graph(outputs={"y": nn.functional.layer_norm(x, (512,), weight, bias)})
    random = np.random.default_rng(2)
    inputs = {
        "x": 3.0 + random.standard_normal(shape, dtype=np.float32),
        "weight": random.standard_normal(512, dtype=np.float32),
        "bias": random.standard_normal(512, dtype=np.float32),
    }
    (kernel,) = lower({"main": graph}, target=CPU).kernels.values()
    assert "row in registers, 8 rows in turn" in kernel.variants[0].schedule
    assert kernel.variants[0].wgsl.count("array<vec4<u64>>") == 4
    wanted = run(graph, inputs, dtype="f64")["y"]
    for label, found in run_each(graph, inputs):
        np.testing.assert_allclose(found["y"], wanted, 1e-5, 1e-5, err_msg=label)


@pytest.mark.device
@pytest.mark.parametrize("shape", [(1100, 1024), (4160, 256), (70, 16384)], ids=str)
def test_large_rows_by_every_variant(shape: tuple[int, int]) -> None:
    """Sizes from which whole rows are held, and loads are wide."""
    x = asg.input("x", shape)
    graph = asg.graph(outputs={"y": functions.log_softmax(x, axis=1) * 2.0, "total": x.sum()})
    inputs = {"x": np.random.default_rng(1).standard_normal(shape, dtype=np.float32)}
    wanted = run(graph, inputs, dtype="f64")
    labels = []
    for label, found in run_each(graph, inputs):
        labels.append(label)
        np.testing.assert_allclose(found["y"], wanted["y"], 1e-5, 1e-5, err_msg=label)
        np.testing.assert_allclose(found["total"], wanted["total"], 1e-5, 0.02, err_msg=label)
    assert labels == [
        "cpu: shader-int64, subgroups",
        "cpu: subgroups",
        "cpu: no features",
        "gpu: no features",
    ]


@pytest.mark.device
@pytest.mark.parametrize("length", [96, 100, 6400])
def test_a_row_is_normalised_in_place(length: int) -> None:
    """The result lies over the operand: every pass must have read what the last one overwrites."""
    state = asg.state("s", np.random.default_rng(0).random((9, length), dtype=np.float32))
    graph = asg.graph({}, {"s": functions.softmax(state * 3.0, axis=1)})
    wanted = run_with_updates(graph, {})[1]["s"]
    for target in (CPU, GPU):
        for label, artefact in artefacts(graph, target):
            with Executable(Executor(artefact, shared_device())) as executable:
                executable({})
                found = executable.state_dict()["s"]
            np.testing.assert_allclose(found, wanted, 1e-5, 1e-7, err_msg=label)


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "shape", [(2, 3, 14, 14), (3, 5, 7, 4), (4, 5, 7, 7), (2, 6, 1, 9), (5, 1, 3, 2), (1, 7, 3, 3)]
)
def test_rows_in_pieces(shape: tuple[int, ...], family: str) -> None:
    """Statistics of channels, as batch norms have them, and what is made of them."""
    x = asg.input("x", shape)
    mean = functions.mean(x, axis=(0, 2, 3), keepdims=True)
    variance = functions.mean((x - mean) * (x - mean), axis=(0, 2, 3), keepdims=True)
    graph = asg.graph(outputs={"y": (x - mean) * functions.rsqrt(variance + 1e-5), "mean": mean})
    inputs = {"x": np.random.default_rng(5).normal(3.0, 2.0, shape).astype(np.float32)}
    found = _run(graph, inputs, family)
    wanted = run(graph, inputs, dtype="f64")
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=2e-6)


def test_pieces_of_whole_quads_are_read_by_quads() -> None:
    x = asg.input("x", (4, 32, 14, 14))
    graph = asg.graph(outputs={"y": functions.sum(x, axis=(0, 2, 3))})
    (kernel,) = lower({"main": graph}, target=CPU).kernels.values()
    assert "4 elements at once" in kernel.variants[0].wgsl
