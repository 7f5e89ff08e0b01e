"""What a hunt for wrong results and obscure failures has found."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import AsgError, DTypeError, GraphError, InputError, ShapeError
from asg.nn import functional
from asg.tensor import Tensor
from support.targets import evaluate, on_targets

Array = np.ndarray[Any, Any]


def numbers(count: int, *shape: int) -> dict[str, Array]:
    generator = np.random.default_rng(count)
    return {f"x{i}": generator.normal(size=shape).astype(np.float32) for i in range(count)}


def inputs(arrays: dict[str, Array]) -> list[Tensor]:
    return [asg.input(name, array.shape) for name, array in arrays.items()]


@on_targets
def test_nan_differs_from_everything(target: str) -> None:
    special = np.array([0.0, -0.0, 1.0, np.nan, np.inf], np.float32)
    a, b = np.repeat(special, 5), np.tile(special, 5)
    x, y = asg.input("x", (25,)), asg.input("y", (25,))
    graph = asg.graph(outputs={"ne": x != y, "self": x != x, "eq": ~(x != y)})
    found = evaluate(graph, {"x": a, "y": b}, target)
    np.testing.assert_array_equal(found["ne"], a != b)
    np.testing.assert_array_equal(found["self"], np.isnan(a))
    np.testing.assert_array_equal(found["eq"], a == b)


@on_targets
def test_floor_division_of_floats_is_numpys_at_zero_and_infinity(target: str) -> None:
    special = np.array([0.0, 1.0, -1.0, 2.5, -7.0, np.nan, np.inf, -np.inf, -1e-20], np.float32)
    a, b = np.repeat(special, 9), np.tile(special, 9)
    graph = asg.graph(outputs={"q": asg.input("x", (81,)) // asg.input("y", (81,))})
    with np.errstate(all="ignore"):
        expected = np.floor_divide(a, b)
    # Quotients of 7e20 and the like are rounded.
    found = evaluate(graph, {"x": a, "y": b}, target)["q"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@on_targets
@pytest.mark.parametrize("count", [8, 20, 60])
@pytest.mark.parametrize("axis", [0, 1])
def test_many_inputs_are_concatenated(count: int, axis: int, target: str) -> None:
    arrays = numbers(count, 3, 5)
    joined = asg.concatenate(inputs(arrays), axis)
    found = evaluate(asg.graph(outputs={"y": joined, "s": joined.sum(axis)}), arrays, target)
    expected = np.concatenate(list(arrays.values()), axis)
    np.testing.assert_array_equal(found["y"], expected)
    np.testing.assert_allclose(found["s"], expected.sum(axis), rtol=1e-4, atol=1e-5)


@on_targets
def test_many_computed_inputs_are_concatenated(target: str) -> None:
    arrays = numbers(20, 3, 5)
    parts = [x * 2 if i % 2 else asg.flip(x, 0) for i, x in enumerate(inputs(arrays))]
    found = evaluate(asg.graph(outputs={"y": asg.concatenate(parts, 1)}), arrays, target)["y"]
    values = [x * 2 if i % 2 else x[::-1] for i, x in enumerate(arrays.values())]
    np.testing.assert_array_equal(found, np.concatenate(values, 1))


@on_targets
@pytest.mark.parametrize(
    "join",
    [
        lambda a, b, c, d: a * b,
        lambda a, b, c, d: a @ b.T,
        lambda a, b, c, d: asg.where(a > b, c, d),
        lambda a, b, c, d: asg.concatenate([a, b, c, d], 1),
    ],
    ids=["mul", "matmul", "where", "concatenate"],
)
def test_operands_that_each_read_several_inputs(join: Callable[..., Tensor], target: str) -> None:
    full = numbers(4, 13, 5)
    rows = {f"v{name}": array for name, array in numbers(12, 5).items()}
    vectors = inputs(rows)
    operands = [
        x * vectors[3 * i] + vectors[3 * i + 1] - vectors[3 * i + 2]
        for i, x in enumerate(inputs(full))
    ]
    graph = asg.graph(outputs={"y": join(*operands)})
    given = {name: array for name, array in (full | rows).items() if name in graph.input_names()}
    expected = evaluate(graph, given, "numpy")["y"]
    found = evaluate(graph, given, target)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_labels_without_sign_can_be_ignored() -> None:
    x = np.array([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0]], np.float32)
    results = []
    for dtype in ("i32", "u32"):
        labels = asg.input("y", (2,), dtype)
        loss = functional.cross_entropy(asg.input("x", (2, 3)), labels, ignore_index=2)
        given = {"x": x, "y": np.array([0, 2], labels.dtype.numpy)}
        results.append(evaluate(asg.graph(outputs={"loss": loss}), given, "numpy")["loss"])
    np.testing.assert_allclose(results[1], results[0])


def test_a_graph_keeps_its_numbers_when_the_callers_array_changes() -> None:
    array = np.ones(3, np.float32)
    parts = {
        "constant": asg.constant(array) * 1,
        "operand": asg.input("x", (3,)) * array,
        "state": asg.state("s", array) * 1,
        "parameter": nn.Parameter(array) * 1,
    }
    graph = asg.graph(outputs=parts)
    array[:] = 7
    found = evaluate(graph, {"x": np.ones(3, np.float32)}, "numpy")
    for result in found.values():
        np.testing.assert_array_equal(result, [1, 1, 1])


def test_results_of_the_interpreter_are_the_callers_own() -> None:
    x, s = asg.input("x", (3,)), asg.state("s", np.ones(3, np.float32))
    outputs = {"x": x, "view": x.reshape(3, 1), "s": s, "c": asg.constant(np.ones(3, np.float32))}
    executable = asg.compile(asg.graph(outputs=outputs), target="numpy")
    given = np.ones(3, np.float32)
    for result in executable({"x": given}).values():
        np.asarray(result)[...] = 7
    for result in executable({"x": given}).values():
        np.testing.assert_array_equal(np.asarray(result).reshape(-1), [1, 1, 1])


def test_an_update_must_fit_its_state() -> None:
    x, s = asg.input("x", (2,)), asg.state("s", np.zeros(3))
    with pytest.raises(GraphError, match=re.escape("'s' is f32[3], its update is f32[2]")):
        asg.graph(outputs={"y": s * 1}, updates={"s": x})
    with pytest.raises(GraphError, match="'x', which is neither parameter nor state"):
        asg.graph(outputs={"y": x * 1}, updates={"x": x + 1})


def test_names_are_texts() -> None:
    with pytest.raises(GraphError, match="an input's name is a text, got 3"):
        asg.input(3, (2,))  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="the name of an output is a text, got 5"):
        asg.graph(outputs={5: asg.input("x", (2,))})  # type: ignore[dict-item]


def test_an_axis_may_be_a_numpy_integer() -> None:
    x, one = asg.input("x", (2, 3)), np.int64(1)
    assert x.sum(one).shape == (2,)
    assert asg.softmax(x, one).shape == (2, 3)
    assert x.argmax(one).shape == (2,)
    assert [part.shape for part in asg.split(x, np.int64(3), one)] == [(2, 1)] * 3
    flipped = asg.flip(x.permute(one, np.int64(0)), one)
    graph = asg.graph(outputs={"y": flipped})
    assert str(asg.parse_graph(str(graph))) == str(graph)


def test_bits_are_read_as_a_dtype_given_as_text() -> None:
    bits = asg.bitcast(asg.input("x", (2,)), "u32")
    found = evaluate(asg.graph(outputs={"y": bits}), {"x": np.float32([1, 2])}, "numpy")["y"]
    np.testing.assert_array_equal(found, np.float32([1, 2]).view(np.uint32))


def test_a_range_of_numpy_floats_holds_floats() -> None:
    steps = asg.arange(0, np.float32(1.5), np.float32(0.5))
    found = evaluate(asg.graph(outputs={"y": steps}), {}, "numpy")["y"]
    np.testing.assert_array_equal(found, np.float32([0, 0.5, 1]))


def test_a_power_may_be_infinite_or_nan() -> None:
    x = asg.input("x", (2,))
    graph = asg.graph(outputs={"inf": x ** float("inf"), "nan": x ** float("nan")})
    found = evaluate(graph, {"x": np.float32([0.5, 2])}, "numpy")
    np.testing.assert_array_equal(found["inf"], np.float32([0, np.inf]))
    assert np.isnan(found["nan"]).all()


@pytest.mark.parametrize(
    ("attempt", "error", "match"),
    [
        (lambda: asg.arange(0, 5, 0), ShapeError, "by 0 is no finite number of steps"),
        (lambda: asg.arange(float("inf")), ShapeError, "no finite number of steps"),
        (lambda: asg.split(asg.input("x", (4,)), [5, -1]), ShapeError, "can't be split"),
        (lambda: asg.pad(asg.input("x", (4,), "i32"), [(1, 1)], 1.5), DTypeError, "1.5 does not"),
        (lambda: asg.pad(asg.input("x", (4,), "u32"), [(1, 1)], -1), DTypeError, "-1 does not"),
        (lambda: asg.state("s", np.array([1.7]), "i32"), DTypeError, "1.7 does not fit i32"),
        (lambda: asg.state("s", np.array([1e300])), DTypeError, "does not fit f32"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    attempt: Callable[[], object], error: type[AsgError], match: str
) -> None:
    with pytest.raises(error, match=re.escape(match)):
        attempt()


@on_targets
@pytest.mark.parametrize("strict", [True, False])
def test_a_state_is_a_dict(strict: bool, target: str) -> None:
    executable = asg.compile(asg.graph({"y": asg.state("s", np.zeros(3)) + 1}), target=target)
    with pytest.raises(InputError, match="a state is a dict of arrays by name, got list"):
        executable.load_state_dict([1, 2], strict=strict)  # type: ignore[arg-type]


class OneUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def step(optimizer: Callable[[nn.Module], optim.Optimizer]) -> asg.Graph:
    model = OneUnused()
    return asg.training_step(
        model,
        lambda model, batch: asg.sum(model(batch["x"])),
        optimizer(model),
        x=asg.spec((4, 3)),
    )


def test_groups_may_name_parameters_that_the_loss_does_not_use() -> None:
    graph = step(lambda model: optim.AdamW(optim.decay_groups(model, 0.1)))
    assert sorted(graph.input_names("parameter")) == ["used.bias", "used.weight"]


def test_groups_that_name_no_parameter_at_all_are_refused() -> None:
    with pytest.raises(GraphError, match="parameter group 0 names 'wrong', which is not trained"):
        step(lambda model: optim.SGD([{"params": ["wrong"]}]))


def test_options_may_be_lists() -> None:
    assert step(lambda model: optim.Adam(betas=[0.9, 0.99])).updates  # type: ignore[arg-type]


@on_targets
def test_conditions_may_be_numbers(target: str) -> None:
    condition = np.array([0, 2, -1, 0, 3], np.int32)
    x, given = asg.input("x", (5,)), asg.input("condition", (5,), "i32")
    graph = asg.graph({"c": asg.compress(x, given), "m": asg.masked_select(x, given)})
    found = evaluate(graph, {"x": np.arange(5, dtype=np.float32), "condition": condition}, target)
    np.testing.assert_array_equal(found["c"], [1, 2, 4])
    np.testing.assert_array_equal(found["m"], [1, 2, 4])


@on_targets
@pytest.mark.parametrize(
    ("dtype", "other"),
    [("i32", "f32"), ("f32", "i32"), ("i8", "f32"), ("f16", "f32"), ("u8", "i8"), ("i8", "i8")],
)
def test_a_sequence_is_searched_for_numbers_of_another_type(
    dtype: str, other: str, target: str
) -> None:
    row = np.array([-2 if dtype != "u8" else 0, 1, 2, 3, 100])
    wanted = np.array([1.5, -7.5, 200.25, 2.0]) if other == "f32" else np.array([1, -7, 127, 2])
    places = asg.searchsorted(asg.input("row", (5,), dtype), asg.input("wanted", (4,), other))
    found = evaluate(asg.graph({"y": places}), {"row": row, "wanted": wanted}, target)["y"]
    np.testing.assert_array_equal(found, np.searchsorted(row, wanted))


@on_targets
@pytest.mark.parametrize("dtype", ["i8", "u16", "f16"])
def test_what_is_unique_may_be_narrow(dtype: str, target: str) -> None:
    numbers_ = np.array([3, 1, 100, 3, 0, 1, 3])
    parts = asg.unique(asg.input("x", (7,), dtype))
    graph = asg.graph(dict(zip(["values", "first", "which", "often"], parts, strict=True)))
    found = evaluate(graph, {"x": numbers_}, target)
    values, first, which, often = np.unique(
        numbers_, return_index=True, return_inverse=True, return_counts=True
    )
    for name, wanted in (("values", values), ("first", first), ("which", which), ("often", often)):
        np.testing.assert_array_equal(found[name], wanted)


@on_targets
def test_a_score_of_minus_infinity_comes_before_what_is_no_score(target: str) -> None:
    corners = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    boxes = np.concatenate([2 * corners, 2 * corners + 1], 2)
    scores = np.array([[[np.nan, -np.inf, 0.5, -np.inf]]], np.float32)
    x, given = asg.input("boxes", boxes.shape), asg.input("scores", scores.shape)
    graph = asg.graph({"kept": asg.non_max_suppression(x, given, 4, 0.5)})
    found = evaluate(graph, {"boxes": boxes, "scores": scores}, target)["kept"]
    np.testing.assert_array_equal(found[:, 2], [2, 1, 3])


@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_cubic_samples_far_outside_stay_near_the_image(padding: str) -> None:
    """Fractions of places beyond f32's whole numbers were of any size."""
    image = np.full((1, 1, 5, 7), 5.0, np.float32)
    grid = np.array([1e6, 1e7, -3e7, 3e9], np.float32).repeat(2).reshape(1, 1, 4, 2)
    graph = asg.graph(
        outputs={
            "y": asg.grid_sample(
                asg.input("x", image.shape), asg.input("grid", grid.shape), "bicubic", padding
            )
        }
    )
    for target in ("numpy", "wgpu"):
        with asg.compile(graph, target=target) as exe:
            found = exe({"x": image, "grid": grid})["y"]
        np.testing.assert_allclose(found, 5.0, rtol=1e-5)


