"""Concatenations whose members are written where they belong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import asg
from asg.compiler import fuse, prepare
from asg.functions import concatenate, exp
from asg.graph import Graph
from asg.runtime.interpreter import run
from asg.tensor import Tensor


def joined(axis: int, widths: Sequence[int] = (8, 8), lead: tuple[int, ...] = ()) -> Graph:
    """A product of concatenated products."""

    def function(x: Tensor) -> Tensor:
        members = [exp(x @ asg.input(f"w{i}", (6, width))) for i, width in enumerate(widths)]
        whole = concatenate([member.reshape(*lead, *member.shape) for member in members], axis=axis)
        flat = whole.reshape(-1, whole.shape[-1])
        return flat @ flat.T

    return asg.trace(function, asg.spec((5, 6)))


def kinds(graph: Graph) -> list[str]:
    return [kernel.kind for kernel in fuse(prepare(graph)).kernels]


@pytest.mark.parametrize(
    "graph",
    [joined(0), joined(1), joined(1, (8, 8, 8)), joined(1, (4, 4), (1,))],
    ids=["rows", "columns", "three", "under-one"],
)
def test_no_kernel_is_needed(graph: Graph) -> None:
    assert set(kinds(graph)) == {"contract"}


@pytest.mark.parametrize("widths", [(8, 4), (3, 5)])
def test_unequal_members_are_copied(widths: tuple[int, int]) -> None:
    assert kinds(joined(1, widths)).count("map") == 1


def test_a_member_twice_is_copied() -> None:
    def twice(x: Tensor, w: Tensor) -> Tensor:
        member = x @ w
        whole = concatenate([member, member], axis=0)
        return whole @ whole.T

    assert "map" in kinds(asg.trace(twice, asg.spec((4, 4)), asg.spec((4, 4))))


@pytest.mark.device
@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("axis", [0, 1])
def test_members_lie_where_they_are_read(axis: int, family: str) -> None:
    graph = joined(axis, (7, 7, 7))
    random = np.random.default_rng(0)
    inputs = {
        name: random.uniform(-1, 1, graph.input(name).type.shape).astype(np.float32)
        for name in graph.input_names()
    }
    wanted = run(graph, inputs)
    with asg.compile(graph, target="wgpu", schedule=family) as exe:
        found = exe(inputs)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


@pytest.mark.device
def test_a_concatenation_that_is_a_result() -> None:
    def function(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return concatenate([x @ v, exp(x @ w)], axis=0)

    random = np.random.default_rng(0)
    inputs = {name: random.uniform(-1, 1, (3, 3)).astype(np.float32) for name in "xvw"}
    graph = asg.trace(function, *[asg.spec((3, 3))] * 3)
    assert kinds(graph) == ["contract", "contract"]
    with asg.compile(graph, target="wgpu") as exe:
        found = exe(inputs)["output"]
    wanted = np.concatenate([inputs["x"] @ inputs["v"], np.exp(inputs["x"] @ inputs["w"])])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
