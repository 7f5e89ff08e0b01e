"""Graphs on disk: what is written reads back, and what is damaged is refused by name."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from asg import graph_file
from asg.errors import GraphError
from asg.graph import Graph
from asg.graph_file import load_graph, save_graph
from asg.ops.sources import constant, input
from support.random_graphs import random_graph


@pytest.fixture
def graph() -> Graph:
    w = input("w", (2, 3), role="parameter")
    count = input("count", (), "u32", role="state")
    y = w * constant(np.arange(6).reshape(2, 3) + 0.5) + constant(np.linspace(0, 1, 60)).sum()
    return Graph.build(
        {"y": y.value},
        updates={"count": (count + 1).value},
        values={"w": np.eye(2, 3, dtype=np.float32)},
    )


def test_saved_graphs_load(graph: Graph, tmp_path: Path) -> None:
    path = save_graph(graph, tmp_path / "model.v2")
    assert path == tmp_path / "model.v2.graph"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model.v2.graph",
        "model.v2.safetensors",
    ]
    for name in ("model.v2", "model.v2.graph"):
        again = load_graph(tmp_path / name)
        assert str(again) == str(graph)
        assert list(again.values) == ["w"]
        assert again.values["w"].tobytes() == graph.values["w"].tobytes()


def test_the_head_says_what_it_is(graph: Graph, tmp_path: Path) -> None:
    lines = save_graph(graph, tmp_path / "model").read_text().split("\n")
    assert lines[0] == "# asg graph 1"
    assert lines[1].startswith("# tensors model.safetensors sha256 ")
    assert lines[2].startswith("graph graph(w: parameter f32[2, 3], count: state u32[]) {")


def test_graphs_without_numbers_need_no_second_file(tmp_path: Path) -> None:
    path = save_graph(Graph.build({"y": (input("x", (2,)) * 2.0).value}), tmp_path / "small")
    assert [file.name for file in tmp_path.iterdir()] == ["small.graph"]
    assert str(load_graph(path).outputs["y"].type) == "f32[2]"


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_load(seed: int, tmp_path: Path) -> None:
    graph = random_graph(seed).graph
    again = load_graph(save_graph(graph, tmp_path / "random"))
    assert str(again) == str(graph)
    assert {name: array.tobytes() for name, array in again.values.items()} == {
        name: array.tobytes() for name, array in graph.values.items()
    }


def test_files_are_readable_like_any_other(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    path = save_graph(graph, tmp_path / "model")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_failed_write_keeps_the_old_file(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_graph(graph, tmp_path / "model")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(graph_file.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_graph(random_graph(0).graph, tmp_path / "model")
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_missing_files(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"nothing\.graph: there is no such file"):
        load_graph(tmp_path / "nothing")
    save_graph(graph, tmp_path / "model")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(GraphError, match=r"model\.safetensors: can't be read, model\.graph needs"):
        load_graph(tmp_path / "model")


def test_newer_versions(graph: Graph, tmp_path: Path) -> None:
    path = save_graph(graph, tmp_path / "model")
    path.write_text(path.read_text().replace("# asg graph 1", "# asg graph 2"))
    with pytest.raises(GraphError, match=r"model\.graph: has version 2 of the format, this ASG"):
        load_graph(path)


def test_damaged_text(graph: Graph, tmp_path: Path) -> None:
    path = save_graph(graph, tmp_path / "model")
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(GraphError, match=r"model\.graph: line \d+: "):
        load_graph(path)
    path.write_text("")
    with pytest.raises(GraphError, match=r"model\.graph: is no saved graph"):
        load_graph(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GraphError, match=r"model\.graph: can't be read"):
        load_graph(path)


def test_damaged_numbers(graph: Graph, tmp_path: Path) -> None:
    path = save_graph(graph, tmp_path / "model")
    tensors = tmp_path / "model.safetensors"
    data = tensors.read_bytes()
    for wrong in (data[:-1], data[:-1] + b"?", b""):
        tensors.write_bytes(wrong)
        with pytest.raises(GraphError, match=r"model\.safetensors: is not the file that model"):
            load_graph(path)


def test_another_file_can_not_be_named(graph: Graph, tmp_path: Path) -> None:
    path = save_graph(graph, tmp_path / "model")
    path.write_text(path.read_text().replace("tensors model.", "tensors ../model."))
    with pytest.raises(GraphError, match=r"model\.graph: line 2 does not name a file beside it"):
        load_graph(path)


def test_values_that_do_not_fit(graph: Graph, tmp_path: Path) -> None:
    path = save_graph(graph.with_values({"w": np.ones(4, np.float32)}), tmp_path / "model")
    with pytest.raises(GraphError, match=r"'w' is f32\[2, 3\], its value is float32\[4\]"):
        load_graph(path)
