"""Files to give to the command line, and a way to run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import asg
from asg.cli import main

Run = Callable[..., Result]

MODEL = '''\
"""A model."""

import asg
import numpy as np

x = asg.input("x", (4, 8))
w = asg.input("w", (8, 16), role="parameter")
count = asg.state("count", np.zeros((), np.int32))
hidden = asg.relu(x @ w)
y = asg.softmax(hidden)
graph = asg.graph(outputs={"y": y}, updates={"count": count + 1})
graph = graph.with_values({**graph.values, "w": np.full((8, 16), 0.5, np.float32)})
both = {"main": graph, "product": asg.graph(outputs={"h": hidden})}
number = 3


def make():
    return graph


def fail():
    return asg.input("a", (2,)) + asg.input("b", (3,))


def crash():
    return {}["nothing"]
'''


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run("inspect", "model.py:graph")` in a folder that has the files of this test."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments), prog_name="asg")

    return invoke


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """`model.py`, its graph saved, and an array for its input."""
    (tmp_path / "model.py").write_text(MODEL)
    x = asg.input("x", (3,))
    asg.save_graph(asg.graph(outputs={"y": x * 2.0}), tmp_path / "double.graph")
    np.save(tmp_path / "x.npy", np.ones((4, 8), np.float32))
