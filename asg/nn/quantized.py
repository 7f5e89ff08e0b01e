"""Modules with weights of a few bits."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import TypeVar

from asg.errors import GraphError
from asg.nn.attention import MultiHeadAttention
from asg.nn.layers import Linear
from asg.nn.module import Module
from asg.nn.parameter import Buffer, Parameter
from asg.ops.quantized import dequantize
from asg.quantization import PackedWeight, quantize_weight
from asg.tensor import Tensor

M = TypeVar("M", bound=Module)

# The weights [out, in] of a module that products read, and nothing else.
_WEIGHTS: tuple[tuple[type[Module], str], ...] = (
    (Linear, "weight"),
    (MultiHeadAttention, "in_proj_weight"),
)


class QuantizedWeight(Module):
    """Takes the place of a parameter [out, in], and stands for (code - zero) · scale.

    `words`, `scales` and `zeros` (None where weights are symmetric) are buffers: training leaves
    them as they are, and a gradient passes through to the activations. The product that reads the
    weight unpacks it on the way; in f32 it is stored nowhere.
    """

    words: Buffer
    scales: Buffer
    zeros: Buffer | None

    def __init__(self, packed: PackedWeight) -> None:
        super().__init__()
        self.bits, self.group_size, self.shape = packed.bits, packed.group_size, packed.shape
        self.words, self.scales = Buffer(packed.words), Buffer(packed.scales)
        self.zeros = None if packed.zeros is None else Buffer(packed.zeros)

    def forward(self) -> Tensor:
        """Return the weight f32 [out, in]."""
        operands = [self.words, self.scales, *([] if self.zeros is None else [self.zeros])]
        rows = self.shape[1]
        weight: Tensor = dequantize(
            *operands, bits=self.bits, rows=rows, group_size=self.group_size
        )
        return weight.T

    def __asg_tensor__(self) -> Tensor:
        result: Tensor = self()
        return result

    def packed(self) -> PackedWeight:
        """Return the arrays as they are now."""
        zeros = None if self.zeros is None else self.zeros.data
        arrays = (self.words.data, self.scales.data, zeros)
        return PackedWeight(*arrays, self.bits, self.group_size, self.shape)

    def extra_repr(self) -> str:
        zeros = "" if self.zeros is None else ", zero points"
        size = ", ".join(map(str, self.shape))
        return f"{size}, bits={self.bits}, group_size={self.group_size}{zeros}"


def quantize(
    module: M,
    bits: int = 4,
    group_size: int | None = 64,
    *,
    symmetric: bool = True,
    skip: Collection[str] = (),
) -> M:
    """Return a copy of `module` whose linear layers and attention projections hold weights of
    `bits` (2, 4 or 8) bits, rounded as `quantize_weight` says; `module` stays as it is.

    A weight `fc.weight` becomes the entries `fc.weight.words`, `fc.weight.scales` and, unless
    `symmetric`, `fc.weight.zeros` of the state dict. Biases, embeddings (also those that share
    their weight with a linear layer), convolutions and norms are kept.

    Args:
        skip: names of modules, as in `named_modules()`, to leave alone with all below.

    Raises:
        GraphError: `skip` names what is not there, or nothing is left to be quantised.
    """
    known = {name for name, _ in module.named_modules()}
    if unknown := [name for name in skip if name not in known]:
        raise GraphError(f"quantize: no module is called {', '.join(map(repr, unknown))}")
    result = copy.deepcopy(module)
    made: dict[int, QuantizedWeight] = {}
    for owner, name in list(_weights(result, skip)):
        weight: Parameter = getattr(owner, name)
        if id(weight) not in made:
            packed = quantize_weight(weight.data, bits, group_size, symmetric)
            made[id(weight)] = QuantizedWeight(packed)
        setattr(owner, name, made[id(weight)])
    if not made:
        raise GraphError("quantize: the module has no linear layer or attention to quantise")
    return result


def _weights(module: Module, skip: Collection[str]) -> Iterator[tuple[Module, str]]:
    """Yield the modules with a weight to quantise, and the weight's name."""
    for path, part in module.named_modules():
        if any(path == name or path.startswith(f"{name}.") for name in skip):
            continue
        for kind, name in _WEIGHTS:
            if isinstance(part, kind) and isinstance(getattr(part, name), Parameter):
                yield part, name
