"""Products with few results and a long inner axis are cut in parts."""

from __future__ import annotations

import re

import numpy as np
import pytest

from asg.format import format_graph
from asg.parse import parse_graph
from asg.passes.split_products import SplitProducts
from asg.runtime.interpreter import run
from asg.verify import verify


def product(left: str, right: str) -> str:
    return f"graph g(x: f32[{left}], y: f32[{right}]) {{ z = matmul(x, y) return z }}"


def split(text: str, split_products: SplitProducts) -> str:
    """Split, compare the meaning, return the new text."""
    graph = parse_graph(text)
    result = split_products(graph)
    verify(result)
    source = np.random.default_rng(0)
    inputs = {
        name: source.normal(size=graph.input(name).type.shape).astype("f")
        for name in graph.input_names()
    }
    wanted = run(graph, inputs, dtype="f64")["z"]
    np.testing.assert_allclose(run(result, inputs)["z"], wanted, rtol=1e-4, atol=1e-4)
    return re.sub(" +", " ", format_graph(result, sites=False))


def test_few_results_are_summed_from_parts() -> None:
    assert split(product("3, 4096", "4096, 5"), SplitProducts(enough_tiles=4)) == (
        "graph g(x: f32[3, 4096], y: f32[4096, 5]) {\n"
        " reshape_1 = reshape(x, shape=[3, 4, 1024]) : f32[3, 4, 1024]\n"
        " reshape_2 = reshape(y, shape=[4, 1024, 5]) : f32[4, 1024, 5]\n"
        " permute_1 = permute(reshape_1, axes=[1, 0, 2]) : f32[4, 3, 1024]\n"
        " matmul_1 = matmul(permute_1, reshape_2) : f32[4, 3, 5]\n"
        " z = sum(matmul_1, axes=[0]) : f32[3, 5]\n"
        " return z\n"
        "}\n"
    )


def test_batches_count_as_tiles() -> None:
    text = split(product("2, 3, 2048", "2, 2048, 5"), SplitProducts(enough_tiles=8))
    assert "f32[4, 2, 3, 512]" in text
    assert "f32[4, 2, 512, 5]" in text


def test_parts_hold_whole_quads_where_they_can() -> None:
    """2052 steps divide by 6, but parts of 342 are no quads; 2058 never make any."""
    assert "f32[16, 3, 384]" in split(product("3, 6144", "6144, 5"), SplitProducts())
    assert "f32[3, 3, 684]" in split(product("3, 2052", "2052, 5"), SplitProducts())
    assert "f32[7, 3, 294]" in split(product("3, 2058", "2058, 5"), SplitProducts())


def test_a_product_of_vectors_is_a_sum() -> None:
    assert "matmul" not in split(product("1, 300", "300, 1"), SplitProducts())
    assert "matmul" not in split(product("2, 3, 1, 300", "2, 3, 300, 1"), SplitProducts())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("128, 4096", "4096, 128"),  # tiles enough
        ("17, 8, 4096", "17, 4096, 8"),
        ("8, 2044", "2044, 8"),  # short
        ("8, 2053", "2053, 8"),  # prime
        ("1, 255", "255, 1"),
        ("0, 4096", "4096, 8"),
        ("8, 0", "0, 8"),
    ],
)
def test_reasons_not_to_act(left: str, right: str) -> None:
    graph = parse_graph(product(left, right))
    assert str(SplitProducts()(graph)) == str(graph)


@pytest.mark.parametrize(("inner", "is_split"), [(4096, False), (8192, True)])
def test_a_product_that_makes_sums_on_its_way_is_split_later(inner: int, is_split: bool) -> None:
    graph = parse_graph(
        f"graph g(x: f32[3, {inner}], y: f32[{inner}, 5])"
        " { z = matmul(x, y) b = sum(y, axes=[0]) return z, b }"
    )
    assert (str(SplitProducts()(graph)) != str(graph)) == is_split


def test_parts_are_not_split_again() -> None:
    once = SplitProducts()(parse_graph(product("3, 65536", "65536, 5")))
    assert str(SplitProducts()(once)) == str(once)
