"""Options that say how a model is read and prepared: `--precision`, `--freeze`, `--float64`."""

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

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
DOUBLE = HEAD + "net (double[4] x) => (double[4] y) { y = Add(x, x) }"
MODEL = """
import numpy as np
import asg
from asg import nn


def build():
    nn.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 64)
    )
    model.eval()
    return asg.trace(model, asg.spec((16, 3, 8, 8)))
"""
EVERY_COMMAND = ["compile", "run", "profile", "inspect", "tune", "verify", "bisect"]


@pytest.fixture(autouse=True)
def files(run: Run) -> None:
    onnx.save(parser.parse_model(DOUBLE), "double.onnx")
    Path("net.py").write_text(MODEL)
    np.save("x.npy", np.array([1, 2, -0.5, 4]))
    np.save("images.npy", np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32))


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_every_command_on_models_has_them(run: Run, command: str) -> None:
    text = run(command, "--help").output
    for option in ("--precision [mixed_bf16|mixed_f16]", "--freeze", "--float64 [error|narrow]"):
        assert option in text


@pytest.mark.device
def test_f64_is_refused_unless_told(run: Run) -> None:
    done = run("run", "double.onnx", "-i", "x=x.npy")
    assert done.exit_code == 3
    assert "f64" in done.output or "float64" in done.output
    done = run("run", "double.onnx", "-i", "x=x.npy", "--float64", "narrow", "-o", "out")
    assert done.exit_code == 0, done.output
    assert np.load("out/y.npy").tolist() == [2, 4, -1, 8]
    done = run("verify", "double.onnx", "--float64", "narrow")
    assert done.exit_code == 0, done.output


def test_f64_of_what_is_no_onnx_model(run: Run) -> None:
    done = run("inspect", "net.py:build", "--float64", "narrow")
    assert (done.exit_code, done.output) == (
        5,
        "GraphError: net.py:build is no ONNX model, and --float64 is for these\n",
    )


def _report(run: Run, *options: str) -> dict[str, object]:
    done = run("compile", "net.py:build", "-o", "b.asg", "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.output)["report"]
    return found


def _shown(run: Run) -> str:
    return run("inspect", "b.asg", "--json").output


@pytest.mark.device
def test_freezing_takes_norms_into_weights(run: Run) -> None:
    plain = _report(run)
    assert "1.running_var" in _shown(run)
    expected = run("run", "b.asg", "-i", "x=images.npy", "-o", "plain")
    frozen = _report(run, "--freeze")
    assert "1.running_var" not in _shown(run)
    assert frozen["flops"] <= plain["flops"]  # type: ignore[operator]
    found = run("run", "b.asg", "-i", "x=images.npy", "-o", "frozen")
    assert (expected.exit_code, found.exit_code) == (0, 0), found.output
    (name,) = [each.name for each in Path("plain").iterdir()]
    np.testing.assert_allclose(
        np.load(f"frozen/{name}"), np.load(f"plain/{name}"), rtol=1e-4, atol=1e-4
    )


@pytest.mark.device
@pytest.mark.parametrize("precision", ["mixed_f16", "mixed_bf16"])
def test_precision_halves_what_is_stored(run: Run, precision: str) -> None:
    plain = _report(run)["bytes_moved"]
    narrow = _report(run, "--precision", precision)["bytes_moved"]
    assert narrow < plain  # type: ignore[operator]
    stored = json.loads(_shown(run))
    dtype = precision.removeprefix("mixed_")
    assert f'"4.weight": parameter {dtype}[64, 288]' in stored["entries"]["main"]["graph"]
    for options in (["--precision", precision], ["--precision", precision, "--freeze"]):
        done = run("verify", "net.py:build", *options)
        assert done.exit_code == 0, done.output
        assert "pass by pass" in done.output
        assert "whole programs" in done.output
    done = run("bisect", "net.py:build", "--precision", precision, "-o", "folder")
    assert done.exit_code == 0
    assert "nothing is wrong" in done.output


@pytest.mark.device
def test_bundles_are_made_already(run: Run) -> None:
    _report(run)
    done = run("run", "b.asg", "--freeze", "--precision", "mixed_f16")
    assert (done.exit_code, done.output) == (
        5,
        "GraphError: b.asg is a bundle already: --precision, --freeze would come too late\n"
        "  fix: asg compile with --precision, --freeze the model that it came from\n",
    )
