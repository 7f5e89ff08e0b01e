"""Multi-head attention and what transformers add to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from asg import functions
from asg.errors import DTypeError, ShapeError
from asg.nn import functional, init
from asg.nn.layers import Dropout, LayerNorm, Linear
from asg.nn.module import Module
from asg.nn.parameter import Buffer, Parameter
from asg.ops.attention_scores import HIDDEN
from asg.tensor import Tensor, as_tensor

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


class KeyValueCache(Module):
    """Keys and values of the positions so far, [2, B, heads, capacity, size], kept on the device.

    Pass it to `MultiHeadAttention`; each run then appends its positions, in place. Entries for
    prompts and single steps share it. `length` says how many positions there are; set it to 0 to
    start anew. Positions beyond `capacity` find no place, and nobody on the host sees the count
    go by: from then on results are NaN (`checked`), until `length` is set back.
    """

    entries: Buffer
    length: Buffer

    def __init__(self, batch: int, num_heads: int, capacity: int, size: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.entries = Buffer(init.zeros((2, batch, num_heads, capacity, size)))
        self.length = Buffer(np.zeros((), np.int32))

    def append(self, both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add keys and values [2, B, heads, T, size]; return all of them, and attention's span.

        What is computed with them goes through `checked`, as attention does it.
        """
        count = both.shape[3]
        if count > self.capacity:
            raise ShapeError(f"{count} positions don't fit a cache of {self.capacity}")
        start = self.length.latest()
        entries = functions.dynamic_update_slice(self.entries.latest(), both, start, axis=3)
        self.entries.update(entries)
        self.length.update(start + count)
        # Start and end, as arithmetic that attention's kernel does itself.
        return entries[0], entries[1], start + functions.arange(2) * count

    def checked(self, result: Tensor, span: Tensor) -> Tensor:
        """Return what was made with the keys that `append` gave, or NaN if there was no place."""
        found: Tensor = functions.where(span[1] <= self.capacity, result, float("nan"))
        return found

    def extra_repr(self) -> str:
        return f"capacity={self.capacity}"


