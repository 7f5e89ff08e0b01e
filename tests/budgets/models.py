"""The models that have budgets. Sizes are those that people use; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import asg
from asg import functions, nn, optim
from asg.graph import Graph
from asg.nn import functional
from asg.tensor import Tensor

VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 96, 64, 128, 4, 4  # of examples/char_gpt.py


class LanguageModel(nn.Module):
    """Tokens and positions, blocks, a norm, and logits by a matrix of their own or the tokens'."""

    def __init__(
        self, vocabulary: int, context: int, width: int, layers: int, heads: int, is_tied: bool
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            [nn.TransformerBlock(width, heads, causal=True) for _ in range(layers)]
        )
        self.norm = nn.LayerNorm(width)
        self.head = None if is_tied else nn.Linear(width, vocabulary, bias=False)

    def forward(self, index: Tensor) -> Tensor:
        x = self.tokens(index) + self.positions.weight[: index.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x) if self.head is not None else x @ self.tokens.weight.T


def token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(batch["x"])
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch["y"].reshape(-1))


def adamw() -> optim.AdamW:
    return optim.AdamW(lr=1e-3, weight_decay=0.1, clip_norm=1.0)


def char_gpt_step() -> Graph:
    model = LanguageModel(VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS, is_tied=False)
    window = asg.spec((16, CONTEXT), "i32")
    return asg.training_step(model, token_loss, adamw(), x=window, y=window)


def gpt2_small_forward() -> Graph:
    model = LanguageModel(50257, 1024, 768, 12, 12, is_tied=True)
    return asg.trace(model, asg.spec((1, 128), "i32"))


def block_forward() -> Graph:
    return asg.trace(nn.TransformerBlock(768, 12, causal=True), asg.spec((1, 256, 768)))


def block_forward_backward() -> Graph:
    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return asg.sum(model(batch["x"]) * batch["dy"])

    shape = asg.spec((1, 256, 768))
    block = nn.TransformerBlock(768, 12, causal=True)
    return gradients(block, loss, x=shape, dy=shape)


def gradients(
    model: nn.Module, loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor], **specs: object
) -> Graph:
    """The gradients of all parameters and of the input `x`."""
    names = list(specs)

    def run(*arrays: Tensor) -> dict[str, Tensor]:
        return {"loss": loss(model, dict(zip(names, arrays, strict=True)))}

    graph = asg.trace(run, *specs.values(), names=names)
    return asg.grad(graph, of="loss", wrt=[*graph.input_names("parameter"), names[0]])


def mlp_step(*sizes: int) -> Graph:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch["x"]), batch["y"])

    specs = {"x": asg.spec((128, sizes[0])), "y": asg.spec((128,), "i32")}
    return asg.training_step(model, loss, optim.AdamW(lr=1e-3), **specs)


def cross_entropy_forward_backward() -> Graph:
    x, y = asg.input("x", (1024, 4096)), asg.input("y", (1024,), "i32")
    return asg.value_and_grad(
        asg.graph(outputs={"loss": functional.cross_entropy(x, y)}), of="loss", wrt=["x"]
    )


def layer_norm(x: Tensor) -> Tensor:
    w, b = asg.input("w", (1024,)), asg.input("b", (1024,))
    return functional.layer_norm(x, (1024,), w, b)


def layer_norm_forward() -> Graph:
    return asg.graph(outputs={"y": layer_norm(asg.input("x", (4096, 1024)))})


def layer_norm_backward() -> Graph:
    x, dy = asg.input("x", (4096, 1024)), asg.input("dy", (4096, 1024))
    graph = asg.graph(outputs={"loss": asg.sum(layer_norm(x) * dy)})
    return asg.grad(graph, of="loss", wrt=["x", "w", "b"])


def softmax_forward() -> Graph:
    return asg.graph(outputs={"y": functions.softmax(asg.input("x", (4096, 1024)), axis=-1)})


class Residual(nn.Module):
    """Two convolutions around which what goes in is added, as in ResNet-18."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.skip: nn.Module | None = None
        if stride != 1:
            self.skip = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm1(self.first(x)))
        short = x if self.skip is None else self.skip(x)
        return functional.relu(self.norm2(self.second(h)) + short)


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.stages = nn.Sequential(
            *[
                nn.Sequential(Residual(channels, out, stride), Residual(out, out, 1))
                for channels, out, stride in widths
            ]
        )
        self.head = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(asg.mean(self.stages(self.stem(x)), axis=(2, 3)))


def resnet18_forward() -> Graph:
    return asg.trace(ResNet18().eval(), asg.spec((1, 3, 224, 224)))


class Clipped(nn.Module):
    """A ReLU that ends at 6."""

    def forward(self, x: Tensor) -> Tensor:
        return functions.clip(x, 0.0, 6.0)


class Inverted(nn.Module):
    """A block of MobileNetV2: wide in the middle, where each channel has a kernel of its own."""

    def __init__(self, channels: int, out: int, stride: int, grow: int) -> None:
        super().__init__()
        wide = channels * grow
        layers: list[nn.Module] = []
        if grow > 1:
            layers += [nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), Clipped()]
        layers += [
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            Clipped(), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        ]  # fmt: skip
        self.layers = nn.Sequential(*layers)
        self.is_residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


def mobilenet_v2_frozen() -> Graph:
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    layers: list[nn.Module] = [
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), Clipped(),
    ]  # fmt: skip
    channels = 32
    for grow, out, count, first in plan:
        for position in range(count):
            layers.append(Inverted(channels, out, 1 if position else first, grow))
            channels = out
    layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), Clipped()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return asg.freeze(asg.trace(nn.Sequential(*layers).eval(), asg.spec((1, 3, 224, 224))))


def cnn_step() -> Graph:
    """Two strided convolutions with batch norms, in training."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 49, 10),
    )  # fmt: skip

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch["x"]), batch["y"])

    specs = {"x": asg.spec((64, 1, 28, 28)), "y": asg.spec((64,), "i32")}
    return asg.training_step(model, loss, optim.AdamW(lr=1e-3), **specs)


# Name -> how the graph is made.
MODELS: Mapping[str, Callable[[], Graph]] = {
    "char-gpt-step": char_gpt_step,
    "gpt2-small-forward": gpt2_small_forward,
    "block-forward": block_forward,
    "block-forward-backward": block_forward_backward,
    "mlp-784-512-10-step": lambda: mlp_step(784, 512, 10),
    "mlp-784-512-512-10-step": lambda: mlp_step(784, 512, 512, 10),
    "cross-entropy-forward-backward": cross_entropy_forward_backward,
    "layer-norm-forward": layer_norm_forward,
    "layer-norm-backward": layer_norm_backward,
    "softmax-forward": softmax_forward,
    "resnet18-forward": resnet18_forward,
    "resnet18-frozen": lambda: asg.freeze(resnet18_forward()),
    "mobilenetv2-frozen": mobilenet_v2_frozen,
    "cnn-step": cnn_step,
}
