"""The interpreter: what it takes, what it yields, what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from asg.errors import InputError, InternalError
from asg.graph import Graph, Node
from asg.op import Elementwise, Op, not_differentiable
from asg.ops.rules import FLOAT, pointwise
from asg.ops.sources import input
from asg.parse import parse_graph
from asg.runtime.interpreter import run, run_with_updates

GRAPH = parse_graph(
    """
    graph step(x: f32[2, 3], w: parameter f32[3], n: state i32[], k: u32[], b: bool[2]) {
      one = constant(1)
      more = add(n, one)
      wide = broadcast(w, shape=[2, 3])
      y = mul(x, wide)
      next_w = sum(y, axes=[0])
      k2 = add(k, k)
      not_b = bitwise_not(b)
      return y, k2, not_b, old_n=n
      update w = next_w
      update n = more
    }
    """,
    values={"w": np.array([1, 2, 3], np.float32)},
)
X = np.arange(6, dtype=np.float32).reshape(2, 3)
INPUTS = {"x": X, "k": np.uint32(2**31 + 1), "b": np.array([True, False])}


def test_outputs_and_updates() -> None:
    outputs, updates = run_with_updates(GRAPH, INPUTS)
    assert list(outputs) == ["y", "k2", "not_b", "old_n"]
    np.testing.assert_array_equal(outputs["y"], X * [1, 2, 3])
    assert outputs["y"].dtype == np.float32
    assert (outputs["k2"], outputs["k2"].dtype) == (2, np.uint32)
    assert outputs["not_b"].tolist() == [False, True]
    assert outputs["old_n"] == 0, "state without a value starts as zero"
    np.testing.assert_array_equal(updates["w"], [3, 10, 21])
    assert (updates["n"], updates["n"].dtype) == (1, np.int32)


def test_values_take_the_place_of_the_graphs() -> None:
    values = {"w": np.ones(3, np.float32), "n": np.int32(7)}
    outputs, updates = run_with_updates(GRAPH, INPUTS, values=values)
    np.testing.assert_array_equal(outputs["y"], X)
    assert updates["n"] == 8
    again = run(GRAPH, {**INPUTS, "w": np.zeros(3, np.float32)}, values=values)
    assert not again["y"].any(), "what is given by name comes first"


def test_several_steps() -> None:
    values = dict(GRAPH.values)
    for _ in range(3):
        _, values = run_with_updates(GRAPH, INPUTS, values=values)
    assert values["n"] == 3


def test_float64() -> None:
    text = (
        "graph g(x: f32[]) { c = constant(0.1) y = add(x, c) i = cast(y, dtype=i32) return y, i }"
    )
    graph = parse_graph(text)
    found = run(graph, {"x": np.float64(1e-12)}, dtype="f64")
    assert found["y"].dtype == np.float64
    assert found["y"] == float(np.float32(0.1)) + 1e-12
    assert found["i"].dtype == np.int32


def test_observers_see_every_node_in_order() -> None:
    seen: list[Node] = []

    def observe(node: Node, results: tuple[np.ndarray, ...]) -> None:
        assert [array.shape for array in results] == [type_.shape for type_ in node.types]
        seen.append(node)

    run(GRAPH, INPUTS, observe=observe)
    assert tuple(seen) == GRAPH.nodes


def test_overflow_is_no_warning() -> None:
    graph = parse_graph("graph g(x: f32[]) { a = exp(x) b = log(x) y = div(a, b) return y, b }")
    assert run(graph, {"x": np.float32(1000)})["y"] == np.inf
    assert np.isnan(run(graph, {"x": np.float32(-1)})["b"])


def test_inputs_that_nothing_reads_are_still_checked() -> None:
    graph = parse_graph("graph g(x: f32[], unused: f32[2]) { return x }")
    with pytest.raises(InputError, match="input 'unused' has no value; it is f32\\[2\\]"):
        run(graph, {"x": np.float32(0)})


def test_64_bit_numbers_narrow_in_range() -> None:
    found = run(GRAPH, {"x": X.astype(np.float64), "k": 5, "b": [True, False]})
    assert found["k2"] == 10
    assert found["y"].dtype == np.float32


WRONG = {
    "graph step has no input 'z'; inputs: x, w, n, k, b": {"z": X},
    "input 'x' is f32[2, 3], got shape [3, 2] (float32)": {"x": X.T},
    "input 'x' is f32[2, 3], got int64[2, 3]; fix: convert it with .astype('float32')":
        {"x": X.astype(np.int64)},
    "input 'x' is f32[2, 3], but 1e+39 is out of its range": {"x": np.full((2, 3), 1e39)},
    "input 'k' is u32[], but -1 is out of its range": {"k": -1},
    "input 'k' is u32[], but 4294967296 is out of its range": {"k": 2**32},
    "input 'b' is bool[2], got int64[2]; fix: convert it with .astype('bool')": {"b": [0, 1]},
    "input 'k' is u32[], got float64[]; fix: convert it with .astype('uint32')": {"k": 1.0},
    "state 'n' is i32[], got shape [1] (int32)": {"n": np.zeros(1, np.int32)},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_inputs_that_do_not_fit(message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(GRAPH, {**INPUTS, **WRONG[message]})


def test_missing_inputs() -> None:
    with pytest.raises(InputError, match=r"^input 'x' has no value; it is f32\[2, 3\]$"):
        run(GRAPH, {"k": INPUTS["k"], "b": INPUTS["b"]})
    bare = GRAPH.with_values({})
    with pytest.raises(InputError, match=r"^parameter 'w' has no value; it is f32\[3\]$"):
        run(bare, INPUTS)


def test_a_rule_with_a_wrong_shape_is_an_internal_error() -> None:
    liar = Op(
        "liar", "", Elementwise("{0}"), pointwise(1, FLOAT), lambda x: x[:1],
        not_differentiable("it lies"), [], [], [],
    )  # fmt: skip
    graph = Graph.build({"y": liar(input("x", (2,))).value})
    with pytest.raises(InternalError, match=r"^internal: the NumPy rule of liar gives shape \[1\]"):
        run(graph, {"x": np.zeros(2, np.float32)})
