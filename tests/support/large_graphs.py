"""Graphs of any size, for how the compiler's work grows with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import asg
from asg import nn, optim
from asg.graph import Graph
from asg.tensor import Tensor


def deep_chain(nodes: int) -> Graph:
    """Maps, a normalisation and a product in turn, each of the one before."""
    return asg.graph(outputs={"y": _chain(nodes)})


def _chain(nodes: int) -> Tensor:
    x = asg.input("x", (16, 16))
    weights = [asg.input(f"w{index}", (16, 16)) for index in range(4)]
    h = x
    for index in range(nodes // 9):
        h = asg.tanh(h * 0.5 + x)
        h = (h - asg.mean(h, axis=-1, keepdims=True)) @ weights[index % 4]
    return h


def wide(nodes: int) -> Graph:
    """Reductions of one input side by side, added up as a tree."""
    x = asg.input("x", (16, 16))
    parts = [asg.sum(asg.tanh(x * (0.5 + index)), axis=-1) for index in range(max(nodes // 6, 1))]
    while len(parts) > 1:
        pairs = [left + right for left, right in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return asg.graph(outputs={"y": parts[0]})


def skips(nodes: int) -> Graph:
    """A chain down and a chain up, where each step up reads the step down of its level."""
    h = asg.input("x", (16, 16))
    left: list[Tensor] = []
    for _ in range(nodes // 11):
        h = asg.tanh(h - asg.max(h, axis=-1, keepdims=True))
        left.append(h)
    for other in reversed(left):
        h = asg.exp(-h * other) / (1.0 + asg.sum(h, axis=0, keepdims=True))
    return asg.graph(outputs={"y": h})


def many_parameters(nodes: int) -> Graph:
    """A training step of a deep network of small layers."""
    nn.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(max(1, nodes // 17))])

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    shape = asg.spec((16, 8))
    return asg.training_step(model, loss, optim.AdamW(lr=0.01), x=shape, y=shape)


def transformer_step(nodes: int) -> Graph:
    """A training step of a language model of many small layers."""
    nn.manual_seed(0)
    blocks = [nn.TransformerBlock(32, 2, causal=True) for _ in range(max(1, nodes // 200))]
    model = nn.Sequential(nn.Embedding(96, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 96))

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["x"]).reshape(-1, 96), batch["y"])

    window, wanted = asg.spec((2, 16), "i32"), asg.spec((32,), "i32")
    return asg.training_step(model, loss, optim.AdamW(lr=0.01), x=window, y=wanted)


def read_again(nodes: int) -> Graph:
    """A chain in which each step reads the one before, the one half way back, and the first."""
    values = [asg.input("x", (16, 16))]
    for index in range(nodes // 5):
        h = asg.tanh(values[-1] * 0.5 + values[len(values) // 2]) + values[0]
        values.append(h - asg.max(h, axis=-1, keepdims=True) if index % 5 == 0 else h)
    return asg.graph(outputs={"y": values[-1]})


def many_outputs(nodes: int) -> Graph:
    """Small maps of twenty sizes side by side, each a result."""
    inputs = [asg.input(f"x{size}", (3 + size,)) for size in range(20)]
    values = [inputs[index % 20] for index in range(nodes // 4)]
    return asg.graph(
        outputs={f"y{index}": asg.exp(x * (1.0 + index)) + x for index, x in enumerate(values)}
    )


def reductions(nodes: int) -> Graph:
    """Sums along rows and along columns in turn, each written over what the one before has read."""
    x = h = asg.input("x", (12, 16))
    for index in range(nodes // 8):
        total = asg.sum(h, axis=index % 2, keepdims=True)
        h = h * asg.rsqrt(total * total + 1.0) + x
    return asg.graph(outputs={"y": h})


def products(nodes: int) -> Graph:
    """Products of forty-nine shapes, each of the one before."""
    sizes = (8, 12, 16, 20, 24, 28, 32)
    weights = {(k, n): asg.input(f"w{k}_{n}", (k, n)) for k in sizes for n in sizes}
    h, k = asg.input("x", (16, 8)), 8
    for index in range(nodes // 2):
        n = sizes[(index * 3 + index // 7) % 7]
        h, k = asg.tanh(h @ weights[k, n]), n
    return asg.graph(outputs={"y": h})


def gradients(nodes: int) -> Graph:
    """The gradients of a chain."""
    graph = asg.graph(outputs={"y": asg.sum(_chain(nodes // 5))})
    return asg.grad(graph, "y", wrt=["x", "w0", "w1"])


GRAPHS: Mapping[str, Callable[[int], Graph]] = {
    each.__name__: each
    for each in (
        deep_chain,
        wide,
        skips,
        many_parameters,
        transformer_step,
        read_again,
        many_outputs,
        reductions,
        products,
        gradients,
    )
}
