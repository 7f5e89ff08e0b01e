"""Ops that a user defines: by an expression in WGSL, or by other ops."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import asg
from asg.errors import AsgError, DTypeError, GradientError, GraphError, ShapeError
from asg.graph import Graph
from asg.op import Op, not_differentiable
from asg.runtime.interpreter import run
from asg.types import TensorType

X = np.array([-4.0, -1.0, 0.5, 2.0, 5.0], np.float32)


def _leaky(x: Any, *, slope: float = 0.1) -> Any:
    return np.where(x < 0, x * slope, x)


leaky = asg.define_op(
    "leaky",
    numpy=_leaky,
    wgsl="select({0}, {0} * {slope}, {0} < {F}(0.0))",
    gradient=lambda g, y, x, *, slope: g * asg.where(x < 0.0, slope, 1.0),
)

hypotenuse = asg.define_op(
    "hypotenuse",
    numpy=lambda x, y: np.sqrt(x * x + y * y),
    wgsl="sqrt({0} * {0} + {1} * {1})",
    gradient=lambda g, r, x, y: (g * x / r, g * y / r),
)

parity = asg.define_op(
    "parity",
    numpy=lambda x: x % 2 == 1,
    wgsl={"i32": "({0} & {I}(1)) == {I}(1)", "u32": "({0} & {U}(1u)) == {U}(1u)"},
    types=lambda x: asg.spec(x.shape, "bool"),
    gradient=not_differentiable("it takes integers"),
)


def _norm(x: Any, *, power: float) -> Any:
    return np.sum(np.abs(x) ** power, axis=-1) ** (1 / power)


power_norm = asg.define_op(
    "power_norm",
    numpy=_norm,
    expand=lambda x, *, power: asg.sum(asg.abs(x) ** power, axis=-1) ** (1 / power),
)


def graph_of(op: Op, *types: TensorType, **attrs: Any) -> Graph:
    tensors = [asg.input(f"x{i}", type_) for i, type_ in enumerate(types)]
    result = op(*tensors, **attrs)
    outputs = {"y": result}
    if result.dtype.is_float:
        outputs["loss"] = asg.sum(result * result)
    return asg.graph(outputs)


def f32(*shape: int) -> TensorType:
    return asg.spec(shape)


def test_it_means_what_numpy_says() -> None:
    found = run(graph_of(leaky, f32(5), slope=0.5), {"x0": X})
    np.testing.assert_array_equal(found["y"], np.array([-2, -0.5, 0.5, 2, 5], np.float32))
    found = run(graph_of(leaky, f32(5)), {"x0": X})
    np.testing.assert_array_equal(found["y"][:2], X[:2] * np.float32(0.1))


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (4, 8)])
@pytest.mark.parametrize("op", [leaky, hypotenuse], ids=str)
def test_expressions_compile(op: Op, shape: tuple[int, ...], schedule: str) -> None:
    count = 2 if op is hypotenuse else 1
    graph = graph_of(op, *[f32(*shape)] * count)
    graph = asg.value_and_grad(graph, wrt=graph.input_names())
    report = asg.testing.differential(graph, schedule=schedule)
    assert report.is_right, report


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["i32", "u32"])
def test_expressions_by_dtype(dtype: str) -> None:
    report = asg.testing.differential(graph_of(parity, asg.spec((3, 4), dtype)))
    assert report.is_right, report


@pytest.mark.device
def test_operands_are_broadcast_and_promoted() -> None:
    x, n = asg.input("x", (3, 1)), asg.input("n", (4,), "i32")
    graph = asg.graph({"y": hypotenuse(x, n) + hypotenuse(3.0, 4)})
    assert graph.outputs["y"].type == f32(3, 4)
    assert asg.testing.differential(graph).is_right


@pytest.mark.device
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 0)])
def test_compositions_compile(shape: tuple[int, ...]) -> None:
    graph = asg.value_and_grad(graph_of(power_norm, f32(*shape), power=3.0), wrt="x0")
    report = asg.testing.differential(graph)
    assert report.is_right, report


def test_gradients_are_checked() -> None:
    assert asg.testing.gradients(graph_of(leaky, f32(5)), {"x0": X}).is_right
    graph = graph_of(hypotenuse, f32(5), f32(5))
    assert asg.testing.gradients(graph, {"x0": X, "x1": X[::-1].copy()}).is_right


def test_second_derivatives() -> None:
    x = asg.input("x", (5,))
    once = asg.grad(asg.graph({"loss": asg.sum(hypotenuse(x, 3.0))}), wrt="x")
    twice = asg.grad(asg.graph({"loss": asg.sum(asg.Tensor(once.outputs["x.grad"]))}), wrt="x")
    found = run(twice, {"x": X})["x.grad"]
    np.testing.assert_allclose(found, 9 / (X * X + 9) ** 1.5, rtol=1e-5)


def test_a_wrong_expansion_is_found() -> None:
    op = asg.define_op(
        "wrong_sum",
        numpy=lambda x: np.sum(x, axis=-1),
        expand=lambda x: asg.sum(x, axis=-1) * 1.01,
    )
    report = asg.testing.differential(graph_of(op, f32(3, 4)), target="numpy")
    assert not report.is_right
    assert "wrong: main: expand-calls" in str(report)


@pytest.mark.device
def test_a_wrong_expression_is_found() -> None:
    op = asg.define_op("wrong_half", numpy=lambda x: x / 2, wgsl="{0} * 0.501")
    graph = asg.graph({"y": asg.exp(op(asg.exp(asg.input("x", (3, 4)))))})
    finding = asg.testing.bisect(graph)
    assert finding is not None
    assert "wrong_half" in finding.blame


@pytest.mark.device
def test_an_expression_that_does_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASG_WGSL_DUMP", raising=False)  # all that is kept there must compile
    op = asg.define_op("broken", numpy=lambda x: x, wgsl="{0} + vec2f(1.0)")
    with pytest.raises(AsgError) as caught:
        asg.compile(graph_of(op, f32(3)))
    assert "broken" in str(caught.value)
    assert "test_define.py:" in str(caught.value)


def test_no_gradient_unless_given() -> None:
    op = asg.define_op("flat_op", numpy=lambda x: x, wgsl="{0}")
    with pytest.raises(GradientError, match="flat_op has no gradient: its definition gives none"):
        asg.grad(graph_of(op, f32(3)), wrt="x0")


def numpy_op(numpy: Any, **kwargs: Any) -> Op:
    return asg.define_op("tested", numpy=numpy, wgsl="{0}", **kwargs)


@pytest.mark.parametrize(
    ("numpy", "error", "message"),
    [
        (lambda x: x[1:], ShapeError, "gives shape [4], its type rule says f32[5]"),
        (lambda x: x > 0, DTypeError, "gives bool, its type rule says f32[5]: a float"),
        (lambda x: x.astype(np.int32), DTypeError, "gives int32, its type rule says f32[5]"),
    ],
)
def test_a_numpy_meaning_must_fit_the_types(numpy: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=re.escape(f"tested: its NumPy function {message}")):
        run(graph_of(numpy_op(numpy), f32(5)), {"x0": X})


def test_type_rules_are_checked() -> None:
    cases: list[tuple[Any, str]] = [
        (lambda x: x.shape, "tested: its type rule gives 3, which is no type"),
        (lambda x: asg.spec((2,)), "tested: an expression per element keeps one shape, got f32[3]"),
        (lambda x: 1 / 0, "tested: its type rule fails: ZeroDivisionError"),
    ]
    for types, message in cases:
        with pytest.raises(ShapeError, match=re.escape(message)):
            graph_of(numpy_op(lambda x: x, types=types), f32(3))
    with pytest.raises(DTypeError, match="tested: needs a float input, got i32"):
        graph_of(numpy_op(lambda x: x), asg.spec((3,), "i32"))
    op = asg.define_op("summed", expand=lambda x: asg.sum(x), types=lambda x: x)
    with pytest.raises(ShapeError, match=re.escape("summed: it is spelt out as f32[], its type")):
        asg.compiler.prepare(graph_of(op, f32(3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numpy": np.sin}, "d: give either wgsl or expand"),
        ({"wgsl": "{0}"}, "d: an expression needs numpy="),
        ({"numpy": lambda x: x, "wgsl": "{0} + {1}"}, "d: its WGSL names operand {1}, it has 1"),
        ({"numpy": np.sin, "wgsl": "1.0"}, "d: its WGSL names no operand"),
        ({"numpy": np.sin, "wgsl": "{0"}, "d: its WGSL has a brace that names nothing"),
        ({"numpy": np.sin, "wgsl": "{x}"}, "d: its WGSL names {x}; known: {0}, {1} …, {F}"),
    ],
)
def test_wrong_definitions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=re.escape(message)):
        asg.define_op("d", **arguments)


def test_an_attribute_without_default_is_asked_for() -> None:
    with pytest.raises(ShapeError, match="power_norm: lacks the attribute power="):
        power_norm(asg.input("x", (3,)))


def test_text_of_an_op_with_attributes() -> None:
    graph = graph_of(leaky, f32(5))
    text = str(graph)
    assert "leaky(x0, slope=0.1)" in text
    assert str(asg.parse_graph(text, ops={"leaky": leaky})) == text
