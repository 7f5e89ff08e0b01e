"""Attention that is spelt out becomes the op: in all forms that exporters write, and no other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.codegen.context import Target
from asg.compiler import lower, pipeline
from asg.graph import Graph
from asg.passes.autodiff import grad
from asg.passes.recognise import Recognise, recognised
from asg.report_view import report_text
from asg.runtime.interpreter import run
from asg.tensor import Tensor

BATCH, HEADS, QUERIES, KEYS, SIZE = 2, 3, 5, 5, 4
LOWEST = float(np.finfo(np.float32).min)
RNG = np.random.default_rng(0)
FEEDS = {
    "q": RNG.normal(size=(BATCH, HEADS, QUERIES, SIZE)).astype(np.float32),
    "k": RNG.normal(size=(BATCH, HEADS, KEYS, SIZE)).astype(np.float32),
    "v": RNG.normal(size=(BATCH, HEADS, KEYS, SIZE)).astype(np.float32),
    "seen": np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool),
    "bias": RNG.normal(size=(HEADS, QUERIES, KEYS)).astype(np.float32),
}
PAST = np.tri(QUERIES, KEYS, dtype=bool)

Scores = Callable[[Tensor, Tensor], Tensor]


def inputs() -> dict[str, Tensor]:
    dtypes = {"f": "f32", "b": "bool"}
    return {key: asg.input(key, x.shape, dtypes[x.dtype.kind]) for key, x in FEEDS.items()}


def product(q: Tensor, k: Tensor) -> Tensor:
    return asg.matmul(q, k.permute(0, 1, 3, 2))


def scaled(q: Tensor, k: Tensor) -> Tensor:
    return product(q, k) / math.sqrt(SIZE)


def graph_of(make: Callable[..., Tensor]) -> Graph:
    """The graph of a function of q, k, v, and of a mask and a bias if it takes them."""
    known = inputs()
    names = make.__code__.co_varnames[: make.__code__.co_argcount]
    return asg.graph(outputs={"y": make(*(known[name] for name in names))})


def after(graph: Graph) -> Graph:
    """What is recognised means the same."""
    found = Recognise()(graph)
    feeds = {key: FEEDS[key] for key in graph.input_names()}
    with np.errstate(all="ignore"):
        before, now = run(graph, feeds)["y"], run(found, feeds)["y"]
    np.testing.assert_allclose(now, before, 1e-5, 1e-5)
    return found


def attention_of(graph: Graph) -> dict[str, Any]:
    """The attributes of the one attention in a graph, and what masks it."""
    (node,) = (node for node in after(graph).nodes if node.op.name == "attention")
    return {**node.attrs, "masks": [each.type.dtype.value for each in node.inputs[3:]]}


def plain(scale: float = 0.5, causal: bool = False, masks: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"scale": pytest.approx(scale, rel=1e-6), "causal": causal, "masks": list(masks)}


# -- scales ---------------------------------------------------------------------------------------


def divided(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return asg.softmax(scaled(q, k), -1) @ v


def scale_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return asg.softmax(0.5 * product(q, k), -1) @ v


def split_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    root = math.sqrt(0.5)
    return asg.softmax(asg.matmul(q * root, k.permute(0, 1, 3, 2) * root), -1) @ v


def scaled_below_views(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    turned = (k * 0.25).reshape(6, KEYS, SIZE).permute(0, 2, 1).reshape(2, 3, SIZE, KEYS)
    doubled = (q * 2.0).reshape(6, QUERIES, SIZE).reshape(2, 3, QUERIES, SIZE)
    return asg.softmax(asg.matmul(doubled, turned), -1) @ v


def unscaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return asg.softmax(product(q, k), -1) @ v


def keys_as_they_are(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return asg.softmax(asg.matmul(q, k[:, :, :SIZE]), -1) @ v[:, :, :SIZE]


def flat_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.reshape(6, x.shape[2], SIZE) for x in (q, k, v))
    scores = (asg.matmul(q, k.permute(0, 2, 1)) * 0.5).reshape(2, 3, QUERIES, KEYS)
    weights = asg.softmax(scores + np.where(PAST, 0, -np.inf).astype(np.float32), -1)
    return weights.reshape(6, QUERIES, KEYS) @ v


def shared_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = (asg.broadcast_to(x[:, :1], x.shape) for x in (k, v))
    return asg.softmax(scaled(q, k), -1) @ v


def joined_groups(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Groups of queries that share keys, as rows of one product."""
    grouped = asg.matmul(q.reshape(2, 1, 15, SIZE), k[:, :1].permute(0, 1, 3, 2)) * 0.5
    scores = asg.where(PAST, grouped.reshape(2, 1, 3, QUERIES, KEYS), -np.inf)
    return asg.softmax(scores, -1).reshape(2, 1, 15, KEYS) @ v[:, :1]


