"""Attention as one kernel: both schedule families against the interpreter and PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import asg
from asg import compiler, nn
from asg.codegen.context import Target
from asg.nn import functional as F
from asg.ops.attention import attention
from asg.runtime.interpreter import run
from asg.tensor import Tensor
from support.targets import reference

Array = np.ndarray[Any, Any]
FUSED = compiler.pipeline(fuse_attention=True)
FAMILIES = pytest.mark.parametrize("family", ["cpu", "gpu"])
pytestmark = pytest.mark.device


def draw(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def operands(
    batch: tuple[int, ...], s: int, t: int, d: int, e: int
) -> tuple[list[Tensor], dict[str, Array]]:
    shapes = {"q": (*batch, s, d), "k": (*batch, t, d), "v": (*batch, t, e)}
    tensors = [asg.input(name, shape) for name, shape in shapes.items()]
    return tensors, {name: draw(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}


def with_gradients(tensors: list[Tensor], causal: bool, scale: float = 0.3) -> asg.Graph:
    """Both results, and the gradients of a sum in which every element counts differently."""
    out, lse = attention(*tensors, causal=causal, scale=scale)
    loss = asg.sum(out * draw(out.shape, 8)) + asg.sum(lse * draw(lse.shape, 9))
    graph = asg.graph(outputs={"out": out, "lse": lse, "loss": loss}, inputs=tensors)
    floats = [name for name in "qkv" if name in graph.input_names()]
    return asg.value_and_grad(graph, wrt=floats)


def run_fused(
    graph: asg.Graph, inputs: Mapping[str, Array], family: str, kernels: int
) -> dict[str, Array]:
    """Outputs on the device; `kernels` of its dispatches must be attention's."""
    with asg.compile(graph, schedule=family, passes=FUSED) as exe:
        assert exe.report()["dispatches"].get("attention", 0) == kernels
        return {name: np.asarray(array) for name, array in exe(inputs).items()}


def expect_close(
    found: Mapping[str, Array], wanted: Mapping[str, Array], tolerance: float = 2e-5
) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        size = max(1.0, float(np.abs(array).max(initial=0.0)))
        np.testing.assert_allclose(
            found[name], array, rtol=tolerance, atol=tolerance * size, err_msg=name
        )


SIZES = [
    # S, T, D, E, causal
    (64, 64, 64, 64, True),
    (1, 1, 1, 1, True),
    (1, 65, 8, 8, False),
    (63, 1, 8, 4, True),
    (7, 7, 33, 33, True),
    (65, 63, 8, 80, False),
    (63, 65, 80, 1, True),
    (65, 130, 33, 8, True),
    (3, 2, 2, 3, False),
    (40, 33, 128, 128, False),
]


@FAMILIES
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes: tuple[int, int, int, int, bool], family: str) -> None:
    *shape, causal = sizes
    tensors, inputs = operands((2,), *shape)
    graph = with_gradients(tensors, causal)
    wanted = run(graph, inputs, dtype="f64")
    expect_close(run_fused(graph, inputs, family, 3), wanted)


