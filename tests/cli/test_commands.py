"""The commands, from a model to a bundle, its results, its kernels and its faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import Result

import asg
from asg.op import Elementwise
from asg.ops.elementwise import exp

Run = Callable[..., Result]


def passed(result: Result, status: int = 0) -> str:
    assert result.exit_code == status, result.output + str(result.exception)
    return result.stdout


@pytest.mark.parametrize("bundle", ["model.asg", "bundle"])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_compile(run: Run, tmp_path: Path, bundle: str, family: str) -> None:
    text = passed(run("compile", "model.py:graph", "-o", bundle, "--target-family", family))
    assert text.startswith(f"wrote {bundle}: ")
    assert "dispatches  " in text
    assert (tmp_path / bundle).is_dir() == (bundle == "bundle")
    data = json.loads(passed(run("inspect", bundle, "--json")))
    assert data["entries"]["main"]["outputs"] == {"y": "f32[4, 16]"}
    assert data["state"] == {"w": "f32[8, 16]", "count": "i32[]"}


def test_export(run: Run, tmp_path: Path) -> None:
    text = passed(run("export", "model.py:graph", "-o", "m.onnx", "--opset", "18"))
    assert text.startswith("wrote m.onnx: ")
    graph = asg.onnx.load(tmp_path / "m.onnx")
    assert "w" in graph.input_names("parameter")
    data = json.loads(
        passed(run("export", "model.py:both", "-o", "m.onnx", "--entry", "main", "--json"))
    )
    assert data["file"] == "m.onnx"
    wrong = run("export", "model.py:both", "-o", "m.onnx")
    assert "; fix: choose one with --entry" in passed_with(wrong, 5)


def passed_with(result: Result, status: int) -> str:
    passed(result, status)
    return result.stderr


def test_compile_of_a_bundle(run: Run) -> None:
    passed(run("compile", "double.graph", "-o", "b.asg"))
    result = run("compile", "b.asg", "-o", "c.asg")
    assert (result.exit_code, result.stderr) == (
        5,
        "GraphError: b.asg is a bundle already; compile the model that it came from\n",
    )


@pytest.mark.parametrize("model", ["model.py:graph", "model.py:make", "model.py:both"])
def test_inspect(run: Run, model: str) -> None:
    text = passed(run("inspect", model))
    for title in ("entry main", "kernels", "memory", "totals"):
        assert f"\n{title}\n" in text
    assert "matmul" in text
    assert "# model.py:9" in text
    assert "\x1b" not in text


def test_inspect_after_a_pass(run: Run) -> None:
    traced = passed(run("inspect", "model.py:graph", "--after", "trace"))
    assert "softmax(" in traced
    assert asg.parse_graph(traced).outputs.keys() == {"y"}
    expanded = passed(run("inspect", "model.py:graph", "--after", "expand-composites"))
    assert "softmax(" not in expanded
    assert "exp(" in expanded
    fused = passed(run("inspect", "model.py:graph", "--after", "fusion"))
    assert "(contract): " in fused
    assert json.loads(passed(run("inspect", "model.py:graph", "--after", "fuse", "--json"))) == {
        "after": "fuse",
        "graph": fused,
    }


def test_inspect_a_kernel(run: Run) -> None:
    data = json.loads(passed(run("inspect", "model.py:graph", "--json")))
    name = next(iter(data["kernels"]))
    by_number = passed(run("inspect", "model.py:graph", "--kernel", name.split("_")[0]))
    assert by_number == passed(run("inspect", "model.py:graph", "--kernel", name))
    assert f"{name} (contract)\nnodes: " in by_number
    assert "line: model.py:9: hidden = asg.relu(x @ w)" in by_number
    assert "portable; " in by_number
    assert "@compute" in by_number


class _Page(HTMLParser):
    """Reads a page: what stands open at the end, the ids, the links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.ids.add(found.get("id", ""))
        self.links += [found[key] for key in ("href", "src") if key in found]
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("rect", "line"), tag


