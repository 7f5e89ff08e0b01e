"""Products sum up their tiles for a norm that follows, which then reads the result once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg.codegen.context import Target
from asg.compiler import for_target, fuse, lower, pipeline, prepare
from asg.nn import functional
from asg.passes import moment_schedules
from asg.passes.kernels import FusedKernel
from asg.passes.tile_moments import TileMoments, find_moments
from asg.runtime.interpreter import run
from asg.testing import differential

Array = np.ndarray[Any, Any]
REFERENCES = Path(__file__).parents[1] / "references"
FAMILIES = ["cpu", "gpu"]
EPSILON = 2.0**-24


def _norm(x: Any) -> Any:
    return functional.batch_norm(x, None, None, training=True, eps=1e-5)


def _plain(x: Any, w: Any, b: Any) -> Any:
    return functional.conv2d(x, w)


def _relu(x: Any, w: Any, b: Any) -> Any:
    return asg.relu(functional.conv2d(x, w, b, padding=1))


def _residual(x: Any, w: Any, b: Any) -> Any:
    y = functional.conv2d(x, w, b, padding=1)
    return y + asg.concatenate([x, x], axis=1)[:, : y.shape[1]]


def _groups(x: Any, w: Any, b: Any) -> Any:
    w, b = (asg.concatenate([each, each], axis=0) for each in (w, b))
    return functional.conv2d(x, w[:, : w.shape[1] // 2], b, groups=2)


CONVOLUTIONS: dict[str, Callable[..., Any]] = {
    "plain": _plain, "relu": _relu, "residual": _residual, "groups": _groups,
}  # fmt: skip
SIZES = [(2, 4, 8, 14, 10), (5, 4, 7, 10, 8), (2, 6, 10, 12, 18)]


def _graph(name: str, n: int, c: int, out: int, high: int, wide: int) -> asg.Graph:
    def function(x: Any, w: Any, b: Any) -> Any:
        y = CONVOLUTIONS[name](x, w, b)
        return {"y": _norm(y), "mean": asg.mean(y, axis=(0, 2, 3)), "raw": y}

    specs = asg.spec((n, c, high, wide)), asg.spec((out, c, 3, 3)), asg.spec((out,))
    return asg.trace(function, *specs)


def _inputs(graph: asg.Graph, offset: float = 0.0) -> dict[str, Array]:
    chance = np.random.default_rng(7)
    shapes = {name: graph.input(name).type.shape for name in graph.input_names()}
    arrays = {name: chance.standard_normal(shape) for name, shape in shapes.items()}
    return {name: (array + offset).astype(np.float32) for name, array in arrays.items()}


def _kernels(graph: asg.Graph, family: str, wanted: bool | None) -> list[FusedKernel]:
    passes = for_target(pipeline(tile_statistics=wanted, layout="nchw"), Target(family, 8))
    return list(fuse(prepare(graph, (), passes)).kernels)


def _counting(kernels: list[FusedKernel]) -> list[FusedKernel]:
    return [each for each in kernels if find_moments(each.nodes) and each.kind == "contract"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_one_kernel_makes_result_and_statistics(name: str, family: str) -> None:
    graph = _graph(name, 2, 4, 8, 14, 18)
    kernels = _kernels(graph, family, True)
    (product,) = _counting(kernels)
    moments = next(iter(find_moments(product.nodes).values()))
    assert set(moments.sums) <= set(product.anchors)
    assert len(product.reads) + len(product.outputs) <= 8
    # Nobody but what normalises reads all of the result again.
    readers = [each for each in kernels if moments.source in each.reads and each.kind != "map"]
    assert all(each.kind == "reduce" for each in readers)
    assert not any(set(each.nodes) & set(moments.sums) for each in kernels if each is not product)


def test_who_decides() -> None:
    large, small = (_graph("plain", 8, 16, 32, size, size) for size in (66, 10))
    assert not _counting(_kernels(large, "cpu", None))
    assert _counting(_kernels(large, "gpu", None))
    assert not _counting(_kernels(small, "gpu", None))  # a row kernel holds such rows
    assert not _counting(_kernels(large, "gpu", False))
    undecided = TileMoments()
    assert undecided(large) is large


@pytest.mark.parametrize("family", FAMILIES)
def test_the_report_counts_kernels(family: str) -> None:
    graph = _graph("plain", 2, 4, 8, 14, 18)
    for wanted in (True, False):
        passes = pipeline(tile_statistics=wanted, layout="nchw")
        artefact = lower({"main": graph}, target=Target(family, 8), passes=passes)
        assert artefact.report["entries"]["main"]["tile_statistics"] == int(wanted)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: asg.mean(x @ w, axis=1),  # a sum alone is read once anyway
        lambda x, w: _norm(x @ w),  # down the columns
        lambda x, w: functional.layer_norm((x @ w) * asg.sum(x @ w), (80,)),  # others read it
        lambda x, w: functional.layer_norm(x[:3] @ w, (80,)),  # too few rows for a tile
        lambda x, w: functional.layer_norm(x @ w[:, :15], (15,)),  # no whole tile
        lambda x, w: functional.layer_norm(x, (24,)),
    ],
)
def test_reasons_not_to_act(function: Callable[..., Any]) -> None:
    graph = asg.trace(lambda x, w: {"y": function(x, w)}, asg.spec((8, 24)), asg.spec((24, 80)))
    for family in FAMILIES:
        assert not _counting(_kernels(graph, family, True))


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_meaning(name: str, sizes: tuple[int, ...], family: str, offset: float) -> None:
    graph = _graph(name, *sizes)
    passes = for_target(pipeline(tile_statistics=True, layout="nchw"), Target(family, 8))
    place = next(i for i, each in enumerate(passes) if isinstance(each, TileMoments))
    before = prepare(graph, (), passes[:place])
    after = passes[place](before)
    assert find_moments(after.nodes)
    given = _inputs(graph, offset)
    expected, found = (run(each, given, dtype="f64") for each in (before, after))
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-9, atol=1e-9)
    assert prepare(after, (), (passes[place],)).nodes == after.nodes


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_on_a_device(name: str, sizes: tuple[int, ...], family: str) -> None:
    graph = _graph(name, *sizes)
    given = _inputs(graph)
    expected = run(graph, given, dtype="f64")
    passes = pipeline(tile_statistics=True, layout="nchw")
    with asg.compile(graph, schedule=family, passes=passes) as exe:
        assert exe.report()["entries"]["main"]["tile_statistics"] == 1
        first, second = exe(given), exe(given)
    for key, array in expected.items():
        np.testing.assert_allclose(np.asarray(first[key]), array, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(np.asarray(first[key]), np.asarray(second[key]))


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kernel_is_right_by_itself(family: str) -> None:
    passes = pipeline(tile_statistics=True, layout="nchw")
    graph = _graph("relu", 2, 4, 7, 12, 10)
    report = differential(graph, _inputs(graph), schedule=family, passes=passes)
    # What is left of a sum about the mean is rounding alone, of which nobody can tell.
    assert report.verdict in ("right", "undecided"), str(report)
    undecided = [check for check in report.checks if check.verdict != "right"]
    assert all(check.stage == "kernels" for check in undecided)


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients(family: str) -> None:
    def loss(x: Any, w: Any, b: Any) -> Any:
        y = asg.relu(_norm(functional.conv2d(x, w, b, padding=1)))
        return {"loss": asg.mean(y * y * y)}

    graph = asg.trace(loss, asg.spec((2, 3, 8, 12)), asg.spec((6, 3, 3, 3)), asg.spec((6,)))
    graph = asg.value_and_grad(graph, of="loss", wrt=["x", "w"])
    given = _inputs(graph)
    expected = run(graph, given, dtype="f64")
    passes = pipeline(tile_statistics=True, layout="nchw")
    with asg.compile(graph, schedule=family, passes=passes) as exe:
        assert exe.report()["entries"]["main"]["tile_statistics"] == 1
        found = exe(given)
    for key, array in expected.items():
        np.testing.assert_allclose(np.asarray(found[key]), array, rtol=1e-4, atol=1e-6)


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_beside_pytorch(family: str) -> None:
    with np.load(REFERENCES / "tile_statistics.npz") as arrays:
        wanted = dict(arrays)
    given = {name: wanted[name] for name in ("x", "w", "b")}

    def function(x: Any, w: Any, b: Any) -> Any:
        y = asg.relu(_norm(functional.conv2d(x, w, b, padding=1)))
        return {"loss": asg.mean(y * y * y), "y": y}

    graph = asg.trace(function, *(asg.spec(array.shape) for array in given.values()))
    graph = asg.value_and_grad(graph, of="loss", wrt=["x", "w"])
    passes = pipeline(tile_statistics=True, layout="nchw")
    with asg.compile(graph, schedule=family, passes=passes) as exe:
        assert exe.report()["tile_statistics"] == 1
        found = exe(given)
    for name in ("loss", "y", "x.grad", "w.grad"):
        key = name if name in found else f"grad.{name.removesuffix('.grad')}"
        np.testing.assert_allclose(np.asarray(found[key]), wanted[name], rtol=1e-4, atol=2e-5)


NORMS: dict[str, Callable[..., Any]] = {
    "instance": functional.instance_norm,
    "layer": lambda y: functional.layer_norm(y, y.shape[2:]),
}


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NORMS)
def test_other_norms(name: str, family: str) -> None:
    def function(x: Any, w: Any) -> Any:
        return {"y": NORMS[name](functional.conv2d(x, w))}

    graph = asg.trace(function, asg.spec((2, 3, 10, 14)), asg.spec((6, 3, 3, 3)))
    given = _inputs(graph, 1.0)
    expected = run(graph, given, dtype="f64")["y"]
    passes = pipeline(tile_statistics=True, layout="nchw")
    with asg.compile(graph, schedule=family, passes=passes) as exe:
        assert exe.report()["tile_statistics"] == 1
        found = np.asarray(exe(given)["y"])
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("columns", [64, 128, 147, 333])
@pytest.mark.parametrize("offset", [0.0, 1e6, -1e4])
def test_variance_far_from_zero(offset: float, columns: int, family: str) -> None:
    """The product is by 1, and so the rows are known exactly."""
    x = (np.random.default_rng(3).standard_normal((9, columns)) + offset).astype(np.float32)

    def function(a: Any, x: Any) -> Any:
        return {"y": asg.var(a @ x, axis=1), "x": a @ x}

    graph = asg.trace(function, asg.spec((9, 9)), asg.spec((9, columns)))
    with asg.compile(graph, schedule=family, passes=pipeline(tile_statistics=True)) as exe:
        assert exe.report()["entries"]["main"]["tile_statistics"] == 1
        found = exe({"a": np.eye(9, dtype=np.float32), "x": x})
    np.testing.assert_array_equal(np.asarray(found["x"]), x)
    exact = x.astype(np.float64).var(axis=1)
    # The means are off by some roundings of the offset; what that adds is taken off again.
    mean_error = 4 * EPSILON * abs(offset) * np.sqrt(columns)
    relative = EPSILON * (64 + 8 * mean_error**2)
    assert (np.abs(np.asarray(found["y"]) - exact) <= relative * exact).all()


TILES = {moment_schedules.width(each): each for each in moment_schedules.schedules("gpu")}


@pytest.mark.device
@pytest.mark.parametrize("width", TILES)
@pytest.mark.parametrize("columns", [300, 333, 384])
def test_every_tile(width: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products would have the smallest tile only."""
    monkeypatch.setattr(moment_schedules, "schedules", lambda family: [TILES[width]])

    def function(x: Any, w: Any, b: Any) -> Any:
        y = asg.relu(x @ w + b)
        return {"y": functional.layer_norm(y, (columns,)), "raw": y}

    graph = asg.trace(
        function, asg.spec((2, 67, 19)), asg.spec((19, columns)), asg.spec((columns,))
    )
    given = _inputs(graph)
    expected = run(graph, given, dtype="f64")
    passes = pipeline(tile_statistics=True)
    artefact = lower({"main": graph}, target=Target("gpu", 8), passes=passes)
    assert any(f"// {TILES[width]};" in k.variants[0].wgsl for k in artefact.kernels.values())
    with asg.compile(graph, schedule="gpu", passes=passes, cache=False) as exe:
        assert exe.report()["tile_statistics"] == 1
        found = exe(given)
    for key, array in expected.items():
        np.testing.assert_allclose(np.asarray(found[key]), array, rtol=2e-5, atol=2e-5)


@pytest.mark.device
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_with_nan_or_infinity_spoils_no_other(family: str) -> None:
    x = np.random.default_rng(3).standard_normal((6, 150)).astype(np.float32)
    x[1, 70], x[3, 149], x[4, 3] = np.nan, np.inf, -np.inf

    def function(a: Any, x: Any) -> Any:
        return {"y": functional.layer_norm(a * x @ np.eye(150, dtype=np.float32), (150,))}

    graph = asg.trace(function, asg.spec((6, 1)), asg.spec((6, 150)))
    given = {"a": np.ones((6, 1), np.float32), "x": np.nan_to_num(x, posinf=1, neginf=1)}
    expected = run(graph, given, dtype="f64")["y"]
    expected[[1, 3, 4]] = np.nan
    with asg.compile(graph, schedule=family, passes=pipeline(tile_statistics=True)) as exe:
        assert exe.report()["entries"]["main"]["tile_statistics"] == 1
        found = np.asarray(exe({"a": given["a"], "x": x})["y"])
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
