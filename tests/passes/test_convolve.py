"""Forms of convolutions: which is taken, that none stores patches, and that all mean the same."""

from __future__ import annotations

import math

import pytest

import asg
from asg.compiler import fuse, prepare
from asg.graph import Graph
from asg.ops.convolution import convolution
from asg.ops.sources import input as graph_input
from asg.passes.autodiff import grad
from asg.passes.convolve import Convolve
from asg.verify import verify

Shape = tuple[int, ...]


def graph_of(
    x: Shape, w: Shape, *, stride: int = 1, low: int = 0, high: int = 0, dilation: int = 1,
    lhs_dilation: int = 1, groups: int = 1,
) -> Graph:  # fmt: skip
    axes = len(x) - 2
    y = convolution(
        graph_input("x", x), graph_input("w", w), strides=(stride,) * axes,
        padding=((low, high),) * axes, dilation=(dilation,) * axes,
        lhs_dilation=(lhs_dilation,) * axes, groups=groups,
    )  # fmt: skip
    return Graph.build({"y": y.value})


CASES = {
    "3x3": graph_of((1, 5, 7, 9), (6, 5, 3, 3), low=1, high=1),
    "quads": graph_of((2, 4, 8, 8), (8, 4, 3, 3), low=1, high=1),
    "7x7, stride 2": graph_of((1, 3, 13, 14), (8, 3, 7, 7), stride=2, low=3, high=3),
    "1x1": graph_of((2, 6, 4, 8), (7, 6, 1, 1)),
    "1x1, stride 2": graph_of((2, 6, 5, 7), (7, 6, 1, 1), stride=2),
    "small images": graph_of((5, 6, 3, 3), (9, 6, 2, 2), dilation=2, low=1, high=1),
    "groups": graph_of((2, 6, 5, 5), (12, 3, 3, 3), groups=2),
    "depthwise": graph_of((2, 5, 6, 8), (5, 1, 3, 3), low=1, high=1, groups=5),
    "depthwise, stride 2": graph_of((1, 3, 9, 7), (6, 1, 3, 3), stride=2, groups=3),
    "depthwise, large": graph_of((1, 3, 11, 9), (3, 1, 7, 7), low=3, high=3, groups=3),
    "transposed": graph_of((1, 4, 4, 5), (6, 4, 3, 3), low=1, high=2, lhs_dilation=2),
    "transposed by 3": graph_of((2, 2, 5), (3, 2, 4), low=3, high=3, lhs_dilation=3),
    "cropped": graph_of((1, 2, 9), (3, 2, 3), low=-2, high=-1, stride=2),
    "1 axis": graph_of((2, 3, 17), (4, 3, 5), low=2, high=2),
    "3 axes": graph_of((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), low=1, stride=2),
    "one": graph_of((1, 1, 1), (1, 1, 1)),
    "nothing": graph_of((2, 0, 5), (3, 0, 3), low=1, high=1),
}


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("graph", CASES.values(), ids=CASES.keys())
def test_forms_mean_the_same(graph: Graph, schedule: str) -> None:
    report = asg.testing.differential(graph, schedule=schedule)
    assert report.is_right, report


@pytest.mark.device
@pytest.mark.parametrize("case", ["3x3", "7x7, stride 2", "depthwise, stride 2", "groups"])
def test_gradients_mean_the_same(case: str) -> None:
    y = CASES[case]
    loss = asg.Tensor(y.outputs["y"])
    graph = grad(Graph.build({"loss": (loss * loss).sum().value}), of="loss", wrt=["x", "w"])
    report = asg.testing.differential(graph)
    assert report.is_right, report


def kernel_kinds(graph: Graph) -> list[str]:
    """The kinds of kernels that a graph becomes, which store nothing but its result."""
    plan = fuse(prepare(graph))
    (y,) = graph.results
    assert sum(value.type.size for value in plan.stored if not value.node.is_input) == y.type.size
    return [kernel.kind for kernel in plan.kernels]


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("3x3", ["contract"]),
        ("1x1, stride 2", ["contract"]),
        ("small images", ["contract"]),
        ("groups", ["contract"]),
        ("depthwise", ["map"]),
        ("depthwise, stride 2", ["map"]),
        ("depthwise, large", ["reduce"]),
        ("transposed", ["contract"]),
        ("transposed by 3", ["contract"]),
    ],
)
def test_one_kernel_and_no_stored_patches(case: str, kinds: list[str]) -> None:
    assert kernel_kinds(CASES[case]) == kinds


def test_few_images_are_products_of_their_own() -> None:
    def batch(graph: Graph) -> int:
        verify(graph)
        (product,) = (node for node in graph.nodes if node.op.name == "matmul")
        return math.prod(product.type.shape[:-2])

    assert batch(Convolve()(CASES["quads"])) == 2
    assert batch(Convolve()(CASES["small images"])) == 1
    assert batch(Convolve()(CASES["groups"])) == 2


def test_graphs_without_convolutions_are_left_alone() -> None:
    graph = Graph.build({"y": graph_input("x", (3,)).sum().value})
    assert Convolve()(graph) is graph
