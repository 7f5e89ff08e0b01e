"""Gradients of graphs: what common machinery adds to the rules of the ops."""

from __future__ import annotations

import re

import numpy as np
import pytest

from asg.errors import GradientError
from asg.format import format_graph
from asg.functions import exp, stop_gradient
from asg.graph import Graph
from asg.op import Elementwise, Op, no_gradient
from asg.ops.rules import FLOAT, pointwise
from asg.ops.sources import constant, input
from asg.parse import parse_graph
from asg.passes.autodiff import grad, value_and_grad
from asg.passes.pipeline import run_pipeline
from asg.runtime.interpreter import run, run_with_updates
from asg.site import scope
from asg.tensor import Tensor
from asg.verify import verify
from support.random_graphs import RandomGraph, random_graph


def gradient(text: str, *args, **options) -> str:
    """The gradient of a graph, simplified, as text without comments."""
    graph = grad(parse_graph(text), *args, **options)
    verify(graph)
    return squeeze(format_graph(run_pipeline(graph), sites=False))


def squeeze(text: str) -> str:
    return re.sub(r" +", " ", text).strip()


def test_gradient_as_text() -> None:
    assert gradient("""
        graph g(x: f32[4, 3], w: parameter f32[3, 2]) {
          y = matmul(x, w)
          z = exp(y)
          loss = sum(z, axes=[0, 1])
          return loss
        }
    """) == squeeze("""
graph g(x: f32[4, 3], w: parameter f32[3, 2]) {
 matmul_1 = matmul(x, w) : f32[4, 2]
 exp_1 = exp(matmul_1) : f32[4, 2]
 permute_1 = permute(x, axes=[1, 0]) : f32[3, 4]
 w.grad = matmul(permute_1, exp_1) : f32[3, 2]
 return w.grad
}
""")


def test_a_value_used_twice_gets_the_sum() -> None:
    assert gradient("""
        graph g(x: parameter f32[], y: f32[]) {
          loss = mul(x, y)
          more = mul(loss, x)
          return loss=more
        }
    """) == squeeze("""
graph g(x: parameter f32[], y: f32[]) {
 mul_1 = mul(x, y) : f32[]
 add_1 = add(mul_1, mul_1) : f32[]
 return x.grad=add_1
}
""").replace("return x.grad=add_1", "return x.grad").replace("add_1 =", "x.grad =")  # fmt: skip


def test_only_what_lies_between_is_visited() -> None:
    """The rule of an op that `wrt` does not reach is not even called."""

    def refuse(*args):
        raise AssertionError("called")

    trap = Op("trap", "", Elementwise("{0}"), pointwise(1, FLOAT), lambda x: x, refuse, [], [], [])
    x, w = input("x", (2,)), input("w", (2,), role="parameter")
    graph = Graph.build({"loss": (trap(x) * w).sum().value, "other": trap(w).value})
    assert grad(graph).input_names() == ["x", "w"]


def test_inputs_that_the_loss_does_not_need_get_zeros() -> None:
    text = "graph g(x: f32[], w: parameter f32[2]) { loss = exp(x) return loss }"
    assert run(grad(parse_graph(text)), {"x": np.float32(1), "w": np.ones(2, "f")})[
        "w.grad"
    ].tolist() == [0.0, 0.0]


def test_nothing_flows_through_integers_and_flat_ops() -> None:
    graph = parse_graph("""
        graph g(x: f32[2]) {
          i = cast(x, dtype=i32)
          f = cast(i, dtype=f32)
          r = round(x)
          c = less(x, r)
          s = select(c, f, r)
          t = add(s, x)
          loss = sum(t, axes=[0])
          return loss
        }
    """)
    x = np.array([0.25, 1.75], np.float32)
    assert run(grad(graph, wrt="x"), {"x": x})["x.grad"].tolist() == [1.0, 1.0]


def test_stop_gradient() -> None:
    x = input("x", (2,))
    graph = Graph.build({"loss": (stop_gradient(x) * x).sum().value})
    x_value = np.array([3.0, 5.0], np.float32)
    assert run(grad(graph, wrt="x"), {"x": x_value})["x.grad"].tolist() == [3.0, 5.0]


