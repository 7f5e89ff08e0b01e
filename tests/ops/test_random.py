"""Random numbers are those of JAX, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg.graph import Graph
from asg.runtime.interpreter import run
from asg.tensor import Tensor

STORED = json.loads((Path(__file__).parents[1] / "references" / "random.json").read_text())
CASES = STORED["cases"]


def value(tensor: Tensor) -> Any:
    return run(Graph.build({"y": tensor.value}), {})["y"]


@pytest.mark.parametrize(("seed", "words"), STORED["keys"])
def test_key(seed: int, words: list[int]) -> None:
    assert value(asg.key(seed)).tolist() == words


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['folded']}-{case['shape']}")
def test_numbers_are_those_of_jax(case: dict[str, Any]) -> None:
    key = asg.key(case["seed"])
    for number in case["folded"]:
        key = asg.fold_in(key, number)
    assert value(key).tolist() == case["key"]
    assert value(asg.random_bits(key, case["shape"])).tolist() == case["bits"]
    uniform = value(asg.random_uniform(key, case["shape"]))
    np.testing.assert_array_equal(uniform, np.array(case["uniform"], np.float32))
    ranged = value(asg.random_uniform(key, case["shape"], -3.0, 5.0))
    np.testing.assert_allclose(ranged, np.array(case["range"], np.float32), rtol=1e-6, atol=5e-7)
    coins = value(asg.random_bernoulli(key, 0.3, case["shape"]))
    np.testing.assert_array_equal(coins, np.array(case["bernoulli"], bool))


def test_fold_in_takes_a_symbolic_number() -> None:
    step = asg.input("step", (), "i32")
    graph = Graph.build({"key": asg.fold_in(asg.key(7), step).value})
    for number in (0, 1, 2**31 - 1):
        expected = value(asg.fold_in(asg.key(7), number))
        np.testing.assert_array_equal(run(graph, {"step": np.int32(number)})["key"], expected)


@pytest.mark.parametrize(("p", "expected"), [(0.0, False), (1.0, True), (-1.0, False)])
def test_certain_coins(p: float, expected: bool) -> None:
    coins = value(asg.random_bernoulli(asg.key(0), p, (9,)))
    np.testing.assert_array_equal(coins, np.full(9, expected))


@pytest.mark.parametrize("p", [0.5, 0.1, 1e-3, 1 - 2**-24])
def test_coins_are_uniform_numbers_below_p(p: float) -> None:
    key = asg.key(3)
    expected = value(asg.random_uniform(key, (4000,))) < np.float32(p)
    np.testing.assert_array_equal(value(asg.random_bernoulli(key, p, (4000,))), expected)
    symbolic = asg.random_bernoulli(key, asg.full((), p), (4000,))
    np.testing.assert_array_equal(value(symbolic), expected)


def test_a_key_is_two_words() -> None:
    with pytest.raises(asg.errors.DTypeError, match=r"a random key is u32\[2\], got i32\[2\]"):
        asg.random_bits(asg.input("k", (2,), "i32"), (3,))
