"""The list of what is measured: inputs from fixed seeds, what to compute, what is right."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import models
import numpy as np
from models import NumpyOps, Ops, Tensors

Array = np.ndarray[Any, Any]
REFERENCES = "ASG_BENCH_REFERENCES"  # a folder for right answers, shared by the contestants


@dataclass(frozen=True)
class Workload:
    """Something to compute once: `run(ops, tensors)` of arrays by name.

    Attributes:
        weights: names of arrays that a user would keep on the device as parameters.
        tolerance: the largest error allowed, relative to the largest element of the answer.
        numerics: the mode in which ASG computes it; the others have one.
    """

    name: str
    group: str
    arrays: Callable[[], dict[str, Array]]
    run: Callable[[Ops, Tensors], Any]
    flops: float
    bytes: float
    tolerance: float = 2e-5
    weights: tuple[str, ...] = ()
    numerics: Literal["precise", "fast"] = "precise"

    def reference(self) -> Array:
        """Return the right answer in f64; computed once for all contestants of a contest."""
        folder = os.environ.get(REFERENCES)
        path = Path(folder) / f"{self.name}.npy" if folder else None
        if path is not None and path.exists():
            return np.asarray(np.load(path))
        wide = {
            name: array.astype(np.float64) if array.dtype.kind == "f" else array
            for name, array in self.arrays().items()
        }
        answer = np.asarray(self.run(NumpyOps(), wide))
        if path is not None:
            np.save(path, answer)
        return answer

    def check(self, answer: Array) -> float:
        """Return the largest error, relative to the largest element.

        Raises:
            ValueError: it is too large, or the shape is wrong.
        """
        right = self.reference()
        if answer.shape != right.shape:
            raise ValueError(f"{self.name}: the shape is {answer.shape}, not {right.shape}")
        error = float(np.abs(answer - right).max() / np.abs(right).max())
        if not error < self.tolerance:  # NaN is not smaller either
            raise ValueError(f"{self.name} is wrong: its error is {error:.3g}")
        return error


@dataclass(frozen=True)
class Training:
    """Steps of AdamW without decay: `loss(ops, weights, batch)` of the batches that come."""

    name: str
    group: str
    weights: Callable[[], dict[str, Array]]
    batches: Callable[[], Iterator[dict[str, Array]]]
    loss: Callable[[Ops, Tensors, Tensors], Any]
    flops: float
    bytes: float
    rate: float = 1e-3
    losses: int = 4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def check(self, losses: list[float]) -> float:
        """Return how far the first loss is from NumPy's in f64; the later ones are compared
        between contestants.

        Raises:
            ValueError: it is too far.
        """
        wide = {name: array.astype(np.float64) for name, array in self.weights().items()}
        right = float(self.loss(NumpyOps(), wide, next(self.batches())))
        error = abs(losses[0] - right)
        if not error < 1e-4 * max(1.0, abs(right)):
            raise ValueError(f"{self.name}: the first loss is {losses[0]}, not {right}")
        return error


def normal(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def initial(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    """Weights that keep activations near one: by fan-in; norms begin as they do elsewhere."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:]) if len(shape) > 1 else 1
        scale = math.sqrt((2.0 if len(shape) == 4 else 1.0) / fan) if len(shape) > 1 else 0.02
        array = rng.standard_normal(shape, np.float32) * np.float32(scale)
        arrays[name] = array + np.float32("norm" in name and name.endswith(".w"))
    return arrays


def product(m: int, k: int, n: int, kind: str = "") -> Workload:
    """A product; `tn` has the left operand transposed, `nt` the right one."""
    name = {"": f"matmul_{m}" if m == k == n else f"matmul_{m}x{k}x{n}"}.get(
        kind, f"matmul_{kind}_{m}"
    )
    left, right = ((k, m) if kind == "tn" else (m, k)), ((n, k) if kind == "nt" else (k, n))

    def run(ops: Ops, t: Tensors) -> Any:
        x = ops.transpose(t["x"], (1, 0)) if kind == "tn" else t["x"]
        return ops.matmul(x, ops.transpose(t["w"], (1, 0)) if kind == "nt" else t["w"])

    return Workload(
        name, "matmul", lambda: normal(m, x=left, w=right), run,
        2.0 * m * k * n, 4.0 * (m * k + k * n + m * n), weights=("w",),
    )  # fmt: skip


