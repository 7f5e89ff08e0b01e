"""Reductions over windows become chains: which do, which do not, and in how many kernels."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg import nn
from asg.compiler import fuse, prepare
from asg.graph import Graph
from asg.nn import functional as F
from asg.ops.reduction import argmax, argmin, reduce_all, reduce_max, reduce_sum
from asg.ops.windows import windows
from asg.passes.unroll_windows import UnrollWindows
from asg.runtime.interpreter import run
from asg.tensor import Tensor
from asg.verify import verify


def found(x: Tensor, size: int = 3) -> Tensor:
    """Windows of `size` over the last axis."""
    result: Tensor = windows(x, sizes=(size,), strides=(2,), dilation=(1,))
    return result


def reductions(y: Tensor) -> tuple[Graph, list[str]]:
    """What the pass makes of a graph, and the reductions that are left."""
    graph = UnrollWindows()(Graph.build({"y": y.value}))
    verify(graph)
    left = [node.op.name for node in graph.nodes if node.op.name in ("sum", "max", "argmax")]
    return graph, left


X = asg.input("x", (4, 41))


@pytest.mark.parametrize(
    "y",
    [
        reduce_max(found(X), axes=(2,)),
        reduce_sum(found(X) * 2.0 + 1.0, axes=(2,)),
        reduce_sum(asg.reshape(found(X), (4, 20, 3, 1)), axes=(2, 3)),
        argmax(found(X), axis=2),
        argmin(asg.permute(found(X), 2, 0, 1), axis=0),
    ],
    ids=["windows", "a map of windows", "a view of windows", "argmax", "argmin of a view"],
)
def test_reductions_over_windows_are_written_out(y: Tensor) -> None:
    graph, left = reductions(y)
    assert not left
    x = np.random.default_rng(0).integers(-3, 3, (4, 41)).astype(np.float32)
    x[1, 4] = x[2, 7:9] = np.nan
    expected = run(Graph.build({"y": y.value}), {"x": x})["y"]
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], expected)


@pytest.mark.parametrize(
    "y",
    [
        reduce_sum(found(X, 40), axes=(2,)),
        reduce_sum(found(X), axes=(1, 2)),
        reduce_sum(found(X), axes=(0,)),
        reduce_sum(asg.reshape(X, (4, 41, 1)), axes=(2,)),
        reduce_max(asg.exp(found(X)[:, :8, 0]), axes=(1,)),
    ],
    ids=["long", "many windows", "another axis", "no windows", "one element of each window"],
)
def test_reasons_not_to_act(y: Tensor) -> None:
    assert len(reductions(y)[1]) == 1


def test_truth_values_are_left_alone() -> None:
    y = reduce_all(found(asg.input("b", (4, 41), "bool")), axes=(2,))
    assert any(node.op.name == "all" for node in reductions(y)[0].nodes)


MAPS = {
    "max": lambda x: F.max_pool2d(F.relu(x), 3, 2, 1),
    "mean": lambda x: F.avg_pool2d(x, 2) + 1.0,
    "depthwise": lambda x: F.relu(F.conv2d(x, asg.input("w", (6, 1, 3, 3)), groups=6)),
}


@pytest.mark.parametrize("name", MAPS)
def test_pooling_is_one_map(name: str) -> None:
    y = MAPS[name](asg.input("x", (2, 6, 8, 8)))
    plan = fuse(prepare(asg.graph(outputs={"y": y})))
    assert [kernel.kind for kernel in plan.kernels] == ["map"]


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
def test_pools_and_their_gradients_on_devices(schedule: str) -> None:
    x = asg.input("x", (2, 3, 9, 7))
    pooled = [F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1), F.max_pool2d(x, 7, 1)]
    loss = sum((asg.sum(each * each) for each in pooled), start=asg.sum(x))
    graph = asg.value_and_grad(asg.graph(outputs={"loss": loss}), of="loss", wrt=["x"])
    report = asg.testing.differential(graph, schedule=schedule)
    assert report.is_right, report


def test_a_residual_block_in_evaluation_is_one_product() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.norm(self.conv(x)) + x)

    for images in (1, 3):
        graph = asg.trace(Block().eval(), asg.spec((images, 8, 7, 7)))
        assert [kernel.kind for kernel in fuse(prepare(graph)).kernels] == ["contract"]