def test_inspect_as_a_page(run: Run, tmp_path: Path) -> None:
    written = run("inspect", "model.py:both", "--html", "page.html", "--plan-svg", "p.svg")
    assert passed(written) == "wrote page.html, p.svg\n"
    text = (tmp_path / "page.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.links  # every one of them into the page itself
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    for part in ("expand-composites", "@compute", "hidden = asg.relu(x @ w)", "<svg"):
        assert part in text
    picture = ElementTree.fromstring((tmp_path / "p.svg").read_text())
    assert picture.tag.endswith("svg")


def test_a_page_of_a_bundle(run: Run, tmp_path: Path) -> None:
    passed(run("compile", "model.py:graph", "-o", "b.asg"))
    passed(run("inspect", "b.asg", "--html", "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "<h1>b</h1>" in text
    assert 'id="passes"' not in text
    result = run("inspect", "b.asg", "--after", "simplify")
    assert (result.exit_code, result.stderr) == (
        5,
        "GraphError: b.asg is a bundle: it holds the graphs after all passes only\n"
        "  fix: inspect the model that it came from\n",
    )


def test_a_page_that_can_not_be_written(run: Run) -> None:
    result = run("inspect", "double.graph", "--html", "no/such/folder.html")
    assert (result.exit_code, result.stderr) == (
        5,
        "no/such/folder.html: No such file or directory\n",
    )


@pytest.mark.device
@pytest.mark.parametrize("model", ["model.py:graph", "b.asg"])
def test_run(run: Run, tmp_path: Path, model: str) -> None:
    passed(run("compile", "model.py:graph", "-o", "b.asg"))
    text = passed(run("run", model, "-i", "x=x.npy", "-o", "results"))
    assert text.splitlines()[1].split() == ["y", "float32[4,", "16]", *["0.0625"] * 3, "0"]
    np.testing.assert_allclose(np.load(tmp_path / "results" / "y.npy"), 1 / 16, rtol=1e-6)
    assert np.load(tmp_path / "results" / "count'.npy") == 1
    np.savez(tmp_path / "all.npz", x=np.load(tmp_path / "x.npy"))
    data = json.loads(passed(run("run", model, "-i", "all.npz", "--json")))
    assert [each["name"] for each in data["outputs"]] == ["y", "count'"]


@pytest.mark.device
def test_run_an_entry(run: Run) -> None:
    data = json.loads(
        passed(run("run", "model.py:both", "-i", "x=x.npy", "--entry", "product", "--json"))
    )
    assert [each["name"] for each in data["outputs"]] == ["h"]


@pytest.mark.device
def test_run_without_an_input(run: Run) -> None:
    result = run("run", "model.py:graph")
    assert (result.exit_code, result.stderr) == (
        5,
        "InputError: main: 'x' is missing; inputs: x: f32[4, 8]\n",
    )


@pytest.mark.device
def test_profile(run: Run, tmp_path: Path) -> None:
    text = passed(run("profile", "model.py:graph", "--trace", "trace.json"))
    assert text.splitlines()[0].split() == [
        "step", "kernel", "class", "µs", "share", "arithmetic", "traffic",
    ]  # fmt: skip
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    steps = json.loads(passed(run("profile", "model.py:graph", "--json")))["steps"]
    assert [event["name"] for event in events] == [step["name"] for step in steps]


@pytest.mark.device
@pytest.mark.parametrize("model", ["model.py:both", "double.graph", "b.asg"])
def test_verify(run: Run, model: str) -> None:
    passed(run("compile", "model.py:graph", "-o", "b.asg"))
    text = passed(run("verify", model))
    assert "input x: random, seed 0, normal\n" in text
    assert "whole programs against the interpreter: " in text
    assert "wrong" not in text
    data = json.loads(passed(run("verify", model, "--json", "--seed", "3")))
    assert data["verdict"] == "right"


def test_verify_what_needs_no_device(run: Run) -> None:
    text = passed(run("verify", "model.py:graph", "--stage", "passes", "--gradients"))
    assert "gradient rules against central differences: " in text
    assert text.endswith("without a device\n")


@pytest.mark.device
def test_verify_and_bisect_a_fault(run: Run, tmp_path: Path) -> None:
    right = exp.kind
    object.__setattr__(exp, "kind", Elementwise("exp({0} * 1.001)", cost=24))
    try:
        verified = run("verify", "model.py:graph", "-i", "x.npz")
        assert verified.exit_code == 5  # there is no such file
        values = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
        np.save(tmp_path / "x.npy", values)
        verified = run("verify", "model.py:graph")
        # w is the same everywhere, so the softmax of equal numbers hides what is wrong with exp.
        assert verified.exit_code == 0
        np.save(tmp_path / "w.npy", np.random.default_rng(1).normal(size=(8, 16)).astype("f4"))
        given = ("-i", "x=x.npy", "-i", "w=w.npy")
        verified = run("verify", "model.py:graph", *given)
        assert verified.exit_code == 1, verified.output
        assert "elements wrong; got" in verified.stdout
        bisected = run("bisect", "model.py:graph", "-o", "found", *given)
    finally:
        object.__setattr__(exp, "kind", right)
    text = passed(bisected, status=1)
    assert " (exp) wrongly, at model.py:10: y = asg.softmax(hidden)\n" in text
    assert text.endswith("wrote found; run found/reproduce.py to see it again\n")
    finding = json.loads((tmp_path / "found" / "finding.json").read_text())
    assert finding["op"] == "exp"
    nothing = passed(run("bisect", "model.py:graph", "-o", "other", *given))
    assert nothing == "nothing is wrong\n"
    assert not (tmp_path / "other").exists()


def test_doctor(run: Run) -> None:
    result = run("doctor", "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == (4 if data["chosen"] is None else 0)
    assert data["versions"]["asg"] == asg.__version__
    text = run("doctor").stdout
    assert "\nversions\n" in text
    assert "\nadapters\n" in text


def test_a_terminal_gets_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = (
        "import pty, sys; sys.exit(pty.spawn([sys.executable, '-m', 'asg', 'inspect', "
        "'double.graph']) >> 8)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\x1b[" in ran.stdout
