"""Recognise handwritten digits with a convolutional network and batch norms.

python examples/digits_cnn.py --epochs 20
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from running import console, target_for
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import asg
from asg import nn, optim
from asg.data import Batches

BATCH = 64


class DigitNet(nn.Module):
    """Three convolutions over images of 8 by 8, each behind a batch norm; the last two halve."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width),
            nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width),
            nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * width, 10))

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        logits: asg.Tensor = self.head(self.features(x))
        return logits


def loss_of(model: nn.Module, batch: Mapping[str, asg.Tensor]) -> dict[str, asg.Tensor]:
    """Cross entropy, and the share of digits that are recognised."""
    logits = model(batch["x"])
    hits = asg.argmax(logits, axis=1) == batch["y"]
    return {
        "loss": nn.functional.cross_entropy(logits, batch["y"]),
        "accuracy": asg.mean(hits.cast("f32")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="an adapter's name, or numpy")
    options = parser.parse_args()

    nn.manual_seed(options.seed)
    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0 - 0.3).astype(np.float32).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=0.25, random_state=0, stratify=y
    )
    model = DigitNet()
    loader = Batches({"x": train_x, "y": train_y}, BATCH, seed=options.seed)
    steps = options.epochs * len(loader)
    optimizer = optim.AdamW(
        optim.decay_groups(model, 0.05), lr=optim.warmup_cosine(6e-3, steps // 10, steps)
    )
    target, device = target_for(options.device)
    trainer = asg.Trainer(model, loss_of, optimizer, target=target, device=device)
    history = trainer.fit(loader, epochs=options.epochs)
    found = trainer.evaluate([{"x": test_x, "y": test_y}])
    console.print(
        f"{len(history.losses)} steps in {history.seconds:.1f} s; of {len(test_y)} digits held "
        f"out, {found['accuracy']:.1%} are recognised",
        highlight=False,
    )
    assert found["accuracy"] >= 0.985 or options.epochs < 20


if __name__ == "__main__":
    main()
