"""Three by three convolutions through Winograd's transforms."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg.compiler import fuse, prepare
from asg.graph import Graph
from asg.ops.convolution import convolution
from asg.passes import winograd
from asg.passes.convolve import Convolve
from asg.runtime.interpreter import run
from asg.tensor import Tensor

SHAPES = [
    # images, channels, kernels, height, width, padding
    (1, 64, 64, 24, 24, ((1, 1), (1, 1))),
    (2, 67, 65, 15, 31, ((1, 1), (1, 1))),
    (17, 64, 73, 10, 6, ((0, 0), (0, 0))),
    (2, 64, 66, 15, 28, ((2, 0), (0, 3))),
    (3, 65, 64, 16, 17, ((-1, 2), (1, -2))),
    (1, 130, 129, 14, 14, ((1, 1), (1, 1))),
    (6, 256, 200, 7, 7, ((1, 1), (1, 1))),
]


def convolved(shape: tuple[int, ...], padding: tuple[tuple[int, int], ...]) -> Graph:
    images, channels, kernels, height, width = shape

    def function(x: Tensor, w: Tensor) -> Tensor:
        result: Tensor = convolution(
            x, w, strides=(1, 1), padding=padding, dilation=(1, 1), lhs_dilation=(1, 1), groups=1
        )
        return result

    return asg.trace(
        function,
        asg.spec((images, channels, height, width)),
        asg.spec((kernels, channels, 3, 3)),
    )


def operands(graph: Graph) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=graph.input(name).type.shape).astype(np.float32)
        for name in graph.input_names()
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_numbers_in_exact_arithmetic(shape: tuple[object, ...]) -> None:
    *sizes, padding = shape
    graph = convolved(tuple(sizes), padding)  # type: ignore[arg-type]
    inputs = operands(graph)
    spelt_out = Convolve()(graph)
    assert any(node.op.name == "pack" for node in spelt_out.nodes)
    wanted = run(graph, inputs, dtype="f64")["output"]
    np.testing.assert_allclose(
        run(spelt_out, inputs, dtype="f64")["output"], wanted, rtol=1e-10, atol=1e-10
    )


@pytest.mark.device
@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_the_device(shape: tuple[object, ...], family: str) -> None:
    *sizes, padding = shape
    graph = convolved(tuple(sizes), padding)  # type: ignore[arg-type]
    inputs = operands(graph)
    with asg.compile(graph, target="wgpu", schedule=family) as exe:
        found = exe(inputs)["output"]
    wanted = run(graph, inputs, dtype="f64")["output"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-4)


def test_four_kernels_with_what_follows() -> None:
    """Image, kernels, products, and results with bias, activation and residual."""

    def block(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = convolution(
            x, w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), lhs_dilation=(1, 1),
            groups=1,
        )  # fmt: skip
        return asg.maximum(y + b.reshape(-1, 1, 1), 0.0) + x

    graph = asg.trace(block, asg.spec((1, 64, 32, 32)), asg.spec((64, 64, 3, 3)), asg.spec((64,)))
    kinds = sorted(kernel.kind for kernel in fuse(prepare(graph)).kernels)
    assert kinds == ["contract", "map", "map", "map"]


@pytest.mark.parametrize(
    "shape",
    [(1, 16, 128, 56, 56), (1, 64, 64, 14, 14), (1, 512, 512, 4, 4), (64, 64, 64, 56, 56)],
    ids=["few-channels", "little-work", "few-places", "too-large"],
)
def test_where_it_does_not_pay(shape: tuple[int, ...]) -> None:
    graph = convolved(shape, ((1, 1), (1, 1)))
    assert not any(node.op.name == "pack" for node in Convolve()(graph).nodes)
    assert winograd.MOST_BYTES < 1 << 27


def test_narrow_numbers_are_not_transformed() -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        result: Tensor = convolution(
            x, w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), lhs_dilation=(1, 1),
            groups=1,
        )  # fmt: skip
        return result

    graph = asg.trace(function, asg.spec((1, 64, 56, 56), "f16"), asg.spec((64, 64, 3, 3), "f16"))
    assert not any(node.op.name == "pack" for node in Convolve()(graph).nodes)
