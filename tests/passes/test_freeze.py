"""Parameters as constants, and what the compiler then computes itself."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.compiler import fuse, prepare
from asg.graph import Graph
from asg.nn import functional
from asg.ops.sources import constant
from asg.passes.fold_norms import FoldNorms
from asg.passes.prepare_constants import PrepareConstants
from asg.runtime.interpreter import run
from asg.tensor import Tensor
from asg.verify import verify


class Block(nn.Module):
    """Two convolutions with norms, around which what goes in is added."""

    def __init__(self, channels: int = 5, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, 1, groups=groups, bias=bias)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=bias)
        self.norm2 = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm1(self.first(x)))
        return functional.relu(self.norm2(self.second(h)) + x)


def block_graph(size: int = 7, **options: object) -> Graph:
    model = Block(**options)  # type: ignore[arg-type]
    random = np.random.default_rng(1)
    state = {
        name: random.uniform(0.5, 1.5, np.shape(each)).astype(np.float32)
        if np.asarray(each).dtype == np.float32
        else np.asarray(each)
        for name, each in model.state_dict().items()
    }
    model.load_state_dict(state)
    model.eval()
    channels = model.first.weight.shape[0]
    return asg.trace(model, asg.spec((2, channels, size, size)), names=["x"])


def x_of(graph: Graph) -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    return {"x": random.normal(size=graph.input("x").type.shape).astype(np.float32)}


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


@pytest.mark.parametrize("options", [{}, {"groups": 5}, {"bias": True}], ids=str)
def test_norms_go_into_the_kernels(options: dict[str, object]) -> None:
    graph = block_graph(**options)
    frozen = asg.freeze(graph)
    assert frozen.input_names() == ["x"]
    assert not frozen.values
    folded = FoldNorms()(frozen)
    verify(folded)
    assert FoldNorms()(folded) is folded
    assert "mul" not in ops(folded)
    assert "rsqrt" not in ops(folded)
    assert ops(folded).count("add") == 3  # two shifts and what goes around
    wanted = run(graph, x_of(graph), dtype="f64")["output"]
    found = run(folded, x_of(graph), dtype="f64")["output"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
def test_a_convolution_with_all_that_follows_is_one_kernel(schedule: str) -> None:
    graph = asg.freeze(block_graph(channels=6))
    assert [kernel.kind for kernel in fuse(prepare(graph)).kernels] == ["contract", "contract"]
    report = asg.testing.differential(graph, schedule=schedule)
    assert report.is_right, report


def test_norms_that_are_not_known_stay() -> None:
    graph = block_graph()
    assert FoldNorms()(graph) is graph


def test_results_that_others_read_stay() -> None:
    def two(x: Tensor) -> dict[str, Tensor]:
        w = constant(np.ones((3, 2, 1, 1), np.float32))
        y = functional.conv2d(x, w)
        return {"y": y, "scaled": y * constant(np.full((1, 3, 1, 1), 2.0, np.float32))}

    graph = asg.trace(two, asg.spec((1, 2, 4, 4)))
    assert FoldNorms()(graph) is graph


@pytest.mark.parametrize("shape", [(4,), (3, 4, 4), (1, 1, 4)], ids=str)
def test_scales_along_other_axes_stay(shape: tuple[int, ...]) -> None:
    def scaled(x: Tensor) -> Tensor:
        w = constant(np.ones((3, 2, 1, 1), np.float32))
        scale = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
        return functional.conv2d(x, w) * constant(scale)

    graph = asg.trace(scaled, asg.spec((1, 2, 4, 4)))
    assert FoldNorms()(graph) is graph


def test_updated_state_is_not_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.mse_loss(model(batch["x"]), batch["y"])

    batch = {"x": asg.spec((8, 3)), "y": asg.spec((8, 1))}
    train = asg.training_step(model, loss, optim.SGD(lr=0.1), **batch)
    predict = asg.trace(model, asg.spec((2, 3)))
    frozen = asg.freeze({"train": train, "predict": predict})
    assert str(frozen["train"]) == str(train)
    assert str(frozen["predict"]) == str(predict)
    assert asg.freeze(predict).input_names("parameter") == []


def test_kernels_are_transformed_while_compiling() -> None:
    """Winograd's: image, products, results. The kernels' transform is a constant."""
    graph = asg.freeze(block_graph(size=14, channels=96))
    kinds = sorted(kernel.kind for kernel in fuse(prepare(graph)).kernels)
    assert kinds == ["contract"] * 2 + ["map"] * 4


@pytest.mark.device
def test_large_frozen_convolutions_on_the_device() -> None:
    graph = block_graph(size=14, channels=96)
    with asg.compile(asg.freeze(graph)) as exe:
        found = exe(x_of(graph))["output"]
    wanted = run(graph, x_of(graph), dtype="f64")["output"]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=2e-6)


def test_what_grows_and_views_stay() -> None:
    def function(x: Tensor) -> dict[str, Tensor]:
        row = constant(np.arange(2000, dtype=np.float32))
        table = row.reshape(1, -1) + row.reshape(-1, 1)
        return {"turned": x + row.reshape(40, 50).permute(1, 0).reshape(-1), "table": table * x}

    graph = asg.trace(function, asg.spec((2000,)))
    assert PrepareConstants()(graph) is graph


def test_what_stays_small_is_computed() -> None:
    def function(x: Tensor) -> Tensor:
        row = constant(np.arange(2000, dtype=np.float32))
        return x + asg.exp(-row).reshape(2, 1000).sum(axis=0)

    graph = asg.trace(function, asg.spec((1000,)))
    prepared = PrepareConstants()(graph)
    assert ops(prepared) == ["input", "constant", "add"]
    assert PrepareConstants()(prepared) is prepared
    x = {"x": np.ones(1000, np.float32)}
    np.testing.assert_allclose(run(prepared, x)["output"], run(graph, x)["output"], rtol=1e-6)
