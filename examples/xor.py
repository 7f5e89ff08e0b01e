"""Learn the exclusive or with a hidden layer of eight; print the graph and its kernels.

python examples/xor.py
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from running import compile_for, console, show

import asg
from asg import nn, optim

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)


def loss_of(model: nn.Module, batch: Mapping[str, asg.Tensor]) -> asg.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch["x"]), batch["y"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", help="an adapter's name, or numpy")
    options = parser.parse_args()

    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def predict(x: asg.Tensor) -> dict[str, asg.Tensor]:
        return {"chance": asg.sigmoid(model(x))}

    show(str(asg.trace(predict, X)))
    step = asg.training_step(
        model, loss_of, optim.Adam(lr=0.05), x=asg.spec((4, 2)), y=asg.spec((4, 1))
    )
    with compile_for(step, options.device) as exe:
        for _ in range(options.steps):
            loss = float(exe({"x": X, "y": Y})["loss"])
        state = exe.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    with compile_for(asg.trace(predict, X), options.device) as exe:
        chances = exe({"x": X})["chance"]
        for name, wgsl in exe.kernels.items():
            console.rule(name)
            show(wgsl)
    for row, chance in zip(X.astype(int), chances, strict=True):
        console.print(f"{row[0]} xor {row[1]} = {chance[0]:.3f}", highlight=False)
    console.print(f"loss {loss:.4f}", highlight=False)
    assert ((chances > 0.5) == Y).all(), "not learnt"


if __name__ == "__main__":
    main()
