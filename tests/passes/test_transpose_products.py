"""(x y)ᵀ = yᵀ xᵀ, where nobody needs x y."""

from __future__ import annotations

import re

import numpy as np
import pytest

from asg.format import format_graph
from asg.parse import parse_graph
from asg.passes.simplify import Simplify
from asg.passes.transpose_products import TransposeProducts
from asg.runtime.interpreter import run
from asg.verify import verify

HEAD = "graph g(x: f32[5, 2, 3], y: f32[5, 3, 4]) {"


def test_a_transposed_product_is_computed_the_other_way_round() -> None:
    graph = parse_graph(
        f"{HEAD} p = permute(x, axes=[0, 2, 1]) q = permute(p, axes=[0, 2, 1])"
        " z = matmul(q, y) t = permute(z, axes=[0, 2, 1]) return t }"
    )
    result = Simplify()(TransposeProducts()(graph))
    verify(result)
    assert re.sub(" +", " ", format_graph(result, sites=False)) == (
        "graph g(x: f32[5, 2, 3], y: f32[5, 3, 4]) {\n"
        " permute_1 = permute(x, axes=[0, 2, 1]) : f32[5, 3, 2]\n"
        " permute_2 = permute(y, axes=[0, 2, 1]) : f32[5, 4, 3]\n"
        " t = matmul(permute_2, permute_1) : f32[5, 4, 2]\n"
        " return t\n"
        "}\n"
    )
    source = np.random.default_rng(0)
    inputs = {
        "x": source.normal(size=(5, 2, 3)).astype("f"),
        "y": source.normal(size=(5, 3, 4)).astype("f"),
    }
    np.testing.assert_allclose(run(result, inputs)["t"], run(graph, inputs)["t"], rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "z = matmul(x, y) t = permute(z, axes=[0, 2, 1]) return t, z",
        "z = matmul(x, y) t = permute(z, axes=[0, 2, 1]) e = exp(z) return t, e",
        "z = matmul(x, y) t = permute(z, axes=[1, 0, 2]) return t",
        "t = permute(x, axes=[0, 2, 1]) return t",
    ],
    ids=["an output", "read elsewhere", "another permutation", "no product"],
)
def test_reasons_not_to_act(body: str) -> None:
    graph = parse_graph(f"{HEAD} {body} }}")
    assert TransposeProducts()(graph) is graph
