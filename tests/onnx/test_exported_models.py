"""Models as PyTorch exports them give PyTorch's results, gradients and training.

The models and PyTorch's numbers are written by tests/references/make_onnx_models.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg import optim
from asg.graph import Graph

pytestmark = pytest.mark.device
FOLDER = Path(__file__).parent / "models"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
# Their gradient is zero but for rounding, whose direction AdamW follows: softmax does not see
# what is added to all scores of a query, such as the biases of keys.
UNSEEN = ("key.bias", "k_proj.bias")
Numbers = dict[str, np.ndarray[Any, Any]]


def numbers(name: str) -> Numbers:
    with np.load(FOLDER / f"{name}.npz") as kept:
        return dict(kept)


def under(kept: Numbers, prefix: str) -> Numbers:
    return {key[len(prefix) :]: value for key, value in kept.items() if key.startswith(prefix)}


def open_model(name: str) -> Graph:
    found: Graph = asg.onnx.load(FOLDER / f"{name}.onnx")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_results(name: str) -> None:
    kept = numbers(name)
    with asg.compile(open_model(name)) as exe:
        found = exe(under(kept, "in."))
    for key, wanted in under(kept, "out.").items():
        scale = max(1.0, float(np.abs(wanted).max()))
        assert np.abs(found[key] - wanted).max() <= 1e-4 * scale, key


TRAINED = [name for name in NAMES if any(key.startswith("grad.") for key in numbers(name))]


# Weights that are used twice: PyTorch lists the first use, its exporter names the last.
TIED = {
    "model.inner.transformer.wte.weight": "model.inner.lm_head.weight",
}


def by_torch_name(graph: Graph, wanted: Numbers) -> dict[str, str]:
    """Return what each of PyTorch's parameters is called in the graph."""
    names = {name: name if name in graph.values else TIED.get(name, name) for name in wanted}
    missing = [name for name in names.values() if name not in graph.values]
    assert not missing, missing
    return names


@pytest.mark.parametrize("name", TRAINED)
def test_gradients(name: str) -> None:
    kept = numbers(name)
    wanted = under(kept, "grad.")
    graph = open_model(name)
    names = by_torch_name(graph, wanted)
    gradient = asg.grad(graph, of="loss", wrt=list(names.values()))
    feeds = {key: x for key, x in under(kept, "in.").items() if key in gradient.input_names()}
    with asg.compile(gradient) as exe:
        found = exe(feeds)
    for key, expected in wanted.items():
        scale = max(1e-3, float(np.abs(expected).max()))
        error = np.abs(found[f"{names[key]}.grad"] - expected).max()
        assert error <= 1e-3 * scale, f"{key}: {error} of {scale}"


@pytest.mark.parametrize("name", TRAINED)
def test_training(name: str) -> None:
    kept = numbers(name)
    graph = open_model(name)
    after = under(kept, "after.")
    names = by_torch_name(graph, under(kept, "grad."))
    optimizer = optim.AdamW(lr=1e-3, weight_decay=0.01)
    step = asg.training_step(graph, "loss", optimizer, wrt=list(names.values()))
    feeds = under(kept, "in.")
    with asg.compile(step) as exe:
        losses = [float(exe(feeds)["loss"]) for _ in kept["losses"]]
        weights = exe.state_dict()
    assert np.allclose(losses, kept["losses"], rtol=1e-3)
    for key, mine in names.items():
        if key.endswith(UNSEEN):
            continue
        scale = max(1.0, float(np.abs(after[key]).max()))
        assert np.abs(weights[mine] - after[key]).max() <= 1e-3 * scale, key
