"""Train a character-level transformer on the documentation of Python, then let it write.

One graph holds a whole step: forward, backward, clipping and AdamW over all parameters. It is
compiled once, together with evaluation and prediction, which share its weights. Afterwards the
compiled model is saved, loaded again, and has to write the same text.

    python examples/char_gpt.py --steps 400 --seed 0 --save gpt.asg
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from rich.table import Table
from running import compile_for, console, progress_bar, show

import asg
from asg import nn, optim

CONTEXT, WIDTH, LAYERS, HEADS = 64, 128, 4, 4
BATCH, EVALUATION_BATCH, EVALUATIONS = 20, 32, 8
PEAK_RATE, WARMUP, DROPOUT = 4e-3, 30, 0.1
PROMPT = "The statement"

Array = np.ndarray[Any, Any]


class CharGpt(nn.Module):
    """Logits [B, T, vocabulary] of the character after each of indices i32 [B, T]."""

    def __init__(
        self,
        vocabulary: int,
        width: int = WIDTH,
        layers: int = LAYERS,
        heads: int = HEADS,
        context: int = CONTEXT,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.LearnedPositionalEmbedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(width, heads, dropout=dropout, causal=True) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, index: asg.Tensor) -> asg.Tensor:
        x = self.drop(self.positions(self.tokens(index)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def loss_of(model: nn.Module, batch: Mapping[str, asg.Tensor]) -> asg.Tensor:
    """Mean cross entropy in nats per character."""
    logits = model(batch["x"])
    rows = logits.reshape(-1, logits.shape[-1])
    return nn.functional.cross_entropy(rows, batch["y"].reshape(-1), ignore_index=None)


class Text:
    """The corpus as indices into its sorted characters; the last tenth is for validation."""

    def __init__(self) -> None:
        text = "".join(topics[name] for name in sorted(topics))
        self.characters = sorted(set(text))
        self.index = {character: i for i, character in enumerate(self.characters)}
        data = self.encode(text)
        cut = len(data) * 9 // 10
        self.train, self.validation = data[:cut], data[cut:]

    def encode(self, text: str) -> Array:
        return np.array([self.index[character] for character in text], np.int32)

    def decode(self, indices: Array) -> str:
        return "".join(self.characters[i] for i in indices)


def batch_of(data: Array, size: int, rng: np.random.Generator) -> dict[str, Array]:
    """Windows from anywhere in `data`, and the same one character later."""
    starts = rng.integers(0, len(data) - CONTEXT - 1, size)
    windows = data[starts[:, None] + np.arange(CONTEXT + 1)]
    return {"x": windows[:, :-1], "y": windows[:, 1:]}


def build(vocabulary: int, steps: int) -> tuple[CharGpt, dict[str, asg.Graph]]:
    """The model and its three entries."""
    model = CharGpt(vocabulary)
    rate = optim.warmup_cosine(PEAK_RATE, min(WARMUP, steps // 4), steps, final=PEAK_RATE / 10)
    groups = optim.decay_groups(model, weight_decay=0.1)
    optimizer = optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), clip_norm=1.0)
    window = asg.spec((BATCH, CONTEXT), "i32")
    step = asg.training_step(model, loss_of, optimizer, x=window, y=window)

    def evaluate(x: asg.Tensor, y: asg.Tensor) -> dict[str, asg.Tensor]:
        return {"loss": loss_of(model, {"x": x, "y": y})}

    def predict(x: asg.Tensor, position: asg.Tensor) -> dict[str, asg.Tensor]:
        return {"logits": asg.take(model(x)[0], position)}

    model.eval()
    wide = asg.spec((EVALUATION_BATCH, CONTEXT), "i32")
    single = asg.spec((1, CONTEXT), "i32"), asg.spec((), "i32")
    graphs = {
        "train": step,
        "evaluate": asg.trace(evaluate, wide, wide),
        "predict": asg.trace(predict, *single),
    }
    return model, graphs


def validation_loss(exe: Any, data: Array) -> float:
    """Loss over the same windows each time."""
    rng = np.random.default_rng(1)
    losses = [
        float(exe.evaluate(batch_of(data, EVALUATION_BATCH, rng))["loss"])
        for _ in range(EVALUATIONS)
    ]
    return float(np.mean(losses))


def train(exe: Any, text: Text, steps: int, rng: np.random.Generator) -> float:
    """Run the compiled step, and return the last validation loss.

    Weights, moments and random key stay on the device.
    """
    held_out = math.nan
    with progress_bar("tokens") as progress:
        task = progress.add_task("training", total=steps, loss=math.nan, rate=0.0)
        start = time.perf_counter()
        for step in range(1, steps + 1):
            loss = float(exe.train(batch_of(text.train, BATCH, rng), outputs=["loss"])["loss"])
            speed = step * BATCH * CONTEXT / (time.perf_counter() - start)
            progress.update(task, advance=1, loss=loss, rate=speed)
            if step % 100 == 0 or step == steps:
                held_out = validation_loss(exe, text.validation)
                progress.console.print(
                    f"step {step:4}: loss {loss:.3f}, validation {held_out:.3f}", highlight=False
                )
    return held_out


def write(predict: Callable[..., Any], text: Text, length: int, seed: int) -> str:
    """Sample `length` characters, each given up to CONTEXT characters before it."""
    rng = np.random.default_rng(seed)
    written = list(text.encode(PROMPT))
    for _ in range(length):
        recent = written[-CONTEXT:]
        window = np.zeros((1, CONTEXT), np.int32)
        window[0, : len(recent)] = recent
        inputs = {"x": window, "position": np.array(len(recent) - 1, np.int32)}
        scores = predict(inputs)["logits"].astype(np.float64) / 0.8
        chances = np.exp(scores - scores.max())
        written.append(int(rng.choice(len(chances), p=chances / chances.sum())))
    return text.decode(np.array(written))


def reload_and_compare(exe: Any, path: Path, text: Text, written: str, seed: int) -> None:
    """Save the compiled model, load it, and let it write the same."""
    exe.save(path)
    with asg.load(path) as loaded:
        again = write(loaded.predict, text, len(written) - len(PROMPT), seed)
    assert again == written, "the loaded bundle writes another text"
    console.print("saved, loaded again, and wrote the same text")


def summarise(report: Mapping[str, Any]) -> None:
    """Print what the compiler made of the model."""
    table = Table(title="what was compiled", title_justify="left")
    table.add_column("")
    for entry in report["entries"]:
        table.add_column(entry, justify="right")
    entries = report["entries"].values()
    classes = sorted({name for entry in entries for name in entry["dispatches"]})
    for name in classes:
        row = [str(entry["dispatches"].get(name, 0)) for entry in entries]
        table.add_row(f"{name} kernels", *row)
    for label, key in (("bytes moved", "bytes_moved"), ("least possible", "bytes_lower_bound")):
        table.add_row(f"{label} / MB", *(f"{entry[key] / 1e6:.1f}" for entry in entries))
    console.print(table)
    console.print(
        f"on {report['device']}; memory planned {report['arena_bytes'] / 1e6:.2f} MB, at least "
        f"{report['max_live_bytes'] / 1e6:.2f} MB; compiled in {report['compile_s']:.1f} s",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", type=int, default=400, help="characters to write")
    parser.add_argument("--device", help="an adapter's name, or numpy")
    parser.add_argument("--save", type=Path, help="where the compiled model goes")
    options = parser.parse_args()

    nn.manual_seed(options.seed)
    text = Text()
    model, graphs = build(len(text.characters), options.steps)
    size = sum(parameter.size for parameter in model.parameters())
    console.print(
        f"{len(text.train):,} characters, {len(text.characters)} different; {size:,} parameters"
    )
    exe = compile_for(graphs, options.device)
    first = validation_loss(exe, text.validation)
    console.print(f"before: validation {first:.3f}, chance is {math.log(len(text.characters)):.3f}")
    reached = train(exe, text, options.steps, np.random.default_rng(options.seed))
    assert reached < 2.4 or options.steps < 300, "it has not learnt as it should"
    written = write(exe.predict, text, options.length, options.seed)
    console.rule("it writes")
    show(written)
    console.rule()
    if exe.kernels:  # the interpreter has none to save
        with tempfile.TemporaryDirectory() as folder:
            path = options.save or Path(folder) / "char_gpt.asg"
            reload_and_compare(exe, path, text, written, options.seed)
        summarise(exe.report())


if __name__ == "__main__":
    main()
