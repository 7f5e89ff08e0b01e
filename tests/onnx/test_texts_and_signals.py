"""Counting of sequences, transforms by factors, and softmax in 16 bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import asg
from support.onnx_checks import check_node, node_model

pytestmark = pytest.mark.device

POOL: dict[str, Any] = {
    "max_gram_length": 3,
    "min_gram_length": 1,
    "max_skip_count": 1,
    "mode": "TF",
    # 2 and 3 alone; (5, 6), (2, 3) and (5, 6) again; (2, 3, 5).
    "pool_int64s": [2, 3, 5, 6, 2, 3, 5, 6, 2, 3, 5],
    "ngram_counts": [0, 2, 8],
    "ngram_indexes": [0, 1, 2, 3, 4, 5],
}
ROWS = np.array([[2, 3, 5, 6, 9, 6], [2, 7, 3, 3, 5, 5], [0, 0, 0, 0, 0, 0]], np.int32)


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
def test_sequences_are_counted(mode: str) -> None:
    weights = [0.5, 2.0, 3.0, 4.0, 0.25, 8.0]
    check_node("TfIdfVectorizer", [ROWS], {**POOL, "mode": mode, "weights": weights})


def test_sequences_of_one_place_are_added() -> None:
    check_node("TfIdfVectorizer", [ROWS], {**POOL, "ngram_indexes": [4, 0, 0, 4, 4, 2]})


def test_rows_shorter_than_sequences() -> None:
    check_node("TfIdfVectorizer", [ROWS[0, :2]], POOL)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ngram_counts": [0, 2, 9]}, "do not cut a pool of 11"),
        ({"ngram_indexes": [0, 1]}, "no place for each sequence"),
        ({"mode": "BM25"}, "mode is TF, IDF or TFIDF"),
        ({"mode": "IDF", "weights": [1.0]}, "counted in another order"),
        ({"pool_strings": ["a"]}, "strings are not computed"),
    ],
)
def test_pools_that_make_no_sense(more: dict[str, Any], message: str) -> None:
    model, _ = node_model("TfIdfVectorizer", [ROWS], {**POOL, **more})
    with pytest.raises(asg.AsgError, match=message):
        asg.onnx.load(model)


@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [1, 2, 7, 12, 30])
def test_transforms_of_any_length(length: int, inverse: int) -> None:
    values = np.random.default_rng(length).normal(size=(2, length, 3, 2)).astype(np.float32)
    numbers = values[..., 0].astype(np.float64) + 1j * values[..., 1]
    wanted = (np.fft.ifft if inverse else np.fft.fft)(numbers, axis=1)
    expected = np.stack([wanted.real, wanted.imag], -1).astype(np.float32)
    model_axis = np.array(1, np.int64)
    check_node(
        "DFT", [values, None, model_axis], {"inverse": inverse}, constants=[2],
        expected=[expected], tolerance=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("length", [1, 5, 8])
def test_softmax_rounds_as_the_reference_does(dtype: Any, length: int) -> None:
    x = np.random.default_rng(length).normal(size=(3, length, 2)).astype(dtype)
    powers = np.exp(x - x.max(1, keepdims=True))
    expected = powers / powers.sum(1, keepdims=True)
    check_node("Softmax", [x], {"axis": 1}, expected=[expected], tolerance=1e-3)


def test_long_rows_of_softmax_keep_their_sum() -> None:
    x = np.zeros((2, 1000), ml_dtypes.bfloat16)
    model, feeds = node_model("Softmax", [x], {})
    with asg.compile(asg.onnx.load(model)) as exe:
        found = exe(feeds)["y0"].astype(np.float32)
    assert np.abs(found * 1000 - 1).max() <= 2**-8
