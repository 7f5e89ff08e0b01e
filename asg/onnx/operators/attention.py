"""Attention, and the rotation of its queries and keys by their positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from asg import functions as F
from asg.nn.functional import scaled_dot_product_attention
from asg.onnx.call import Call
from asg.onnx.operators.reductions import softmax_in_type
from asg.onnx.registry import MICROSOFT, converter
from asg.tensor import Tensor
from asg.types import DType

INFINITY = math.inf
_BFLOAT16 = 16  # what ONNX calls it


@dataclass(frozen=True)
class Masks:
    """What decides which keys a query sees: [L, S], or with batch and heads before."""

    allowed: Tensor | None = None  # bool
    added: Tensor | None = None  # floats

    def only(self, allowed: Tensor) -> Masks:
        """Return these masks, and another that must allow a key as well."""
        both = allowed if self.allowed is None else F.logical_and(self.allowed, allowed)
        return Masks(both, self.added)

    @property
    def joint(self) -> Tensor | None:
        """One mask that says it all."""
        if self.added is None:
            return self.allowed
        if self.allowed is None:
            return self.added
        found: Tensor | None = F.where(self.allowed, self.added, -INFINITY)
        return found


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return [batch, length, heads * size] as [batch, heads, length, size]."""
    batch, length, width = x.shape
    return F.permute(F.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def join_heads(x: Tensor) -> Tensor:
    """Return [batch, heads, length, size] as [batch, length, heads * size]."""
    batch, heads, length, size = x.shape
    return F.reshape(F.permute(x, (0, 2, 1, 3)), (batch, length, heads * size))


def _positions(length: int, keys: int) -> tuple[Tensor, Tensor]:
    """Return positions of queries [length, 1] and of keys [1, keys]."""
    return F.arange(length).reshape((-1, 1)), F.arange(keys).reshape((1, -1))


@converter("Attention", since=23)
def attention(call: Call) -> list[Any]:
    """Y, the keys and values with those of the past before, and the scores."""
    q, k, v = call[0], call[1], call[2]
    is_flat = q.ndim == 3
    if is_flat:
        q = split_heads(q, call.get_int("q_num_heads"))
        k, v = (split_heads(x, call.get_int("kv_num_heads")) for x in (k, v))
    past = 0
    if call.has(4):
        past = call.shape(4)[2]
        k, v = F.concatenate([call[4], k], 2), F.concatenate([call[5], v], 2)
    masks, is_causal = _masks(call, q, k, past)
    scale = call.get_float("scale", 1.0 / math.sqrt(q.shape[-1]))
    softcap = call.get_float("softcap", 0.0)
    spelt = masks
    if is_causal:
        rows, columns = _positions(q.shape[2], k.shape[2])
        spelt = masks.only(F.less_equal(columns, rows))
    if q.dtype is DType.BF16 and call.get_int("softmax_precision", _BFLOAT16) == _BFLOAT16:
        weights = _scores(q, k, spelt, scale, softcap, 3)
        y = F.matmul(weights, _spread(v, q.shape[1]))
    else:
        y = scaled_dot_product_attention(
            q, k, v, masks.joint, 0.0, is_causal, scale, enable_gqa=True, softcap=softcap
        )
    y = join_heads(y) if is_flat else y
    if not call.wants(3):
        return [y, k, v]
    stage = call.get_int("qk_matmul_output_mode", 0)
    return [y, k, v, _scores(q, k, spelt, scale, softcap, stage)]


def _masks(call: Call, q: Tensor, k: Tensor, past: int) -> tuple[Masks, bool]:
    """Return the masks of a node, and whether attention is causal from the first key on."""
    masks = _given_mask(call, k.shape[2])
    rows, columns = _positions(q.shape[2], k.shape[2])
    first: Tensor | int = past
    lengths: Tensor | None = None
    if call.has(6):  # how many keys each batch has
        lengths = F.cast(call[6], DType.I32).reshape((-1, 1, 1, 1))
        first = lengths - q.shape[2]
    is_causal = bool(call.get_int("is_causal", 0))
    if is_causal and (past or lengths is not None):
        masks, is_causal = masks.only(F.less_equal(columns, rows + first)), False
    before = call.get_int("left_window_size", -1)
    after = call.get_int("right_window_size", -1)
    if before >= 0:
        masks = masks.only(F.less_equal(rows + first - columns, before))
    if after >= 0:
        masks = masks.only(F.less_equal(columns - rows - first, after))
    if lengths is not None:
        masks = masks.only(F.less(columns, lengths))
    return masks, is_causal


def _given_mask(call: Call, keys: int) -> Masks:
    mask = call.optional(3)
    if mask is None:
        return Masks()
    missing = keys - mask.shape[-1]
    if mask.ndim == 1:
        mask = F.unsqueeze(mask, 0)
    is_bool = mask.dtype is DType.BOOL
    if missing > 0:
        widths = [(0, 0)] * (mask.ndim - 1) + [(0, missing)]
        mask = F.pad(mask, widths) if is_bool else F.pad(mask, widths, -INFINITY)
    return Masks(allowed=mask) if is_bool else Masks(added=mask)


def _spread(x: Tensor, heads: int) -> Tensor:
    """Repeat each head of keys or values for the query heads that share it."""
    batch, few, *rest = x.shape
    if few == heads:
        return x
    spread = F.broadcast_to(F.unsqueeze(x, 2), (batch, few, heads // few, *rest))
    found: Tensor = F.reshape(spread, (batch, heads, *rest))
    return found


def _scores(q: Tensor, k: Tensor, masks: Masks, scale: float, softcap: float, stage: int) -> Tensor:
    """Return the scores as they are at one of four stages, every step in the type of `q`."""
    k = F.swapaxes(_spread(k, q.shape[1]), -1, -2)
    if scale > 0:  # as ONNX has it, half of it on either side
        scores = F.matmul(q * math.sqrt(scale), k * math.sqrt(scale))
    else:
        scores = F.matmul(q, k) * scale
    if softcap:
        scores = F.tanh(scores / softcap) * softcap
    if stage < 2:
        return scores
    mask = masks.joint
    if mask is not None:
        hidden = F.where(mask, 0.0, -INFINITY) if mask.dtype is DType.BOOL else mask
        scores = (scores + hidden).astype(q.dtype)
    if stage == 2:
        return scores
    is_seen = F.greater(F.max(scores, -1, True), -INFINITY)
    weights = softmax_in_type(F.where(is_seen, scores, 0.0).astype(q.dtype), -1)
    found: Tensor = F.where(is_seen, weights, 0.0).astype(q.dtype)
    return found


# -- rotation ---------------------------------------------------------------------------------


def rotated(x: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool) -> Tensor:
    """Return x [batch, heads, length, size] turned by angles [batch, 1, length, half]."""
    half = cos.shape[-1]
    part, rest = x[..., : 2 * half], x[..., 2 * half :]
    if is_interleaved:
        a, b = part[..., 0::2], part[..., 1::2]
    else:
        a, b = part[..., :half], part[..., half:]
    real, imaginary = cos * a - sin * b, sin * a + cos * b
    if is_interleaved:
        turned = F.reshape(F.stack([real, imaginary], -1), part.shape)
    else:
        turned = F.concatenate([real, imaginary], -1)
    return F.concatenate([turned, rest], -1) if rest.shape[-1] else turned


@converter("RotaryEmbedding", since=23)
def rotary_embedding(call: Call) -> Tensor:
    """Pairs of numbers turned by angles that depend on the position."""
    positions = F.cast(call[3], DType.I32) if call.has(3) else None
    size = call.get_int("rotary_embedding_dim", 0)
    return _rotary(call, call[1], call[2], positions, size)


@converter("RotaryEmbedding", domain=MICROSOFT)
def contributed_rotary_embedding(call: Call) -> Tensor:
    """The same with operands in another order; one position is that of the first element."""
    x, positions = call[0], F.cast(call[1], DType.I32)
    length = x.shape[2] if x.ndim == 4 else x.shape[1]
    if positions.size == 1 and positions.ndim == 1:
        positions = F.broadcast_to(
            positions.reshape((1, 1)) + F.arange(length).reshape((1, -1)), (x.shape[0], length)
        )
    if call.get_float("scale", 1.0) != 1.0:
        raise call.unsupported("a scale")
    return _rotary(call, call[2], call[3], positions, call.get_int("rotary_embedding_dim", 0))


def _rotary(call: Call, cos: Tensor, sin: Tensor, positions: Tensor | None, size: int) -> Tensor:
    x = call[0]
    is_flat = x.ndim == 3
    if is_flat:
        heads = call.get_int("num_heads", 0)
        if not heads:
            heads = x.shape[-1] // (size or 2 * cos.shape[-1])
        x = split_heads(x, heads)
    if positions is not None:
        cos, sin = F.take(cos, positions, 0), F.take(sin, positions, 0)
    half = (size or x.shape[-1]) // 2
    cos, sin = (F.unsqueeze(each[..., :half], 1) for each in (cos, sin))
    turned = rotated(x, cos, sin, bool(call.get_int("interleaved", 0)))
    return join_heads(turned) if is_flat else turned


# -- what ONNX Runtime's optimiser and exporters for it write ---------------------------------


@converter("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(call: Call) -> list[Any]:
    """Attention of projected queries, keys and values [batch, length, heads * size]."""
    heads = call.get_int("num_heads")
    if not call.has(1) or call.has(4) or len(call.shape(0)) == 5:
        raise call.unsupported("packed operands or a padding mask")
    q, k, v = call[0], call[1], call[2]
    if call.has(3):  # one bias for all three
        bias, a, b = call[3], q.shape[-1], k.shape[-1]
        q, k, v = q + bias[:a], k + bias[a : a + b], v + bias[a + b :]
    q = split_heads(q, heads)
    k, v = (x if x.ndim == 4 else split_heads(x, heads) for x in (k, v))
    past = 0
    if call.has(6):
        past = call.shape(6)[2]
        k, v = F.concatenate([call[6], k], 2), F.concatenate([call[7], v], 2)
    masks = Masks(added=call.optional(5))
    if call.get_int("unidirectional", 0):
        rows, columns = _positions(q.shape[2], k.shape[2])
        masks = masks.only(F.less_equal(columns, rows + past))
    scale = call.get_float("scale", 0.0) or 1.0 / math.sqrt(q.shape[-1])
    y = scaled_dot_product_attention(q, k, v, masks.joint, scale=scale)
    return [join_heads(y), k, v]


@converter("GroupQueryAttention", domain=MICROSOFT, statics=(6,))
def group_query_attention(call: Call) -> list[Any]:
    """Causal attention in which several query heads share keys and values; they are cached."""
    heads, shared = call.get_int("num_heads"), call.get_int("kv_num_heads")
    q, k, v = _projected(call, heads, shared)
    total = int(call.static(6, "the total length").reshape(()))
    seen = F.cast(call[5], DType.I32).reshape((-1, 1))  # [batch], the last key's position
    past = total - q.shape[2]
    if call.get_int("do_rotary", 0):
        positions = seen - (q.shape[2] - 1) + F.arange(q.shape[2]).reshape((1, -1))
        cos, sin = (F.unsqueeze(F.take(call[i], positions, 0), 1) for i in (7, 8))
        is_interleaved = bool(call.get_int("rotary_interleaved", 0))
        q, k = (rotated(x, cos, sin, is_interleaved) for x in (q, k))
    if past:
        k = F.concatenate([call[3][:, :, :past], k], 2)
        v = F.concatenate([call[4][:, :, :past], v], 2)
    rows, columns = _positions(q.shape[2], total)
    last = F.reshape(seen, (-1, 1, 1, 1))
    first = last - (q.shape[2] - 1)
    masks = Masks(F.less_equal(columns, rows + first))
    window = call.get_int("local_window_size", -1)
    if window > 0:
        masks = masks.only(F.less(rows + first - columns, window))
    scale = call.get_float("scale", 0.0) or 1.0 / math.sqrt(q.shape[-1])
    y = scaled_dot_product_attention(
        q, k, v, masks.joint, 0.0, False, scale, enable_gqa=True,
        softcap=call.get_float("softcap", 0.0),
    )  # fmt: skip
    return [join_heads(y), k, v]


def _projected(call: Call, heads: int, shared: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values by heads; they may come in one operand."""
    if call.has(1):
        return (
            split_heads(call[0], heads),
            split_heads(call[1], shared),
            split_heads(call[2], shared),
        )
    every = split_heads(call[0], heads + 2 * shared)
    return every[:, :heads], every[:, heads : heads + shared], every[:, heads + shared :]
