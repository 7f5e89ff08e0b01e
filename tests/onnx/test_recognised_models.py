"""What exporters spell out takes as many kernels as what is written in `asg.nn`, nearly.

kernels.json states the kernels of every exported model, with recognition and without; docs/onnx.md
shows them. `pytest tests/onnx/test_recognised_models.py --update-golden -p no:xdist` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import asg
from asg import nn
from asg.codegen.context import Target
from asg.compiler import lower, pipeline
from asg.graph import Graph
from asg.tensor import Tensor

FOLDER = Path(__file__).parent / "models"
TARGETS = {"cpu": Target("cpu", 8), "gpu": Target("gpu", 0)}
RECORD = Path(__file__).parent / "kernels.json"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx") if path.stem != "gpt2_open")
BATCH, LENGTH, WIDTH, HEADS = 2, 16, 32, 4
BLOCKS = ["gpt2_block", "gpt2_block_script"]


def exported(name: str) -> Graph:
    found: Graph = asg.onnx.load(FOLDER / f"{name}.onnx")
    return found


def forward_only(graph: Graph) -> Graph:
    return Graph.build({"y": graph.outputs["y"]}, name=graph.name, values=graph.values)


def written() -> Graph:
    """A block of asg.nn with the loss that the exported models have."""
    block = nn.TransformerBlock(WIDTH, HEADS, causal=True, activation="gelu_tanh")

    def run(target: Tensor, x: Tensor) -> Mapping[str, Tensor]:
        y = block(x)
        return {"y": y, "loss": asg.mean(asg.square(y - target))}

    shape = asg.spec((BATCH, LENGTH, WIDTH))
    return asg.trace(run, shape, shape, names=["target", "x"])


def kernels(graph: Graph, target: str) -> int:
    report = lower({"main": graph}, target=TARGETS[target]).report
    count: int = report["dispatch_count"]
    return count


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", BLOCKS)
def test_an_exported_block_is_within_one_kernel(name: str, target: str) -> None:
    mine, theirs = written(), exported(name)
    assert kernels(forward_only(theirs), target) <= kernels(forward_only(mine), target) + 1
    assert kernels(asg.grad(theirs), target) <= kernels(asg.grad(mine), target) + 1


@pytest.mark.parametrize("name", BLOCKS)
def test_kernels_of_an_exported_block(name: str) -> None:
    """As many as the budget of the block of asg.nn (tests/budgets)."""
    gpu = TARGETS["gpu"]
    graph = forward_only(exported(name))
    after = lower({"main": graph}, target=gpu).report
    assert after["dispatches"] == {"attention": 1, "contract": 4, "row": 2}
    apart = lower({"main": graph}, target=gpu, passes=pipeline(recognise=False)).report
    assert apart["dispatch_count"] == 9
    places = after["recognised"]["main"]
    assert [each.split(":")[0] for each in places["attention"]] == [f"<{name}.onnx>"]


def counted(name: str) -> dict[str, Any]:
    """Kernels of a model and of its gradient, and what was recognised."""
    graph, gpu = exported(name), TARGETS["gpu"]
    reports = [
        lower({"main": each}, target=gpu, passes=pipeline(recognise=is_on)).report
        for is_on in (False, True)
        for each in (graph, asg.grad(graph, recognise=is_on))
    ]
    found = reports[2]["recognised"]["main"]
    forward, gradient = ([each["dispatch_count"] for each in reports[i::2]] for i in (0, 1))
    kinds = {kind: len(places) for kind, places in sorted(found.items())}
    return {"forward": forward, "gradient": gradient, "recognised": kinds}


@pytest.mark.parametrize("name", NAMES)
def test_kernels_of_exported_models(name: str, update_golden: bool) -> None:
    found = counted(name)
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    if update_golden:
        record = dict(sorted({**record, name: found}.items()))
        lines = [f"  {json.dumps(key)}: {json.dumps(each)}" for key, each in record.items()]
        RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert found == record.get(name), "if this is meant: --update-golden, then tools/docs.py"
    for apart, whole in (found["forward"], found["gradient"]):
        assert whole <= apart