class MultiHeadAttention(Module):
    """Attention in `num_heads` heads over x [B, T, C] or [T, C], for any B and T.

    Parameters are those of `torch.nn.MultiheadAttention`: in_proj_weight [3 C, C] (query, key,
    value), in_proj_bias [3 C], out_proj. `causal` hides later positions. A query that may
    attend to nothing gets zeros, where PyTorch gives NaN.
    """

    in_proj_weight: Parameter
    in_proj_bias: Parameter | None
    out_proj: Linear

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ShapeError(f"{embed_dim} channels do not divide into {num_heads} heads")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.dropout, self.causal = dropout, causal
        self.in_proj_weight = Parameter(init.xavier_uniform((3 * embed_dim, embed_dim)))
        self.in_proj_bias = Parameter(init.zeros((3 * embed_dim,))) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Any = None,
        attn_mask: Any = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return [B, T, C]; without key and value, `query` attends to itself.

        With a `cache`, it attends to all positions of earlier runs too. Masks are PyTorch's:
        `key_padding_mask` bool [B, S], true for keys to ignore; `attn_mask` [T, S] or
        [B * heads, T, S], bool (true: not allowed) or added floats.
        """
        if query.ndim == 2:
            others = [None if x is None else functions.expand_dims(x, 0) for x in (key, value)]
            padding = None if key_padding_mask is None else as_tensor(key_padding_mask)[None]
            x = functions.expand_dims(query, 0)
            batched = self.forward(x, others[0], others[1], padding, attn_mask)
            return functions.squeeze(batched, 0)
        span: Tensor | None = None
        if cache is None:
            q, k, v = self._project(query, key, value)
        else:
            if key is not None or value is not None:
                raise ShapeError("with a cache, a query attends to its own past: no key or value")
            heads = self._heads(query, 0, 3)
            q = heads[0]
            k, v, span = cache.append(heads[1:])
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        drop = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=drop, is_causal=self.causal, span=span
        )
        if cache is not None and span is not None:
            attended = cache.checked(attended, span)
        joined = functions.permute(attended, 0, 2, 1, 3)
        projected: Tensor = self.out_proj(functions.reshape(joined, query.shape))
        return projected

    def _project(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> list[Tensor]:
        """Return q, k, v [B, heads, T, C / heads], in as few products as there are sources."""
        if key is None and value is None:
            return list(self._heads(query, 0, 3))
        source = query if key is None else key
        if value is None or value is source:
            return [*self._heads(query, 0, 1), *self._heads(source, 1, 2)]
        return [
            part
            for index, x in enumerate((query, source, value))
            for part in self._heads(x, index, 1)
        ]

    def _heads(self, x: Tensor, first: int, count: int) -> Tensor:
        """Project `x` by `count` parts of in_proj, beginning with the one numbered `first`, to
        [count, B, heads, T, C / heads]."""
        width = self.embed_dim
        weight = as_tensor(self.in_proj_weight)
        bias: Tensor | None = self.in_proj_bias
        if count < 3:
            rows = slice(first * width, (first + count) * width)
            weight = weight[rows]
            bias = None if bias is None else bias[rows]
        flat = functional.linear(x, weight, bias)
        batch, length = x.shape[:2]
        split = functions.reshape(
            flat, (batch, length, count, self.num_heads, width // self.num_heads)
        )
        return functions.permute(split, 2, 0, 3, 1, 4)

    def _mask(self, q: Tensor, k: Tensor, padding: Any, given: Any) -> Tensor | None:
        """Return what may be attended to (bool) or is added (float), broadcast to the scores."""
        batch, heads, length, keys = *q.shape[:3], k.shape[2]
        mask: Tensor | None = None
        if given is not None:
            mask = as_tensor(given)
            if mask.ndim == 3:
                mask = functions.reshape(mask, (batch, heads, length, keys))
            mask = mask if mask.dtype.is_float else ~mask
        if padding is None:
            return mask
        ignored = as_tensor(padding)
        if ignored.shape != (batch, keys) or ignored.dtype.value != "bool":
            kind = ShapeError if ignored.shape != (batch, keys) else DTypeError
            raise kind(f"key_padding_mask must be bool[{batch}, {keys}], got {ignored.type}")
        open_ = functions.reshape(~ignored, (batch, 1, 1, keys))
        if mask is None:
            return open_
        if mask.dtype.is_float:
            added: Tensor = functions.where(open_, mask, HIDDEN)
            return added
        return functions.logical_and(open_, mask)

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, causal={self.causal}"


class FeedForward(Module):
    """Two linear layers with an activation between: [..., C] → [..., hidden] → [..., C]."""

    def __init__(
        self,
        embed_dim: int,
        hidden: int | None = None,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        self.fc1 = Linear(embed_dim, hidden or 4 * embed_dim, bias)
        self.fc2 = Linear(hidden or 4 * embed_dim, embed_dim, bias)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.fc2(_ACTIVATIONS[self.activation](self.fc1(x))))
        return y


class TransformerBlock(Module):
    """Attention and a feed-forward part, each normalised and added to what goes in.

    With `norm_first`, x + f(norm(x)) (Xiong et al. 2020); otherwise norm(x + f(x)).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        hidden: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        activation: Activation = "gelu",
        norm_first: bool = True,
        bias: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = LayerNorm(embed_dim, eps, bias=bias)
        self.attn = MultiHeadAttention(embed_dim, num_heads, dropout, bias, causal)
        self.drop = Dropout(dropout)
        self.norm2 = LayerNorm(embed_dim, eps, bias=bias)
        self.mlp = FeedForward(embed_dim, hidden, activation, dropout, bias)

    def forward(
        self,
        x: Tensor,
        key_padding_mask: Any = None,
        attn_mask: Any = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            attended = self.attn(
                y, key_padding_mask=key_padding_mask, attn_mask=attn_mask, cache=cache
            )
            dropped: Tensor = self.drop(attended)
            return dropped

        z: Tensor
        if self.norm_first:
            x = x + attend(self.norm1(x))
            z = x + self.mlp(self.norm2(x))
        else:
            x = self.norm1(x + attend(x))
            z = self.norm2(x + self.mlp(x))
        return z
