"""Writes tests/onnx/models: small models as PyTorch exports them, and what PyTorch computes.

    python tests/references/make_onnx_models.py [NAME]...

It needs torch, onnx, onnxscript and transformers. Every model has an output `loss` beside its
results, so that the exported graph can be differentiated and trained: the mean of the squared
distance to an input `target`. NAME.npz holds, under the prefixes
    in.      the inputs
    out.     the results, and the loss
    grad.    the gradient of every parameter
    after.   every parameter after `STEPS` steps of AdamW on that one batch
    losses   the loss before each of them
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers as hf
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[1] / "onnx" / "models"
STEPS = 20
RATE, DECAY = 1e-3, 0.01


class WithLoss(nn.Module):
    """A model whose result is compared with a target."""

    def __init__(self, model: nn.Module, result: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.result = result

    def forward(self, target: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        y = self.result(self.model(*inputs))
        return y, ((y - target) ** 2).mean()


@dataclass(frozen=True)
class Recipe:
    """How a model is made and exported."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Sequence[Tensor]]
    result: Callable[[Any], Tensor] = lambda y: y
    by_dynamo: bool = True
    is_trained: bool = True
    opset: int = 18
    open_axes: bool = False


class Called(nn.Module):
    """A model of `transformers`, called with names."""

    def __init__(self, model: nn.Module, *names: str, **fixed: Any) -> None:
        super().__init__()
        self.inner, self.names, self.fixed = model, names, fixed

    def forward(self, *inputs: Tensor) -> Any:
        return self.inner(**dict(zip(self.names, inputs, strict=True)), **self.fixed)


def tokens(*shape: int, size: int = 61) -> Tensor:
    return torch.randint(0, size, shape)


def attention_mask(batch: int, length: int) -> Tensor:
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length - 2 :] = 0
    return mask


def first(y: Any) -> Tensor:
    return y[0]


EAGER = {"attn_implementation": "eager"}


def gpt2(**more: Any) -> nn.Module:
    config = hf.GPT2Config(
        vocab_size=61, n_positions=16, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, **more,
    )  # fmt: skip
    return Called(hf.GPT2LMHeadModel(config), "input_ids", use_cache=False, return_dict=False)


def llama() -> nn.Module:
    config = hf.LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16, **EAGER,
    )  # fmt: skip
    return Called(hf.LlamaForCausalLM(config), "input_ids", use_cache=False, return_dict=False)


def bert() -> nn.Module:
    config = hf.BertConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=16, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, **EAGER,
    )  # fmt: skip
    model = hf.BertModel(config, add_pooling_layer=False)
    return Called(model, "input_ids", "attention_mask", return_dict=False)


def t5() -> Any:
    return hf.T5Config(
        vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
        relative_attention_num_buckets=8, use_cache=False,
    )  # fmt: skip


def t5_encoder() -> nn.Module:
    return Called(hf.T5EncoderModel(t5()), "input_ids", "attention_mask", return_dict=False)


class T5Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = hf.T5Model(t5()).decoder

    def forward(self, ids: Tensor, encoded: Tensor) -> Any:
        return self.inner(
            input_ids=ids, encoder_hidden_states=encoded, use_cache=False, return_dict=False
        )


def vit() -> nn.Module:
    config = hf.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        image_size=16, patch_size=4, num_channels=3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, **EAGER,
    )  # fmt: skip
    return Called(hf.ViTModel(config, add_pooling_layer=False), "pixel_values", return_dict=False)


def whisper() -> nn.Module:
    config = hf.WhisperConfig(
        num_mel_bins=8, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48,
        max_source_positions=12, vocab_size=61, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, dropout=0.0, **EAGER,
    )  # fmt: skip
    encoder = hf.WhisperModel(config).encoder
    encoder.embed_positions.weight.requires_grad_(False)
    return Called(encoder, "input_features", return_dict=False)


class Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "projection_dim": 16, "attention_dropout": 0.0,
        }  # fmt: skip
        text = {**shared, "vocab_size": 61, "max_position_embeddings": 16, "eos_token_id": 60}
        vision = {**shared, "image_size": 16, "patch_size": 4}
        config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, **EAGER)
        self.inner = hf.CLIPModel(config)

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        result = self.inner(input_ids=ids, pixel_values=pixels, return_dict=True)
        return result.logits_per_image


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.skip = (
            nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
            if stride != 1 or inner != outer
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.skip(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), Block(8, 8, 1), Block(8, 16, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


class Inverted(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        wide = inner * 4
        self.is_residual = stride == 1 and inner == outer
        self.conv = nn.Sequential(
            nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(), nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        Inverted(8, 8, 1), Inverted(8, 12, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.0), nn.Linear(12, 10),
    )  # fmt: skip


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(size, size, 7, 1, 3, groups=size)
        self.norm = nn.LayerNorm(size)
        self.wide = nn.Linear(size, 4 * size)
        self.narrow = nn.Linear(4 * size, size)
        self.gamma = nn.Parameter(0.1 * torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(nn.functional.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), ChannelNorm(8), ConvNextBlock(8), ChannelNorm(8),
        nn.Conv2d(8, 16, 2, 2), ConvNextBlock(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.LayerNorm(16), nn.Linear(16, 10),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
        self.up1 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.mix = nn.Conv2d(16, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(nn.functional.max_pool2d(a, 2))
        c = self.mix(torch.cat([a, self.up1(b)], 1)).relu()
        d = nn.functional.interpolate(
            nn.functional.avg_pool2d(c, 2), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return self.last(torch.cat([c, d], 1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(61, 12)
        self.core = kind(12, 16, batch_first=True, **options)
        self.head = nn.Linear(16 * (2 if options.get("bidirectional") else 1), 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.embed(x))[0])


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(4))
        self.token = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))
            for _ in range(2)
        )
        self.channel = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)) for _ in range(2)
        )
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        for i in range(2):
            y = y + self.token[i](self.norms[2 * i](y).transpose(1, 2)).transpose(1, 2)
            y = y + self.channel[i](self.norms[2 * i + 1](y))
        return self.head(y.mean(1))


class Attention(nn.Module):
    """Causal attention as it is written out in small models."""

    def __init__(self, size: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(size, 3 * size)
        self.c_proj = nn.Linear(size, size)
        self.register_buffer("past", torch.tril(torch.ones(length, length)).bool()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        parts = self.c_attn(x).split(size, 2)
        shape = (batch, length, self.heads, size // self.heads)
        q, k, v = (each.view(shape).transpose(1, 2) for each in parts)
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.shape[-1]))
        scores = scores.masked_fill(~self.past[:, :, :length, :length], float("-inf"))
        y = scores.softmax(-1) @ v
        return self.c_proj(y.transpose(1, 2).reshape(batch, length, size))


class NewGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
        return 0.5 * x * (1.0 + torch.tanh(inner))


class GptBlock(nn.Module):
    def __init__(self, size: int = 32, heads: int = 4, length: int = 16) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attn = Attention(size, heads, length)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), NewGelu(), nn.Linear(4 * size, size))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class StateSpace(nn.Module):
    """A selective state space layer as in Mamba, its recurrence spelt out."""

    def __init__(self) -> None:
        super().__init__()
        size, state = 16, 4
        self.enter = nn.Linear(12, 2 * size)
        self.conv = nn.Conv1d(size, size, 3, padding=2, groups=size)
        self.select = nn.Linear(size, 2 * state + 1)
        self.rate = nn.Parameter(torch.zeros(size))
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, state + 1).repeat(size, 1)))
        self.d = nn.Parameter(torch.ones(size))
        self.leave = nn.Linear(size, 12)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.enter(x).chunk(2, -1)
        u = nn.functional.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        b, c, t = self.select(u).split([4, 4, 1], -1)
        t = nn.functional.softplus(t + self.rate)
        decay = torch.exp(-t[..., None] * torch.exp(self.log_a))
        drive = (t * u)[..., None] * b[:, :, None, :]
        h = torch.zeros_like(drive[:, 0])
        ys = []
        for i in range(x.shape[1]):
            h = decay[:, i] * h + drive[:, i]
            ys.append((h * c[:, i, None, :]).sum(-1))
        y = torch.stack(ys, 1) + self.d * u
        return self.leave(y * nn.functional.silu(gate))


def image(*shape: int) -> Callable[[], Sequence[Tensor]]:
    return lambda: [torch.randn(*shape)]