@on_targets
@pytest.mark.parametrize("hidden", ["none", "some", "all", "constant"])
def test_gradients_of_attention_whose_rows_finite_numbers_hide(target: str, hidden: str) -> None:
    """Weights came from the logarithm of their sum, which is lost beside -1e9."""
    given = numbers(3, 1, 2, 5, 4)
    q, k, v = inputs(given)
    rows = {"none": 0, "some": 2, "all": 5, "constant": 3}[hidden]
    mask = np.where(np.arange(5)[:, None] < rows, np.float32(-1e9), np.float32(0))
    mask = np.broadcast_to(mask, (5, 5)).copy()
    mask[:, 3:] = -1e9
    added = asg.constant(mask) if hidden == "constant" else asg.input("mask", (5, 5))
    whole = functional.scaled_dot_product_attention(q, k, v, attn_mask=added)
    apart = asg.softmax(q @ k.permute(0, 1, 3, 2) * 0.5 + added, -1) @ v
    found, expected = (
        evaluate(
            asg.grad(
                asg.graph(outputs={"loss": asg.sum(asg.square(y))}),
                wrt=["x0", "x1", "x2"],
                recognise=False,
            ),
            given if hidden == "constant" else {**given, "mask": mask},
            target,
        )
        for y in (whole, apart)
    )
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, 1e-4, 1e-5, err_msg=name)


def test_masks_that_hide_no_whole_row_keep_the_gradient_in_one_kernel() -> None:
    q, k, v = inputs(numbers(3, 1, 2, 5, 4))
    causal = np.where(np.tri(5, dtype=bool), np.float32(0), np.float32(-1e9))
    for mask, is_whole in ((causal, True), (causal[::-1], True), (causal.T - 1e9, False)):
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.copy())
        graph = asg.grad(asg.graph(outputs={"loss": asg.sum(asg.square(y))}), wrt="x0")
        ops = {node.op.name for node in graph.nodes}
        assert ("attention_query_grad" in ops) == is_whole
