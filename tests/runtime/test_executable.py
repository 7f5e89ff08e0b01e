"""Saving, loading, and the interpreter behind the same interface."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg.errors import BundleError, InputError, NonFiniteError, ReleasedError
from asg.runtime.executable import Executable, NumpyExecutable, load
from support import artefacts
from support.artefacts import N

ONES = np.ones(N, np.float32)


@pytest.mark.device
@pytest.mark.parametrize("name", ["tiny", "tiny.asg"])
def test_saved_and_loaded(tiny: Executable, tmp_path: Path, name: str) -> None:
    tiny.train({"x": ONES})
    tiny.save(tmp_path / name)
    expected = tiny.predict({"x": ONES})
    with load(tmp_path / name) as loaded:
        assert list(loaded.entries) == ["predict", "train"]
        assert loaded.kernels == tiny.kernels
        assert loaded.kernels["add"] == artefacts.ADD
        assert loaded.report() == tiny.report()
        for output, array in loaded({"x": ONES}).items():
            np.testing.assert_array_equal(array, expected[output])
        loaded.train({"x": ONES})
        assert loaded.state_dict()["steps"] == 7
    assert tiny.state_dict()["steps"] == 6


# What a machine without the compiler has; `asg.load` must do with it.
WITHOUT_COMPILER = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("asg.passes", "asg.codegen", "asg.shaders", "jinja2")):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
from asg.runtime.executable import load

with load(sys.argv[1]) as model:
    model.train({"x": np.ones(64)})
    print(model.predict({"x": np.ones(64)})["y"][:2].tolist(), int(model.state_dict()["steps"]))
"""


@pytest.mark.device
def test_a_bundle_runs_without_the_compiler(tiny: Executable, tmp_path: Path) -> None:
    tiny.save(tmp_path / "tiny.asg")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(tmp_path / "tiny.asg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "[1.5, 2.5] 6\n"


@pytest.fixture
def numpy_model() -> Iterator[NumpyExecutable]:
    """`predict`: y = x + w and z = y / x; `train`: also w' = w + x and n' = n + 1."""
    x = asg.input("x", (2,))
    w = asg.state("w", np.array([1, 2], np.float32))
    n = asg.state("n", np.array(5, np.int32))
    y = x + w
    predict = asg.graph(outputs={"y": y, "z": y / x}, name="predict")
    train = asg.graph(outputs={"y": y}, updates={"w": w + x, "n": n + 1}, name="train")
    with NumpyExecutable({"predict": predict, "train": train}) as executable:
        yield executable


def test_numpy_runs(numpy_model: NumpyExecutable) -> None:
    found = numpy_model({"x": [1, 2]})
    assert found["y"].tolist() == [2, 4]
    assert found["y"].dtype == np.float32
    assert list(numpy_model({"x": [1, 2]}, outputs=["z"])) == ["z"]
    assert numpy_model({}, outputs=[]) == {}
    assert repr(numpy_model.train) == "<train(x: f32[2]) -> y: f32[2]>"
    assert numpy_model.report() == {"device": "numpy"}
    numpy_model.sync()


def test_numpy_state(numpy_model: NumpyExecutable) -> None:
    numpy_model.train({"x": [1, 2]})
    numpy_model.train({"x": [1, 2]}, outputs=[])
    state = numpy_model.state_dict()
    assert {name: array.tolist() for name, array in state.items()} == {"w": [3, 6], "n": 7}
    assert numpy_model.predict({"x": [1, 2]})["y"].tolist() == [4, 8]
    numpy_model.load_state_dict({"w": [0, 0], "n": 1})
    assert numpy_model.predict(numpy_model.to_device({"x": [1.0, 2.0]}))["y"].tolist() == [1, 2]
    state["w"][:] = 100
    assert numpy_model.state_dict()["w"].tolist() == [0, 0]


def test_numpy_state_is_all_or_nothing(numpy_model: NumpyExecutable) -> None:
    with pytest.raises(InputError) as caught:
        numpy_model.load_state_dict({"w": [9, 9], "n": 1.5})
    assert str(caught.value).splitlines()[0] == (
        "predict: 'n' has dtype float64, and i32 is needed"
    )
    with pytest.raises(InputError) as caught:
        numpy_model.load_state_dict({"w": [9, 9], "m": 1})
    assert str(caught.value).splitlines()[0] == (
        "predict: the state does not fit; missing: n; unknown: m"
    )
    assert numpy_model.state_dict()["w"].tolist() == [1, 2]


NUMPY_ERRORS: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
    ({}, {}, InputError, "predict: 'x' is missing; inputs: x: f32[2]"),
    ({"q": 1}, {}, InputError, "predict has no input 'q'; inputs: x: f32[2]"),
    ({"x": 1}, {}, InputError, "predict: input 'x' has shape [], and [2] is needed (f32[2])"),
    ({"x": [1, 2]}, {"outputs": ["q"]}, InputError, "predict has no output 'q'; outputs: y, z"),
    (
        {"x": [0, 0]},
        {"check_finite": True},
        NonFiniteError,
        "predict: output 'z' is not finite: inf at [0], 2 of 2 elements",
    ),
]


@pytest.mark.parametrize(("inputs", "options", "kind", "message"), NUMPY_ERRORS)
def test_numpy_errors(
    numpy_model: NumpyExecutable,
    inputs: dict[str, Any],
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind) as caught:
        numpy_model(inputs, **options)
    assert str(caught.value).splitlines()[0] == message


def test_numpy_closed(numpy_model: NumpyExecutable) -> None:
    numpy_model.close()
    with pytest.raises(ReleasedError) as caught:
        numpy_model({"x": [1, 2]})
    assert str(caught.value) == "predict was closed and can't be used any more"


def test_numpy_is_not_saved(numpy_model: NumpyExecutable, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        numpy_model.save(tmp_path / "model.asg")
    assert str(caught.value) == (
        f"{tmp_path / 'model.asg'}: predict has no kernels to save\n"
        '  fix: compile it with target="wgpu"'
    )


@pytest.mark.parametrize("target", ["numpy", pytest.param("wgpu", marks=pytest.mark.device)])
def test_parameters_without_values_are_asked_for(target: str) -> None:
    def scaled(x: asg.Tensor) -> dict[str, asg.Tensor]:
        w = asg.input("w", (2,), role="parameter")
        return {"y": x * w}

    with asg.compile(asg.trace(scaled, asg.spec((2,))), target=target) as exe:
        for refused in (lambda: exe({"x": [1, 2]}), exe.state_dict):
            with pytest.raises(InputError, match="parameters without a value: w"):
                refused()
        exe.load_state_dict({"w": [3, 4]})
        assert exe({"x": [1, 2]})["y"].tolist() == [3, 8]


def test_state_that_nothing_reads_is_written_by_the_interpreter() -> None:
    x = asg.input("x", (2,))
    graph = asg.graph(
        outputs={"y": x * 2.0},
        updates={"seen": x + 1.0},
        inputs=[x, asg.input("seen", (2,), role="state")],
    )
    executable = asg.compile(graph, target="numpy")
    assert executable({"x": np.ones(2, np.float32)})["y"].tolist() == [2.0, 2.0]
    assert executable.state_dict()["seen"].tolist() == [2.0, 2.0]
