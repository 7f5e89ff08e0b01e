"""Functions with a gradient of their own: meaning, derivatives of any order, text, mistakes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import AsgError, DTypeError, GradientError, GraphError, ParseError, ShapeError
from asg.graph import Graph
from asg.op import Composite, Op
from asg.runtime.interpreter import run
from asg.tensor import Tensor

X = np.array([-2.0, -0.5, 0.0, 0.25, 3.0], np.float32)


def _cube_backward(g: Any, y: Any, x: Any, *, scale: float) -> Any:
    return g * 3.0 * scale * x * x


@asg.custom_gradient(_cube_backward)
def cube(x: Any, *, scale: float = 1.0) -> Any:
    """Third power."""
    return x * x * x * scale


def _round_backward(g: Any, y: Any, x: Any) -> Any:
    return g  # straight through


@asg.custom_gradient(_round_backward, name="round_through")
def rounded(x: Any) -> Any:
    return asg.round(x)


def _parts_backward(g: Any, y: Any, x: Any, w: Any) -> Any:
    return g[0] * w + g[1] * y[0], None


@asg.custom_gradient(_parts_backward)
def parts(x: Any, w: Any) -> Any:
    return asg.exp(x), asg.stop_gradient(x) * w


def graph_of(op: Op, *shapes: tuple[int, ...], **attrs: Any) -> Graph:
    tensors = [asg.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    found = op(*tensors, **attrs)
    results = found if isinstance(found, tuple) else (found,)
    return asg.graph({f"y{i}": y for i, y in enumerate(results)} | {"loss": sum_of(results)})


def sum_of(results: tuple[Tensor, ...]) -> Tensor:
    total = asg.sum(results[0] * results[0])
    for result in results[1:]:
        total = total + asg.sum(result)
    return total


def test_it_computes_what_the_function_says() -> None:
    found = run(graph_of(cube, (5,), scale=2.0), {"x0": X})
    np.testing.assert_array_equal(found["y0"], X * X * X * 2)


def test_the_gradient_is_the_one_that_was_given() -> None:
    x = asg.input("x", (5,))
    graph = asg.graph({"loss": asg.sum(rounded(x * 2.0))})
    found = run(asg.grad(graph, wrt="x"), {"x": X})
    np.testing.assert_array_equal(found["x.grad"], np.full(5, 2.0, np.float32))


def test_second_and_third_derivatives() -> None:
    x = asg.input("x", (5,))
    graph = asg.graph({"loss": asg.sum(cube(x, scale=0.5))})
    expected = [1.5 * X * X, 3 * X, np.full(5, 3.0, np.float32)]
    for wanted in expected:
        gradients = asg.grad(graph, wrt="x")
        np.testing.assert_allclose(run(gradients, {"x": X})["x.grad"], wanted, rtol=1e-6)
        graph = asg.graph({"loss": asg.sum(Tensor(gradients.outputs["x.grad"]))})


def test_several_results_and_an_operand_without_gradient() -> None:
    x, w = asg.input("x", (5,)), asg.input("w", (5,))
    first, second = parts(x, w)
    graph = asg.graph({"loss": asg.sum(first) + asg.sum(second * 3.0)})
    found = run(asg.grad(graph, wrt=["x", "w"]), {"x": X, "w": X + 1})
    np.testing.assert_allclose(found["x.grad"], X + 1 + 3 * np.exp(X), rtol=1e-6)
    np.testing.assert_array_equal(found["w.grad"], np.zeros(5, np.float32))


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("op", [cube, rounded], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (4, 8)])
def test_it_compiles(op: Op, shape: tuple[int, ...], schedule: str) -> None:
    graph = asg.value_and_grad(graph_of(op, shape), wrt="x0")
    report = asg.testing.differential(graph, schedule=schedule)
    assert report.is_right, report


def test_gradients_are_checked_beside_differences() -> None:
    assert asg.testing.gradients(graph_of(cube, (5,)), {"x0": X}).is_right

    @asg.custom_gradient(lambda g, y, x: g * 2.0 * x)
    def wrong(x: Any) -> Any:
        return x * x * x

    report = asg.testing.gradients(graph_of(wrong, (5,)), {"x0": X})
    assert not report.is_right
    assert "wrong: main: y0 (wrong)" in str(report)


def test_it_is_spelt_out_before_other_passes() -> None:
    @asg.custom_gradient(lambda g, y, x, w: (g * 0.0, None))
    def nested(x: Any, w: Any) -> Any:
        return rounded(nn.functional.conv2d(asg.stop_gradient(x), w))

    graph = graph_of(nested, (1, 2, 5, 5), (3, 2, 3, 3))
    names = [node.op.name for node in asg.compiler.prepare(graph).nodes]
    assert "stop_gradient" not in names
    assert "matmul" in names


@pytest.mark.device
def test_training_with_one() -> None:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1))

    def loss(model: Any, batch: Any) -> Any:
        return nn.functional.mse_loss(cube(model(batch["x"]), scale=0.1), batch["y"])

    specs = {"x": asg.spec((16, 2)), "y": asg.spec((16, 1))}
    step = asg.training_step(model, loss, optim.AdamW(lr=0.01), **specs)
    assert asg.testing.differential(step).is_right


def test_it_prints_and_parses_once_registered() -> None:
    @asg.custom_gradient(lambda g, y, x, **_: g)
    def printed(x: Any, *, sizes: tuple[int, ...] = (1, 2), mode: str = "a") -> Any:
        return x

    graph = graph_of(printed, (5,), mode="b")
    text = str(graph)
    assert 'printed(x0, sizes=[1, 2], mode="b")' in text
    with pytest.raises(ParseError, match=r"line 2: there is no op 'printed'.*asg\.register_op"):
        asg.parse_graph(text)
    assert str(asg.parse_graph(text, ops={"printed": printed})) == text
    assert asg.register_op(printed) is printed
    assert str(asg.parse_graph(text)) == text


def test_a_name_is_registered_once() -> None:
    @asg.custom_gradient(_round_backward)
    def twice(x: Any) -> Any:
        return x

    asg.register_op(twice)
    asg.register_op(twice)

    @asg.custom_gradient(_round_backward, name="twice")
    def other(x: Any) -> Any:
        return x

    with pytest.raises(GraphError, match="another op is registered as 'twice'"):
        asg.register_op(other)
    asg.register_op(other, replace=True)
    with pytest.raises(GraphError, match="an op is registered, not function"):
        asg.register_op(lambda x: x)  # type: ignore[arg-type]


def test_two_ops_of_one_name_stay_apart() -> None:
    @asg.custom_gradient(_round_backward, name="same")
    def first(x: Any) -> Any:
        return x + 1.0

    @asg.custom_gradient(_round_backward, name="same")
    def second(x: Any) -> Any:
        return x + 2.0

    x = asg.input("x", (5,))
    graph = asg.graph({"a": first(x), "b": second(x)})
    found = run(graph, {"x": X})
    np.testing.assert_array_equal(found["b"] - found["a"], np.ones(5, np.float32))
    with pytest.raises(GraphError, match="two different ops are called 'same'"):
        asg.verify(graph)


def test_what_comes_from_outside_is_refused() -> None:
    w = asg.input("w", (5,), role="parameter")

    @asg.custom_gradient(_round_backward)
    def leaky(x: Any) -> Any:
        return x * w

    with pytest.raises(GraphError, match="leaky: uses parameter 'w' from outside"):
        leaky(asg.input("w", (5,)))


def bad_backward(found: Any) -> Op:
    @asg.custom_gradient(lambda g, y, x: found(g))
    def bad(x: Any) -> Any:
        return x

    return bad


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (bad_backward(lambda g: (g, g)), "bad: its gradient gives 2 cotangent(s) for 1 operand(s)"),
        (
            bad_backward(lambda g: asg.sum(g)),
            "bad: its gradient for operand 0 is f32[], the operand f32[5]",
        ),
    ],
)
def test_a_wrong_backward_is_named(op: Op, message: str) -> None:
    with pytest.raises(GradientError, match=re.escape(message)):
        asg.grad(graph_of(op, (5,)), wrt="x0")


def test_wrong_calls_are_refused() -> None:
    x = asg.input("x", (5,))
    cases: list[tuple[Any, type[AsgError], str]] = [
        (lambda: cube(x, x), ShapeError, "cube: takes 1 operand, got 2"),
        (
            lambda: cube(x, size=3),
            ShapeError,
            "cube: has no attribute size=; its attributes: scale",
        ),
        (lambda: cube(x, scale=x), DTypeError, "cube: attribute scale= is a tensor; operands are"),
        (lambda: cube(x, scale=[1]), DTypeError, "cube: attribute scale= is list, which has no"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=re.escape(message)) as caught:
            call()
        assert "at test_gradients.py:" in str(caught.value)


def test_wrong_definitions_are_refused() -> None:
    def f(x: Any) -> Any:
        return {"y": x}

    with pytest.raises(GraphError, match="an op can't be called 'exp'"):
        asg.custom_gradient(_round_backward, name="exp")(f)
    with pytest.raises(GraphError, match="an op's name is a Python identifier, got '<lambda>'"):
        asg.custom_gradient(_round_backward)(lambda x: x)
    with pytest.raises(GraphError, match=r"f: gives {'y': .*; a tensor or a tuple of tensors"):
        asg.custom_gradient(_round_backward)(f)(asg.input("x", (5,)))

    def g(x: Any, **rest: Any) -> Any:
        return x

    with pytest.raises(GraphError, match=r"g: attributes are named one by one, not \*\*rest"):
        asg.custom_gradient(_round_backward)(g)


def test_a_mistake_inside_shows_both_lines() -> None:
    @asg.custom_gradient(_round_backward)
    def mismatched(x: Any) -> Any:
        return x + asg.full((3,), 1.0)  # inner line

    with pytest.raises(ShapeError) as caught:
        mismatched(asg.input("x", (5,)))
    text = str(caught.value)
    assert text.startswith("mismatched: add: shapes [5] and [3] do not broadcast")
    assert "# inner line" in text
    assert 'mismatched(asg.input("x", (5,)))' in text


def test_it_is_kept_whole_for_differentiation() -> None:
    kind = cube.kind
    assert isinstance(kind, Composite)
    assert kind.is_call
    assert [node.op.name for node in graph_of(cube, (5,)).nodes][:2] == ["input", "cube"]
