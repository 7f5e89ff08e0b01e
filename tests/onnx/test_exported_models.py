"""Models as PyTorch exports them give PyTorch's results, gradients and training.

The models and PyTorch's numbers are written by tests/references/make_onnx_models.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg.graph import Graph

pytestmark = pytest.mark.device
FOLDER = Path(__file__).parent / "models"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
NOT_YET = {"gpt2", "gpt2_open", "gpt2_sdpa", "llama", "lstm", "state_space", "unet"}
CONVERTED = [name for name in NAMES if name not in NOT_YET]
Numbers = dict[str, np.ndarray[Any, Any]]


def numbers(name: str) -> Numbers:
    with np.load(FOLDER / f"{name}.npz") as kept:
        return dict(kept)


def under(kept: Numbers, prefix: str) -> Numbers:
    return {key[len(prefix) :]: value for key, value in kept.items() if key.startswith(prefix)}


def open_model(name: str) -> Graph:
    found: Graph = asg.onnx.load(FOLDER / f"{name}.onnx")
    return found


@pytest.mark.parametrize("name", CONVERTED)
def test_results(name: str) -> None:
    kept = numbers(name)
    with asg.compile(open_model(name)) as exe:
        found = exe(under(kept, "in."))
    for key, wanted in under(kept, "out.").items():
        scale = max(1.0, float(np.abs(wanted).max()))
        assert np.abs(found[key] - wanted).max() <= 1e-4 * scale, key
