"""Any graph: the device agrees with the interpreter, in every schedule family, fused or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings

from asg.compiler import lower, target_for
from asg.graph import Graph
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run_with_updates
from support.random_graphs import RandomGraph, graphs

Array = np.ndarray[Any, Any]

# The graphs are tame: float32 and float64 agree on every value to about 1e-5 of its size.
TOLERANCE = 1e-4

# 4 x 130 graphs, drawn the same way every time; a failure is shrunk and printed as text.
_settings = settings(max_examples=130, suppress_health_check=list(HealthCheck), print_blob=True)


def _run(
    graph: Graph,
    inputs: Mapping[str, Array],
    schedule: str,
    *,
    fused: bool = True,
    reuse: bool = True,
) -> tuple[dict[str, Array], dict[str, Array]]:
    device = shared_device()
    target = target_for(device.adapter_class, schedule)
    artefact = lower({"main": graph}, target=target, reuse_memory=reuse, enable_fusion=fused)
    with Executable(Executor(artefact, device)) as executable:
        outputs = {name: np.asarray(array) for name, array in executable(inputs).items()}
        return outputs, executable.state_dict()


def _assert_close(found: Array, expected: Array, name: str) -> None:
    assert found.shape == expected.shape, name
    assert found.dtype == expected.dtype, name
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, err_msg=name)
        return
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(found, expected, TOLERANCE, TOLERANCE * scale, err_msg=name)


def _check(made: RandomGraph, schedule: str, **options: bool) -> None:
    note(f"graph:\n{made.graph}")
    outputs, updates = run_with_updates(made.graph, made.inputs)
    found, state = _run(made.graph, made.inputs, schedule, **options)
    for name, expected in outputs.items():
        _assert_close(found[name], np.asarray(expected), name)
    for name, expected in updates.items():
        _assert_close(state[name], np.asarray(expected), f"{name}'")


@pytest.mark.device
@_settings
@given(graphs())
def test_cpu_schedules(made: RandomGraph) -> None:
    _check(made, "cpu")


@pytest.mark.device
@_settings
@given(graphs(steps=16))
def test_gpu_schedules(made: RandomGraph) -> None:
    _check(made, "gpu")


@pytest.mark.device
@_settings
@given(graphs(steps=9))
def test_every_node_alone(made: RandomGraph) -> None:
    _check(made, "cpu", fused=False)


@pytest.mark.device
@_settings
@given(graphs(steps=14))
def test_memory_without_reuse(made: RandomGraph) -> None:
    _check(made, "cpu", reuse=False)
