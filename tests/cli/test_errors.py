"""What goes wrong is one message, and an exit status that says whose fault it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from asg.cli import EXIT_CODES, main

Run = Callable[..., Result]

MESSAGES = {
    ("inspect", "net.onnx"): (
        5,
        "GraphError: net.onnx: can't be read: No such file or directory\n",
    ),
    ("inspect", "missing.graph"): (5, "GraphError: missing.graph: there is no such file\n"),
    ("inspect", "missing.asg"): (
        5,
        "BundleError: missing.asg: there is no such file or folder\n",
    ),
    ("inspect", "missing.py:graph"): (5, "GraphError: missing.py: there is no such file\n"),
    ("inspect", "model.py:grahp"): (
        5,
        "GraphError: model.py has no 'grahp'; what may be a model in it: graph, both\n",
    ),
    ("inspect", "model.py:number"): (
        5,
        "GraphError: model.py:number is int; a model is a graph, a dict of graphs, or a function "
        "without arguments that returns one\n",
    ),
    ("inspect", "model.py:crash"): (
        5,
        "GraphError: model.py: crash() failed: KeyError: 'nothing'\n"
        "  at model.py:26\n"
        "  ASG_DEBUG=1 shows the whole traceback\n",
    ),
    ("inspect", "model.py:graph", "--after", "simplfy"): (
        5,
        "GraphError: there is no pass 'simplfy'; near it: simplify; passes: {passes}\n",
    ),
    ("inspect", "model.py:graph", "--kernel", "k77"): (
        5,
        "GraphError: there is no kernel 'k77'; kernels: {kernels}\n",
    ),
    ("inspect", "model.py:both", "--entry", "train"): (
        5,
        "GraphError: there is no entry 'train'; entries: main, product\n",
    ),
    ("verify", "model.py:graph", "-i", "z=x.npy", "--stage", "passes"): (
        5,
        "InputError: there is no input 'z'; inputs: x, w, count\n",
    ),
    ("verify", "model.py:graph", "-i", "x=none.npy"): (
        5,
        "InputError: none.npy: there is no such file\n",
    ),
    ("verify", "model.py:graph", "-i", "x=model.py"): (
        5,
        "InputError: model.py: can't be read as arrays: "
        "This file contains pickled (object) data. If you trust the file you can load it unsafely "
        "using the `allow_pickle=` keyword argument or `pickle.load()`.\n",
    ),
}

USAGE = {
    ("inspect", "nothing"): (
        "Error: 'nothing' is neither an ONNX model (NAME.onnx), nor a saved graph (NAME.graph), "
        "nor FILE.py:OBJECT, nor a bundle (a folder with manifest.json, or NAME.asg)\n"
    ),
    ("inspect", "model.py"): "Error: say which object of model.py is the model: model.py:OBJECT\n",
    ("verify", "model.py:graph", "-i", "x.npy"): (
        "Error: --input is NAME=FILE.npy or FILE.npz, got 'x.npy'\n"
    ),
}


def names(run: Run) -> dict[str, str]:
    """What the compiler calls its passes and kernels today."""
    from asg.cli.inspect import passes_of
    from asg.cli.models import load_model
    from asg.compiler import lower

    loaded = load_model("model.py:graph")
    return {
        "passes": ", ".join(passes_of(loaded, None)),
        "kernels": ", ".join(lower(loaded.entries).kernels),
    }


@pytest.mark.parametrize("arguments", MESSAGES, ids=" ".join)
def test_messages(run: Run, arguments: tuple[str, ...]) -> None:
    status, message = MESSAGES[arguments]
    result = run(*arguments)
    expected = message
    if "{" in message and "{}" not in message:
        expected = message.format(**names(run))
    assert (result.exit_code, result.stderr) == (status, expected)
    assert not result.stdout


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: asg")
    assert result.stderr.endswith(USAGE[arguments])


def test_an_error_of_the_model_is_told_as_it_is(run: Run) -> None:
    result = run("inspect", "model.py:fail")
    assert result.exit_code == 5
    first, *rest = result.stderr.splitlines()
    assert first.startswith("ShapeError: add: ")
    assert any("model.py:22" in line for line in rest)
    assert "Traceback" not in result.stderr


def test_every_exit_status_is_documented(run: Run) -> None:
    result = run("--help")
    for number, text in EXIT_CODES.items():
        assert f"{number}  {text}" in result.stdout
    assert sorted(main.commands) == [
        "bisect", "cache", "compile", "doctor", "export", "inspect", "profile", "run", "tune",
        "verify",
    ]  # fmt: skip


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, in the folder of the test."""
    return subprocess.run(
        [sys.executable, "-m", "asg", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = shell("inspect", "missing.graph")
    assert (quiet.returncode, quiet.stderr) == (
        5,
        "GraphError: missing.graph: there is no such file\n",
    )
    loud = shell("inspect", "missing.graph", ASG_DEBUG="1")
    assert "Traceback" in loud.stderr


def test_no_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = {"VK_ICD_FILENAMES": "/nonexistent", "VK_DRIVER_FILES": "/nonexistent"}
    verified = shell("verify", "double.graph", **nowhere)
    if verified.returncode == 0:
        pytest.skip("this machine has an adapter beside Vulkan's")
    assert verified.returncode == 4
    assert "pass by pass" in verified.stdout  # what needs no device is checked
    assert "no graphics adapter is found" in verified.stderr
    doctor = shell("doctor", **nowhere)
    assert doctor.returncode == 4
    assert "apt install mesa-vulkan-drivers" in doctor.stdout
    compiled = shell("compile", "double.graph", "-o", "bundle", **nowhere)
    assert (compiled.returncode, compiled.stderr) == (0, "")


def test_a_pipe_that_closes_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = f"{sys.executable} -m asg inspect model.py:both | head -n 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
