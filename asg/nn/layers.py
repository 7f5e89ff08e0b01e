"""Layers, with the parameter names, layouts and initial distributions of `torch.nn`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from asg import functions
from asg.errors import ShapeError
from asg.nn import functional, init
from asg.nn.module import Module
from asg.nn.parameter import Parameter
from asg.tensor import Tensor, as_tensor


class Linear(Module):
    """x Wᵀ + b: x [..., in], weight [out, in], bias [out].

    Both begin uniformly in ±1 / sqrt(in): He's rule with slope sqrt(5), as in PyTorch.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.kaiming_uniform((out_features, in_features), math.sqrt(5)))
        bound = 1.0 / math.sqrt(max(in_features, 1))
        self.bias = Parameter(init.uniform((out_features,), -bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """Rows of weight [count, dim] for integer indices of any shape; begins as N(0, 1)."""

    weight: Parameter

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = Parameter(init.normal((num_embeddings, embedding_dim)))

    def forward(self, index: Tensor) -> Tensor:
        return functional.embedding(index, self.weight)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class LayerNorm(Module):
    """Layer normalisation over the last axes, then weight (ones) and bias (zeros)."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        shape = functional.as_tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = Parameter(init.ones(shape)) if elementwise_affine else None
        self.bias = Parameter(init.zeros(shape)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        shape = self.normalized_shape
        return functional.layer_norm(x, shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class Dropout(Module):
    """Zeroes elements with probability p while training, and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"Dropout takes a probability, got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class GELU(Module):
    """x Φ(x), exactly (`"none"`) or by tanh."""

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.tanh(x)
        return y


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.sigmoid(x)
        return y


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x)


class Softmax(Module):
    """Softmax along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return functional.softmax(x, self.dim)


class Identity(Module):
    """x."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` made one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = functions.flatten(x, self.start_dim, self.end_dim)
        return flat


class LearnedPositionalEmbedding(Module):
    """Adds row t of weight [max_len, dim] to position t of x [..., T, dim]; begins as N(0, 1)."""

    weight: Parameter

    def __init__(self, max_len: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = Parameter(init.normal((max_len, embedding_dim)))

    def forward(self, x: Tensor) -> Tensor:
        _check_positions(x, self.weight.shape[0])
        return x + self.weight[: x.shape[-2]]

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class SinusoidalPositionalEncoding(Module):
    """Adds sin(t / 10000^(2i/dim)), cos(…) in turn to x [..., T, dim] (Vaswani et al. 2017)."""

    def __init__(self, embedding_dim: int, max_len: int = 5000) -> None:
        super().__init__()
        self.embedding_dim, self.max_len = embedding_dim, max_len

    def forward(self, x: Tensor) -> Tensor:
        _check_positions(x, self.max_len)
        return x + as_tensor(sinusoids(x.shape[-2], self.embedding_dim))

    def extra_repr(self) -> str:
        return f"{self.embedding_dim}, max_len={self.max_len}"


def sinusoids(length: int, dim: int) -> np.ndarray[Any, Any]:
    """Return the encoding f32 [length, dim] that `SinusoidalPositionalEncoding` adds."""
    position = np.arange(length, dtype=np.float64)[:, None]
    angle = position * np.exp(-math.log(10000.0) * np.arange(0, dim, 2) / dim)
    table = np.zeros((length, dim))
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)[:, : dim // 2]
    return table.astype(np.float32)


def _check_positions(x: Tensor, max_len: int) -> None:
    if x.ndim < 2 or x.shape[-2] > max_len:
        raise ShapeError(f"{x.type} needs shape [..., T, dim] with T at most {max_len}")
