"""A cache of keys and values: step by step the same as everything at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asg
from asg import compiler, nn
from asg.errors import ShapeError
from asg.nn import functional
from asg.tensor import Tensor

Array = np.ndarray[Any, Any]
BATCH, WIDTH, HEADS, CAPACITY, VOCABULARY = 2, 16, 4, 12, 11
pytestmark = pytest.mark.device


class Decoder(nn.Module):
    """Two causal blocks over tokens and positions, with caches or without."""

    def __init__(self, *, is_cached: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CAPACITY, WIDTH)
        self.blocks = nn.ModuleList([nn.TransformerBlock(WIDTH, HEADS, causal=True) for _ in "ab"])
        shape = (BATCH, HEADS, CAPACITY, WIDTH // HEADS)
        self.caches = nn.ModuleList([nn.KeyValueCache(*shape) for _ in "ab"] if is_cached else [])

    def forward(self, index: Tensor) -> Tensor:
        places = asg.arange(index.shape[1])
        if self.caches:
            places = places + self.caches[0].length.latest()
        x = self.tokens(index) + self.positions(places)
        for number, block in enumerate(self.blocks):
            x = block(x, cache=self.caches[number] if self.caches else None)
        return x @ self.tokens.weight.T


def tokens(length: int) -> Array:
    return np.random.default_rng(1).integers(0, VOCABULARY, (BATCH, length)).astype(np.int32)


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_decoding_loop_equals_full_runs(family: str, fused: bool) -> None:
    nn.manual_seed(0)
    cached = Decoder(is_cached=True)
    whole = Decoder(is_cached=False)
    whole.load_state_dict(
        {name: array for name, array in cached.state_dict().items() if "caches" not in name}
    )
    entries = {
        name: asg.trace(cached, asg.spec((BATCH, length), "i32"), names=["index"])
        for name, length in {"prompt": 5, "step": 1}.items()
    }
    passes = compiler.pipeline(fuse_attention=fused)
    given = tokens(CAPACITY)
    full = asg.compile(asg.trace(whole, asg.spec(given.shape, "i32"), names=["index"]))
    wanted = np.asarray(next(iter(full({"index": given}).values())))
    with full, asg.compile(entries, schedule=family, passes=passes) as exe:
        assert exe.report()["copies"] == 0
        for _ in range(2):  # a second text after the first one
            exe.load_state_dict(
                {f"caches.{number}.length": np.int32(0) for number in range(2)}, strict=False
            )
            (found,) = exe.prompt({"index": given[:, :5]}).values()
            parts = [np.asarray(found)]
            for place in range(5, CAPACITY):
                (found,) = exe.step({"index": given[:, place : place + 1]}).values()
                parts.append(np.asarray(found))
            np.testing.assert_allclose(np.concatenate(parts, 1), wanted, rtol=1e-4, atol=1e-5)
        updates = [text for name, text in exe.kernels.items() if "update_slice" in name]
        assert updates
        assert all("the slice alone, in place" in text for text in updates)


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("fused", [True, False])
def test_positions_without_a_place_make_nan(family: str, fused: bool) -> None:
    """The host does not see the count: results say it, until the count is set back."""
    nn.manual_seed(0)
    attention = nn.MultiHeadAttention(8, 2, causal=True)
    cache = nn.KeyValueCache(1, 2, 4, 4)

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.cache = attention, cache

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, cache=self.cache)

    step = Step()
    entries = {
        name: asg.trace(step, asg.spec((1, length, 8)), names=["x"])
        for name, length in {"three": 3, "one": 1, "two": 2}.items()
    }
    x = np.random.default_rng(0).standard_normal((1, 4, 8)).astype(np.float32)
    passes = compiler.pipeline(fuse_attention=fused)

    def run(exe: Any, entry: str, given: Array) -> Array:
        (found,) = getattr(exe, entry)({"x": given}).values()
        return np.asarray(found)

    with asg.compile(entries, schedule=family, passes=passes) as exe:
        for _ in range(2):
            first = run(exe, "three", x[:, :3])
            last = run(exe, "one", x[:, 3:])
            assert np.isfinite(first).all()
            assert np.isfinite(last).all()
            assert np.isnan(run(exe, "one", x[:, 3:])).all()
            assert np.isnan(run(exe, "one", x[:, 3:])).all()
            assert exe.state_dict()["cache.length"] == 6
            exe.load_state_dict({"cache.length": np.int32(0)}, strict=False)
        # Three places are taken, and two positions come: none of their results is right.
        run(exe, "three", x[:, :3])
        assert np.isnan(run(exe, "two", x[:, :2])).all()
        exe.load_state_dict({"cache.length": np.int32(0)}, strict=False)
        np.testing.assert_array_equal(run(exe, "three", x[:, :3]), first)


def test_more_than_fits_is_refused() -> None:
    cache = nn.KeyValueCache(1, 1, 4, 8)
    with pytest.raises(ShapeError, match="5 positions don't fit a cache of 4"):
        cache.append(asg.input("both", (2, 1, 1, 5, 8)))


@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_grouped_queries_read_a_cache_without_copies(family: str) -> None:
    """Six heads of queries, two of keys: what is moved is what the attention reads and writes."""
    q, kv = asg.input("q", (1, 6, 1, 8)), asg.input("kv", (2, 1, 2, 64, 8))
    span = asg.input("span", (2,), "i32")
    out = functional.scaled_dot_product_attention(
        q, kv[0], kv[1], is_causal=True, enable_gqa=True, softcap=5.0, span=span
    )
    graph = asg.graph(outputs={"out": out})
    draw = np.random.default_rng(2).standard_normal
    inputs: dict[str, Any] = {"q": draw(q.shape, np.float32), "kv": draw(kv.shape, np.float32)}
    exe: Any = asg.compile(graph, schedule=family, passes=compiler.pipeline(fuse_attention=True))
    with exe:
        assert exe.report()["dispatches"] == {"attention": 1}
        assert exe.report()["bytes_moved"] == 4 * (48 + 2 * 2 * 64 * 8 + 2 + 48)
        for place in (0, 40, 63):
            found = exe({**inputs, "span": np.array([place, place + 1], np.int32)})["out"]
            keys, values = (np.repeat(x[0], 3, 0)[:, : place + 1] for x in inputs["kv"])
            scores = np.einsum("hsd,htd->hst", inputs["q"][0], keys) / np.sqrt(8.0)
            weights = np.exp(5.0 * np.tanh(scores / 5.0))
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(found[0], weights @ values, rtol=1e-5, atol=1e-6)