def test_an_output_that_is_an_input() -> None:
    graph = parse_graph("graph g(x: f32[], y: f32[]) { return loss=x }")
    found = run(grad(graph, wrt=["x", "y"]), {"x": np.float32(2), "y": np.float32(3)})
    assert found == {"x.grad": 1.0, "y.grad": 0.0}


def test_default_wrt_is_every_float_parameter() -> None:
    graph = parse_graph("""
        graph g(x: f32[], a: parameter f32[], n: parameter i32[], b: parameter f32[]) {
          y = mul(a, b)
          loss = mul(x, y)
          return loss
        }
    """)
    assert list(grad(graph).outputs) == ["a.grad", "b.grad"]
    assert list(value_and_grad(graph).outputs) == ["loss", "a.grad", "b.grad"]
    assert grad(graph).input_names() == graph.input_names()


def test_state_and_values_are_kept() -> None:
    graph = parse_graph(
        """
        graph g(w: parameter f32[], n: state f32[]) {
          loss = mul(w, n)
          m = add(n, w)
          return loss
          update n = m
        }
        """,
        values={"w": np.float32(2), "n": np.float32(3)},
    )
    outputs, updates = run_with_updates(grad(graph), {})
    assert outputs == {"w.grad": 3.0}
    assert updates == {"n": 5.0}


def test_nodes_tell_where_they_come_from() -> None:
    x = input("x", ())
    with scope("head"):
        loss = exp(x)
    made = grad(Graph.build({"loss": loss.value}), wrt="x")
    assert {(n.site, n.scope) for n in made.nodes if n.note} == {(loss.node.site, "head")}
    assert all(node.note == "gradient" for node in made.nodes[2:])


def test_seeds_name_cotangents() -> None:
    text = "graph g(x: f32[2]) { y = exp(x) z = mul(x, x) return y, z }"
    graph = parse_graph(text)
    x = np.array([0.0, 1.0], np.float32)
    made = grad(graph, wrt="x", seed={"y": "y.cotangent"})
    assert made.input_names() == ["x", "y.cotangent"]
    v = np.array([2.0, 3.0], np.float32)
    np.testing.assert_allclose(
        run(made, {"x": x, "y.cotangent": v})["x.grad"], v * np.exp(x), rtol=1e-6
    )
    made = grad(graph, wrt="x", seed={"z": np.array([1.0, 10.0]), "y": 1.0})
    np.testing.assert_allclose(run(made, {"x": x})["x.grad"], [1.0, 20.0 + np.e], rtol=1e-6)


def test_second_derivatives() -> None:
    """d²/dx² of x³ is 6x; a Hessian times a vector by a seed agrees."""
    graph = parse_graph("graph g(x: f32[]) { s = mul(x, x) loss = mul(s, x) return loss }")
    first = grad(graph, wrt="x")
    second = grad(first, of="x.grad", wrt="x")
    assert run(second, {"x": np.float32(5)}) == {"x.grad": 30.0}
    again = grad(first, wrt="x", seed={"x.grad": "v"})
    assert run(again, {"x": np.float32(5), "v": np.float32(2)}) == {"x.grad": 60.0}
    third = grad(second, of="x.grad", wrt="x")
    assert run(third, {"x": np.float32(5)}) == {"x.grad": 6.0}


def test_deep_graphs_need_no_recursion() -> None:
    x = input("x", ())
    y = x
    for _ in range(5000):
        y = y * 1.0001
    made = grad(Graph.build({"loss": y.value}), wrt="x")
    assert run(made, {"x": np.float32(1)})["x.grad"] == pytest.approx(1.0001**5000, rel=1e-3)


def loss_of(graph: Graph) -> Graph:
    """The graph with one output: a sum of all others, each element with its own weight."""
    total = constant(0.0)
    for value in graph.outputs.values():
        x = Tensor(value)
        weights = np.cos(np.arange(x.size) + 0.5).reshape(x.shape)
        total = total + (x * constant(weights)).sum()
    return Graph.build({"loss": total.value}, inputs=graph.inputs, values=graph.values)


