"""A second start skips the compiler, and never gets another program than it would have made."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg import compiler, nn, optim, program_cache
from asg.artefact import Artefact
from asg.codegen.context import Target
from asg.graph import Graph
from asg.op import Op
from asg.ops import TABLE
from asg.program_cache import CACHE, program_key, remembered
from asg.site import Site, inherit
from asg.tensor import Tensor

CPU = Target("cpu", 8)
OPTIONS = {"target": CPU, "passes": compiler.PIPELINE}


def build(
    size: int = 8,
    factor: float = 2.0,
    table: float = 0.5,
    name: str = "x",
    output: str = "y",
    dtype: str = "f32",
    scope: str = "",
) -> Graph:
    """A graph with a small constant, a large one and a state."""
    x = asg.input(name, (4, size), dtype)
    large = np.full((4, size), table, np.float32)
    with asg.scope(scope):
        y = asg.cast(x, "f32") * factor + large
    count = asg.state("count", np.zeros((), np.int32))
    return asg.graph(outputs={output: asg.softmax(y)}, updates={"count": count + 1})


def key_of(graph: Graph, **options: Any) -> str | None:
    return program_key({"main": graph}, OPTIONS | options)


def lowered(graph: Graph) -> Artefact:
    entries = {"main": graph}
    return remembered(entries, OPTIONS, lambda: compiler.lower(entries, target=CPU))


def refuse() -> Artefact:
    raise AssertionError("compiled though it is in the cache")


def plain(artefact: Artefact) -> dict[str, Any]:
    """All of an artefact but the times, in their order."""
    fields = {each.name: getattr(artefact, each.name) for each in dataclasses.fields(artefact)}
    report = {key: value for key, value in artefact.report.items() if "compile" not in key}
    values = {name: array.tolist() for name, array in artefact.values.items()}
    return fields | {"report": json.dumps(report), "values": values}


def test_what_is_read_is_what_was_made() -> None:
    fresh = lowered(build())
    assert CACHE.usage().files == 1
    again = remembered({"main": build()}, OPTIONS, refuse)
    assert plain(again) == plain(fresh)
    assert list(again.kernels) == list(fresh.kernels)
    assert again.report["compile_stages"].keys() == {"cache"}
    assert again.report["compile_s"] > 0


def test_a_whole_training_step_is_read_as_it_was_made() -> None:
    def step() -> Graph:
        nn.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))

        def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            return nn.functional.mse_loss(model(batch["x"]), batch["y"])

        specs = {"x": asg.spec((6, 8)), "y": asg.spec((6, 4))}
        return asg.training_step(model, loss, optim.AdamW(lr=0.01), **specs)

    fresh, again = (lowered(step()) for _ in range(2))
    assert again.report["compile_stages"].keys() == {"cache"}
    assert plain(again) == plain(fresh)


def test_values_of_parameters_are_those_of_the_graph() -> None:
    def model(value: float) -> Graph:
        w = asg.input("w", (3,), role="parameter")
        graph = asg.graph(outputs={"y": asg.input("x", (3,)) * w})
        return graph.with_values({"w": np.full(3, value, np.float32)})

    lowered(model(1.0))
    again = remembered({"main": model(2.0)}, OPTIONS, refuse)
    assert again.values["w"].tolist() == [2.0, 2.0, 2.0]
    w = asg.input("w", (3,), role="parameter")
    assert "w" not in lowered(asg.graph(outputs={"y": asg.input("x", (3,)) * w})).values


@pytest.mark.parametrize(
    "change",
    [{"size": 9}, {"factor": 3.0}, {"factor": 2.0000002}, {"factor": -2.0}, {"table": 0.25},
     {"name": "z"}, {"output": "z"}, {"dtype": "i32"}, {"scope": "block"}],
    ids=str,
)  # fmt: skip
def test_other_graphs_have_other_keys(change: dict[str, Any]) -> None:
    assert key_of(build(**change)) != key_of(build())
    assert key_of(build()) == key_of(build())


def test_nothing_that_matters_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build()
    keys = {
        "plain": key_of(graph),
        "target": key_of(graph, target=Target("cpu", 4)),
        "family": key_of(graph, target=Target("gpu", 0)),
        "passes": key_of(graph, passes=compiler.PIPELINE[:-1]),
        "option": key_of(graph, another=True),
        "entry": program_key({"other": graph}, OPTIONS),
        "entries": program_key({"main": graph, "second": graph}, OPTIONS),
        "order": program_key({"second": graph, "main": graph}, OPTIONS),
        "updates": key_of(asg.graph(outputs={"y": Tensor(graph.outputs["y"])})),
        "line 1": key_of(_on_line(1)),
        "line 2": key_of(_on_line(2)),
    }
    monkeypatch.setattr(program_cache, "source_digest", lambda: "other sources")
    keys["source"] = key_of(graph)
    monkeypatch.undo()
    monkeypatch.setattr(np, "__version__", "99")
    keys["numpy"] = key_of(graph)
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)


def _on_line(number: int) -> Graph:
    with inherit(Site(__file__, number, "build"), ""):
        return build()


def test_bits_of_numbers_count() -> None:
    def of(value: Any) -> str | None:
        return key_of(asg.graph(outputs={"y": asg.input("x", (40,)) + value}))

    zeros = np.zeros(40, np.float32)
    values = [0.0, -0.0, float("nan"), float("inf"), zeros, -zeros, zeros + 1e-45]
    assert len({of(value) for value in values}) == len(values)


def test_the_source_is_the_whole_package() -> None:
    root = Path(asg.__file__).parent
    files = [path for path in root.rglob("*.py") if "__pycache__" not in path.parts]
    assert len(files) > 50
    assert len(program_cache.source_digest()) == 64
    found = [Path(folder) for name in program_cache.PACKAGES
             for folder in __import__(name, fromlist=["__path__"]).__path__]  # fmt: skip
    for name in ("graph.py", "fuse.py", "emit.py", "map.wgsl.j2", "executor.py"):
        assert any((folder / name).is_file() for folder in found), name


def test_what_the_text_does_not_say_is_compiled_each_time() -> None:
    relu = TABLE["abs"]
    mine = Op(**{each.name: getattr(relu, each.name) for each in dataclasses.fields(relu)})
    assert isinstance(mine, Op)
    x = asg.input("x", (3,))
    assert key_of(asg.graph(outputs={"y": mine(x)})) is None
    assert key_of(asg.graph(outputs={"y": relu(x)})) is not None

    @dataclass(frozen=True)
    class Mine:
        name: str = "mine"

        def __call__(self, graph: Graph) -> Graph:
            return graph

    assert key_of(build(), passes=(Mine(),)) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_damaged_programs_are_made_anew(caches: Path, damage: str) -> None:
    fresh = lowered(build())
    (path,) = (caches / "programs").iterdir()
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            middle = len(data) // 2
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "other":  # whole, but no bundle
            CACHE.put(path.stem, b"PK nothing of the kind")
    made: list[bool] = []

    def lower() -> Artefact:
        made.append(True)
        return compiler.lower({"main": build()}, target=CPU)

    assert plain(remembered({"main": build()}, OPTIONS, lower)) == plain(fresh)
    assert made == [True]
    assert plain(remembered({"main": build()}, OPTIONS, refuse)) == plain(fresh)


@pytest.mark.parametrize("name", ["ASG_CACHE", "ASG_DUMP"])
def test_opting_out(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lowered(build())
    monkeypatch.setenv(name, "0" if name == "ASG_CACHE" else str(tmp_path / "dump"))
    with pytest.raises(AssertionError, match="compiled though"):
        remembered({"main": build()}, OPTIONS, refuse)


@pytest.mark.device
def test_compile_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    with asg.compile(build()) as first:
        wanted = first({"x": x})["y"]
        texts = dict(first.kernels)
    with asg.compile(build(), cache=False) as uncached:
        assert "cache" not in uncached.report()["compile_stages"]
    monkeypatch.setattr(compiler, "lower", lambda *_, **__: refuse())
    with asg.compile(build()) as second:
        assert dict(second.kernels) == texts
        assert list(second.kernels) == list(texts)
        np.testing.assert_array_equal(second({"x": x})["y"], wanted)
        assert second.plan is not None
        assert second.report()["compile_stages"].keys() == {"cache"}
    with pytest.raises(AssertionError, match="compiled though"):
        asg.compile(build(), cache=False)


_PROGRAM = """
import asg, sys
from asg import compiler
from asg.program_cache import CACHE
lower = compiler.lower
compiler.lower = lambda *a, **k: print("compiled") or lower(*a, **k)
graph = asg.graph(outputs={"y": asg.softmax(asg.input("x", (4, 8)))})
with asg.compile(graph) as exe:
    print(sorted(exe.kernels))
"""


@pytest.mark.device
def test_another_process_finds_it(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(_PROGRAM)

    def start() -> str:
        command = [sys.executable, str(script)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    first, second = start(), start()
    assert first.startswith("compiled\n")
    assert first == f"compiled\n{second}"
    script.write_text(_PROGRAM.replace("(4, 8)", "(4, 9)"))
    assert start().startswith("compiled\n")


def test_constants_too_large_for_the_cache_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_cache, "CACHE", dataclasses.replace(CACHE, limit=1000))

    def refuse_to_pack(*_: object) -> bytes:
        raise AssertionError("packed what the cache can't hold")

    monkeypatch.setattr(program_cache, "pack_bundle", refuse_to_pack)
    assert plain(lowered(build(size=100))) == plain(lowered(build(size=100)))
    assert CACHE.usage().files == 0
