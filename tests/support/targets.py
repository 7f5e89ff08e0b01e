"""Running a graph on a target, for tests that hold on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg

Arrays = dict[str, np.ndarray]
REFERENCES = Path(__file__).parent.parent / "references"
EXAMPLES = Path(__file__).parent.parent.parent / "examples"

on_targets = pytest.mark.parametrize(
    "target", ["numpy", pytest.param("wgpu", marks=pytest.mark.device)]
)


def evaluate(graph: asg.Graph, inputs: Mapping[str, Any], target: str) -> Arrays:
    """Outputs of one run; inputs may name parameters."""
    roles = {node.attrs["name"]: node.attrs["role"] for node in graph.inputs}
    stored = {name: value for name, value in inputs.items() if roles[name] != "input"}
    given = {name: value for name, value in inputs.items() if roles[name] == "input"}
    with asg.compile(graph, target=target) as exe:
        if stored:
            exe.load_state_dict(stored, strict=False)
        return {name: np.asarray(value) for name, value in exe(given).items()}


def reference(name: str) -> dict[str, Arrays]:
    """What PyTorch computed: case → field → array."""
    cases: dict[str, Arrays] = {}
    with np.load(REFERENCES / f"{name}.npz") as stored:
        for key in stored.files:
            case, _, field = key.partition("/")
            cases.setdefault(case, {})[field] = stored[key]
    return cases
