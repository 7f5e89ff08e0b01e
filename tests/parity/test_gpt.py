"""Fifty training steps of a small transformer against PyTorch's, loss by loss."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np

import asg
from asg import nn, optim
from support.targets import EXAMPLES, on_targets, reference

REFERENCE = reference("gpt")
STEPS, WIDTH = 50, 32


def example() -> object:
    """The module examples/char_gpt.py."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location("char_gpt", EXAMPLES / "char_gpt.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module


def build() -> tuple[nn.Module, asg.Graph]:
    char_gpt = example()
    model = char_gpt.CharGpt(50, width=WIDTH, layers=2, heads=2, context=16, dropout=0.0)
    model.load_state_dict(REFERENCE["initial"])
    optimizer = optim.AdamW(
        optim.decay_groups(model, 0.1),
        lr=optim.warmup_cosine(3e-3, 5, STEPS),
        betas=(0.9, 0.99),
        clip_norm=1.0,
    )
    window = asg.spec((4, 16), "i32")
    return model, asg.training_step(model, char_gpt.loss_of, optimizer, x=window, y=window)


def without_key_bias(name: str, array: np.ndarray) -> np.ndarray:
    """Softmax does not see what is added to all keys, so that the bias of keys has a zero
    gradient; Adam makes steps of its rounding errors, in PyTorch as here."""
    return np.delete(array, slice(WIDTH, 2 * WIDTH)) if name.endswith("in_proj_bias") else array


@on_targets
def test_training_matches_pytorch(target: str) -> None:
    model, step = build()
    text = REFERENCE["text"][""]
    found: dict[str, list[float]] = {"loss": [], "grad_norm": [], "lr": []}
    with asg.compile(step, target=target) as exe:
        for batch in text:
            outputs = exe({"x": batch[:, :-1], "y": batch[:, 1:]})
            for name, values in found.items():
                values.append(float(outputs[name]))
        state = exe.state_dict()
    np.testing.assert_allclose(found["loss"], REFERENCE["losses"][""], rtol=1e-4)
    np.testing.assert_allclose(found["grad_norm"], REFERENCE["norms"][""], rtol=1e-3)
    np.testing.assert_allclose(found["lr"], REFERENCE["rates"][""], rtol=1e-5)
    for name, expected in REFERENCE["final"].items():
        np.testing.assert_allclose(
            without_key_bias(name, state[name]),
            without_key_bias(name, expected),
            rtol=0,
            atol=1e-3,
            err_msg=name,
        )
    assert state["optimizer.step"] == STEPS
    names = [name for name in state if not name.startswith("optimizer.")]
    model.load_state_dict({name: state[name] for name in names})