def convolution(name: str, channels: int, kernel: int, groups: int) -> Workload:
    shape, kernels = (1, channels, 56, 56), (channels, channels // groups, kernel, kernel)
    size = math.prod(shape)
    return Workload(
        name, "conv", lambda: normal(3, x=shape, w=kernels),
        lambda ops, t: ops.conv(t["x"], t["w"], 1, kernel // 2, groups),
        2.0 * size * math.prod(kernels[1:]), 4.0 * (2 * size + math.prod(kernels)), weights=("w",),
    )  # fmt: skip


def mapped(
    name: str, group: str, shape: tuple[int, ...], run: Callable[[Ops, Any], Any], out: float,
    flops: float = 1.0,
) -> Workload:  # fmt: skip
    """Something done with one array x, `out` elements of result for each of x."""
    size = math.prod(shape)
    return Workload(
        name, group, lambda: normal(5, x=shape), lambda ops, t: run(ops, t["x"]),
        flops * size, 4.0 * size * (1.0 + out),
    )  # fmt: skip


def gelu_chain(ops: Ops, x: Any, is_fast: bool) -> Any:
    for _ in range(4):
        x = ops.gelu(x, is_fast) * 1.5 + 0.25
    return x


def transformer(
    name: str, model: models.Transformer, batch: int, length: int, tolerance: float
) -> Workload:
    shapes = model.shapes()

    def arrays() -> dict[str, Array]:
        rng = np.random.default_rng(7)
        if model.vocabulary:
            x = rng.integers(0, model.vocabulary, (batch, length)).astype(np.int32)
            return {**initial(shapes), "x": x}
        return {
            **initial(shapes),
            "x": rng.standard_normal((batch, length, model.width), np.float32),
        }

    moved = 4.0 * sum(map(math.prod, shapes.values()))
    return Workload(
        name, "model", arrays, lambda ops, t: model(ops, parameters(t), t["x"]),
        model.flops(batch, length), moved, tolerance, tuple(shapes),
    )  # fmt: skip


def parameters(tensors: Tensors) -> dict[str, Any]:
    return {name: each for name, each in tensors.items() if name not in ("x", "y")}


def images(name: str) -> Workload:
    model = models.Convolutions(name)
    shapes = model.shapes()
    return Workload(
        f"{name}_224", "model", lambda: {**initial(shapes), **normal(9, x=(1, 3, 224, 224))},
        lambda ops, t: model(ops, parameters(t), t["x"]), model.flops(),
        4.0 * sum(map(math.prod, shapes.values())), 1e-4, tuple(shapes),
    )  # fmt: skip


def layer_norm_arrays() -> dict[str, Array]:
    return normal(4, x=(4096, 1024), w=(1024,), b=(1024,))


def fast(workload: Workload, name: str) -> Workload:
    """Return the same in ASG's fast numerics, which promise 6e-5 of the operand of each gelu."""
    return replace(workload, name=name, numerics="fast", tolerance=1e-4)


GELU_CHAINS = (
    mapped(
        "gelu_chain_precise_4m", "maps", (1024, 4096), lambda ops, x: gelu_chain(ops, x, False),
        1.0, 60.0,
    ),
    mapped(
        "gelu_chain_fast_4m", "maps", (1024, 4096), lambda ops, x: gelu_chain(ops, x, True),
        1.0, 60.0,
    ),
)  # fmt: skip
FAST_CHAINS = ("gelu_chain_erf_fast_numerics_4m", "gelu_chain_tanh_fast_numerics_4m")

ATTENTION = (1, 12, 512, 64)
BIG = (4096, 4096)

OPERATIONS: tuple[Workload, ...] = (
    *(product(size, size, size) for size in (256, 512, 1024)),
    product(1, 4096, 4096),
    product(32, 4096, 4096),
    product(1024, 1024, 1024, "tn"),
    product(1024, 1024, 1024, "nt"),
    convolution("conv3x3_64", 64, 3, 1),
    convolution("conv_dw3x3_64", 64, 3, 64),
    convolution("conv1x1_64", 64, 1, 1),
    mapped("softmax_4096x1024", "rows", (4096, 1024), lambda ops, x: ops.softmax(x), 1.0, 5.0),
    Workload(
        "layernorm_4096x1024", "rows", layer_norm_arrays,
        lambda ops, t: ops.layer_norm(t["x"], t["w"], t["b"]), 8.0 * 4096 * 1024,
        4.0 * (2 * 4096 * 1024 + 2048),
    ),
    *GELU_CHAINS,
    *(fast(chain, name) for chain, name in zip(GELU_CHAINS, FAST_CHAINS, strict=True)),
    mapped("sum_rows_4096", "sums", BIG, lambda ops, x: ops.sum(x, (1,)), 0.0),
    mapped("sum_cols_4096", "sums", BIG, lambda ops, x: ops.sum(x, (0,)), 0.0),
    mapped("sum_all_4096", "sums", BIG, lambda ops, x: ops.sum(x, (0, 1)), 0.0),
    mapped("transpose_4096", "maps", BIG, lambda ops, x: ops.transpose(x, (1, 0)), 1.0, 0.0),
    Workload(
        "attention_b1h12s512d64", "attention",
        lambda: normal(6, q=ATTENTION, k=ATTENTION, v=ATTENTION),
        lambda ops, t: ops.attention(t["q"], t["k"], t["v"]),
        2.0 * 2 * 12 * 512 * 512 * 64 / 2, 4.0 * 4 * math.prod(ATTENTION),
    ),
    transformer("gpt2_block_s256", models.Transformer(768, 12, 1, 0, 0), 1, 256, 5e-5),
    transformer("gpt2_small_s128", models.Transformer(768, 12, 12, 50257, 1024), 1, 128, 2e-4),
    images("resnet18"),
    images("mobilenetv2"),
)  # fmt: skip


def classified(shape: tuple[int, ...], classes: int) -> Callable[[], Iterator[dict[str, Array]]]:
    """Batches of noise that carries its class."""

    def batches() -> Iterator[dict[str, Array]]:
        rng = np.random.default_rng(11)
        means = rng.standard_normal((classes, *shape[1:]), np.float32)
        while True:
            y = rng.integers(0, classes, shape[0]).astype(np.int32)
            yield {"x": rng.standard_normal(shape, np.float32) + 0.3 * means[y], "y": y}

    return batches


LM = models.Transformer(256, 4, 4, 512, 128)


def windows() -> Iterator[dict[str, Array]]:
    rng = np.random.default_rng(12)
    while True:
        text = np.cumsum(rng.integers(0, 3, (8, 129)), 1) % LM.vocabulary
        yield {"x": text[:, :-1].astype(np.int32), "y": text[:, 1:].astype(np.int32)}


def lm_loss(ops: Ops, w: Tensors, batch: Tensors) -> Any:
    logits = LM(ops, w, batch["x"])
    return ops.cross_entropy(
        ops.reshape(logits, (8 * 128, LM.vocabulary)), ops.reshape(batch["y"], (8 * 128,))
    )


MLP = {"0.w": (512, 784), "0.b": (512,), "1.w": (512, 512), "1.b": (512,), "2.w": (10, 512),
       "2.b": (10,)}  # fmt: skip
CNN = {"0.w": (32, 1, 3, 3), "0.b": (32,), "1.w": (64, 32, 3, 3), "1.b": (64,),
       "2.w": (10, 64 * 49), "2.b": (10,)}  # fmt: skip


def step_bytes(shapes: Mapping[str, tuple[int, ...]]) -> float:
    """The optimizer reads a parameter and two moments, and writes them."""
    return 6 * 4.0 * sum(map(math.prod, shapes.values()))


TRAININGS: tuple[Training, ...] = (
    Training(
        "train_mlp", "train", lambda: initial(MLP), classified((128, 784), 10),
        lambda ops, w, b: ops.cross_entropy(models.mlp(ops, w, b["x"]), b["y"]),
        6.0 * 128 * (784 * 512 + 512 * 512 + 5120), step_bytes(MLP),
    ),
    Training(
        "train_cnn", "train", lambda: initial(CNN), classified((64, 1, 28, 28), 10),
        lambda ops, w, b: ops.cross_entropy(models.small_cnn(ops, w, b["x"]), b["y"]),
        6.0 * 64 * (288 * 196 + 288 * 64 * 49 + 10 * 64 * 49), step_bytes(CNN),
    ),
    Training(
        "train_lm_c256", "train", lambda: initial(LM.shapes()), windows, lm_loss,
        3.0 * LM.flops(8, 128), step_bytes(LM.shapes()),
    ),
)  # fmt: skip

BY_NAME: Mapping[str, Workload | Training] = {each.name: each for each in (*OPERATIONS, *TRAININGS)}