@FAMILIES
@pytest.mark.parametrize(
    ("s", "t", "causal", "kind"),
    [
        (33, 40, False, "bool"),
        (9, 70, True, "bool"),
        (35, 7, True, "f32"),
        (33, 40, False, "f32"),
        (9, 70, True, "rows"),
        (35, 7, False, "columns"),
    ],
)
def test_masks(s: int, t: int, causal: bool, kind: str, family: str) -> None:
    # Keys and values are parts of one input: with a mask, a kernel binds eight tensors.
    q, packed = asg.input("q", (2, 2, s, 8)), asg.input("packed", (2, 2, 2, t, 8))
    inputs = {"q": draw(q.shape, 0), "packed": draw(packed.shape, 1)}
    chance = np.random.default_rng(3)
    allowed = chance.random((2, 2, s, t)) < 0.6
    allowed[1, 0, s // 2] = False  # a query that sees nothing
    if kind == "rows":
        allowed = allowed[:, :1, :, :1]
    elif kind == "columns":
        allowed = allowed[:, :1, :1]
    if kind == "f32":  # known, or a gradient would sum weights again
        mask = asg.constant(np.where(allowed, draw(allowed.shape, 4), np.float32(-np.inf)))
    else:
        mask = asg.input("mask", allowed.shape, "bool")
        inputs["mask"] = allowed
    tensors = [q, packed[0], packed[1], asg.broadcast_to(mask, (2, 2, s, t))]
    out, lse = attention(*tensors, causal=causal, scale=0.5)
    loss = asg.sum(out * draw(out.shape, 8))
    graph = asg.graph(outputs={"out": out, "lse": lse, "loss": loss})
    graph = asg.value_and_grad(graph, wrt=["q", "packed"])
    wanted = run(graph, inputs, dtype="f64")
    found = run_fused(graph, inputs, family, 3)
    expect_close(found, wanted)
    blind = ~np.broadcast_to(allowed, (2, 2, s, t)).any(-1)
    if causal:
        blind = ~(np.broadcast_to(allowed, (2, 2, s, t)) & np.tri(s, t, dtype=bool)).any(-1)
    assert blind.any() or kind in ("rows", "columns")
    assert not found["out"][blind].any()
    assert not found["lse"][blind].any()
    assert not found["q.grad"][blind].any()


@FAMILIES
def test_packed_operands_are_read_and_written_in_place(family: str) -> None:
    """Queries, keys and values of one projection, and a result laid out for the next product."""
    packed = asg.input("packed", (2, 20, 3, 4, 16))
    q, k, v = (asg.permute(packed, 2, 0, 3, 1, 4)[part] for part in range(3))
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    joined = asg.reshape(asg.permute(heads, 0, 2, 1, 3), (2, 20, 64))
    graph = asg.graph(outputs={"y": joined})
    inputs = {"packed": draw((2, 20, 3, 4, 16))}
    with asg.compile(graph, schedule=family, passes=FUSED) as exe:
        assert exe.report()["dispatches"] == {"attention": 1}
        assert exe.report()["bytes_moved"] == 4 * (2 * 20 * 3 * 64 + 2 * 20 * 64)
        found = {"y": np.asarray(exe(inputs)["y"])}
    expect_close(found, run(graph, inputs, dtype="f64"))


@FAMILIES
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_scores(size: float, family: str) -> None:
    """Equal queries and keys but for one key, whose score is far above or below the others'."""
    tensors, inputs = operands((1,), 8, 40, 4, 8)
    inputs["q"] = np.ones_like(inputs["q"])
    inputs["k"] = np.full_like(inputs["k"], size / 4)
    inputs["k"][:, 17] *= 1.5
    graph = asg.graph(outputs={"out": attention(*tensors, causal=False, scale=1.0)[0]})
    found = run_fused(graph, inputs, family, 1)
    others = [key for key in range(40) if key != 17]
    wanted = inputs["v"][0, 17] if size > 0 else inputs["v"][0, others].mean(0)
    np.testing.assert_allclose(found["out"][0], np.tile(wanted, (8, 1)), rtol=1e-5, atol=1e-6)


@FAMILIES
@pytest.mark.parametrize("operand", ["q", "k", "v"])
def test_nan_shows_where_it_is_seen(operand: str, family: str) -> None:
    tensors, inputs = operands((1,), 40, 40, 4, 8)
    inputs[operand][0, 20, 1] = np.nan
    graph = asg.graph(outputs={"out": attention(*tensors, causal=True, scale=1.0)[0]})
    found = run_fused(graph, inputs, family, 1)["out"][0]
    assert not np.isnan(found[:20]).any() or operand == "v"
    is_nan = np.isnan(found)
    if operand == "q":
        assert is_nan[20].all()
        assert not is_nan[21:].any()
    elif operand == "k":
        assert is_nan[20:].all()
    else:
        assert is_nan[20:, 1].all()
        assert not is_nan[:, [0, *range(2, 8)]].any()


@FAMILIES
@pytest.mark.parametrize("name", reference("attention"))
def test_pytorch_multi_head_attention(name: str, family: str) -> None:
    case = reference("attention")[name]
    layer = nn.MultiHeadAttention(12, 3, causal=name.startswith("causal"))
    weights = [key for key in case if key in layer.state_dict()]
    layer.load_state_dict({key: case[key] for key in weights})
    given = [key for key in ("x", "source", "key_padding_mask") if key in case]
    if "attn_mask" in case and not layer.causal:
        given.append("attn_mask")
    tensors = {key: asg.input(key, case[key].shape, case[key].dtype) for key in given}
    x = tensors.pop("x")
    out = layer(x, tensors.pop("source", None), **tensors)
    weighted = asg.sum(out * asg.input("g", out.shape))
    wrt = [*(key for key in ("x", "source") if key in case), *weights]
    graph = asg.graph(outputs={"out": out, "loss": weighted})
    joint = asg.value_and_grad(graph, of="loss", wrt=wrt)
    with asg.compile(joint, schedule=family, passes=FUSED) as exe:
        assert exe.report()["dispatches"]["attention"] >= 1
        exe.load_state_dict({key: case[key] for key in weights}, strict=False)
        found = exe({key: case[key] for key in ["g", *given]})
        for key in ["out", *(f"{each}.grad" for each in wrt)]:
            np.testing.assert_allclose(found[key], case[key], rtol=1e-4, atol=1e-5, err_msg=key)


@FAMILIES
def test_grouped_queries_share_heads(family: str) -> None:
    q, k, v = (asg.input(n, (2, heads, 20, 8)) for n, heads in zip("qkv", (6, 2, 2), strict=True))
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    graph = asg.graph(outputs={"out": out})
    inputs = {name: draw((2, 6 if name == "q" else 2, 20, 8), ord(name)) for name in "qkv"}
    found = run_fused(graph, inputs, family, 1)
    repeated = {name: np.repeat(inputs[name], 3, axis=1) for name in "kv"}
    plain = [asg.input(name, (2, 6, 20, 8)) for name in "qkv"]
    reference_graph = asg.graph(outputs={"out": F.scaled_dot_product_attention(*plain)})
    expect_close(found, run(reference_graph, {**inputs, **repeated}, dtype="f64"))


@FAMILIES
def test_empty_operands_are_spelt_out(family: str) -> None:
    for s, t, d, e in ((0, 3, 2, 2), (3, 0, 2, 2), (2, 3, 2, 0)):
        tensors, inputs = operands((1,), s, t, d, e)
        graph = asg.graph(outputs={"out": attention(*tensors, causal=False, scale=1.0)[0]})
        found = run_fused(graph, inputs, family, 0)
        assert found["out"].shape == (1, s, e)
        assert not found["out"].any()


@FAMILIES
def test_verify_and_bisect_take_the_kernel(family: str) -> None:
    tensors, inputs = operands((2,), 20, 20, 8, 8)
    graph = with_gradients(tensors, causal=True)
    report = asg.testing.differential(graph, inputs, schedule=family, passes=FUSED)
    assert report.is_right, str(report)
    assert any("attention" in check.where for check in report.checks if check.stage == "kernels")


@FAMILIES
def test_same_graph_same_text(family: str) -> None:
    texts = []
    for _ in range(2):
        tensors, _ = operands((2,), 20, 20, 8, 8)
        with asg.compile(with_gradients(tensors, True), schedule=family, passes=FUSED) as exe:
            texts.append(dict(exe.kernels))
    assert texts[0] == texts[1]


def test_the_target_decides_unless_told() -> None:
    tensors, _ = operands((1,), 8, 8, 4, 4)
    graph = asg.graph(outputs={"out": attention(*tensors, causal=True, scale=1.0)[0]})
    spelt_out = compiler.pipeline(fuse_attention=False)
    with asg.compile(graph, schedule="gpu") as exe:
        assert exe.report()["dispatches"] == {"attention": 1}
    with asg.compile(graph, schedule="gpu", passes=spelt_out) as exe:
        assert "attention" not in exe.report()["dispatches"]


@pytest.mark.parametrize(
    ("s", "causal", "forward", "gradients"),
    [
        (256, True, 1, 3),  # half of the blocks are hidden
        (64, True, 1, 0),  # a quarter: too few for the gradients
        (256, False, 0, 0),  # none
        (16, True, 0, 0),
    ],
)
def test_a_processor_takes_the_kernel_where_it_is_faster(
    s: int, causal: bool, forward: int, gradients: int
) -> None:
    tensors, _ = operands((2,), s, s, 8, 8)
    out = attention(*tensors, causal=causal, scale=1.0)[0]
    plain = asg.graph(outputs={"out": out})
    both = asg.grad(asg.graph(outputs={"loss": asg.sum(out * out)}), wrt=["q", "k", "v"])
    for graph, count in ((plain, forward), (both, gradients)):
        for size, wanted in ((8, count), (0, 0)):
            report = compiler.lower({"main": graph}, target=Target("cpu", size)).report
            assert report["dispatches"].get("attention", 0) == wanted


def test_a_processor_takes_the_kernel_for_a_span() -> None:
    """Only the kernel can leave out what the span hides."""
    tensors, _ = operands((2,), 1, 64, 8, 8)
    span = asg.input("span", (2,), "i32")
    graph = asg.graph(outputs={"out": attention(*tensors, span, causal=False, scale=1.0)[0]})
    assert compiler.lower({"main": graph}, target=Target("cpu", 8)).report["dispatches"] == {
        "attention": 1
    }


@pytest.mark.device
@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("cut", [False, True])
def test_the_logarithms_alone(family: str, cut: bool) -> None:
    def logs(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
        output, result = attention(q, k, v, causal=False, scale=0.5)
        # What reads the output turns out to be nothing.
        return {"output": result, "cut": asg.pad(output, ((0, 0), (3, -3))) if cut else result}

    graph = asg.trace(logs, asg.spec((3, 2)), asg.spec((4, 2)), asg.spec((4, 3)))
    random = np.random.default_rng(0)
    inputs = {
        name: random.normal(size=graph.input(name).type.shape).astype(np.float32)
        for name in graph.input_names()
    }
    passes = compiler.pipeline(fuse_attention=True)
    with asg.compile(graph, target="wgpu", schedule=family, passes=passes) as exe:
        found = exe({name: inputs[name] for name in exe.entries["main"].inputs})["output"]
    scores = 0.5 * inputs["q"] @ inputs["k"].T
    np.testing.assert_allclose(found, np.log(np.exp(scores).sum(1)), rtol=1e-5, atol=1e-5)


@FAMILIES
@pytest.mark.parametrize(
    ("s", "t", "causal", "spans"),
    [
        (1, 70, False, [[0, 33]]),
        (33, 40, True, [[7, 40], [0, 20]]),
        (33, 40, False, [[0, 32], [0, 0]]),
        (3, 7, True, [[2_000_000_000, 2_000_000_000], [-2_000_000_000, 7]]),
        (9, 70, True, [[3, 65], [61, -1]]),
    ],
)
def test_spans(s: int, t: int, causal: bool, spans: list[list[int]], family: str) -> None:
    """Keys up to a length that is known at run time, seen from an offset."""
    tensors, inputs = operands((len(spans), 2), s, t, 8, 8)
    alone = len(spans) == 1
    span = asg.input("span", (2,) if alone else (len(spans), 2), "i32")
    inputs["span"] = np.array(spans[0] if alone else spans, np.int32)
    graph = with_gradients([*tensors, span], causal)
    wanted = run(graph, inputs, dtype="f64")
    # The kernel for keys and values would bind nine tensors.
    found = run_fused(graph, inputs, family, 2)
    expect_close(found, wanted)
    for batch, (offset, length) in enumerate(spans):
        query, key = np.arange(s)[:, None], np.arange(t)
        seen = key < length if not causal else (key < length) & (key <= query + offset)
        seen = np.broadcast_to(seen, (s, t))
        assert not found["out"][batch][:, ~seen.any(1)].any()
        assert not found["k.grad"][batch][:, ~seen.any(0)].any()


@FAMILIES
def test_a_span_in_a_kernel_for_keys(family: str) -> None:
    """With keys and values in one tensor, all gradients are kernels."""
    q, packed = asg.input("q", (2, 2, 33, 8)), asg.input("packed", (2, 2, 2, 40, 8))
    span = asg.input("span", (2, 2), "u32")
    inputs = {"q": draw(q.shape, 0), "packed": draw(packed.shape, 1)}
    inputs["span"] = np.array([[7, 37], [2, 5]], np.uint32)
    out, _ = attention(q, packed[0], packed[1], span, causal=True, scale=0.5)
    loss = asg.sum(out * draw(out.shape, 8))
    graph = asg.graph(outputs={"out": out, "loss": loss})
    graph = asg.value_and_grad(graph, wrt=["q", "packed"])
    expect_close(run_fused(graph, inputs, family, 3), run(graph, inputs, dtype="f64"))


@FAMILIES
def test_a_span_that_a_kernel_made(family: str) -> None:
    """It lies in memory that kernels write, of which browsers believe that it may differ."""
    tensors, inputs = operands((2,), 5, 40, 8, 8)
    position = asg.input("position", (), "i32")
    offset = asg.sum(asg.broadcast_to(position, (300,)), axis=0) // 300
    span = asg.stack([offset, offset + 5])
    out, lse = attention(*tensors, span, causal=True, scale=0.3)
    graph = asg.graph(outputs={"out": out, "lse": lse})
    for place in (0, 13, 35):
        given = {**inputs, "position": np.int32(place)}
        expect_close(run_fused(graph, given, family, 1), run(graph, given, dtype="f64"))


@FAMILIES
@pytest.mark.parametrize("masked", [False, True])
def test_softcap(masked: bool, family: str) -> None:
    tensors, inputs = operands((2,), 33, 40, 8, 8)
    if masked:
        span = asg.input("span", (2,), "i32")
        tensors, inputs["span"] = [*tensors, span], np.array([7, 37], np.int32)
    out, lse = attention(*tensors, causal=masked, scale=1.5, softcap=2.0)
    loss = asg.sum(out * draw(out.shape, 8)) + asg.sum(lse * draw(lse.shape, 9))
    graph = asg.value_and_grad(asg.graph(outputs={"out": out, "loss": loss}), wrt=["q", "k", "v"])
    expect_close(
        run_fused(graph, inputs, family, 2 if masked else 3), run(graph, inputs, dtype="f64")
    )