RECIPES = {
    "gpt2": Recipe(lambda: gpt2(**EAGER), lambda: [tokens(2, 9)], first),
    "gpt2_sdpa": Recipe(lambda: gpt2(), lambda: [tokens(2, 9)], first, is_trained=False),
    "gpt2_open": Recipe(
        lambda: gpt2(**EAGER), lambda: [tokens(2, 9)], first, is_trained=False, open_axes=True
    ),
    "gpt2_block": Recipe(GptBlock, image(2, 16, 32)),
    # No LayerNormalization before opset 17: everything is spelt out.
    "gpt2_block_script": Recipe(GptBlock, image(2, 16, 32), by_dynamo=False, opset=14),
    "llama": Recipe(llama, lambda: [tokens(2, 9)], first),
    "bert": Recipe(
        # Row 0 of its embedding is padding, which PyTorch does not train.
        bert,
        lambda: [tokens(2, 9).clamp(min=1), attention_mask(2, 9)],
        first,
    ),
    "t5_encoder": Recipe(
        t5_encoder, lambda: [tokens(2, 7), attention_mask(2, 7)], first, by_dynamo=False, opset=17
    ),
    "t5_decoder": Recipe(
        T5Decoder, lambda: [tokens(2, 7), torch.randn(2, 5, 32)], first, by_dynamo=False, opset=17
    ),
    "vit": Recipe(vit, image(2, 3, 16, 16), first),
    "whisper_encoder": Recipe(whisper, image(2, 8, 24), first),
    "clip": Recipe(Clip, lambda: [tokens(2, 7), torch.randn(2, 3, 16, 16)], is_trained=False),
    "resnet": Recipe(resnet, image(2, 3, 32, 32), by_dynamo=False, opset=17),
    "mobilenet": Recipe(mobilenet, image(2, 3, 24, 24), by_dynamo=False, opset=14),
    "convnext": Recipe(convnext, image(2, 3, 32, 32)),
    "unet": Recipe(UNet, image(1, 1, 16, 16)),
    "lstm": Recipe(
        lambda: Recurrent(nn.LSTM, num_layers=2), lambda: [tokens(3, 6)], by_dynamo=False
    ),
    "gru": Recipe(
        lambda: Recurrent(nn.GRU, bidirectional=True), lambda: [tokens(3, 6)], by_dynamo=False
    ),
    "mixer": Recipe(Mixer, image(2, 3, 16, 16)),
    "state_space": Recipe(StateSpace, image(2, 6, 12)),
}


def write(name: str, recipe: Recipe) -> None:
    torch.manual_seed(sum(map(ord, name)))
    model = WithLoss(recipe.make(), recipe.result).eval()
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.normal_(each.running_mean, std=0.3)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
    inputs = list(recipe.inputs())
    with torch.no_grad():
        for parameter in model.parameters():
            # Equal ones would become one in the exported model, and be trained as one.
            if parameter.ndim == 1:
                parameter += 0.05 * torch.randn_like(parameter)
        y = model(torch.zeros(()), *inputs)[0]
    inputs = [torch.randn_like(y), *inputs]
    names = ["target", *(f"x{i}" for i in range(len(inputs) - 1))]
    export(name, recipe, model, inputs, names)
    kept = {f"in.{n}": x.numpy() for n, x in zip(names, inputs, strict=True)}
    y, loss = model(*inputs)
    kept |= {"out.y": y.detach().numpy(), "out.loss": loss.detach().numpy()}
    if recipe.is_trained:
        kept |= trained(model, inputs)
    np.savez_compressed(FOLDER / f"{name}.npz", **kept)


def export(
    name: str, recipe: Recipe, model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]
) -> None:
    options: dict[str, Any] = {"optimize": False} if recipe.by_dynamo else {
        "do_constant_folding": False
    }  # fmt: skip
    if recipe.open_axes:
        batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("seq", max=16)
        options["dynamic_shapes"] = {
            "target": {0: batch, 1: length}, "inputs": ({0: batch, 1: length},)
        }  # fmt: skip
    # The exporter reports on its work.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, tuple(inputs), str(FOLDER / f"{name}.onnx"), input_names=list(names),
            output_names=["y", "loss"], opset_version=recipe.opset, dynamo=recipe.by_dynamo,
            **({"external_data": False} if recipe.by_dynamo else {}), **options,
        )  # fmt: skip

    slim(FOLDER / f"{name}.onnx")


def slim(path: Path) -> None:
    """Take out what no importer reads: where in Python each node comes from, and its types."""
    model = onnx.load(path)
    bodies = [model.graph, *model.functions]
    for body in bodies:
        for node in body.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for values in (model.graph.value_info, model.graph.input, model.graph.output):
        for each in values:
            del each.metadata_props[:]
    del model.graph.value_info[:]
    for each in model.functions:
        del each.value_info[:]
    for weight in model.graph.initializer:
        del weight.metadata_props[:]
    del model.metadata_props[:]
    onnx.save(model, path)


def trained(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Any]:
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=DECAY)
    kept: dict[str, Any] = {}
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        _, loss = model(*inputs)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            kept |= {
                f"grad.{k}": p.grad.numpy().copy()
                for k, p in parameters.items()
                if p.grad is not None
            }
        optimizer.step()
    kept |= {f"after.{k}": p.detach().numpy() for k, p in parameters.items()}
    kept["losses"] = np.array(losses)
    return kept


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or RECIPES:
        write(name, RECIPES[name])
        size = sum(path.stat().st_size for path in FOLDER.glob(f"{name}.*"))
        print(f"{name:16} {size / 1024:8.0f} KiB")


if __name__ == "__main__":
    main()