def capped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return asg.softmax(asg.tanh(scaled(q, k) / 3.0) * 3.0, -1) @ v


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (divided, plain()),
        (scale_first, plain()),
        (split_scale, plain()),
        (scaled_below_views, plain()),
        (unscaled, plain(1.0)),
        (keys_as_they_are, plain(1.0)),
        (flat_batch, plain(causal=True)),
        (shared_keys, plain()),
        (joined_groups, plain(masks=("bool",))),
        (capped, {**plain(), "softcap": pytest.approx(3.0)}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_forms_without_masks(make: Callable[..., Tensor], expected: dict[str, Any]) -> None:
    assert attention_of(graph_of(make)) == expected


# -- masks ----------------------------------------------------------------------------------------


def weighed(v: Tensor, scores: Tensor) -> Tensor:
    return asg.softmax(scores, -1) @ v


def hidden(value: float, seen: Any = PAST) -> Any:
    return np.where(seen, 0.0, value).astype(np.float32)


def without_nan(weights: Tensor) -> Tensor:
    return asg.where(asg.isnan(weights), 0.0, weights)


def past_by_position() -> Tensor:
    return asg.arange(QUERIES).reshape(-1, 1) >= asg.arange(KEYS).reshape(1, -1)


MASKED: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "added -inf": (
        lambda q, k, v: weighed(v, scaled(q, k) + hidden(-np.inf)), plain(causal=True)
    ),
    "added lowest": (
        lambda q, k, v: weighed(v, hidden(LOWEST) + scaled(q, k)), plain(causal=True)
    ),
    "where -10000": (
        lambda q, k, v: weighed(v, asg.where(PAST, scaled(q, k), -1e4)), plain(causal=True)
    ),
    "filled": (
        lambda q, k, v: weighed(v, asg.where(~PAST, -np.inf, scaled(q, k))), plain(causal=True)
    ),
    "positions": (
        lambda q, k, v: weighed(v, asg.where(past_by_position(), scaled(q, k), -np.inf)),
        plain(causal=True),
    ),
    "tril": (
        lambda q, k, v: weighed(
            v, asg.where(asg.tril(asg.ones((5, 5))) == 0, LOWEST, scaled(q, k))
        ),
        plain(causal=True),
    ),
    "triu added": (
        lambda q, k, v: weighed(v, scaled(q, k) + asg.triu(asg.full((5, 5), -np.inf), 1)),
        plain(causal=True),
    ),
    "added -10000": (  # not low enough to be sure that it hides
        lambda q, k, v: weighed(v, scaled(q, k) + hidden(-1e4)), plain(masks=("f32",))
    ),
    "one element more": (
        lambda q, k, v: weighed(v, scaled(q, k) + hidden(-np.inf, PAST | (np.eye(5, k=4) > 0))),
        plain(masks=("bool",)),
    ),
    "one element less": (
        lambda q, k, v: weighed(v, scaled(q, k) + hidden(-np.inf, PAST & (np.eye(5, k=-4) == 0))),
        plain(masks=("bool",)),
    ),
    "a row of finite numbers": (
        lambda q, k, v: weighed(v, scaled(q, k) + hidden(LOWEST, PAST & (np.arange(5) > 0))),
        plain(masks=("f32",)),
    ),
    "nothing hidden": (lambda q, k, v: weighed(v, scaled(q, k) + hidden(0.0)), plain()),
    "numbers": (
        lambda q, k, v, bias: weighed(v, scaled(q, k) + np.float32(0.5) * PAST),
        plain(masks=("f32",)),
    ),
    "padding": (
        lambda q, k, v, seen: weighed(
            v, scaled(q, k) + asg.where(seen.reshape(2, 1, 1, 5), 0.0, LOWEST)
        ),
        plain(masks=("f32",)),
    ),
    "padding by arithmetic": (
        lambda q, k, v, seen: weighed(
            v, scaled(q, k) + (1.0 - seen.reshape(2, 1, 1, 5).cast("f32")) * LOWEST
        ),
        plain(masks=("f32",)),
    ),
    "padding of scores": (
        lambda q, k, v, seen: weighed(v, asg.where(seen.reshape(2, 1, 1, 5), scaled(q, k), -1e9)),
        plain(masks=("f32",)),
    ),
    "padding and past": (
        lambda q, k, v, seen: weighed(
            v,
            asg.where(PAST, scaled(q, k), LOWEST)
            + asg.where(seen.reshape(2, 1, 1, 5), 0.0, LOWEST),
        ),
        plain(masks=("f32",)),
    ),
    "padding and past that is sure": (
        lambda q, k, v, seen: weighed(
            v,
            asg.where(PAST, scaled(q, k), -np.inf)
            + asg.where(seen.reshape(2, 1, 1, 5), 0.0, LOWEST),
        ),
        plain(causal=True, masks=("f32",)),
    ),
    "guarded": (
        lambda q, k, v, seen: without_nan(
            asg.softmax(asg.where(seen.reshape(2, 1, 1, 5), scaled(q, k), -np.inf), -1)
        )
        @ v,
        plain(masks=("bool",)),
    ),
    "guarded and denied": (
        lambda q, k, v, seen: without_nan(
            asg.softmax(asg.where(~seen.reshape(2, 1, 1, 5), -np.inf, scaled(q, k)), -1)
        )
        @ v,
        plain(masks=("bool",)),
    ),
    "a guarded input": (
        lambda q, k, v, bias: without_nan(asg.softmax(scaled(q, k) + bias, -1)) @ v,
        plain(masks=("f32",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKED)
def test_masks(name: str) -> None:
    make, expected = MASKED[name]
    assert attention_of(graph_of(make)) == expected


# -- what is no attention -------------------------------------------------------------------------


MISSES: dict[str, Callable[..., Tensor]] = {
    "softmax over queries": lambda q, k, v: asg.softmax(scaled(q, k), 2) @ v,
    "a scale after the mask": lambda q, k, v: weighed(v, (product(q, k) + hidden(-1e4)) * 0.5),
    "weights that others read": lambda q, k, v: (
        (w := asg.softmax(scaled(q, k), -1)) @ v + asg.sum(w)
    ),
    "scores that others read": lambda q, k, v: (
        weighed(v, s := scaled(q, k)) + asg.sum(s.reshape(-1))
    ),
    "keys by group, values for all": lambda q, k, v: (
        asg.softmax(product(q, k), -1).reshape(2, 1, 15, KEYS) @ v[:, :1]
    ),
    "no product": lambda v, bias: asg.softmax(asg.broadcast_to(bias, (2, 3, 5, 5)), -1) @ v,
    "a fill that hides nothing": lambda q, k, v: weighed(v, asg.where(PAST, scaled(q, k), -10.0)),
    "rows that are NaN": lambda q, k, v: weighed(
        v, asg.where(PAST & (np.arange(5) > 0), scaled(q, k), -np.inf)
    ),
    "rows that may be NaN": lambda q, k, v, seen: weighed(
        v, asg.where(seen.reshape(2, 1, 1, 5), scaled(q, k), -np.inf)
    ),
    "an input that may hold -inf": lambda q, k, v, bias: weighed(v, scaled(q, k) + bias),
    "NaN in the mask": lambda q, k, v: weighed(v, scaled(q, k) + hidden(np.nan)),
    "NaN becomes 1": lambda q, k, v: (
        asg.where(asg.isnan(w := asg.softmax(scaled(q, k), -1)), 1.0, w) @ v
    ),
    "weights scaled": lambda q, k, v: (asg.softmax(scaled(q, k), -1) * 0.5) @ v,
}


@pytest.mark.parametrize("name", MISSES)
def test_what_is_left_alone(name: str) -> None:
    graph = graph_of(MISSES[name])
    assert after(graph) is graph


# -- rows that several masks hide -----------------------------------------------------------------


SEEN_LATE = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def both(fill: float) -> dict[str, Callable[..., Tensor]]:
    """The past and what is no padding, told in turn by fills and by sums."""

    def add(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        masked = asg.where(PAST, scaled(q, k), fill)
        return weighed(v, masked + asg.where(seen.reshape(2, 1, 1, 5), 0.0, fill))

    def known(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        masked = asg.where(PAST, scaled(q, k), fill)
        return weighed(v, asg.where(SEEN_LATE.reshape(2, 1, 1, 5), masked, fill))

    def nested(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        masked = asg.where(PAST, scaled(q, k), fill)
        return weighed(v, asg.where(seen.reshape(2, 1, 1, 5), masked, fill))

    def above_infinity(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        masked = scaled(q, k) + hidden(-np.inf)
        return weighed(v, asg.where(seen.reshape(2, 1, 1, 5), masked, fill))

    def alone(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        return weighed(v, asg.where(seen.reshape(2, 1, 1, 5), scaled(q, k), fill))

    return {
        "add": add, "known": known, "nested": nested, "above": above_infinity, "alone": alone
    }  # fmt: skip


@pytest.mark.parametrize("fill", [-1e4, -1e9, -1e30, LOWEST])
@pytest.mark.parametrize("name", ["known", "nested", "above", "alone"])
@pytest.mark.parametrize("seen", [SEEN_LATE, FEEDS["seen"]], ids=["late", "none"])
def test_rows_hidden_by_fills(
    fill: float, name: str, seen: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 0 of what is padded first is hidden partly by the one mask, partly by the other."""
    monkeypatch.setitem(FEEDS, "seen", seen)
    found = after(graph_of(both(fill)[name]))
    assert "attention" in {node.op.name for node in found.nodes}


@pytest.mark.parametrize("fill", [-1e4, -1e9, -1e30, LOWEST])
def test_rows_hidden_by_a_fill_and_a_sum(fill: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEEDS, "seen", SEEN_LATE)
    found = after(graph_of(both(fill)["add"]))
    assert ("attention" in {node.op.name for node in found.nodes}) == (fill < -1e29)


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e38, 0.0])
def test_scales_that_no_number_tells(factor: float) -> None:
    def make(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return weighed(v, product(q * 1e-5, k * 1e38) * factor)

    found = after(graph_of(make))
    assert ("attention" in {node.op.name for node in found.nodes}) == (factor == 0)


# -- gradients, reports, kernels ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["added -inf", "padding", "padding of scores", "guarded"])
def test_gradients(name: str) -> None:
    graph = graph_of(MASKED[name][0])
    loss = asg.graph(outputs={"loss": asg.sum(asg.square(Tensor(graph.outputs["y"])))})
    feeds = {key: FEEDS[key] for key in loss.input_names()}
    if name == "added -inf":
        feeds["seen"] = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
    elif name != "guarded":  # the second batch sees nothing, but its weights are numbers
        feeds["seen"] = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    whole, apart = (grad(loss, wrt=["q", "k", "v"], recognise=each) for each in (True, False))
    is_whole = "attention_key_grad" in {node.op.name for node in whole.nodes}
    assert is_whole == ("padding" not in name)
    assert "attention_key_grad" not in {node.op.name for node in apart.nodes}
    feeds = {key: feeds[key] for key in whole.input_names()}
    with np.errstate(all="ignore"):
        found, expected = run(whole, feeds), run(apart, feeds)
    for key, array in expected.items():
        if name == "guarded":  # the second batch sees nothing: NaN where it is spelt out
            assert not np.isnan(found[key]).any()
            np.testing.assert_allclose(found[key][0], array[0], 1e-4, 1e-5)
        else:
            np.testing.assert_allclose(found[key], array, 1e-4, 1e-5)


def test_a_learnt_bias_is_left_where_its_gradient_is_wanted() -> None:
    """Its gradient is that of scores, which attention would compute once more."""
    known = inputs()
    y = weighed(known["v"], scaled(known["q"], known["k"]) + asg.tanh(known["bias"]))
    loss = asg.graph(outputs={"loss": asg.sum(y)})
    by_bias, by_keys = grad(loss, wrt="bias"), grad(loss, wrt="k")
    assert "attention" not in {node.op.name for node in by_bias.nodes}
    assert "attention" in {node.op.name for node in by_keys.nodes}


def test_the_report_names_what_was_recognised() -> None:
    graph = graph_of(divided)
    gpu = Target("gpu", 0)
    artefact = lower({"main": graph}, target=gpu)
    (place,) = artefact.report["recognised"]["main"]["attention"]
    assert place.startswith("test_recognise_attention.py:")
    assert artefact.report["dispatches"] == {"attention": 1}
    assert "recognised  1  (1 attention)" in report_text(artefact.report)
    apart = lower({"main": graph}, target=gpu, passes=pipeline(recognise=False))
    assert apart.report["recognised"] == {"main": {}}
    assert apart.report["dispatch_count"] == 3
    assert recognised(graph) == {}


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["added -inf", "one element more", "padding", "guarded"])
def test_on_the_device(name: str, schedule: str) -> None:
    graph = graph_of(MASKED[name][0])
    feeds = {key: FEEDS[key] for key in graph.input_names()}
    with np.errstate(all="ignore"):
        expected = run(graph, feeds)["y"]
    passes = pipeline(fuse_attention=True)
    with asg.compile(graph, schedule=schedule, passes=passes) as exe:
        assert exe.report()["dispatches"]["attention"] == 1
        np.testing.assert_allclose(exe(feeds)["y"], expected, 1e-4, 1e-5)
