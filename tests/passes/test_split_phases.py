"""Convolutions whose operand has zeros between neighbours, split by phases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

import asg
from asg.graph import Graph
from asg.ops.convolution import convolution
from asg.ops.sources import input as graph_input
from asg.passes.autodiff import grad
from asg.passes.split_phases import SplitPhases
from asg.runtime.interpreter import run
from asg.verify import verify

Pairs = tuple[tuple[int, int], ...]
always = SplitPhases(worthwhile=0)


@dataclass(frozen=True)
class Case:
    x: tuple[int, ...]
    w: tuple[int, ...]
    steps: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    groups: int = 1

    def graph(self) -> Graph:
        ones = (1,) * len(self.steps)
        y = convolution(
            graph_input("x", self.x), graph_input("w", self.w), strides=self.strides or ones,
            padding=self.padding, dilation=self.dilation or ones, lhs_dilation=self.steps,
            groups=self.groups,
        )  # fmt: skip
        return Graph.build({"y": y.value})


SPLIT = {
    "3x3 by 2": Case((2, 3, 4, 5), (4, 3, 3, 3), (2, 2), ((1, 2), (1, 1))),
    "4x4 by 2": Case((1, 2, 3, 3), (3, 2, 4, 4), (2, 2), ((2, 2), (2, 2))),
    "one axis of two": Case((1, 2, 5, 4), (3, 2, 3, 3), (1, 3), ((1, 0), (2, 1))),
    "by 3, fewer taps than phases": Case((2, 2, 5), (3, 2, 2), (3,), ((1, 1),)),
    "one tap": Case((1, 3, 5, 5), (2, 3, 1, 1), (2, 2), ((0, 1), (0, 0))),
    "dilated by the same": Case((1, 2, 7), (3, 2, 3), (2,), ((3, 2),), (2,)),
    "dilated by a part": Case((1, 2, 9), (3, 2, 5), (4,), ((5, 6),), (6,)),
    "dilated by a prime": Case((1, 2, 9), (3, 2, 5), (3,), ((5, 4),), (5,)),
    "cropped": Case((1, 2, 9), (3, 2, 3), (2,), ((-3, -2),)),
    "groups": Case((2, 6, 3, 4), (10, 3, 3, 3), (2, 2), ((1, 1), (2, 2)), groups=2),
    "strided elsewhere": Case((1, 2, 5, 6), (3, 2, 3, 3), (2, 1), ((1, 1),) * 2, (), (1, 2)),
    "3 axes": Case((1, 2, 2, 3, 2), (3, 2, 3, 2, 2), (2, 1, 2), ((1, 1), (0, 0), (1, 1))),
    "one element": Case((1, 1, 1), (2, 1, 3), (5,), ((2, 2),)),
}
WHOLE = {
    "no zeros": Case((1, 2, 5), (3, 2, 3), (1,), ((1, 1),)),
    "strided": Case((1, 2, 5), (3, 2, 3), (2,), ((1, 1),), (), (2,)),
    "depthwise": Case((1, 3, 5), (3, 1, 3), (2,), ((1, 1),), groups=3),
    "a phase beside the operand": Case((1, 2, 2), (3, 2, 2), (2,), ((-2, 5),)),
}


def largest_step(graph: Graph) -> int:
    found = [node.attrs["lhs_dilation"] for node in graph.nodes if node.op is convolution]
    return max((max(steps) for steps in found), default=1)


def numbers(graph: Graph) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    names = graph.input_names()
    return {name: random.normal(size=graph.input(name).type.shape) for name in names}


@pytest.mark.parametrize("case", SPLIT.values(), ids=SPLIT.keys())
def test_the_same_numbers_and_no_zeros(case: Case) -> None:
    graph = case.graph()
    split = always(graph)
    verify(split)
    assert largest_step(graph) > 1
    assert largest_step(split) == 1
    inputs = {name: each.astype(np.float32) for name, each in numbers(graph).items()}
    wanted = run(graph, inputs, dtype="f64")["y"]
    np.testing.assert_allclose(run(split, inputs, dtype="f64")["y"], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE.keys())
def test_what_stays_whole(case: Case) -> None:
    graph = case.graph()
    assert str(always(graph)) == str(graph)


def test_small_ones_stay_whole() -> None:
    graph = SPLIT["3x3 by 2"].graph()
    assert str(SplitPhases()(graph)) == str(graph)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["3x3 by 2", "by 3, fewer taps than phases", "groups", "3 axes"])
def test_on_the_device(name: str, schedule: str) -> None:
    graph = SPLIT[name].graph()
    passes = tuple(
        always if isinstance(each, SplitPhases) else each for each in asg.compiler.PIPELINE
    )
    inputs = {key: each.astype(np.float32) for key, each in numbers(graph).items()}
    with asg.compile(graph, schedule=schedule, passes=passes) as exe:
        found = exe(inputs)["y"]
    wanted = run(graph, inputs, dtype="f64")["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.device
def test_gradient_of_a_strided_convolution_by_default() -> None:
    make = partial(Case, (4, 16, 15, 17), (24, 16, 3, 3), (1, 1), ((1, 1), (1, 1)))
    loss = asg.Tensor(make(strides=(2, 2)).graph().outputs["y"])
    graph = grad(Graph.build({"loss": (loss * loss).sum().value}), of="loss", wrt=["x", "w"])
    assert largest_step(graph) == 2
    assert largest_step(SplitPhases()(graph)) == 1
    report = asg.testing.differential(graph)
    assert report.is_right, report
