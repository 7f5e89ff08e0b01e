"""Layers and their gradients against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import asg
from asg import nn
from asg.nn import functional as F
from support.targets import evaluate, on_targets, reference

LAYERS = reference("layers")
ATTENTION = reference("attention")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def compare(
    case: dict[str, np.ndarray], out: asg.Tensor, wrt: list[str], given: list[str], target: str
) -> None:
    """`out` and the gradients of sum(out * g) are those of the case."""
    weighted = asg.sum(out * asg.input("g", out.shape))
    graph = asg.graph(outputs={"out": out, "loss": weighted})
    joint = asg.value_and_grad(graph, of="loss", wrt=wrt)
    found = evaluate(joint, {name: case[name] for name in ["g", *given]}, target)
    for name in ["out", *(f"{key}.grad" for key in wrt)]:
        np.testing.assert_allclose(found[name], case[name], **CLOSE, err_msg=name)


def inputs_of(case: dict[str, np.ndarray], *names: str) -> list[asg.Tensor]:
    return [asg.input(name, case[name].shape, case[name].dtype) for name in names]


@on_targets
@pytest.mark.parametrize(("name", "axes"), [("rows", 1), ("tokens", 1), ("two_axes", 2)])
def test_layer_norm(name: str, axes: int, target: str) -> None:
    case = LAYERS[f"layer_norm_{name}"]
    x, weight, bias = inputs_of(case, "x", "weight", "bias")
    out = F.layer_norm(x, x.shape[-axes:], weight, bias)
    names = ["x", "weight", "bias"]
    compare(case, out, names, names, target)


@on_targets
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_softmax_along_any_axis(name: str, dim: int, target: str) -> None:
    case = LAYERS[f"{name}_{dim}"]
    (x,) = inputs_of(case, "x")
    compare(case, getattr(F, name)(x, dim), ["x"], ["x"], target)


ACTIVATIONS: dict[str, Callable[[asg.Tensor], asg.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
}


@on_targets
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, target: str) -> None:
    case = LAYERS[name]
    (x,) = inputs_of(case, "x")
    compare(case, ACTIVATIONS[name](x), ["x"], ["x"], target)


@on_targets
def test_embedding(target: str) -> None:
    case = LAYERS["embedding"]
    index, weight = inputs_of(case, "index", "weight")
    compare(case, F.embedding(index, weight), ["weight"], ["index", "weight"], target)


PARAMETERS = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]


@on_targets
@pytest.mark.parametrize("name", ATTENTION)
def test_multi_head_attention(name: str, target: str) -> None:
    case = ATTENTION[name]
    layer = nn.MultiHeadAttention(12, 3, causal=name.startswith("causal"))
    layer.load_state_dict({key: case[key] for key in PARAMETERS})
    given = [key for key in ("x", "source", "key_padding_mask") if key in case]
    if "attn_mask" in case and not layer.causal:
        given.append("attn_mask")
    tensors = dict(zip(given, inputs_of(case, *given), strict=True))
    x = tensors.pop("x")
    out = layer(x, tensors.pop("source", None), **tensors)
    wrt = [*(key for key in ("x", "source") if key in case), *PARAMETERS]
    compare(case, out, wrt, given, target)


@on_targets
@pytest.mark.parametrize("dtype", ["bool", "f32"])
def test_a_query_that_sees_nothing_gets_zeros(dtype: str, target: str) -> None:
    q, k, v = (asg.input(name, (2, 4, 8)) for name in "qkv")
    rng = np.random.default_rng(0)
    allowed = np.ones((2, 4, 4), bool)
    allowed[1, 2] = False
    mask = allowed if dtype == "bool" else np.where(allowed, 0.0, -np.inf).astype(np.float32)
    out = F.scaled_dot_product_attention(q, k, v, asg.input("mask", (2, 4, 4), dtype))
    graph = asg.graph(outputs={"out": out, "loss": asg.sum(out * out)})
    joint = asg.value_and_grad(graph, of="loss", wrt=["q", "k", "v"])
    given = {name: rng.standard_normal((2, 4, 8)).astype(np.float32) for name in "qkv"}
    found = evaluate(joint, {**given, "mask": mask}, target)
    assert not found["out"][1, 2].any()
    assert found["out"][1, 1].any()
    assert all(np.isfinite(value).all() for value in found.values())
    assert not found["q.grad"][1, 2].any()
