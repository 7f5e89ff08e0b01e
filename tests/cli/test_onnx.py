"""Commands take ONNX models: open sizes by option or by arrays, problems as a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import parser

Run = Callable[..., Result]

HEAD = '<ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>\n'
OPEN = HEAD + "net (float[batch,2] x) => (float[batch,2] y) { y = Relu(x) }"
STATIC = HEAD + "net (float[4] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }"
STRANGE = HEAD + "net (float[2] x) => (float[2] y) { h = nobody.Odd(x)\n y = nobody.Odder(h) }"


@pytest.fixture(autouse=True)
def files(run: Run) -> None:
    for name, text in (("open", OPEN), ("static", STATIC), ("strange", STRANGE)):
        onnx.save(parser.parse_model(text), f"{name}.onnx")
    np.save("x.npy", np.array([[-1, 2], [3, -4], [5, 6]], np.float32))
    np.save("flat.npy", np.arange(4, dtype=np.float32))
    np.save("s.npy", np.array([2, 2]))


def test_what_cannot_be_compiled_is_a_table(run: Run) -> None:
    done = run("compile", "strange.onnx", "-o", "bundle")
    assert done.exit_code == 3
    lines = [line.split() for line in done.output.splitlines()]
    assert lines[0][:3] == ["UnsupportedError:", "strange.onnx:", "2"]
    assert [line[:2] for line in lines[1:]] == [
        ["node", "operator"], ["Odd", "nobody.Odd-1"], ["Odder", "nobody.Odder-1"]
    ]  # fmt: skip
    assert not Path("bundle").exists()


@pytest.mark.device
def test_compile_and_run(run: Run) -> None:
    assert run("compile", "open.onnx", "-o", "b.asg", "--dim", "batch=3").exit_code == 0
    for model in ("b.asg", "open.onnx"):
        done = run("run", model, "-i", "x=x.npy", "-o", "out", "--json")
        assert done.exit_code == 0, done.output
        assert np.load("out/y.npy").tolist() == [[0, 2], [3, 0], [5, 6]]


@pytest.mark.device
def test_static_inputs(run: Run) -> None:
    done = run("run", "static.onnx", "-i", "x=flat.npy", "-i", "s=s.npy", "--json")
    assert json.loads(done.output)["outputs"][0]["type"] == "float32[2, 2]"
    assert run("inspect", "static.onnx", "--static", "s=s.npy").exit_code == 0
    done = run("inspect", "static.onnx")
    assert (done.exit_code, done.output) == (
        5,
        "GraphError: static.onnx: the values of s decide shapes\n"
        "  fix: --static s=FILE.npy; where arrays are given, --input\n",
    )


def test_open_sizes_are_asked_for(run: Run) -> None:
    done = run("inspect", "open.onnx")
    assert done.output == (
        "GraphError: open.onnx: sizes are open: batch\n  fix: --dim batch=SIZE for each\n"
    )
    done = run("inspect", "open.onnx", "--dim", "depth=2")
    assert done.output == ("GraphError: open.onnx has no open dimension 'depth'; open: batch\n")
    assert run("inspect", "open.onnx", "--dim", "batch").exit_code == 2


@pytest.mark.device
def test_verify_and_bisect(run: Run) -> None:
    assert run("verify", "open.onnx", "--dim", "batch=2").exit_code == 0
    assert "nothing is wrong" in run("bisect", "open.onnx", "-o", "f", "--dim", "batch=2").output
