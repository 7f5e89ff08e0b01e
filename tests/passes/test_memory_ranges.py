"""Values too large for one binding: bound as consecutive ranges, in every class of kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asg
from asg import functions, nn, optim
from asg.artefact import Artefact, Dispatch
from asg.codegen.context import Target
from asg.compiler import check_sizes, fuse, lower, prepare
from asg.errors import UnsupportedError
from asg.graph import Graph
from asg.passes.assign import AssignStorage
from asg.passes.check_memory import find_faults
from asg.passes.fuse import Fuse
from asg.passes.order import OrderKernels
from asg.passes.storage import KernelStep
from asg.plan_view import PlanView
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run

Array = np.ndarray[Any, Any]
LIMIT = 4096  # bytes, 1024 elements
TARGETS = [
    Target(f, size, max_binding_bytes=LIMIT) for f, size in (("cpu", 8), ("cpu", 0), ("gpu", 0))
]
RNG = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def indices(high: int, *shape: int) -> Array:
    return RNG.integers(0, high, shape).astype(np.int32)


Case = tuple[Callable[..., Any], tuple[Array, ...]]
CASES: dict[str, Case] = {
    "map": (lambda x: {"y": x * 2 + 1}, (floats(2056),)),
    "map, odd": (lambda x: {"y": x * 2 + 1}, (floats(1031),)),
    "map, of bool": (lambda x: {"y": (x > 0) & (x < 1)}, (floats(1500),)),
    "map, turned": (lambda x: {"y": x.T + 1}, (floats(60, 37),)),
    "map, of parts": (lambda x: {"y": x[:, 3:30] + x[:, 5:32]}, (floats(70, 33),)),
    "row": (lambda x: {"y": asg.softmax(x, axis=-1)}, (floats(40, 64),)),
    "row, odd": (lambda x: {"y": asg.softmax(x, axis=-1)}, (floats(37, 61),)),
    "row, long": (lambda x: {"y": asg.softmax(x, axis=-1)}, (floats(2, 1000),)),
    "reduce": (lambda x: {"y": asg.sum(x, axis=-1)}, (floats(48, 64),)),
    "reduce, columns": (lambda x: {"y": asg.max(x, axis=0)}, (floats(48, 64),)),
    "reduce, all": (lambda x: {"y": asg.sum(x)}, (floats(2500),)),
    "contract": (lambda x, w: {"y": x @ w}, (floats(48, 40), floats(40, 64))),
    "contract, odd": (lambda x, w: {"y": x @ w}, (floats(37, 41), floats(41, 53))),
    "contract, turned": (lambda x, w: {"y": x @ w.T + 1}, (floats(20, 64), floats(40, 64))),
    "contract, batch": (lambda x, w: {"y": x @ w}, (floats(3, 16, 24), floats(3, 24, 40))),
    "gather": (lambda t, i: {"y": functions.take(t, i) * 2}, (floats(100, 32), indices(100, 50))),
    "gather, odd": (lambda t, i: {"y": functions.take(t, i)}, (floats(103, 17), indices(103, 91))),
    "scatter, columns": (
        lambda t, i, u: {"y": asg.scatter_add(t, i, u)},
        (floats(30, 64), indices(30, 9), floats(9, 64)),
    ),
    "scatter, elements": (
        lambda t, i, u: {"y": asg.scatter_add(t, i, u)},
        (floats(2100), indices(2100, 9), floats(9)),
    ),
}


def traced(case: Case) -> tuple[Graph, dict[str, Array]]:
    function, arrays = case
    specs = [asg.spec(a.shape, "i32" if a.dtype == np.int32 else "f32") for a in arrays]
    graph: Graph = asg.trace(function, *specs)
    return graph, dict(zip(graph.input_names("input"), arrays, strict=True))


def ranges(artefact: Artefact) -> list[int]:
    """The sizes of all that kernels bind."""
    steps = [step for entry in artefact.entries.values() for step in entry.steps]
    return [bound.size for step in steps if isinstance(step, Dispatch) for bound in step.ranges]


@pytest.mark.device
@pytest.mark.parametrize("name", CASES)
def test_every_class_of_kernels_reads_and_writes_ranges(name: str) -> None:
    graph, inputs = traced(CASES[name])
    wanted = run(graph, inputs)
    for target in TARGETS:
        artefact = lower({"main": graph}, target=target)
        assert max(ranges(artefact)) <= LIMIT
        texts = "".join(v.wgsl for kernel in artefact.kernels.values() for v in kernel.variants)
        assert re.search(r"\bt_\w+_(at|put)\(", texts)
        with Executable(Executor(artefact, shared_device())) as exe:
            found = exe(inputs)
            for key, array in wanted.items():
                np.testing.assert_allclose(found[key], array, rtol=2e-5, atol=2e-5)


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_ranges_are_read_and_written_in_64_bit_words(dtype: str) -> None:
    """Where a processor moves much, and the adapter has such words."""
    kind = np.float16 if dtype == "f16" else np.float32
    x, w = floats(64, 256).astype(kind), floats(256, 160).astype(kind)

    def both(x: Any, w: Any) -> dict[str, Any]:
        return {"product": x @ w, "map": w * 2 + 1}

    graph = asg.trace(both, asg.spec(x.shape, dtype), asg.spec(w.shape, dtype))
    artefact = lower({"main": graph}, target=Target("cpu", 8, max_binding_bytes=1 << 16))
    wide = [
        each.wgsl
        for kernel in artefact.kernels.values()
        for each in kernel.variants
        if "shader-int64" in each.features
    ]
    assert any("_at(" in text for text in wide)
    assert any("_put(" in text for text in wide)
    with Executable(Executor(artefact, shared_device())) as exe:
        found = exe({"x": x, "w": w})
    wanted = run(graph, {"x": x, "w": w}, dtype="f64")
    for name, array in wanted.items():
        tolerance = 2e-3 if dtype == "f16" else 1e-5
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=30 * tolerance)


@pytest.mark.device
def test_f16_in_memory_is_read_and_written_in_ranges() -> None:
    """Parts begin at words, of which an f16 is half; sizes are even and odd."""
    graph = asg.trace(
        lambda x, y: {"x": x * 2, "y": asg.flip(y)},
        asg.spec((96, 64), "f16"),
        asg.spec((4097,), "f16"),
    )
    inputs = {"x": floats(96, 64).astype(np.float16), "y": floats(4097).astype(np.float16)}
    wanted = run(graph, inputs)
    for family in ("cpu", "gpu"):
        target = Target(family, max_binding_bytes=LIMIT, native_f16=True)
        artefact = lower({"main": graph}, target=target)
        first = [kernel.variants[0] for kernel in artefact.kernels.values()]
        assert all("_at(" in each.wgsl and "shader-f16" in each.features for each in first)
        with Executable(Executor(artefact, shared_device())) as exe:
            found = exe(inputs)
        for key, array in wanted.items():
            np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("name", CASES)
def test_the_checker_knows_ranges(name: str) -> None:
    graph, _ = traced(CASES[name])
    plan = OrderKernels()(Fuse(max_binding_bytes=LIMIT)(prepare(graph)))
    found = AssignStorage(max_binding_bytes=LIMIT)({"main": plan})
    assert not find_faults(found, max_binding_bytes=LIMIT)
    labels = PlanView.from_report(found.report).entries["main"].steps
    assert any(label.endswith("more ranges)") for label in labels)
    whole = AssignStorage()({"main": fuse(prepare(graph))})
    assert {fault.kind for fault in find_faults(whole, max_binding_bytes=LIMIT)} == {"out of range"}


def test_the_checker_finds_ranges_that_do_not_follow_one_another() -> None:
    graph, _ = traced(CASES["map"])
    plan = fuse(prepare(graph))
    found = AssignStorage(max_binding_bytes=LIMIT)({"main": plan})
    entry = found.entries["main"]
    step = entry.steps[0]
    assert isinstance(step, KernelStep)
    assert [bound.continues for bound in step.bindings] == [False, True, True] * 2
    swapped = (step.bindings[0], step.bindings[2], step.bindings[1], *step.bindings[3:])
    steps = (replace(step, bindings=swapped), *entry.steps[1:])
    broken = replace(found, entries={"main": replace(entry, steps=steps)})
    kinds = {fault.kind for fault in find_faults(broken, max_binding_bytes=LIMIT)}
    assert "misplaced" in kinds


def training() -> Graph:
    """All parameters and their moments in one vector of two ranges."""
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 8))

    def loss(model: nn.Module, batch: Any) -> asg.Tensor:
        result: asg.Tensor = nn.functional.mse_loss(model(batch["x"]), batch["y"])
        return result

    step: Graph = asg.training_step(
        model, loss, optim.AdamW(lr=0.01, clip_norm=1.0), x=asg.spec((16, 24)), y=asg.spec((16, 8))
    )
    return step


@pytest.mark.device
def test_all_parameters_are_updated_in_ranges() -> None:
    """What is bound at once is split over several kernels where eight bindings are too few."""
    graph, batch = training(), {"x": floats(16, 24), "y": floats(16, 8)}
    with Executable(Executor(lower({"main": graph}), shared_device())) as exe:
        wanted = [float(exe(batch)["loss"]) for _ in range(4)]
        state = exe.state_dict()
    for target in TARGETS:
        artefact = lower({"main": graph}, target=target)
        assert max(ranges(artefact)) <= LIMIT
        assert artefact.report["max_bindings"] <= 8
        assert not artefact.report["copies"]
        with Executable(Executor(artefact, shared_device())) as exe:
            losses = [float(exe(batch)["loss"]) for _ in range(4)]
            np.testing.assert_allclose(losses, wanted, rtol=1e-4)
            for name, array in exe.state_dict().items():
                np.testing.assert_allclose(array, state[name], rtol=1e-3, atol=1e-5)


def test_what_needs_too_many_ranges_is_refused_by_name() -> None:
    graph = asg.trace(lambda x, y: {"z": x + y}, asg.spec((4096,)), asg.spec((4096,)))
    with pytest.raises(UnsupportedError) as refused:
        lower({"main": graph}, target=TARGETS[0])
    assert str(refused.value) == (
        "kernel k00_add needs 12 bindings, WebGPU offers 8; one holds 4,096 bytes\n"
        "  x: f32[4096], 16,384 bytes\n"
        "  y: f32[4096], 16,384 bytes\n"
        "  z: f32[4096], 16,384 bytes"
    )


def test_a_buffer_that_the_adapter_cannot_hold_is_refused_by_name() -> None:
    graph = asg.trace(lambda table: {"y": table[0] + 1}, asg.spec((1 << 17, 513)))
    artefact = lower({"main": graph})
    sizes = {"maxBufferSize": 256 << 20, "maxStorageBufferBindingSize": 128 << 20}
    with pytest.raises(UnsupportedError) as refused:
        check_sizes(artefact, sizes)
    assert str(refused.value) == (
        "the adapter is too small\n  table: 268,959,744 bytes in one buffer, at most 268,435,456"
    )


@pytest.mark.soak
@pytest.mark.device
def test_the_embedding_of_gpt2_is_read_written_and_updated() -> None:
    """154 MB, within WebGPU's default limits of 128 MiB for a binding and 256 MiB for a buffer."""
    nn.manual_seed(0)
    table = nn.Embedding(50257, 768)

    def loss(model: nn.Module, batch: Any) -> asg.Tensor:
        rows = model(batch["x"])
        return asg.mean(rows * rows)

    step = asg.training_step(table, loss, optim.AdamW(lr=0.1), x=asg.spec((8,), "i32"))
    places = np.array([0, 1, 25000, 43000, 43690, 43691, 50000, 50256], np.int32)
    artefact = lower({"main": step}, target=Target("cpu", 8))
    assert max(ranges(artefact)) == 128 << 20
    with Executable(Executor(artefact, shared_device())) as exe:
        before = table.weight.data
        losses = [float(exe({"x": places})["loss"]) for _ in range(3)]
        assert losses[0] > losses[1] > losses[2]
        after = exe.state_dict()["weight"]
    decayed = before * (1 - 0.1 * 0.01) ** 3
    others = np.setdiff1d(np.arange(50257), places)
    np.testing.assert_allclose(after[others], decayed[others], rtol=1e-5)
    assert (np.abs(after[places]) < np.abs(before[places]) + 0.31).all()
    assert (after[places] != decayed[places]).any(axis=1).all()
