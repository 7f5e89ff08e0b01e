"""Few long rows are cut in parts: what that means, how often rows are read, and on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.codegen.context import Target
from asg.compiler import GPU_ROWS, PIPELINE, for_target, fuse, prepare
from asg.nn import functional
from asg.op import Reduction
from asg.passes.kernels import FusionPlan
from asg.passes.split_rows import SplitRows
from asg.runtime.interpreter import run

Array = np.ndarray[Any, Any]


def _graph(function: Callable[[Any], Any], *shape: int) -> asg.Graph:
    return asg.trace(lambda x: {"y": function(x)}, asg.spec(shape))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: asg.sum(x, axis=-1),
    "max": lambda x: asg.max(x, axis=-1),
    "min": lambda x: asg.min(x, axis=-1),
    "argmax": lambda x: asg.argmax(x, axis=-1),
    "argmin": lambda x: asg.argmin(x, axis=-1),
    "mean of squares": lambda x: asg.mean(x * x, axis=-1),
    "var": lambda x: asg.var(x, axis=-1),
    "softmax": asg.softmax,
    "log_softmax": asg.log_softmax,
    "logsumexp": lambda x: asg.logsumexp(x, axis=-1),
    "layer norm": lambda x: functional.layer_norm(x, x.shape[-1:]),
}


def _plan(function: Callable[[Any], Any], *shape: int) -> FusionPlan:
    return fuse(prepare(_graph(function, *shape)))


@pytest.mark.parametrize(
    ("name", "kernels", "reads"),
    [
        ("sum", 2, 1),
        ("logsumexp", 2, 1),
        ("var", 2, 1),
        ("softmax", 3, 2),
        ("log_softmax", 3, 2),
        ("layer norm", 3, 2),
    ],
)
@pytest.mark.parametrize("shape", [(1_000_000,), (1, 1_000_000), (2, 100_000), (3, 65_536)])
def test_rows_are_read_once_for_all_statistics(
    name: str, kernels: int, reads: int, shape: tuple[int, ...]
) -> None:
    plan = _plan(FUNCTIONS[name], *shape)
    assert len(plan.kernels) == kernels
    x = plan.graph.input("x")
    assert sum(any(value.node is x for value in each.reads) for each in plan.kernels) == reads


@pytest.mark.parametrize("shape", [(4, 100_000), (1, 32_767), (100_000, 3)])
def test_other_rows_are_left_alone(shape: tuple[int, ...]) -> None:
    graph = _graph(asg.softmax, *shape)
    prepared = prepare(graph, (), tuple(p for p in _pipeline() if not isinstance(p, SplitRows)))
    assert SplitRows()(prepared) is prepared


def _pipeline() -> tuple[Any, ...]:
    return for_target(PIPELINE, Target("cpu", 8))


def test_graphics_cards_split_more_rows() -> None:
    def most(family: str) -> int | None:
        (found,) = (
            step.most_rows
            for step in for_target(PIPELINE, Target(family, 0))
            if isinstance(step, SplitRows)
        )
        return found

    assert (most("cpu"), most("gpu")) == (None, GPU_ROWS)


SMALL = SplitRows(most_rows=8, shortest=8, parts=8, part=4)
SHAPES = [(1, 9), (3, 8), (2, 37), (4, 64), (1, 131), (19,), (2, 3, 11)]


def _hostile(shape: tuple[int, ...]) -> Array:
    """Rows with ties, infinities and NaN; parts of nothing but -infinity."""
    chance = np.random.default_rng(sum(shape))
    rows = chance.integers(-3, 4, shape).astype(np.float32).reshape(-1, shape[-1])
    rows[0, : shape[-1] // 2] = -np.inf
    if len(rows) > 1:
        rows[1, -1] = np.nan
    if len(rows) > 2:
        rows[2, shape[-1] // 3] = np.inf
    if len(rows) > 3:
        rows[3] = -np.inf
    return rows.reshape(shape)


@pytest.mark.parametrize("kind", ["normal", "offset", "hostile"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_meaning(name: str, shape: tuple[int, ...], kind: str) -> None:
    normal = np.random.default_rng(1).standard_normal(shape)
    x = {"normal": normal, "offset": normal + 1e5, "hostile": _hostile(shape)}[kind]
    graph = _graph(FUNCTIONS[name], *shape)
    before = prepare(graph, (), tuple(p for p in _pipeline() if not isinstance(p, SplitRows)))
    after = SMALL(before)
    assert any(_is_of_parts(node) for node in after.nodes)
    given = {"x": x.astype(np.float32)}
    expected = run(before, given, dtype="f64")["y"]
    found = run(after, given, dtype="f64")["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def _is_of_parts(node: Any) -> bool:
    return isinstance(node.op.kind, Reduction) and node.inputs[0].type.rank == 3


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(1, 1_000_003), (3, 100_003), (4, 100_000)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_a_device(name: str, shape: tuple[int, ...], schedule: str) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    x[:, 7] = x[:, -1] = 9.0  # a tie
    x[:, 70_000:72_000] = -np.inf if name in ("softmax", "logsumexp") else 0.25
    graph = _graph(FUNCTIONS[name], *shape)
    expected = run(graph, {"x": x}, dtype="f64")["y"]
    with asg.compile(graph, schedule=schedule) as executable:
        found = np.asarray(executable({"x": x})["y"])
    # Of what cancels the error is small beside the terms.
    absolute = {"sum": 2e-6 * np.sqrt((np.maximum(x, -9.0) ** 2).sum()), "layer norm": 2.0**-22}
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=absolute.get(name, 1e-12))


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
def test_cross_entropy_and_its_gradient_on_a_device(schedule: str) -> None:
    shape = (2, 100_003)
    chance = np.random.default_rng(3)
    x = chance.standard_normal(shape).astype(np.float32)
    target = np.array([5, 100_002], np.int32)

    def loss(x: Any, target: Any) -> Any:
        return {"loss": functional.cross_entropy(x, target)}

    graph = asg.trace(loss, asg.spec(shape), asg.spec((2,), "i32"))
    graph = asg.value_and_grad(graph, of="loss", wrt=["x"])
    given = {"x": x, "target": target}
    expected = run(graph, given, dtype="f64")
    with asg.compile(graph, schedule=schedule) as executable:
        found = executable(given)
    for name, array in expected.items():
        np.testing.assert_allclose(np.asarray(found[name]), array, rtol=2e-5, atol=1e-9)
