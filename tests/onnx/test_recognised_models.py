"""What exporters spell out takes as many kernels as what is written in `asg.nn`, nearly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import asg
from asg import nn
from asg.codegen.context import Target
from asg.compiler import lower, pipeline
from asg.graph import Graph
from asg.tensor import Tensor

FOLDER = Path(__file__).parent / "models"
TARGETS = {"cpu": Target("cpu", 8), "gpu": Target("gpu", 0)}
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
