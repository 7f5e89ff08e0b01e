"""Composed functions against NumPy and SciPy, their gradients, and their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asg
from asg.errors import AsgError, DTypeError, ShapeError
from asg.graph import Graph
from asg.passes.autodiff import grad
from asg.runtime.interpreter import run
from asg.tensor import Tensor

Array = np.ndarray[Any, Any]

CHANCE = np.random.default_rng(0)
X = CHANCE.uniform(-2, 2, (3, 4, 5)).astype(np.float32)
M = CHANCE.integers(-9, 9, (4, 5)).astype(np.int32)


def value(tensor: Tensor, **inputs: Array) -> Array:
    return run(Graph.build({"y": tensor.value}), inputs)["y"]


def symbolic(array: Array, name: str = "x") -> Tensor:
    return asg.input(name, array.shape, array.dtype)


def softmax(x: Array, axis: Any = -1) -> Array:
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf)(x)


SAME: list[tuple[str, Callable[[Any], Tensor], Callable[[Array], Any]]] = [
    ("sum", lambda x: x.sum(), lambda x: x.sum()),
    ("sum axis", lambda x: x.sum(1), lambda x: x.sum(1)),
    ("sum keepdims", lambda x: x.sum((0, -1), keepdims=True),
     lambda x: x.sum((0, 2), keepdims=True)),
    ("prod", lambda x: x.prod(-1), lambda x: x.prod(-1)),
    ("max", lambda x: x.max(0), lambda x: x.max(0)),
    ("min", lambda x: x.min((0, 1)), lambda x: x.min((0, 1))),
    ("mean", lambda x: x.mean(1, keepdims=True), lambda x: x.mean(1, keepdims=True)),
    ("var", lambda x: x.var(-1), lambda x: x.var(-1)),
    ("std", lambda x: x.std((0, 1), ddof=1), lambda x: x.std((0, 1), ddof=1)),
    ("any", lambda x: (x > 1.5).any(2), lambda x: (x > 1.5).any(2)),
    ("all", lambda x: (x > -1.5).all(), lambda x: (x > -1.5).all()),
    ("count", lambda x: (x > 0).sum(0), lambda x: (x > 0).sum(0)),
    ("argmax", lambda x: x.argmax(1), lambda x: x.argmax(1)),
    ("argmax flat", lambda x: x.argmax(), lambda x: x.argmax()),
    ("argmin", lambda x: x.argmin(-1, keepdims=True), lambda x: x.argmin(-1, keepdims=True)),
    ("softmax", lambda x: x.softmax(), softmax),
    ("softmax axes", lambda x: x.softmax((0, 1)), lambda x: softmax(x, (0, 1))),
    ("log_softmax", lambda x: x.log_softmax(1), lambda x: np.log(softmax(x, 1))),
    ("logsumexp", lambda x: x.logsumexp(1), lambda x: np.log(np.exp(x).sum(1))),
    ("relu", asg.relu, lambda x: np.maximum(x, 0)),
    ("gelu", asg.gelu, lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    ("gelu tanh", lambda x: asg.gelu(x, "tanh"),
     lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ("silu", asg.silu, lambda x: x / (1 + np.exp(-x))),
    ("softplus", asg.softplus, lambda x: np.log1p(np.exp(x))),
    ("square", asg.square, np.square),
    ("clip", lambda x: x.clip(-1, 0.5), lambda x: x.clip(-1, 0.5)),
    ("where", lambda x: asg.where(x > 0, x, -1), lambda x: np.where(x > 0, x, -1)),
    ("power 3", lambda x: x**3, lambda x: x**3),
    ("power 0", lambda x: x**0, lambda x: x**0),
    ("power -1", lambda x: x**-1, lambda x: x**-1.0),
    ("power 0.5", lambda x: abs(x) ** 0.5, lambda x: abs(x) ** 0.5),
    ("power of 2", lambda x: 2**x, lambda x: 2**x),
    ("floor_divide", lambda x: x // 0.7, lambda x: x // np.float32(0.7)),
    ("remainder", lambda x: x % 0.7, lambda x: x % np.float32(0.7)),
    ("isfinite", lambda x: asg.isfinite(x / 0.0), lambda x: np.isfinite(x / 0)),
    ("isinf", lambda x: asg.isinf(x / 0.0), lambda x: np.isinf(x / 0)),
    ("logical_and", lambda x: asg.logical_and(x > 0, x), lambda x: np.logical_and(x > 0, x)),
    ("logical_not", lambda x: asg.logical_not(x > 0), lambda x: np.logical_not(x > 0)),
    ("invert", lambda x: ~(x > 0) | (x > 1), lambda x: ~(x > 0) | (x > 1)),
    ("reshape", lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1)),
    ("T", lambda x: x.T, lambda x: x.T),
    ("permute", lambda x: x.permute(1, -1, 0), lambda x: x.transpose(1, 2, 0)),
    ("transpose", lambda x: x.transpose((2, 0, 1)), lambda x: x.transpose((2, 0, 1))),
    ("swapaxes", lambda x: x.swapaxes(0, -1), lambda x: x.swapaxes(0, -1)),
    ("flatten", lambda x: x.flatten(1), lambda x: x.reshape(3, 20)),
    ("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x[..., None]),
    ("squeeze", lambda x: x[:1].squeeze(0), lambda x: x[0]),
    ("flip", lambda x: x.flip(1), lambda x: np.flip(x, 1)),
    ("pad", lambda x: asg.pad(x, [(1, 0), (0, 2), (0, 0)], 7), lambda x: np.pad(
        x, [(1, 0), (0, 2), (0, 0)], constant_values=7)),
    ("stack", lambda x: asg.stack([x, -x], 1), lambda x: np.stack([x, -x], 1)),
    ("concatenate", lambda x: asg.concatenate([x, x], -1), lambda x: np.concatenate([x, x], -1)),
    ("split", lambda x: x.split(2, 1)[1], lambda x: np.split(x, 2, 1)[1]),
    ("split sizes", lambda x: x.split([1, 4], -1)[1], lambda x: x[..., 1:]),
    ("tril", lambda x: x.tril(-1), lambda x: np.tril(x, -1)),
    ("triu", lambda x: x.triu(1), lambda x: np.triu(x, 1)),
    ("take", lambda x: x.take([[0, -1], [2, 1]], 2), lambda x: x.take([[0, -1], [2, 1]], 2)),
    ("matmul", lambda x: x @ x.swapaxes(1, 2), lambda x: x @ x.swapaxes(1, 2)),
    ("matmul shared", lambda x: x @ x[0].T, lambda x: x @ x[0].T),
    ("matmul vector", lambda x: x @ x[0, 0], lambda x: x @ x[0, 0]),
    ("vector matmul", lambda x: x[0, :, 0] @ x, lambda x: x[0, :, 0] @ x),
    ("dot", lambda x: x[0, 0] @ x[1, 1], lambda x: x[0, 0] @ x[1, 1]),
    ("matmul broadcast", lambda x: x[:, None] @ x.permute(0, 2, 1)[:1], lambda x: x[:, None]
     @ x.transpose(0, 2, 1)[:1]),
    ("arange", lambda x: x[0, 0] + asg.arange(5), lambda x: x[0, 0] + np.arange(5)),
    ("arange step", lambda x: asg.arange(1, 2, 0.25), lambda x: np.arange(1, 2, 0.25)),
    ("eye", lambda x: asg.eye(3, 4), lambda x: np.eye(3, 4)),
    ("tri", lambda x: asg.tri(3, 4, 1), lambda x: np.tri(3, 4, 1) > 0),
    ("one_hot", lambda x: asg.one_hot(x.argmax(-1), 5), lambda x: np.eye(5)[x.argmax(-1)]),
    ("zeros", lambda x: asg.zeros((2, 3), "i32"), lambda x: np.zeros((2, 3), np.int32)),
    ("full_like", lambda x: asg.full_like(x, 2.5), lambda x: np.full_like(x, 2.5)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "theirs"), SAME, ids=[case[0] for case in SAME])
def test_functions_are_those_of_numpy(
    name: str, ours: Callable[[Any], Tensor], theirs: Callable[[Array], Any]
) -> None:
    graph = Graph.build({"y": ours(symbolic(X)).value}, inputs=[])
    with np.errstate(all="ignore"):
        expected = np.asarray(theirs(X))
    found = run(graph, dict.fromkeys(graph.input_names(), X))["y"]
    assert found.shape == expected.shape
    assert found.dtype.kind == expected.dtype.kind
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_take_along_axis() -> None:
    places = CHANCE.integers(-4, 4, (3, 2, 5)).astype(np.int32)
    found = asg.take_along_axis(symbolic(X), places, 1)
    np.testing.assert_array_equal(value(found, x=X), np.take_along_axis(X, places, 1))
    mask = asg.take_along_axis(symbolic(X) > 0, places, 1)
    np.testing.assert_array_equal(value(mask, x=X), np.take_along_axis(X > 0, places, 1))


def test_integers() -> None:
    x = symbolic(M)
    np.testing.assert_array_equal(value(x**3, x=M), M**3)
    np.testing.assert_array_equal(value(x // 4, x=M), M // 4)
    np.testing.assert_array_equal(value(x % -4, x=M), M % -4)
    np.testing.assert_allclose(value(x / 4, x=M), M / 4)
    np.testing.assert_array_equal(value(x << 3 >> 1, x=M), M << 3 >> 1)
    assert (x / 4).dtype is asg.DType.F32
    assert (x * 2.5).dtype is asg.DType.F32
    assert ((x > 0) * x).dtype is asg.DType.I32


_sizes = st.tuples(*[st.integers(1, 4)] * 3)


@st.composite
def _indexed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    shape = draw(_sizes)
    parts: list[Any] = []
    for size in shape[: draw(st.integers(0, 3))]:
        kind = draw(st.sampled_from(["int", "slice", "slice", "new"]))
        if kind == "new":
            parts.append(None)
        if kind == "int":
            parts.append(draw(st.integers(-size, size - 1)))
        else:
            ends = st.none() | st.integers(-6, 6)
            steps = st.sampled_from([None, 1, 2, 3, -1, -2])
            parts.append(slice(draw(ends), draw(ends), draw(steps)))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
    return shape, tuple(parts)


@given(_indexed())
def test_indexing_is_that_of_numpy(case: tuple[tuple[int, ...], tuple[Any, ...]]) -> None:
    shape, index = case
    used = sum(part is not None and part is not Ellipsis for part in index)
    after = index[index.index(Ellipsis) + 1 :] if Ellipsis in index else ()
    x = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    try:
        expected = x[index]
    except IndexError:  # the parts behind an ellipsis were drawn for other axes
        assert after
        assert used <= 3
        return
    np.testing.assert_array_equal(value(symbolic(x)[index], x=x), expected)


def test_indexing_with_a_tensor() -> None:
    x, places = symbolic(X), np.array([[2, 0], [1, -1]], np.int32)
    np.testing.assert_array_equal(value(x[places], x=X), X[places])
    np.testing.assert_array_equal(value(x[:, places], x=X), X[:, places])
    np.testing.assert_array_equal(value(x[1:, places, ::-1], x=X), X[1:, places, ::-1])
    np.testing.assert_array_equal(value(x[1, places], x=X), X[1, places])
    np.testing.assert_array_equal(value(x[..., [0, 1]], x=X), X[..., [0, 1]])
    step = asg.input("i", (), "i32")
    np.testing.assert_array_equal(value(x[:, step], x=X, i=np.int32(3)), X[:, 3])


def _gradient(loss: Tensor, wrt: str = "x", **inputs: Array) -> Array:
    graph = grad(Graph.build({"loss": loss.value}), of="loss", wrt=[wrt])
    return run(graph, inputs, dtype="f64")[f"{wrt}.grad"]


def test_ties_share_the_gradient_of_max() -> None:
    x = np.array([1.0, 3.0, 3.0, 2.0])
    loss = (symbolic(x.astype(np.float32)).max() * 2.0).sum()
    np.testing.assert_array_equal(_gradient(loss, x=x), [0.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]),
        ([2.0, 0.0, 4.0], [0.0, 8.0, 0.0]),
        ([0.0, 0.0, 4.0], [0.0, 0.0, 0.0]),
    ],
)
def test_gradient_of_a_product_with_zeros(x: list[float], expected: list[float]) -> None:
    array = np.array(x)
    loss = symbolic(array.astype(np.float32)).prod()
    np.testing.assert_array_equal(_gradient(loss, x=array), expected)


def test_second_derivative_of_a_product_with_zeros() -> None:
    """d2 (x y z) / dx dy = z, also where x = y = 0."""
    x = np.array([0.0, 0.0, 4.0])
    first = grad(
        Graph.build({"loss": symbolic(x.astype(np.float32)).prod().value}), of="loss", wrt=["x"]
    )
    slope = Tensor(first.outputs["x.grad"])[0]
    np.testing.assert_array_equal(_gradient(slope, x=x), [0.0, 4.0, 0.0])


@pytest.mark.parametrize(
    ("function", "at_zero"),
    [(asg.relu, 0.0), (abs, 0.0), (asg.softplus, 0.5), (asg.gelu, 0.5), (asg.silu, 0.5)],
)
def test_gradients_at_zero(function: Callable[[Any], Tensor], at_zero: float) -> None:
    loss = function(asg.input("x")).sum()
    assert _gradient(loss, x=np.array(0.0)) == pytest.approx(at_zero, abs=1e-7)


def test_powers_have_a_gradient_at_zero() -> None:
    x = asg.input("x")
    assert _gradient(asg.pow(x, asg.full((), 1.0)), x=np.array(0.0)) == 1.0
    assert _gradient(asg.pow(x, asg.full((), 0.0)), x=np.array(0.0)) == 0.0


def test_softmax_has_no_gradient_through_its_maximum() -> None:
    """So that it stays one kernel: no op of the gradient compares with the maximum."""
    x = asg.input("x", (3, 4))
    loss = (x.softmax() * x).sum()
    gradient = grad(Graph.build({"loss": loss.value}), of="loss", wrt=["x"])
    assert "equal" not in {node.op.name for node in gradient.nodes}


def test_a_shared_matrix_has_a_gradient_of_one_product() -> None:
    x, w = asg.input("x", (2, 3, 4)), asg.input("w", (4, 5))
    gradient = grad(Graph.build({"loss": (x @ w).sum().value}), of="loss", wrt=["w"])
    (product,) = [node for node in gradient.nodes if node.op.name == "matmul"]
    assert product.type.shape == (4, 5)


ERRORS: list[tuple[str, Callable[[Tensor], Any], type[AsgError], str]] = [
    ("reshape", lambda x: x.reshape(7, -1), ShapeError,
     "reshape: f32[3, 4, 5] has 60 elements, no -1 makes that [7, -1]"),
    ("reshape sizes", lambda x: x.reshape(7), ShapeError, "f32[3, 4, 5] has 60 elements, [7] 7"),
    ("sum", lambda x: x.sum(3), ShapeError, "sum: axis 3 is out of range for [3, 4, 5]"),
    ("sum twice", lambda x: x.sum((0, -3)), ShapeError, "sum: an axis occurs twice in (0, -3)"),
    ("squeeze", lambda x: x.squeeze(1), ShapeError, "axis 1 of f32[3, 4, 5] has size 4, not 1"),
    ("split", lambda x: x.split(2), ShapeError, "axis 0 of f32[3, 4, 5] can't be split into 2"),
    ("index", lambda x: x[5], ShapeError, "index 5 is out of range for axis 0, which has 3"),
    ("indexes", lambda x: x[0, 0, 0, 0], ShapeError, "4 indexes for 3 axes"),
    ("mask", lambda x: x[x > 0], DTypeError, "a mask gives no fixed shape"),
    ("float index", lambda x: x[x], DTypeError, "an index is an integer, got f32[3, 4, 5]"),
    ("two tensors", lambda x: x[[0], [1]], ShapeError, "one integer tensor at most in an index"),
    ("apart", lambda x: x[0, :, [1]], ShapeError, "an integer and a tensor stand apart"),
    ("matmul", lambda x: x @ x, ShapeError,
     "matmul: inner sizes differ: x has 5 (axis 2), y has 4 (axis 1)"),
    ("matmul scalar", lambda x: x @ 2.0, ShapeError, "matmul: y has no axes"),
    ("matmul batch", lambda x: x[:2] @ x.permute(0, 2, 1), ShapeError, "batch shapes [2] and [3]"),
    ("constant", lambda x: x + 1e300, DTypeError, "constant: 1e+300 does not fit f32"),
    ("integer", lambda x: asg.constant(2**31), DTypeError, "constant: 2147483648 does not fit i32"),
    ("fraction", lambda x: asg.constant(1.5, "i32"), DTypeError, "constant: 1.5 does not fit i32"),
    ("text", lambda x: x + "a", DTypeError, "is not supported; use numbers or bools"),
    ("power", lambda x: x.cast("i32") ** -1, DTypeError, "pow: the exponent of an integer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "call", "error", "message"), ERRORS, ids=[case[0] for case in ERRORS]
)
def test_errors(
    name: str, call: Callable[[Tensor], Any], error: type[AsgError], message: str
) -> None:
    with pytest.raises(error) as caught:
        call(symbolic(X))
    assert message in str(caught.value).splitlines()[0]


def test_error_text_in_full() -> None:
    x, w = asg.input("x", (2, 3)), asg.input("w", (4, 5), role="parameter")
    with pytest.raises(ShapeError) as caught:
        x @ w
    lines = str(caught.value).splitlines()
    assert lines[0] == "matmul: inner sizes differ: x has 3 (axis 1), w has 4 (axis 0)"
    assert lines[1].startswith("  x: f32[2, 3]      input 'x' ")
    assert lines[2].startswith("  w: f32[4, 5]      parameter 'w' ")
    assert lines[3].startswith("  at test_functions.py:")
    assert lines[3].endswith("in test_error_text_in_full:  x @ w")
    assert lines[4] == "  fix: make w f32[3, n]"


@pytest.mark.parametrize(
    ("given_", "dtype"),
    [
        (1.5, "f32"), (3, "i32"), (True, "bool"), ([1, 2], "i32"), ([1.0, 2], "f32"),
        (np.float64(2), "f32"), (np.zeros(2), "f32"), (np.zeros(2, np.float16), "f16"),
        (np.zeros(2, np.int64), "i32"), (np.zeros(2, np.uint8), "u8"), ([], "f32"),
    ],
)  # fmt: skip
def test_dtypes_of_constants(given_: Any, dtype: str) -> None:
    assert asg.constant(given_).dtype.value == dtype
