"""Operators on texts, as far as their words are numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.dtypes import Array
from asg.onnx.operators.sources import LARGEST_RANGE
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

LARGEST = 1 << 26  # comparisons of a word with one of a pool
GAPS = 1024  # words left out between those of a sequence, each written out


@dataclass(frozen=True)
class _Grams:
    """Sequences of one length, [count, length], and where in the result each is counted."""

    words: Array
    places: Array

    @property
    def length(self) -> int:
        return int(self.words.shape[1])


@converter("TfIdfVectorizer", since=9)
def tf_idf_vectorizer(call: Call) -> Tensor:
    """How often rows of words [words] or [rows, words] hold each sequence of a pool."""
    if call.has_attribute("pool_strings"):
        raise call.unsupported("strings are not computed")
    x = call[0]
    if x.ndim > 2:
        raise call.malformed(f"words are [words] or [rows, words], not {x.type}")
    rows = F.reshape(x, (1, -1) if x.ndim < 2 else x.shape)
    pools = _pools(call)
    size = int(max(call.get_ints("ngram_indexes"))) + 1
    if size > LARGEST_RANGE:
        raise call.unsupported(f"a row of {size} counts", f"at most {LARGEST_RANGE}")
    shortest = call.get_int("min_gram_length")
    longest = call.get_int("max_gram_length")
    total = F.zeros((rows.shape[0], size))
    for pool in pools:
        if shortest <= pool.length <= longest and len(pool.words):
            total = total + _placed(call, _counts(call, rows, pool), pool.places, size)
    found = _weighted(call, total)
    return found if x.ndim == 2 else F.reshape(found, (size,))


def _pools(call: Call) -> list[_Grams]:
    """Return the pool's sequences by their length; of equal ones the last counts."""
    pool = np.array(call.get_ints("pool_int64s"), np.int64)
    starts, places = call.get_ints("ngram_counts"), np.array(call.get_ints("ngram_indexes"))
    ends = (*starts[1:], len(pool))
    found = []
    first = 0
    for length, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        if not 0 <= start <= end <= len(pool) or (end - start) % length:
            raise call.malformed(f"ngram_counts {starts} do not cut a pool of {len(pool)}")
        words = pool[start:end].reshape(-1, length)
        mine = places[first : first + len(words)]
        if len(mine) < len(words) or (mine < 0).any():
            raise call.malformed("ngram_indexes has no place for each sequence of the pool")
        first += len(words)
        last = {tuple(row): place for row, place in zip(words.tolist(), mine, strict=True)}
        kept = np.array(list(last), np.int64).reshape(-1, length)
        found.append(_Grams(kept, np.array(list(last.values()), np.int64)))
    return found


def _counts(call: Call, rows: Tensor, pool: _Grams) -> Tensor:
    """Return how often each row [rows, words] holds each sequence, with words left out between."""
    count, words = rows.shape
    total = F.zeros((count, len(pool.words)))
    gaps = 1 if pool.length == 1 else call.get_int("max_skip_count") + 1
    if pool.length > 1 and min(gaps, words // (pool.length - 1)) > GAPS:
        raise call.unsupported(f"max_skip_count of {gaps - 1}", f"at most {GAPS - 1}")
    for step in range(1, gaps + 1):
        starts = words - (pool.length - 1) * step
        if starts <= 0:
            break
        if count * starts * len(pool.words) > LARGEST:
            raise call.unsupported("a pool and rows as large as these")
        is_here: Tensor | None = None
        for place in range(pool.length):
            mine = rows[:, place * step : place * step + starts]
            word = call.constant_tensor(pool.words[:, place].reshape(1, -1, 1), rows.dtype)
            is_equal = F.equal(F.unsqueeze(mine, 1), word)
            is_here = is_equal if is_here is None else F.logical_and(is_here, is_equal)
        assert is_here is not None
        total = total + F.sum(F.cast(is_here, DType.F32), -1)
    return total


def _placed(call: Call, counts: Tensor, places: Array, size: int) -> Tensor:
    """Return [rows, size] of [rows, sequences]; what shares a place is added."""
    total = F.zeros((counts.shape[0], size))
    padded = F.concatenate([counts, F.zeros((counts.shape[0], 1))], 1)
    left = np.arange(len(places))
    while len(left):
        _, chosen = np.unique(places[left], return_index=True)
        source = np.full(size, len(places))
        source[places[left[chosen]]] = left[chosen]
        total = total + F.take(padded, call.constant_tensor(source, DType.I32), 1)
        left = np.delete(left, chosen)
    return total


def _weighted(call: Call, counts: Tensor) -> Tensor:
    mode = call.get_text("mode")
    if mode not in ("TF", "IDF", "TFIDF"):
        raise call.malformed(f"mode is TF, IDF or TFIDF, not {mode!r}")
    found = counts if mode != "IDF" else F.cast(F.greater(counts, 0.0), DType.F32)
    if mode == "TF" or not call.has_attribute("weights"):
        return found
    weights = np.array(call.get_floats("weights"), np.float32)
    if len(weights) != counts.shape[1] or call.get_ints("ngram_indexes") != tuple(
        range(len(weights))
    ):
        raise call.unsupported("weights of sequences that are counted in another order")
    return found * call.constant_tensor(weights, DType.F32)
