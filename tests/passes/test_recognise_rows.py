"""Softmax, norms, activations and rotations that are spelt out are put together, and near misses
are left alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

import asg
from asg.codegen.context import Target
from asg.compiler import lower
from asg.graph import Graph
from asg.passes.autodiff import grad
from asg.passes.recognise import Recognise, recognised
from asg.runtime.interpreter import run
from asg.tensor import Tensor

SHAPE = (2, 6, 6)  # an axis that is as long as another shows which one is meant
RNG = np.random.default_rng(1)
FEEDS = {
    "x": RNG.normal(1.0, 2.0, SHAPE).astype(np.float32),
    "w": RNG.normal(size=6).astype(np.float32),
    "b": RNG.normal(size=6).astype(np.float32),
}
ROOT_2 = math.sqrt(2.0)
BEND = math.sqrt(2.0 / math.pi)

Make = Callable[..., Tensor]


def graph_of(make: Make) -> Graph:
    names = make.__code__.co_varnames[: make.__code__.co_argcount]
    return asg.graph(outputs={"y": make(*(asg.input(n, FEEDS[n].shape) for n in names))})


def after(graph: Graph) -> Graph:
    """What is recognised means the same, and is recognised once."""
    found = Recognise()(graph)
    feeds = {key: FEEDS[key] for key in graph.input_names()}
    np.testing.assert_allclose(run(found, feeds)["y"], run(graph, feeds)["y"], 2e-5, 2e-6)
    assert Recognise()(found) is found
    return found


def mean(x: Tensor, axis: int = -1) -> Tensor:
    return asg.mean(x, axis, keepdims=True)


def powers(x: Tensor, axis: int = -1) -> Tensor:
    return asg.exp(x - asg.max(x, axis, keepdims=True))


def row_sum(x: Tensor, axis: int = -1) -> Tensor:
    return asg.sum(x, axis, keepdims=True)


def centred(x: Tensor, axis: int = -1) -> Tensor:
    return x - mean(x, axis)


def variance(x: Tensor, axis: int = -1) -> Tensor:
    return mean(asg.square(centred(x, axis)), axis) + 1e-5


def cube(x: Tensor) -> Tensor:
    return x * x * x


def bent(x: Tensor) -> Tensor:
    return asg.tanh(BEND * (x + 0.044715 * cube(x)))


def turned(x: Tensor) -> Tensor:
    return asg.concatenate([-x[..., 3:], x[..., :3]], -1)


def apart(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    low, high = x[..., :3], x[..., 3:]
    cos, sin = asg.cos(w[:3]), asg.sin(b[:3])
    return asg.concatenate([low * cos - high * sin, high * cos + low * sin], -1)


FORMS: dict[str, tuple[str, Make]] = {
    "softmax": ("softmax", lambda x: powers(x) / row_sum(powers(x))),
    "softmax with a stopped maximum": (
        "softmax",
        lambda x: (p := asg.exp(x - asg.stop_gradient(asg.max(x, -1, True)))) / row_sum(p),
    ),
    "softmax by a reciprocal": ("softmax", lambda x: powers(x) * (1.0 / row_sum(powers(x)))),
    "softmax inside": ("softmax", lambda x: powers(x, 1) / row_sum(powers(x, 1), 1)),
    "log_softmax": (
        "log_softmax",
        lambda x: (x - asg.max(x, -1, True)) - asg.log(row_sum(powers(x))),
    ),
    "x - logsumexp": (
        "log_softmax",
        lambda x: x - (asg.log(row_sum(powers(x))) + asg.max(x, -1, True)),
    ),
    "layer_norm": ("layer_norm", lambda x: centred(x) / asg.sqrt(variance(x))),
    "layer_norm by rsqrt": ("layer_norm", lambda x: asg.rsqrt(variance(x)) * centred(x)),
    "layer_norm by 1 / sqrt": (
        "layer_norm",
        lambda x: centred(x) * asg.reciprocal(asg.sqrt(variance(x))),
    ),
    "layer_norm by powers": (
        "layer_norm",
        lambda x: centred(x) / (mean(asg.ops.TABLE["pow"](centred(x), 2.0)) + 1e-5) ** 0.5,
    ),
    "layer_norm by a division": (
        "layer_norm",
        lambda x: (
            (x - row_sum(x) / 6.0) / asg.sqrt(row_sum(asg.square(x - row_sum(x) / 6.0)) / 6.0 + 0.1)
        ),
    ),
    "layer_norm with weights": (
        "layer_norm",
        lambda x, w, b: w * (centred(x) / asg.sqrt(variance(x))) + b,
    ),
    "layer_norm inside": ("layer_norm", lambda x: centred(x, 1) / asg.sqrt(variance(x, 1))),
    "layer_norm as a scale and a shift": (
        "layer_norm",
        lambda x, w, b: (
            x * (asg.rsqrt(variance(x)) * w) + (b - mean(x) * (asg.rsqrt(variance(x)) * w))
        ),
    ),
    "rms_norm": ("rms_norm", lambda x: x / asg.sqrt(mean(x * x) + 1e-6)),
    "rms_norm by 1 / sqrt": ("rms_norm", lambda x: x * (1.0 / asg.sqrt(mean(x * x) + 1e-6))),
    "gelu": ("gelu", lambda x: x * 0.5 * (1.0 + asg.erf(x / ROOT_2))),
    "gelu halved last": ("gelu", lambda x: x * (asg.erf(x / ROOT_2) + 1.0) * 0.5),
    "gelu halved inside": ("gelu", lambda x: (0.5 * (1.0 + asg.erf(x * (1 / ROOT_2)))) * x),
    "gelu of a half": ("gelu", lambda x: (x / 2.0) * (1.0 + asg.erf(x / ROOT_2))),
    "gelu as a probability": ("gelu", lambda x: x * (0.5 + 0.5 * asg.erf(x / ROOT_2))),
    "gelu of a product": (
        "gelu",
        lambda x, w: (w * x) * (0.5 * (1.0 + asg.erf((w * x) / ROOT_2))),
    ),
    "gelu tanh": ("gelu", lambda x: (1.0 + bent(x)) * (x * 0.5)),
    "gelu tanh by pow": (
        "gelu",
        lambda x: (
            x
            * 0.5
            * (asg.tanh((x + asg.ops.TABLE["pow"](x, 3.0) * 0.044715) * BEND) + 1.0)
        ),
    ),
    "gelu tanh with x outside": (
        "gelu",
        lambda x: 0.5 * x * (1.0 + asg.tanh(x * BEND * (1.0 + 0.044715 * x * x))),
    ),
    "silu": ("silu", lambda x: x / (1.0 + asg.exp(-x))),
    "sigmoid": ("sigmoid", lambda x: 1.0 / (asg.exp(-1.0 * x) + 1.0)),
    "rotation": ("rotation", lambda x, w, b: x * asg.cos(w) + turned(x) * asg.sin(b)),
    "rotation of halves": ("rotation", apart),
    "rotation of another axis": (
        "rotation",
        lambda x: asg.concatenate([-x[:, 3:], x[:, :3]], 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    kind, make = FORMS[name]
    found = recognised(after(graph_of(make)))
    assert {key: len(places) for key, places in found.items()} == {kind: 1}


MISSES: dict[str, Make] = {
    "maximum along another axis": lambda x: (
        (p := asg.exp(x - asg.max(x, 1, True))) / row_sum(p)
    ),
    "sum along another axis": lambda x: (p := powers(x)) / row_sum(p, 1),
    "sum that is not kept": lambda x: (p := powers(x)) / asg.sum(p, 1).reshape(2, 1, 6),
    "sum repeated along another axis": lambda x: (
        (p := powers(x)) / asg.sum(p, -1).reshape(2, 1, 6)
    ),
    "no maximum": lambda x: asg.exp(x) / row_sum(asg.exp(x)),
    "a minimum": lambda x: (p := asg.exp(x - asg.min(x, -1, True))) / row_sum(p),
    "powers of another": lambda x: powers(x) / row_sum(powers(x * 2.0)),
    "powers that others read": lambda x: (p := powers(x)) / row_sum(p) + p,
    "a mean of another axis": lambda x: centred(x, 1) / asg.sqrt(variance(x)),
    "eps after the root": lambda x: (
        (c := centred(x)) / (asg.sqrt(mean(c * c)) + 1e-5)
    ),
    "an unbiased variance": lambda x: (
        (c := centred(x)) / asg.sqrt(row_sum(c * c) * (1 / 5) + 1e-5)
    ),
    "a wrong mean": lambda x: (x - row_sum(x) * (1 / 7)) / asg.sqrt(variance(x)),
    "a mean that no gradient sees": lambda x: (
        (x - asg.stop_gradient(mean(x))) / asg.sqrt(mean(asg.square(centred(x))) + 1e-5)
    ),
    "a maximum that a gradient sees in one place": lambda x: (
        x - (asg.log(row_sum(powers(x))) + asg.stop_gradient(asg.max(x, -1, True)))
    ),
    "no root": lambda x: centred(x) / variance(x),
    "a fourth power": lambda x: (c := centred(x)) / asg.sqrt(mean(asg.square(c * c)) + 1e-5),
    "a negative eps": lambda x: (c := centred(x)) / asg.sqrt(mean(c * c) - 1e-5),
    "statistics that others read": lambda x: (
        centred(x) / asg.sqrt(v := variance(x)) + v
    ),
    "two weights": lambda x, w, b: (
        x * (asg.rsqrt(variance(x)) * w) + (b - mean(x) * (asg.rsqrt(variance(x)) * b))
    ),
    "gelu without its half": lambda x: x * (1.0 + asg.erf(x / ROOT_2)),
    "gelu with another root": lambda x: 0.5 * x * (1.0 + asg.erf(x / 1.4142)),
    "gelu of two": lambda x, w: 0.5 * w * (1.0 + asg.erf(x / ROOT_2)),
    "gelu less": lambda x: 0.5 * x * (1.0 - asg.erf(x / ROOT_2)),
    "gelu tanh with another number": lambda x: (
        0.5 * x * (1.0 + asg.tanh(BEND * (x + 0.0447 * cube(x))))
    ),
    "gelu tanh of a square": lambda x: (
        0.5 * x * (1.0 + asg.tanh(BEND * (x + 0.044715 * (x * x))))
    ),
    "silu of exp(x)": lambda x: x / (1.0 + asg.exp(x)),
    "a sigmoid of two": lambda x: 2.0 / (1.0 + asg.exp(-x)),
    "both halves as they are": lambda x: asg.concatenate([x[..., 3:], x[..., :3]], -1),
    "unequal parts": lambda x: asg.concatenate([-x[..., 2:], x[..., :2]], -1),
    "the wrong half": lambda x: asg.concatenate([-x[..., :3], x[..., 3:]], -1),
    "halves along another axis": lambda x: asg.concatenate([-x[:, 3:], x[:, :3]], -1),
    "a rotation the other way": lambda x, w, b: asg.concatenate(
        [x[..., :3] * w[:3] + x[..., 3:] * b[:3], x[..., 3:] * w[:3] - x[..., :3] * b[:3]], -1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSES)
def test_near_misses(name: str) -> None:
    graph = graph_of(MISSES[name])
    assert after(graph) is graph


@pytest.mark.parametrize("name", FORMS)
def test_gradients(name: str) -> None:
    graph = graph_of(FORMS[name][1])
    y = Tensor(graph.outputs["y"])
    weights = np.linspace(-1, 1, y.size, dtype=np.float32).reshape(y.shape)
    loss = asg.graph(outputs={"loss": asg.sum(y * weights)})
    names = loss.input_names()
    feeds = {key: FEEDS[key] for key in names}
    found, expected = (run(grad(loss, wrt=names, recognise=each), feeds) for each in (True, False))
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, 1e-3, 1e-4)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["rotation", "rotation of halves", "layer_norm inside"])
def test_on_the_device(name: str, schedule: str) -> None:
    graph = graph_of(FORMS[name][1])
    loss = asg.graph(outputs={"loss": asg.sum(asg.square(Tensor(graph.outputs["y"])))})
    whole, apart = (grad(loss, wrt=["x"], recognise=each) for each in (True, False))
    feeds = {key: FEEDS[key] for key in loss.input_names()}
    with asg.compile({"y": graph, "grad": whole}, schedule=schedule) as exe:
        y, gradient = exe.y(feeds)["y"], exe.grad(feeds)["x.grad"]
    np.testing.assert_allclose(y, run(graph, feeds)["y"], 1e-4, 1e-5)
    np.testing.assert_allclose(gradient, run(apart, feeds)["x.grad"], 1e-3, 1e-4)


def test_what_is_written_with_functions_is_left_alone() -> None:
    def made(x: Tensor) -> Tensor:
        y = asg.gelu(x) + asg.gelu(x, "tanh") + asg.silu(x) + asg.sigmoid(x)
        return y + asg.softmax(x) + asg.nn.functional.layer_norm(x, 6)

    graph = graph_of(made)
    assert Recognise()(graph) is graph


def test_a_norm_as_scale_and_shift_saves_a_kernel_of_its_gradient() -> None:
    x, w, b = asg.input("x", (8, 128, 64)), asg.input("w", (64,)), asg.input("b", (64,))
    before, behind = asg.input("before", (64, 64)), asg.input("behind", (64, 64))
    y = x @ before
    scale = asg.rsqrt(variance(y)) * w
    z = (y * scale + (b - mean(y) * scale)) @ behind
    loss = asg.graph(outputs={"loss": asg.sum(z * asg.input("dz", (8, 128, 64)))})
    gradients = [grad(loss, wrt=["x", "w", "before"], recognise=each) for each in (True, False)]
    counts = [
        lower({"main": each}, target=Target("cpu", 8)).report["dispatch_count"]
        for each in gradients
    ]
    assert counts == [6, 7]


def test_the_time_is_about_linear() -> None:
    def chain(steps: int) -> Graph:
        x = asg.input("x", SHAPE)
        for _ in range(steps):
            x = x * 0.5 * (1.0 + asg.erf(x / ROOT_2)) + x * x * 0.1
            x = centred(x) / asg.sqrt(variance(x))
        return asg.graph(outputs={"y": x})

    def seconds(graph: Graph) -> float:
        start = time.process_time()
        Recognise()(graph)
        return time.process_time() - start

    short, long = chain(20), chain(320)
    assert len(long.nodes) > 6_000
    seconds(short)
    assert seconds(long) < 60 * min(seconds(short) for _ in range(3))
