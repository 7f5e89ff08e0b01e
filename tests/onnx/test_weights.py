"""Where weights come from: the file, files beside it, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import asg
from asg.onnx import wire
from asg.onnx.weights import Files, sparse, tensor


def weighted(weight: TensorProto, rows: int = 2) -> onnx.ModelProto:
    """A product with one weight."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, rows])
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node], "weighted", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["path", "bytes", "proto"])
@pytest.mark.parametrize("rows", [3, 65])  # small ones stay in the message
def test_weights_come_whole(kind: str, rows: int, tmp_path: Path) -> None:
    w = values(rows, 7)
    model = weighted(numpy_helper.from_array(w, "w"), rows)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    source = {"path": path, "bytes": path.read_bytes(), "proto": model}[kind]
    graph = asg.onnx.load(source)
    assert graph.values["w"].tobytes() == w.tobytes()


def test_the_message_is_all_that_is_left() -> None:
    """Splitting takes large weights out and changes nothing else."""
    model = weighted(numpy_helper.from_array(values(65, 7), "w"), 65)
    model.graph.initializer.append(numpy_helper.from_array(values(3), "small"))
    model.graph.initializer.insert(0, numpy_helper.from_array(values(1000), "first"))
    data = model.SerializeToString()
    found = wire.split(memoryview(data))
    assert list(found.places) == [0, 1]
    for position, (start, end) in found.places.items():
        assert data[start:end] == model.graph.initializer[position].raw_data
        model.graph.initializer[position].ClearField("raw_data")
    assert onnx.ModelProto.FromString(found.message) == model


@pytest.mark.parametrize("cut", [1, 5, 900, 2000])
def test_cut_off_files_are_refused(cut: int) -> None:
    data = weighted(numpy_helper.from_array(values(65, 7), "w"), 65).SerializeToString()
    with pytest.raises(asg.errors.GraphError):
        asg.onnx.load(data[:-cut])


@pytest.mark.parametrize("is_external", [True, False])
def test_memory_of_an_import(is_external: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = weighted(numpy_helper.from_array(values(1024, 2048), "w"), 1024)
    onnx.save(model, path, save_as_external_data=is_external, location="m.bin")
    size = 4 * 1024 * 2048
    asg.onnx.load(path)  # what is imported once stays
    tracemalloc.start()
    try:
        graph = asg.onnx.load(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert graph.values["w"].nbytes == size
    assert kept <= (0.05 if is_external else 1.05) * size
    assert peak <= (0.05 if is_external else 1.6) * size


def external(location: str, **entries: int) -> TensorProto:
    found = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3])
    found.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        found.external_data.add(key=key, value=str(value))
    return found


def test_data_beside_the_model(tmp_path: Path) -> None:
    w = values(2, 3)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/w.bin").write_bytes(b"\0" * 5 + w.tobytes() + b"rest")
    path = tmp_path / "m.onnx"
    path.write_bytes(weighted(external("sub/w.bin", offset=5, length=24)).SerializeToString())
    assert asg.onnx.load(path).values["w"].tolist() == w.tolist()
    with pytest.raises(asg.errors.GraphError, match="load the model by its path"):
        asg.onnx.load(path.read_bytes())


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../secret.bin", {}, "is not in the model's folder"),
        ("sub/../../secret.bin", {}, "is not in the model's folder"),
        ("..\\secret.bin", {}, "is not in the model's folder"),
        ("C:\\secret.bin", {}, "is not in the model's folder"),
        ("{root}/secret.bin", {}, "is not in the model's folder"),
        ("link.bin", {}, "leads out of the model's folder"),
        ("", {}, "is not in the model's folder"),
        ("gone.bin", {}, "there is no data file 'gone.bin' beside the model"),
        (".", {}, "there is no data file"),
        ("w.bin", {"offset": 8}, "bytes 8 to 32 are wanted of 'w.bin', which has 24"),
        ("w.bin", {"offset": -8}, "are wanted of"),
        ("w.bin", {"length": 20}, r"float32\[2, 3\] takes 24 bytes, but 20 are there"),
    ],
)
def test_data_that_is_not_beside_the_model(
    location: str, entries: dict[str, int], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path / "secret.bin", folder / "w.bin"):
        place.write_bytes(values(2, 3).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = weighted(external(location.format(root=tmp_path), **entries))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(asg.errors.GraphError, match=message):
        asg.onnx.load(folder / "m.onnx")


@pytest.mark.parametrize("dims", [[2, 4], [-2, -3], [2**40, 2**40], [2], [0]])
def test_sizes_and_data_that_disagree(dims: list[int]) -> None:
    weight = numpy_helper.from_array(values(2, 3), "w")
    del weight.dims[:]
    weight.dims.extend(dims)
    with pytest.raises(asg.errors.GraphError, match=r"model: tensor 'w': "):
        asg.onnx.load(weighted(weight))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.array([[True, False]]),
        np.array(3.5, np.float64),
        np.array([1, 2**40]),
        np.array([0.5, -2], np.float16),
        np.array([0.5, -2], ml_dtypes.bfloat16),
        np.array([1, -8, 7], ml_dtypes.int4),
        np.zeros((0, 3), np.float32),
    ],
    ids=lambda array: array.dtype.name,
)
def test_element_types(array: np.ndarray) -> None:
    found = tensor(numpy_helper.from_array(array, "t"), Files(None))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()


def test_numbers_in_fields_of_their_own() -> None:
    for kind, numbers in ((TensorProto.FLOAT, [1.5, -2.0]), (TensorProto.INT64, [2**40, -1])):
        found = tensor(helper.make_tensor("t", kind, [2], numbers), Files(None))
        assert found.tolist() == numbers


def test_sparse_tensors() -> None:
    five = numpy_helper.from_array(np.array([5.0, 6.0], np.float32), "t")
    places = numpy_helper.from_array(np.array([[0, 1], [1, 2]]), "places")
    proto = helper.make_sparse_tensor(five, places, [2, 3])
    assert sparse(proto, Files(None)).tolist() == [[0, 5, 0], [0, 0, 6]]
    proto.dims[0] = 1
    with pytest.raises(asg.errors.GraphError, match="places of a sparse tensor do not fit"):
        sparse(proto, Files(None))


@pytest.mark.parametrize("kind", ["input", "output", "initializer"])
def test_names_that_are_there_twice(kind: str) -> None:
    model = weighted(numpy_helper.from_array(values(2, 3), "w"))
    entries = getattr(model.graph, kind)
    entries.append(entries[0])
    with pytest.raises(asg.errors.GraphError, match=f"two {kind}s are called"):
        asg.onnx.load(model)
