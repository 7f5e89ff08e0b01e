"""What is called right, undecided and wrong, and what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg import nn
from asg.comparison import Yardstick, compare, exactly
from asg.runtime.interpreter import run
from asg.types import DType, spec
from asg.yardstick import Array, measure


def judge(got: list[float], exact: list[float], spread: list[float] | None = None) -> str:
    """Compare f32 arrays of one axis."""
    reference = np.array(exact)
    by = np.zeros(len(exact)) if spread is None else np.array(spread)
    yardstick = Yardstick(reference, reference.astype(np.float32), by)
    array = np.array(got, np.float32)
    return str(compare("y", spec((len(exact),)), array, yardstick))


def test_equal_is_right() -> None:
    assert judge([1, 2], [1, 2]) == ("y: f32[2], largest error 0 at [0] (allowed 4.77e-07)")


def test_wrong_says_where_and_by_how_much() -> None:
    assert judge([1, 2.5, 3.1], [1, 2, 3]) == (
        "y: f32[3], 2 of 3 elements wrong; got 2.5, expected 2 at [1] (off by 0.5, "
        "allowed 9.54e-07)"
    )


def test_ill_conditioned_elements_are_never_silently_right() -> None:
    assert judge([1, 2.5], [1, 2], [0, 0.1]) == (
        "y: f32[2], largest error 0.5 at [1] (allowed 0.8); 1 of 2 elements too "
        "ill-conditioned to tell"
    )


def test_beyond_what_rounding_explains_is_wrong() -> None:
    assert "1 of 2 elements wrong" in judge([1, 3], [1, 2], [0, 0.1])


@pytest.mark.parametrize(
    ("got", "exact", "is_right"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (-np.inf, np.inf, False),
        (np.nan, 1.0, False),
        (1.0, np.nan, False),
        (np.inf, 1.0, False),
        (3e38, np.inf, False),
        (0.0, -0.0, True),
        (0.0, 1e-39, True),  # devices may flush small numbers to zero
    ],
)
def test_special_numbers(got: float, exact: float, is_right: bool) -> None:
    assert ("wrong" not in judge([got], [exact])) == is_right


def test_integers_are_exact() -> None:
    array = np.array([3, 4], np.int32)
    assert compare("i", spec((2,), "i32"), array, exactly(array)).verdict == "right"
    found = compare("i", spec((2,), "i32"), array + np.int32(1), exactly(array))
    assert str(found) == (
        "i: i32[2], 2 of 2 elements wrong; got 4, expected 3 at [0] (off by 1, allowed 0)"
    )


def test_nothing_to_compare() -> None:
    array = np.zeros((0, 3), np.float32)
    assert str(compare("e", spec((0, 3)), array, exactly(array))) == (
        "e: f32[0, 3], nothing to compare"
    )


def yard(graph: asg.Graph, **inputs: Array) -> Yardstick:
    """The yardstick of the only output."""
    (found,) = measure(graph, inputs).values()
    return found


def test_copies_have_no_spread() -> None:
    x = asg.input("x", (3, 4))
    graph = asg.graph(outputs={"y": asg.transpose(x)})
    assert not yard(graph, x=np.ones((3, 4), np.float32)).spread.any()


def test_a_sum_may_be_off_by_two_millionths_of_the_root_of_its_length() -> None:
    x = asg.input("x", (10_000,))
    graph = asg.graph(outputs={"y": asg.sum(x)})
    found = yard(graph, x=np.ones(10_000, np.float32))
    allowed = 8 * found.spread / found.exact
    assert 0.5e-6 * 100 < allowed < 2.5e-6 * 100


def test_cancellation_widens_what_is_allowed() -> None:
    x = asg.input("x", (2,))
    shifted = (x + 1000.0) - 1000.0
    graph = asg.graph(outputs={"y": shifted})
    found = yard(graph, x=np.array([1e-3, 2e-3], np.float32))
    assert np.all(found.spread > 1e-5)


def test_where_rounding_chooses_nothing_is_decided() -> None:
    x = asg.input("x", (3,))
    graph = asg.graph(outputs={"i": asg.argmax(asg.exp(x), axis=0)})
    near = yard(graph, x=np.array([1.0, np.nextafter(np.float32(1), np.float32(2)), 0], np.float32))
    assert near.spread
    far = yard(graph, x=np.array([1.0, 2.0, 0.0], np.float32))
    assert not far.spread


def test_the_reference_overflows_where_f32_does() -> None:
    x = asg.input("x", (2,))
    graph = asg.graph(outputs={"y": asg.exp(x)})
    assert yard(graph, x=np.array([100.0, 1.0], np.float32)).exact[0] == np.inf


FLOATS = [DType.F16, DType.BF16]


def ulps_off(array: Array, count: int) -> Array:
    """Return the neighbour of each number, so many further from zero."""
    return (array.view(np.uint16) + np.uint16(count)).view(array.dtype)


def narrow_layers(dtype: DType, steps: int) -> tuple[asg.Graph, dict[str, Array]]:
    """A graph that rounds `steps` times, the last time for its output."""
    draw = np.random.default_rng(steps).standard_normal
    x = asg.input("x", (16, 32), dtype)
    y = x * 1.5 + 0.25 if steps == 1 else x
    for number in range(steps - 1):
        w = asg.constant(draw((32, 32)).astype(np.float32) / 6)
        y = asg.tanh(y @ asg.cast(w, dtype) + number)
    return asg.graph(outputs={"y": y}), {"x": draw((16, 32)).astype(dtype.numpy)}


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_stored_number_may_be_off_by_half_a_step_only(dtype: DType) -> None:
    """One rounding: its neighbours are wrong but for numbers beside a tie."""
    x = asg.input("x", (4096,), dtype)
    graph = asg.graph(outputs={"y": asg.cast(asg.cast(x, "f32") * 1.2345, dtype)})
    given = np.random.default_rng(0).uniform(-4, 4, 4096).astype(dtype.numpy)
    (found,) = run(graph, {"x": given}).values()
    (yardstick,) = measure(graph, {"x": given}).values()
    type_ = graph.outputs["y"].type
    right = compare("y", type_, found, yardstick)
    assert (right.verdict, right.wrong) == ("right", 0)
    for count in (1, 2, 3):
        difference = compare("y", type_, ulps_off(found, count), yardstick)
        assert difference.wrong >= 0.98 * 4096 if count == 1 else difference.wrong == 4096


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_few_units_are_found_behind_several_roundings(dtype: DType, steps: int) -> None:
    """Every run rounds where the graph says, so the roundings before the last one hide nothing,
    but where one of them was beside a tie."""
    graph, given = narrow_layers(dtype, steps)
    (found,) = run(graph, given).values()
    (yardstick,) = measure(graph, given).values()
    type_ = graph.outputs["y"].type
    right = compare("y", type_, found, yardstick)
    assert (right.verdict, right.wrong) == ("right", 0)
    for count, least in ((2, 0.5), (4, 0.6), (8, 0.7)):
        difference = compare("y", type_, ulps_off(found, count), yardstick)
        assert difference.wrong >= least * found.size, count


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_what_devices_make_of_narrow_types_is_right(dtype: str, family: str) -> None:
    nn.manual_seed(0)
    block = nn.TransformerBlock(32, 4, causal=True)

    def loss(x: asg.Tensor) -> dict[str, asg.Tensor]:
        y = block(x)
        return {"y": asg.cast(y, dtype), "loss": asg.mean(asg.cast(y * y, "f32"))}

    graph = asg.trace(loss, asg.spec((2, 9, 32), dtype))
    for each in (graph, asg.grad(graph, "loss", ["x"])):
        report = asg.testing.differential(each, schedule=family)
        assert report.is_right, str(report)
