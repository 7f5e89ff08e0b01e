"""Convolutions, pools and norms, with their gradients, against PyTorch's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import asg
from asg import nn
from asg.nn import functional as F
from support.targets import REFERENCES, evaluate, on_targets, reference

CASES = json.loads((REFERENCES / "images.json").read_text())
CONVOLUTIONS = reference("convolutions")
POOLS = reference("pools")
NORMS = reference("norms")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def compare(case: dict[str, np.ndarray], out: asg.Tensor, names: list[str], target: str) -> None:
    """`out` and the gradients of sum(out * g) by `names` are those of the case."""
    assert out.shape == case["out"].shape
    weighted = asg.sum(out * asg.input("g", out.shape))
    graph = asg.graph(outputs={"out": out, "loss": weighted})
    joint = asg.value_and_grad(graph, of="loss", wrt=names)
    found = evaluate(joint, {name: case[name] for name in ["g", *names]}, target)
    for name in ["out", *(f"{key}.grad" for key in names)]:
        np.testing.assert_allclose(found[name], case[name], **CLOSE, err_msg=name)


def inputs_of(case: dict[str, np.ndarray], *names: str) -> list[asg.Tensor]:
    return [asg.input(name, case[name].shape, case[name].dtype) for name in names]


@on_targets
@pytest.mark.parametrize("name", CASES["convolutions"])
def test_convolution(name: str, target: str) -> None:
    function, _, _, options = CASES["convolutions"][name]
    case = CONVOLUTIONS[name]
    x, weight, bias = inputs_of(case, "x", "weight", "bias")
    out = getattr(F, function)(x, weight, bias, **options)
    compare(case, out, ["x", "weight", "bias"], target)


@on_targets
@pytest.mark.parametrize("name", CASES["pools"])
def test_pool(name: str, target: str) -> None:
    function, _, options = CASES["pools"][name]
    (x,) = inputs_of(POOLS[name], "x")
    compare(POOLS[name], getattr(F, function)(x, **options), ["x"], target)


@on_targets
@pytest.mark.parametrize(("name", "groups"), [("group_norm", 3), ("group_norm_one", 1)])
def test_group_norm(name: str, groups: int, target: str) -> None:
    x, weight, bias = inputs_of(NORMS[name], "x", "weight", "bias")
    out = F.group_norm(x, groups, weight, bias)
    compare(NORMS[name], out, ["x", "weight", "bias"], target)


@on_targets
def test_instance_norm(target: str) -> None:
    case = NORMS["instance_norm"]
    x, weight, bias = inputs_of(case, "x", "weight", "bias")
    out = F.instance_norm(x, weight=weight, bias=bias)
    compare(case, out, ["x", "weight", "bias"], target)


@on_targets
def test_rms_norm(target: str) -> None:
    case = NORMS["rms_norm"]
    x, weight = inputs_of(case, "x", "weight")
    compare(case, F.rms_norm(x, 6, weight), ["x", "weight"], target)


LAYERS: dict[str, nn.Module] = {
    "batch_norm1d": nn.BatchNorm1d(5),
    "batch_norm2d": nn.BatchNorm2d(3, momentum=0.3, eps=1e-3),
    "batch_norm2d_average": nn.BatchNorm2d(3, momentum=None),
    "batch_norm3d_plain": nn.BatchNorm3d(2, affine=False),
    "instance_norm2d": nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
}


@on_targets
@pytest.mark.parametrize("name", LAYERS)
def test_running_statistics_follow_the_batches(name: str, target: str) -> None:
    """Three steps of one executable, whose state is the statistics, then an evaluation with it."""
    case, layer = NORMS[name], LAYERS[name]
    shape = case["0.x"].shape
    names = [key for key, _ in layer.named_parameters()]
    buffers = [key for key, _ in layer.named_buffers()]

    def loss(x: asg.Tensor, g: asg.Tensor) -> dict[str, Any]:
        out = layer(x)
        return {"out": out, "loss": asg.sum(out * g)}

    layer.train()
    step = asg.trace(loss, asg.spec(shape), asg.spec(shape))
    if name.startswith("instance"):  # which count no batches, as in PyTorch
        buffers.remove("num_batches_tracked")
    assert set(step.updates) == set(buffers)
    step = asg.value_and_grad(step, of="loss", wrt=["x", *names])
    layer.eval()
    entries = {"step": step, "predict": asg.trace(layer, asg.spec(shape))}
    with asg.compile(entries, target=target) as exe:
        exe.load_state_dict({key: case[key] for key in names}, strict=False)
        for number in range(3):
            found = exe.step({key: case[f"{number}.{key}"] for key in ("x", "g")})
            state = exe.state_dict()
            for key in ["out", *(f"{each}.grad" for each in ["x", *names])]:
                np.testing.assert_allclose(found[key], case[f"{number}.{key}"], **CLOSE)
            for key in buffers:
                np.testing.assert_allclose(state[key], case[f"{number}.{key}"], **CLOSE)
        out = exe.predict({"x": case["eval.x"]})["output"]
        np.testing.assert_allclose(out, case["eval.out"], **CLOSE)
