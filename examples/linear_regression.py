"""Fit a line without nn: a graph by hand, its gradient, and an optimizer.

python examples/linear_regression.py
"""

from __future__ import annotations

import argparse

import numpy as np
from running import compile_for, console, show

import asg
from asg import optim

SLOPES, OFFSET, ROWS = (2.0, -3.0), 0.5, 64


def build() -> asg.Graph:
    """The mean squared error of x w + b; w and b are parameters that start at zero."""
    x, y = asg.input("x", (ROWS, 2)), asg.input("y", (ROWS,))
    w = asg.input("w", (2,), role="parameter")
    b = asg.input("b", (), role="parameter")
    error = x @ w + b - y
    zeros = {"w": np.zeros(2, np.float32), "b": np.zeros((), np.float32)}
    return asg.graph(outputs={"loss": asg.mean(error * error)}).with_values(zeros)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", help="an adapter's name, or numpy")
    options = parser.parse_args()

    graph = build()
    console.print("the model and its gradient:")
    show(str(graph))
    show(str(asg.grad(graph, of="loss", wrt=["w", "b"])))
    step = asg.training_step(graph, "loss", optim.SGD(lr=0.1, momentum=0.5), wrt=["w", "b"])
    rng = np.random.default_rng(0)
    with compile_for(step, options.device) as exe:
        loss = np.inf
        for _ in range(options.steps):
            x = rng.standard_normal((ROWS, 2)).astype(np.float32)
            noise = 0.01 * rng.standard_normal(ROWS)
            y = (x @ np.array(SLOPES) + OFFSET + noise).astype(np.float32)
            loss = float(exe({"x": x, "y": y})["loss"])
        state = exe.state_dict()
    console.print(f"\nloss {loss:.6f}: w = {state['w']}, b = {state['b']}", highlight=False)
    assert np.allclose(state["w"], SLOPES, atol=0.02)
    assert np.allclose(state["b"], OFFSET, atol=0.02)


if __name__ == "__main__":
    main()
