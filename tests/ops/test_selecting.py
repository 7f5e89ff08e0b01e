"""Results whose length the numbers decide: on a device, in the interpreter, and from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg.errors import AsgError, BundleError, InputError, UnsupportedError
from asg.graph import Graph
from asg.parse import parse_graph
from asg.runtime.interpreter import run
from support.variants import CPU, GPU, run_each

Array = np.ndarray[Any, Any]
CHANCE = np.random.default_rng(11)


def _everywhere(graph: Graph, inputs: dict[str, Array], wanted: dict[str, Array]) -> None:
    inputs = {name: inputs[name] for name in graph.input_names()}
    found = [("interpreter", run(graph, inputs)), *run_each(graph, inputs, (CPU, GPU))]
    for label, arrays in found:
        assert arrays.keys() == wanted.keys(), label
        for name, array in wanted.items():
            assert arrays[name].shape == array.shape, f"{label} {name}"
            np.testing.assert_array_equal(arrays[name], array, err_msg=f"{label} {name}")


@pytest.mark.device
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1030,), (0, 3), ()], ids=str)
def test_nonzero(shape: tuple[int, ...]) -> None:
    x = np.asarray(CHANCE.integers(-1, 2, shape), np.float32)
    tensor = asg.input("x", shape)
    graph = asg.graph(outputs={"rows": asg.nonzero(tensor), "columns": asg.nonzero(tensor, True)})
    places = np.argwhere(x).astype(np.int32)
    _everywhere(graph, {"x": x}, {"rows": places, "columns": places.T})


@pytest.mark.device
@pytest.mark.parametrize("chosen", ["none", "some", "all"])
def test_compress(chosen: str) -> None:
    x = CHANCE.integers(-9, 9, (3, 6)).astype(np.int32)
    mask = {"none": np.zeros(5, bool), "some": np.array([1, 0, 1, 1, 0], bool)}
    condition = mask.get(chosen, np.ones(5, bool))
    which = x > 0 if chosen == "some" else np.full(x.shape, chosen == "all")
    tensor, test = asg.input("x", x.shape, "i32"), asg.input("c", (5,), "bool")
    outputs = {
        "columns": asg.compress(tensor, test, 1),
        "flat": asg.compress(tensor, test),
        "masked": asg.masked_select(tensor, asg.input("m", x.shape, "bool")),
    }
    wanted = {
        "columns": np.compress(condition, x, 1),
        "flat": np.compress(condition, x),
        "masked": x[which],
    }
    _everywhere(asg.graph(outputs=outputs), {"x": x, "c": condition, "m": which}, wanted)


@pytest.mark.device
@pytest.mark.parametrize(
    "x",
    [
        np.float32([3, 1, 2, 1, 3, 3]),
        np.float32([[np.nan, 0.0], [-0.0, np.nan], [np.inf, 1.0]]),
        np.array([5, 5, 5], np.int32),
        np.zeros((0,), np.float32),
        np.array([7], np.uint32),
        np.random.default_rng(0).integers(0, 40, 1500).astype(np.int32),
    ],
    ids=["floats", "special", "equal", "nothing", "one", "many"],
)
def test_unique(x: Array) -> None:
    names = ("values", "first", "which", "often")
    tensor = asg.input("x", x.shape, x.dtype)
    for is_sorted in (True, False):
        outputs = dict(zip(names, asg.unique(tensor, sorted=is_sorted), strict=True))
        arrays = list(np.unique(x, True, True, True))
        arrays[2] = arrays[2].reshape(-1)
        if not is_sorted:
            turn = np.argsort(arrays[1], kind="stable")
            arrays = [
                arrays[0][turn],
                arrays[1][turn],
                np.argsort(turn)[arrays[2]],
                arrays[3][turn],
            ]
        wanted = {
            name: array if name == "values" else array.astype(np.int32)
            for name, array in zip(names, arrays, strict=True)
        }
        _everywhere(asg.graph(outputs=outputs), {"x": x}, wanted)


@pytest.mark.device
@pytest.mark.parametrize("dtype", ["f16", "i8", "u16"])
def test_narrow_numbers_have_an_order_too(dtype: str) -> None:
    x = np.array([3, 1, 100, 1, 0]).astype(asg.spec((1,), dtype).dtype.numpy)
    tensor = asg.input("x", (5,), dtype)
    outputs = {
        "values": asg.unique(tensor)[0],
        "sorted": asg.sort(tensor)[0],
        "found": asg.searchsorted(asg.sort(tensor)[0], tensor),
    }
    wanted = {"values": np.unique(x), "sorted": np.sort(x)}
    wanted["found"] = np.searchsorted(np.sort(x), x).astype(np.int32)
    _everywhere(asg.graph(outputs=outputs), {"x": x}, wanted)


def _boxes_by_hand(
    boxes: Array, scores: Array, most: int, iou: float, least: float
) -> list[tuple[int, int, int]]:
    """One box after the other, as the definition says."""
    found = []
    for batch, group in np.ndindex(*scores.shape[:2]):
        kept: list[int] = []
        row = scores[batch, group]
        for place in sorted(range(row.size), key=lambda n: (-row[n], n)):
            one = boxes[batch, place].reshape(2, 2)
            is_free = row[place] > least and len(kept) < most
            for other in kept if is_free else ():
                two = boxes[batch, other].reshape(2, 2)
                sides = np.minimum(one.max(0), two.max(0)) - np.maximum(one.min(0), two.min(0))
                shared = np.prod(np.maximum(sides, 0))
                areas = [np.prod(np.abs(box[1] - box[0])) for box in (one, two)]
                is_free &= not shared > iou * (areas[0] + areas[1] - shared)
            if is_free:
                kept.append(place)
        found += [(batch, group, place) for place in kept]
    return found


@pytest.mark.device
@pytest.mark.parametrize("most", [0, 1, 3, 100])
def test_boxes_that_overlap_are_left_out(most: int) -> None:
    boxes = CHANCE.uniform(0, 5, (2, 41, 4)).astype(np.float32)
    scores = np.round(CHANCE.uniform(0, 1, (2, 3, 41)), 2).astype(np.float32)
    y = asg.non_max_suppression(
        asg.input("boxes", boxes.shape), asg.input("scores", scores.shape), most, 0.2, 0.3
    )
    wanted = np.array(_boxes_by_hand(boxes, scores, most, 0.2, 0.3), np.int32).reshape(-1, 3)
    inputs = {"boxes": boxes, "scores": scores}
    _everywhere(asg.graph(outputs={"y": y}), inputs, {"y": wanted})


def test_boxes_by_centre_and_scores_that_are_none() -> None:
    boxes = np.float32([[[1, 1, 2, 2], [1, 1.1, 2, 2], [9, 9, 1, 1]]])
    scores = np.float32([[[0.5, np.nan, 0.1]]])
    y = asg.non_max_suppression(boxes, scores, 5, 0.5, center=True)
    found = run(asg.graph(outputs={"y": y}), {})["y"]
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 0, 2]])


def _model() -> Graph:
    x = asg.input("x", (6,))
    return asg.graph(outputs={"places": asg.nonzero(x), "double": x * 2.0})


X = np.float32([0, 1, 0, 2, 3, 0])


@pytest.mark.device
def test_some_outputs_and_bundles(tmp_path: Path) -> None:
    path = tmp_path / "model.asg"
    with asg.compile(_model()) as exe:
        assert list(exe({"x": X})) == ["places", "double"]
        assert list(exe.entries["main"].outputs) == ["places", "double"]
        assert exe({"x": X}, outputs=["double"])["double"].shape == (6,)
        with pytest.raises(InputError, match="'places' has a length known at run time only"):
            exe({"x": X}, device_outputs=True)
        assert exe({"x": X}, outputs=["double"], device_outputs=True)["double"].shape == (6,)
        exe.save(path)
    with asg.load(path) as loaded:
        np.testing.assert_array_equal(loaded({"x": X})["places"], [[1], [3], [4]])
        np.testing.assert_array_equal(loaded({"x": 0 * X})["places"], np.zeros((0, 1)))


@pytest.mark.device
def test_a_bundle_with_a_wrong_cut_is_refused(tmp_path: Path) -> None:
    import hashlib
    import json

    folder = tmp_path / "model"
    with asg.compile(_model()) as exe:
        exe.save(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for wrong in (
        {"nothing": [0, "places.count"]},
        {"places": [9, "places.count"]},
        {"places": [0]},
    ):
        changed = json.loads(json.dumps(manifest))
        entries = changed["entries"]
        entry = entries["main"] if isinstance(entries, dict) else entries[0]
        entry["cuts"] = wrong
        changed.pop("sha256")
        text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
        changed["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError, match="cuts"):
            asg.load(folder)


def test_the_text_form_keeps_the_mark() -> None:
    graph = _model()
    again = parse_graph(str(graph))
    assert str(again) == str(graph)
    np.testing.assert_array_equal(run(again, {"x": X})["places"], [[1], [3], [4]])


@pytest.mark.parametrize("target", ["numpy", pytest.param("wgpu", marks=pytest.mark.device)])
def test_inside_a_graph_it_is_refused_by_name(target: str) -> None:
    places = asg.nonzero(asg.input("x", (6,)))
    graph = asg.graph(outputs={"y": places + 1})
    with (
        pytest.raises(UnsupportedError, match=r"cut_1: i32\[6, 1\] has a length known at run time"),
        asg.compile(graph, target=target) as exe,
    ):
        exe({"x": X})


@pytest.mark.device
def test_verify_looks_at_all_of_it() -> None:
    asg.testing.differential(_model(), {"x": X})


def test_conditions_must_fit() -> None:
    with pytest.raises(AsgError, match=r"bool\[4\] are no conditions for axis 0"):
        asg.compress(asg.input("x", (3,)), asg.input("c", (4,), "bool"), 0)
