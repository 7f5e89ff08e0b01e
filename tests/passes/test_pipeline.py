"""The pipeline is a tuple of passes, and observers see what each one did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from asg.errors import GraphError, InternalError
from asg.functions import exp, softmax
from asg.graph import Graph
from asg.op import Composite
from asg.ops.sources import constant, input
from asg.parse import parse_graph
from asg.passes.pipeline import (
    DEFAULT,
    DumpTo,
    Step,
    TimeEach,
    VerifyEach,
    pass_name,
    run_pipeline,
)
from asg.passes.simplify import Simplify
from asg.runtime.interpreter import run_with_updates
from asg.tolerances import STORED
from asg.types import is_floating
from asg.verify import verify
from support.random_graphs import RandomGraph, graphs

GRAPH = parse_graph("graph g(x: f32[2]) { a = neg(x) b = neg(a) y = exp(b) return y }")


@dataclass(frozen=True)
class Break:
    """Does what no pass may."""

    def __call__(self, graph: Graph) -> Graph:
        return replace(graph, nodes=tuple(reversed(graph.nodes)))


@dataclass(frozen=True)
class Crash:
    def __call__(self, graph: Graph) -> Graph:
        raise KeyError("lost")


NAMES = [
    "expand-calls",
    "drop-stop-gradients",
    "widen-narrow",
    "recognise",
    "fold-norms",
    "choose-layouts",
    "split-phases",
    "convolve",
    "expand-composites",
    "unroll-windows",
    "turn-maps",
    "prepare-constants",
    "simplify",
    "transpose-products",
    "simplify",
    "join-gelus",
]


def test_names_of_passes() -> None:
    assert [pass_name(each) for each in DEFAULT] == NAMES

    def my_pass(graph: Graph) -> Graph:
        return graph

    assert pass_name(my_pass) == "my-pass"
    assert repr(DEFAULT[1]) == "DropStopGradients()"


def test_passes_run_in_order_and_observers_see_each() -> None:
    seen: list[Step] = []
    result = run_pipeline(GRAPH, DEFAULT, [seen.append])
    assert [(step.index, step.name) for step in seen] == list(enumerate(["trace", *NAMES]))
    assert seen[0].before is None
    assert seen[0].after is GRAPH
    assert seen[-1].after is result
    assert [node.op.name for node in result.nodes] == ["input", "exp"]


def test_the_result_is_ready_for_fusion() -> None:
    graph = Graph.build({"y": softmax(input("x", (2, 3)), axis=-1).value})
    result = run_pipeline(graph, observers=[VerifyEach()])
    assert not any(isinstance(node.op.kind, Composite) for node in result.nodes)
    assert Simplify()(result) is result


def test_dumps_can_be_read(tmp_path: Path) -> None:
    x = input("x", (60,))
    graph = Graph.build({"y": (exp(x) * constant(np.linspace(0, 1, 60)) + 0.0).value})
    run_pipeline(graph, DEFAULT, [DumpTo(tmp_path / "dump")])
    files = {path.name: path for path in (tmp_path / "dump").iterdir()}
    steps = [f"{index:02}-{name}" for index, name in enumerate(["trace", *NAMES])]
    assert sorted(files) == [*(f"{step}.asg" for step in steps), "constants"]
    assert files["00-trace.asg"].read_text() == str(graph)
    assert files[f"{steps[1]}.asg"].read_text() == "(unchanged)\n"
    constants = {path.stem: np.load(path) for path in files["constants"].iterdir()}
    assert len(constants) == 1
    last = parse_graph(files[f"{steps[1 + NAMES.index('simplify')]}.asg"].read_text(), constants)
    assert [node.op.name for node in last.nodes] == ["input", "exp", "constant", "mul"]


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    with pytest.raises(InternalError, match=r"^internal: break made a wrong graph: graph g: "):
        run_pipeline(GRAPH, (Break(),), [VerifyEach()])


def test_a_graph_that_is_wrong_to_begin_with_is_no_internal_error() -> None:
    with pytest.raises(GraphError, match=r"^graph g: "):
        run_pipeline(Break()(GRAPH), (), [VerifyEach()])


def test_a_pass_that_crashes_is_named() -> None:
    with pytest.raises(InternalError, match=r"^internal: crash failed on graph g: KeyError\('lo"):
        run_pipeline(GRAPH, (Crash(),))


def test_times_print_as_a_table() -> None:
    times = TimeEach()
    run_pipeline(GRAPH, DEFAULT, [times])
    first = NAMES.index("simplify")
    assert [(name, nodes) for name, _, nodes in times.steps] == [
        ("trace", 4),
        *((name, 4) for name in NAMES[:first]),
        *((name, 2) for name in NAMES[first:]),
    ]
    assert str(times).splitlines()[-1].startswith("join-gelus           ")
    assert str(times).endswith("2 nodes")


@given(graphs(steps=16))
def test_meaning_is_kept(made: RandomGraph) -> None:
    result = run_pipeline(made.graph, observers=[VerifyEach()])
    verify(result)
    coarse = _coarseness(made.graph)
    for before, after in zip(
        run_with_updates(made.graph, made.inputs),
        run_with_updates(result, made.inputs),
        strict=True,
    ):
        for name, array in before.items():
            wide = [each.astype(np.float64) for each in (after[name], array)]
            scale = 1 + np.abs(wide[1]).max(initial=0) if is_floating(array) else 0
            np.testing.assert_allclose(*wide, rtol=coarse, atol=0.2 * coarse * scale)


def _coarseness(graph: Graph) -> float:
    """How much a result may change, relatively, where rounding to narrow types may turn out."""
    dtypes = {type_.dtype for node in graph.nodes for type_ in node.types if type_.dtype.is_float}
    return max([1e-5, *(4 * STORED[dtype][0] for dtype in dtypes)])
