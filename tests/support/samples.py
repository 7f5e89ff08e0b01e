"""Operands for an op's samples: drawn within the bounds, the same at every run."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from asg.graph import Graph
from asg.op import Op, Sample
from asg.ops.sources import input
from asg.tensor import Tensor
from asg.types import DType, TensorType, parse_type

Array = np.ndarray[Any, Any]


def draw(op: Op, sample: Sample) -> list[Array]:
    """An array per operand; floats in float64, so that they serve for references too."""
    chance = np.random.default_rng(zlib.crc32(f"{op.name}{sample}".encode()))
    types = [parse_type(text) for text in sample.types]
    lows = sample.lows or [sample.low] * len(types)
    highs = sample.highs or [sample.high] * len(types)
    bounds = zip(types, lows, highs, strict=True)
    return [_draw(chance, type_, low, high) for type_, low, high in bounds]


def _draw(chance: np.random.Generator, type_: TensorType, low: float, high: float) -> Array:
    if type_.dtype is DType.BOOL:
        return chance.random(type_.shape) < 0.5
    if type_.dtype.is_integer:
        return chance.integers(int(low), int(high) + 1, type_.shape).astype(type_.dtype.numpy)
    # Numbers that f32 holds, so that f32 and float64 runs start from the same ones.
    return chance.uniform(low, high, type_.shape).astype(np.float32).astype(np.float64)


def operands(types: Sequence[str]) -> list[Tensor]:
    """Symbolic inputs `a0`, `a1`, … of these types."""
    return [input(f"a{i}", parse_type(text)) for i, text in enumerate(types)]


def results(op: Op, tensors: Sequence[Any], sample: Sample) -> tuple[Tensor, ...]:
    """Apply the op; its results, however many."""
    found = op(*tensors, **(sample.attrs or {}))
    return found if isinstance(found, tuple) else (found,)


def sample_graph(op: Op, sample: Sample) -> Graph:
    """A graph of this op alone, with outputs `y0`, `y1`, …."""
    tensors = operands(sample.types)
    outputs = {f"y{i}": y.value for i, y in enumerate(results(op, tensors, sample))}
    return Graph.build(outputs, inputs=[tensor.node for tensor in tensors])


def name_sample(op: Op, sample: Sample) -> str:
    """An id for a test: `sum-f32[4, 3]-axes=(1,)`."""
    attrs = ",".join(f"{key}={value}" for key, value in (sample.attrs or {}).items())
    return "-".join(part for part in (op.name, " ".join(sample.types), attrs) if part)
