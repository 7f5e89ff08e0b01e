"""Write what PyTorch computes, as the .npz files beside this script.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_reference.py`. The
tests need the files only. Keys are `case/field`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
VERSION = "2.13.0"
Arrays = dict[str, np.ndarray]


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def save(name: str, arrays: Arrays) -> None:
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    print(f"{name}.npz: {len(arrays)} arrays, {(HERE / f'{name}.npz').stat().st_size} bytes")


# ---- the transformer of examples/char_gpt.py, small


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        y = self.norm1(x)
        x = x + self.attn(y, y, y, attn_mask=hidden, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class CharGpt(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, index: Tensor) -> Tensor:
        x = self.tokens(index) + self.positions.weight[: index.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt() -> None:
    """Fifty steps of AdamW with decay groups, clipping and warm-up cosine."""
    torch.manual_seed(0)
    vocabulary, length, batch, steps, warmup, peak = 50, 16, 4, 50, 5, 3e-3
    model = CharGpt(vocabulary, 32, 2, 2, length)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.05, 0.05)
    initial = {f"initial/{name}": array(item) for name, item in model.state_dict().items()}
    generator = np.random.default_rng(0)
    # A noisy walk over the vocabulary, so that there is something to learn.
    jumps = generator.integers(1, 4, (steps, batch, length + 1))
    text = (np.cumsum(jumps, axis=2) % vocabulary).astype(np.int64)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.99),
    )
    losses, norms, rates = [], [], []
    for step in range(steps):
        rate = peak * (step + 1) / warmup
        if step >= warmup:
            rate = 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        data = torch.from_numpy(text[step])
        logits = model(data[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())
        rates.append(rate)
    final = {f"final/{name}": array(item) for name, item in model.state_dict().items()}
    found = {"losses": np.array(losses), "norms": np.array(norms), "rates": np.array(rates)}
    save("gpt", {**initial, **final, **found, "text": text.astype(np.int32)})


# ---- single layers: result, and gradients of sum(result * g)


def record(case: str, out: Tensor, tensors: dict[str, Tensor], into: Arrays) -> None:
    g = torch.randn(out.shape)
    gradients = torch.autograd.grad((out * g).sum(), list(tensors.values()))
    into |= {f"{case}/out": array(out), f"{case}/g": array(g)}
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        into |= {f"{case}/{name}": array(tensor), f"{case}/{name}.grad": array(gradient)}


def layers() -> None:
    """Layer norm, softmax along every axis, activations."""
    torch.manual_seed(1)
    found: Arrays = {}
    for case, shape, normal in (
        ("rows", (6, 10), (10,)),
        ("tokens", (2, 5, 8), (8,)),
        ("two_axes", (3, 4, 5), (4, 5)),
    ):
        x = (3.0 + 2.0 * torch.randn(shape)).requires_grad_()
        weight, bias = (torch.randn(normal, requires_grad=True) for _ in range(2))
        out = F.layer_norm(x, normal, weight, bias)
        record(f"layer_norm_{case}", out, {"x": x, "weight": weight, "bias": bias}, found)
    for dim in range(3):
        for name, function in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
            x = (3.0 * torch.randn(3, 4, 5)).requires_grad_()
            record(f"{name}_{dim}", function(x, dim), {"x": x}, found)
    activations: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "silu": F.silu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }
    for name, activation in activations.items():
        x = torch.linspace(-6.0, 6.0, 40).requires_grad_()
        record(name, activation(x), {"x": x}, found)
    weight = torch.randn(7, 3, requires_grad=True)
    index = torch.tensor([[1, 1, 0], [6, 2, 1]])
    record("embedding", F.embedding(index, weight), {"weight": weight}, found)
    found["embedding/index"] = index.numpy().astype(np.int32)
    save("layers", found)


def attention() -> None:
    """`torch.nn.MultiheadAttention` with the masks that it takes."""
    torch.manual_seed(2)
    found: Arrays = {}
    batch, length, keys, width, heads = 3, 5, 7, 12, 3
    padding = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 1]], dtype=torch.bool)
    cross_padding = torch.zeros(batch, keys, dtype=torch.bool)
    cross_padding[1, 4:] = True
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    forbidden = torch.rand(length, length) < 0.3
    forbidden[range(length), range(length)] = False
    added = torch.randn(length, keys)
    per_head = torch.randn(batch * heads, length, length)
    cases: dict[str, dict[str, Tensor | None]] = {
        "plain": {},
        "padded": {"key_padding_mask": padding},
        "causal": {"attn_mask": hidden},
        "causal_padded": {"attn_mask": hidden, "key_padding_mask": padding},
        "bool_mask": {"attn_mask": forbidden},
        "float_per_head": {"attn_mask": per_head},
        "cross": {"key_padding_mask": cross_padding},
        "cross_float": {"attn_mask": added},
    }
    cases["causal_padded"]["key_padding_mask"] = padding & (torch.arange(length) > 0)
    for case, masks in cases.items():
        layer = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.uniform_(layer.in_proj_bias, -0.5, 0.5)
        nn.init.uniform_(layer.out_proj.bias, -0.5, 0.5)
        x = torch.randn(batch, length, width, requires_grad=True)
        tensors = {"x": x, **dict(layer.named_parameters())}
        source = x
        if case.startswith("cross"):
            source = tensors["source"] = torch.randn(batch, keys, width, requires_grad=True)
        out = layer(x, source, source, need_weights=False, **masks)[0]
        record(case, out, tensors, found)
        found |= {f"{case}/{name}": array(mask) for name, mask in masks.items()}
    save("attention", found)


def losses() -> None:
    """Losses, with the gradient of the result (summed where it is not reduced)."""
    torch.manual_seed(3)
    found: Arrays = {}

    def keep(case: str, x: Tensor, target: Tensor, loss: Tensor) -> None:
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        kind = np.float32 if target.is_floating_point() else np.int32
        found.update({
            f"{case}/x": array(x), f"{case}/target": target.numpy().astype(kind),
            f"{case}/loss": array(loss), f"{case}/x.grad": array(gradient),
        })  # fmt: skip

    for shape in ((5,), (6, 5), (2, 5, 3), (2, 5, 2, 3)):
        labels = (*shape[:1], *shape[2:]) if len(shape) > 1 else ()
        for reduction in ("mean", "sum", "none"):
            for smoothing in (0.0, 0.1):
                for ignored in (-100, 2):
                    x = (4.0 * torch.randn(shape)).requires_grad_()
                    target = torch.randint(0, 5, labels)
                    if target.dim():
                        target.view(-1)[0] = 2
                        target.view(-1)[1] = 3
                    elif ignored == 2:
                        target = torch.tensor(1)
                    loss = F.cross_entropy(
                        x, target, reduction=reduction, label_smoothing=smoothing,
                        ignore_index=ignored,
                    )  # fmt: skip
                    rank = len(shape)
                    keep(f"cross_entropy_{rank}_{reduction}_{smoothing}_{ignored}", x, target, loss)
    pairs: dict[str, Callable[..., Tensor]] = {
        "mse_loss": F.mse_loss,
        "l1_loss": F.l1_loss,
        "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    }
    for name, function in pairs.items():
        for reduction in ("mean", "sum", "none"):
            x = (4.0 * torch.randn(4, 3)).requires_grad_()
            target = torch.rand(4, 3)
            keep(f"{name}_{reduction}", x, target, function(x, target, reduction=reduction))
    x = torch.randn(6, 5).log_softmax(1).requires_grad_()
    target = torch.tensor([0, 4, 2, 2, 1, 3])
    keep("nll_loss_mean", x, target, F.nll_loss(x, target))
    save("losses", found)


# ---- optimizers


def optimizers() -> None:
    """Six steps from given gradients; parameters after every step."""
    rng = np.random.default_rng(4)
    shapes = {"matrix": (3, 4), "vector": (5,), "scalar": ()}
    start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    grads = {
        name: rng.standard_normal((6, *shape)).astype(np.float32) for name, shape in shapes.items()
    }
    found: Arrays = {f"start/{name}": value for name, value in start.items()}
    found |= {f"grads/{name}": value for name, value in grads.items()}
    sgd, adam, adamw = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
    groups = [{"names": ["matrix"], "weight_decay": 0.3, "lr": 0.02},
              {"names": ["vector", "scalar"], "betas": (0.8, 0.95), "eps": 1e-4}]  # fmt: skip
    cases = {
        "sgd": (sgd, {"lr": 0.1}, None),
        "sgd_momentum": (sgd, {"lr": 0.1, "momentum": 0.9}, None),
        "sgd_dampening": (sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, None),
        "sgd_nesterov": (sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, None),
        "sgd_decay": (sgd, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}, None),
        "adam": (adam, {"lr": 0.01}, None),
        "adam_decay": (adam, {"lr": 0.01, "weight_decay": 0.2, "betas": (0.8, 0.9)}, None),
        "adam_amsgrad": (adam, {"lr": 0.01, "amsgrad": True}, None),
        "adamw": (adamw, {"lr": 0.01}, None),
        "adamw_eps": (adamw, {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.5}, None),
        "adamw_amsgrad": (adamw, {"lr": 0.01, "amsgrad": True}, None),
        "adamw_groups": (adamw, {"lr": 0.01}, groups),
        "adamw_clip_norm": (adamw, {"lr": 0.01}, None),
        "sgd_clip_value": (sgd, {"lr": 0.1}, None),
    }
    for case, (kind, options, given) in cases.items():
        params = {name: nn.Parameter(torch.tensor(value)) for name, value in start.items()}
        listed = [
            {**{key: value for key, value in group.items() if key != "names"},
             "params": [params[name] for name in group["names"]]}
            for group in given
        ] if given else list(params.values())  # fmt: skip
        optimizer = kind(listed, **options)
        history: dict[str, list[np.ndarray]] = {name: [] for name in params}
        for step in range(6):
            for name, parameter in params.items():
                parameter.grad = torch.tensor(grads[name][step])
            if case.endswith("clip_norm"):
                nn.utils.clip_grad_norm_(params.values(), 1.5)
            if case.endswith("clip_value"):
                nn.utils.clip_grad_value_(params.values(), 0.5)
            optimizer.step()
            for name, parameter in params.items():
                history[name].append(array(parameter))
        found |= {f"{case}/{name}": np.stack(values) for name, values in history.items()}
    save("optimizers", found)


def initialisers() -> None:
    """Mean, deviation and largest absolute value of large draws."""
    torch.manual_seed(5)
    found: Arrays = {}
    cases: dict[str, Callable[[Tensor], Tensor]] = {
        "kaiming_uniform": nn.init.kaiming_uniform_,
        "kaiming_uniform_sqrt5": lambda t: nn.init.kaiming_uniform_(t, a=math.sqrt(5)),
        "kaiming_normal": nn.init.kaiming_normal_,
        "xavier_uniform": nn.init.xavier_uniform_,
        "xavier_normal": nn.init.xavier_normal_,
        "normal": lambda t: nn.init.normal_(t, 0.5, 0.1),
        "trunc_normal": lambda t: nn.init.trunc_normal_(t, 0.0, 1.0, -2.0, 2.0),
        "uniform": lambda t: nn.init.uniform_(t, -0.2, 0.6),
    }
    for shape in ((800, 300), (64, 48, 9, 9)):
        for name, function in cases.items():
            drawn = array(function(torch.empty(shape))).astype(np.float64)
            statistics = [drawn.mean(), drawn.std(), np.abs(drawn).max()]
            found[f"{name}_{len(shape)}"] = np.array(statistics)
    save("initialisers", found)


def main() -> None:
    if not torch.__version__.startswith(VERSION):
        raise SystemExit(f"the references are those of torch {VERSION}, not {torch.__version__}")
    torch.set_num_threads(1)
    for make in (gpt, layers, attention, losses, optimizers, initialisers):
        make()


if __name__ == "__main__":
    main()
