"""What is measured beside plain products, written once over a few operations.

Each contestant implements `Ops` for its own tensors, and NumPy does, whose answers are the judge.
Weights are arrays by name, the same for everybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, Any]


class Ops(Protocol):
    """What models are made of; tensors also have `+`, `-`, `*`, `/` and `shape`."""

    def matmul(self, x: Any, y: Any) -> Any: ...
    def transpose(self, x: Any, axes: Sequence[int]) -> Any: ...
    def reshape(self, x: Any, shape: Sequence[int]) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def clip6(self, x: Any) -> Any: ...  # relu6
    def gelu(self, x: Any, is_fast: bool) -> Any: ...  # fast: by tanh; else by erf
    def softmax(self, x: Any) -> Any: ...  # over the last axis
    def layer_norm(self, x: Any, w: Any, b: Any) -> Any: ...  # over the last axis, eps 1e-5
    def sum(self, x: Any, axes: Sequence[int]) -> Any: ...
    def attention(self, q: Any, k: Any, v: Any) -> Any: ...  # [B, H, S, D], causal
    def embedding(self, table: Any, index: Any) -> Any: ...
    def conv(self, x: Any, w: Any, stride: int, padding: int, groups: int) -> Any: ...  # NCHW
    def max_pool(self, x: Any) -> Any: ...  # 3 by 3, stride 2, padding 1, of what is >= 0
    def cross_entropy(self, logits: Any, labels: Any) -> Any: ...  # [N, C] and [N], the mean


def linear(ops: Ops, x: Any, w: Any, b: Any | None) -> Any:
    """x @ w.T + b, as PyTorch has it."""
    product = ops.matmul(x, ops.transpose(w, (1, 0)))
    return product if b is None else product + b


class Transformer:
    """Pre-norm blocks as in GPT-2; `vocabulary` 0 means that hidden states go in and come out."""

    def __init__(self, width: int, heads: int, layers: int, vocabulary: int, context: int) -> None:
        self.width, self.heads, self.layers = width, heads, layers
        self.vocabulary, self.context = vocabulary, context

    def shapes(self) -> dict[str, tuple[int, ...]]:
        c = self.width
        shapes: dict[str, tuple[int, ...]] = {}
        if self.vocabulary:
            shapes |= {"tokens": (self.vocabulary, c), "positions": (self.context, c)}
        for layer in range(self.layers):
            for name, shape in {
                "norm1.w": (c,), "norm1.b": (c,), "qkv.w": (3 * c, c), "qkv.b": (3 * c,),
                "out.w": (c, c), "out.b": (c,), "norm2.w": (c,), "norm2.b": (c,),
                "fc1.w": (4 * c, c), "fc1.b": (4 * c,), "fc2.w": (c, 4 * c), "fc2.b": (c,),
            }.items():  # fmt: skip
                shapes[f"{layer}.{name}"] = shape
        return shapes | ({"norm.w": (c,), "norm.b": (c,)} if self.vocabulary else {})

    def __call__(self, ops: Ops, w: Tensors, x: Any) -> Any:
        batch, length = x.shape[:2]
        if self.vocabulary:
            x = ops.embedding(w["tokens"], x) + ops.reshape(
                w["positions"][:length], (1, length, self.width)
            )
        for layer in range(self.layers):
            x = self.block(ops, {key.removeprefix(f"{layer}."): w[key] for key in w}, x)
        if not self.vocabulary:
            return x
        x = ops.layer_norm(x, w["norm.w"], w["norm.b"])
        logits = linear(ops, ops.reshape(x, (batch * length, self.width)), w["tokens"], None)
        return ops.reshape(logits, (batch, length, self.vocabulary))

    def block(self, ops: Ops, w: Tensors, x: Any) -> Any:
        batch, length, width = x.shape
        size = width // self.heads
        h = ops.layer_norm(x, w["norm1.w"], w["norm1.b"])
        h = ops.reshape(
            linear(ops, h, w["qkv.w"], w["qkv.b"]), (batch, length, 3, self.heads, size)
        )
        h = ops.transpose(h, (2, 0, 3, 1, 4))
        h = ops.transpose(ops.attention(h[0], h[1], h[2]), (0, 2, 1, 3))
        h = ops.reshape(h, (batch, length, width))
        x = x + linear(ops, h, w["out.w"], w["out.b"])
        h = ops.layer_norm(x, w["norm2.w"], w["norm2.b"])
        h = ops.gelu(linear(ops, h, w["fc1.w"], w["fc1.b"]), False)
        return x + linear(ops, h, w["fc2.w"], w["fc2.b"])

    def flops(self, batch: int, length: int) -> float:
        c, tokens = self.width, batch * length
        block = 2 * tokens * 12 * c * c + 2 * 2 * tokens * length * c / 2
        return self.layers * block + 2 * tokens * c * self.vocabulary


class Convolutions:
    """ResNet-18 or MobileNetV2 on images of 224 by 224, normalisation folded into the kernels."""

    def __init__(self, name: str) -> None:
        self.is_residual = name == "resnet18"
        self.plan = list(resnet18() if self.is_residual else mobilenet_v2())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, o, i, kernel, _, groups in self.plan:
            shapes |= {f"{name}.w": (o, i // groups, kernel, kernel), f"{name}.b": (o,)}
        return shapes | {"head.w": (1000, self.plan[-1][1]), "head.b": (1000,)}

    def __call__(self, ops: Ops, w: Tensors, x: Any) -> Any:
        planned = {each[0]: each for each in self.plan}

        def conv(x: Any, name: str) -> Any:
            _, o, _, kernel, stride, groups = planned[name]
            y = ops.conv(x, w[f"{name}.w"], stride, kernel // 2, groups)
            return y + ops.reshape(w[f"{name}.b"], (1, o, 1, 1))

        x = (self.residual if self.is_residual else self.inverted)(ops, conv, planned, x)
        pooled = ops.sum(x, (2, 3)) * (1.0 / (x.shape[2] * x.shape[3]))
        return linear(ops, pooled, w["head.w"], w["head.b"])

    def residual(self, ops: Ops, conv: Any, planned: Mapping[str, Any], x: Any) -> Any:
        x = ops.max_pool(ops.relu(conv(x, "stem")))
        for name in dict.fromkeys(name.rpartition(".")[0] for name in planned if "." in name):
            short = conv(x, f"{name}.skip") if f"{name}.skip" in planned else x
            x = ops.relu(conv(ops.relu(conv(x, f"{name}.1")), f"{name}.2") + short)
        return x

    def inverted(self, ops: Ops, conv: Any, planned: Mapping[str, Any], x: Any) -> Any:
        x = ops.clip6(conv(x, "stem"))
        for name in dict.fromkeys(name.rpartition(".")[0] for name in planned if "." in name):
            h = ops.clip6(conv(x, f"{name}.up")) if f"{name}.up" in planned else x
            h = conv(ops.clip6(conv(h, f"{name}.deep")), f"{name}.down")
            x = x + h if tuple(x.shape) == tuple(h.shape) else h
        return ops.clip6(conv(x, "last"))

    def flops(self) -> float:
        """Of one image; sizes shrink with each stride, but for skips, which lie beside."""
        size, total = 224.0, 0.0
        for name, o, i, kernel, stride, groups in self.plan:
            inner = size if not name.endswith(".skip") else size * stride
            total += 2 * o * (i // groups) * kernel**2 * (inner / stride) ** 2
            size = inner / stride
            size = size / 2 if self.is_residual and name == "stem" else size
        return total


Planned = tuple[str, int, int, int, int, int]  # name, out, in, kernel, stride, groups


def resnet18() -> list[Planned]:
    plan: list[Planned] = [("stem", 64, 3, 7, 2, 1)]
    width = 64
    for stage, out in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            name = f"{stage}{block}"
            plan += [(f"{name}.1", out, width, 3, stride, 1), (f"{name}.2", out, out, 3, 1, 1)]
            if stride == 2:
                plan.append((f"{name}.skip", out, width, 1, 2, 1))
            width = out
    return plan


def mobilenet_v2() -> list[Planned]:
    plan: list[Planned] = [("stem", 32, 3, 3, 2, 1)]
    width, number = 32, 0
    for grow, out, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(count):
            stride, hidden, name = (1 if block else first), width * grow, f"b{number}"
            if grow > 1:
                plan.append((f"{name}.up", hidden, width, 1, 1, 1))
            plan.append((f"{name}.deep", hidden, hidden, 3, stride, hidden))
            plan.append((f"{name}.down", out, hidden, 1, 1, 1))
            width, number = out, number + 1
    return [*plan, ("last", 1280, width, 1, 1, 1)]


def mlp(ops: Ops, w: Tensors, x: Any) -> Any:
    for layer in range(len(w) // 2):
        x = linear(ops, ops.relu(x) if layer else x, w[f"{layer}.w"], w[f"{layer}.b"])
    return x


def small_cnn(ops: Ops, w: Tensors, x: Any) -> Any:
    """Two strided convolutions on images of 28 by 28, and a layer on what is left."""
    for name, channels in (("0", 32), ("1", 64)):
        bias = ops.reshape(w[f"{name}.b"], (1, channels, 1, 1))
        x = ops.relu(ops.conv(x, w[f"{name}.w"], 2, 1, 1) + bias)
    return linear(ops, ops.reshape(x, (x.shape[0], 64 * 49)), w["2.w"], w["2.b"])


class NumpyOps:
    """The judge: plain NumPy in f64."""

    def matmul(self, x: Array, y: Array) -> Array:
        return np.matmul(x, y)

    def transpose(self, x: Array, axes: Sequence[int]) -> Array:
        return np.transpose(x, axes)

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return np.reshape(x, shape)

    def relu(self, x: Array) -> Array:
        return np.maximum(x, 0.0)

    def clip6(self, x: Array) -> Array:
        return np.clip(x, 0.0, 6.0)

    def gelu(self, x: Array, is_fast: bool) -> Array:
        if is_fast:
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))

    def softmax(self, x: Array) -> Array:
        e = np.exp(x - x.max(-1, keepdims=True))
        return np.asarray(e / e.sum(-1, keepdims=True))

    def layer_norm(self, x: Array, w: Array, b: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        variance = np.mean(centred**2, -1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + 1e-5) * w + b)

    def sum(self, x: Array, axes: Sequence[int]) -> Array:
        return np.asarray(np.sum(x, axis=tuple(axes)))

    def attention(self, q: Array, k: Array, v: Array) -> Array:
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        seen = np.tril(np.ones(scores.shape[-2:], bool))
        return np.asarray(self.softmax(np.where(seen, scores, -np.inf)) @ v)

    def embedding(self, table: Array, index: Array) -> Array:
        return np.asarray(table[index.astype(np.int64)])

    def conv(self, x: Array, w: Array, stride: int, padding: int, groups: int) -> Array:
        around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
        shape = w.shape[2:]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, around), shape, (2, 3))
        windows = windows[:, :, ::stride, ::stride]
        n, c, rows, columns = windows.shape[:4]
        grouped = windows.reshape(n, groups, c // groups, rows, columns, *shape)
        kernels = w.reshape(groups, -1, *w.shape[1:])
        found = np.einsum("ngcijkl,gockl->ngoij", grouped, kernels, optimize=True)
        return np.asarray(found.reshape(n, w.shape[0], rows, columns))

    def max_pool(self, x: Array) -> Array:
        padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        return np.asarray(windows[:, :, ::2, ::2].max((-1, -2)))

    def cross_entropy(self, logits: Array, labels: Array) -> Array:
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return np.asarray(-logs[np.arange(len(labels)), labels.astype(np.int64)].mean())


def erf(x: Array) -> Array:
    """The error function in f64, on a fine grid between which it is expanded to second order."""
    grid = np.linspace(-6.0, 6.0, 24001)
    values = np.array([math.erf(each) for each in grid])
    clipped = np.clip(x, -6.0, 6.0)
    nearest = np.rint((clipped + 6.0) * 2000.0).astype(np.int64)
    at, step = grid[nearest], clipped - grid[nearest]
    slope = 2.0 / math.sqrt(math.pi) * np.exp(-at * at)
    third = (4.0 * at * at - 2.0) / 6.0
    return np.asarray(values[nearest] + slope * step * (1.0 - at * step + third * step * step))
