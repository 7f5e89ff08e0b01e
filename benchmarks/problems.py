"""The training step of examples/char_gpt.py: the same numbers for every contestant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# The model of examples/char_gpt.py, and its optimizer with a constant rate. Without dropout, the
# losses of two implementations can be compared; the mask would only make the peer slower.
VOCABULARY, CONTEXT, BATCH = 96, 64, 16
WIDTH, LAYERS, HEADS = 128, 4, 4
RATE, BETAS, EPSILON, DECAY, CLIP = 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0
LOSSES = 5


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, as `CharGpt.state_dict()` has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "tokens.weight": (VOCABULARY, WIDTH),
        "positions.weight": (CONTEXT, WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        shapes |= {
            f"{block}.norm1.weight": (WIDTH,),
            f"{block}.norm1.bias": (WIDTH,),
            f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{block}.attn.in_proj_bias": (3 * WIDTH,),
            f"{block}.attn.out_proj.weight": (WIDTH, WIDTH),
            f"{block}.attn.out_proj.bias": (WIDTH,),
            f"{block}.norm2.weight": (WIDTH,),
            f"{block}.norm2.bias": (WIDTH,),
            f"{block}.mlp.fc1.weight": (4 * WIDTH, WIDTH),
            f"{block}.mlp.fc1.bias": (4 * WIDTH,),
            f"{block}.mlp.fc2.weight": (WIDTH, 4 * WIDTH),
            f"{block}.mlp.fc2.bias": (WIDTH,),
        }
    return shapes | {
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "head.weight": (VOCABULARY, WIDTH),
    }


def initial_weights() -> dict[str, Array]:
    """The weights that every contestant begins with."""
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {}
    for name, shape in weight_shapes().items():
        if "norm" in name:
            values = np.full(shape, 1.0 if name.endswith("weight") else 0.0)
        elif name.startswith(("tokens", "positions")):
            values = rng.standard_normal(shape)
        else:
            values = rng.uniform(-1.0, 1.0, shape) / np.sqrt(shape[-1])
        weights[name] = values.astype(np.float32)
    return weights


def batches() -> Iterator[tuple[Array, Array]]:
    """Characters and their successors, without end; the successor is nearly a function."""
    rng = np.random.default_rng(1)
    while True:
        text = np.empty((BATCH, CONTEXT + 1), np.int32)
        text[:, 0] = rng.integers(0, VOCABULARY, BATCH)
        noise = rng.integers(0, 2, text.shape)
        for position in range(CONTEXT):
            text[:, position + 1] = (5 * text[:, position] + 7 + noise[:, position]) % VOCABULARY
        yield text[:, :-1].copy(), text[:, 1:].copy()