def directional(graph: Graph, inputs: dict[str, np.ndarray], seed: int) -> tuple[float, float]:
    """The derivative along a random direction: by the gradient, and by central differences."""
    wrt = floats(graph)
    gradients = run(grad(graph, wrt=wrt), inputs, dtype="f64")
    source = np.random.default_rng(seed)
    step = 1e-6
    direction = {name: source.normal(size=inputs[name].shape) for name in wrt}

    def moved(sign: int) -> float:
        there = {name: inputs[name] + sign * step * direction[name] for name in wrt}
        return float(run(graph, {**inputs, **there}, dtype="f64")["loss"])

    by_gradient = sum(float((gradients[f"{name}.grad"] * direction[name]).sum()) for name in wrt)
    return by_gradient, (moved(1) - moved(-1)) / (2 * step)


def floats(graph: Graph) -> list[str]:
    return [node.attrs["name"] for node in graph.inputs if node.type.dtype.is_float]


def as_inputs(made: RandomGraph) -> dict[str, np.ndarray]:
    every = {**made.graph.values, **made.inputs}
    is_float = {name: array.dtype.kind == "f" for name, array in every.items()}
    return {n: array.astype(np.float64) if is_float[n] else array for n, array in every.items()}


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_agree_with_central_differences(seed: int) -> None:
    made = random_graph(seed, smooth=True, steps=14)
    graph, inputs = loss_of(made.graph), as_inputs(made)
    by_gradient, by_difference = directional(graph, inputs, seed)
    assert by_gradient == pytest.approx(by_difference, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_second_derivatives_agree_with_central_differences(seed: int) -> None:
    made = random_graph(seed, smooth=True, steps=8)
    graph, inputs = loss_of(made.graph), as_inputs(made)
    first = grad(graph, wrt=floats(graph))
    verify(first)
    by_gradient, by_difference = directional(loss_of(first), inputs, seed)
    assert by_gradient == pytest.approx(by_difference, rel=1e-4, abs=1e-4)


LOSS = "graph g(x: f32[2], i: i32[], w: parameter i32[]) { y = exp(x) loss = sum(y, axes=[0])" \
    " n = add(i, w) return loss, y, n }"  # fmt: skip
WRONG = {
    "graph g has no output 'lost'; outputs: loss, y, n": {"of": "lost", "wrt": "x"},
    "graph g has no input 'z'; inputs: x, i, w": {"wrt": ["x", "z"]},
    "input 'i' is i32[]; only floats have gradients": {"wrt": ["i"]},
    "graph g has no float parameters; say by which inputs to differentiate: wrt=[...]; "
    "inputs: x, i, w": {},
    "output 'y' is f32[2]; a gradient is taken of a scalar\n"
    "  fix: reduce it with asg.sum or asg.mean, or name its cotangent with seed=":
        {"of": "y", "wrt": "x"},
    "output 'n' is i32[]; only floats have gradients": {"of": "n", "wrt": "x"},
    "output 'y' is f32[2], its seed has shape [3]": {"wrt": "x", "seed": {"y": np.ones(3)}},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_errors(message: str) -> None:
    with pytest.raises(GradientError) as caught:
        grad(parse_graph(LOSS), **WRONG[message])
    assert str(caught.value) == message


def test_names_of_gradients_must_be_free() -> None:
    graph = parse_graph("graph g(w: f32[]) { loss = exp(w) return loss, w.grad=w }")
    with pytest.raises(GradientError, match=r"has an output 'w\.grad' already; use asg\.grad"):
        value_and_grad(graph, wrt="w")


def test_ops_without_gradient_are_named_with_their_line() -> None:
    hard = Op("hard", "", Elementwise("{0}"), pointwise(1, FLOAT), lambda x: x,
              no_gradient("nobody has derived it"), [], [], [])  # fmt: skip
    x = input("x", ())
    y = hard(x)
    graph = Graph.build({"loss": (y * x).value, "free": (hard(constant(1.0)) * x).value})
    with pytest.raises(GradientError) as caught:
        grad(graph, wrt="x")
    site = y.node.site
    assert site is not None
    assert str(caught.value) == (
        "hard has no gradient: nobody has derived it\n"
        f"  at test_autodiff.py:{site.line} in {site.function}:  y = hard(x)\n"
        "  fix: asg.stop_gradient, where none is wanted through it"
    )
    assert run(grad(graph, of="free", wrt="x"), {"x": np.float32(2)}) == {"x.grad": 1.0}
