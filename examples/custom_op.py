"""Ops from outside: a gradient of one's own, an expression per element, a kernel written by hand.

A small network learns to multiply two numbers. Its activation is an op defined here, its weights
are rounded on the way forward but not backward, and its products are a kernel written by hand.
All of it is compared with NumPy, then saved, and run from the bundle.

python examples/custom_op.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import asg
from asg import nn, optim

SIDE = 8  # of the square of results that a workgroup computes


def straight_through(
    cotangent: asg.Tensor, result: asg.Tensor, x: asg.Tensor, *, step: float
) -> asg.Tensor:
    """Rounding is flat almost everywhere; as if it were not there, the gradient passes."""
    return cotangent


@asg.custom_gradient(straight_through)
def rounded(x: asg.Tensor, *, step: float = 1 / 64) -> asg.Tensor:
    return asg.round(x / step) * step


hard_swish = asg.define_op(
    "hard_swish",
    numpy=lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    wgsl="{0} * clamp({0} / 6.0 + {F}(0.5), {F}(0.0), {F}(1.0))",
    gradient=lambda g, y, x: g * asg.where(asg.abs(x) < 3.0, x / 3 + 0.5, asg.cast(x > 0, "f32")),
)

product = asg.wgsl_kernel(
    "product",
    types=lambda a, b: asg.spec((a.shape[0], b.shape[1])),
    numpy=lambda a, b: a @ b,
    source="""
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x >= y_shape[1] || id.y >= y_shape[0]) {
        return;
    }
    var total = 0.0;
    for (var k = 0u; k < a_shape[1]; k++) {
        total += a[id.y * a_shape[1] + k] * b[k * y_shape[1] + id.x];
    }
    y[id.y * y_shape[1] + id.x] = total;
}
""",
    workgroups=lambda a, b: (-(-b.shape[1] // SIDE), -(-a.shape[0] // SIDE)),
    gradient=lambda g, y, a, b: (product(g, b.T), product(a.T, g)),
    is_sum=True,
)


def predict(model: nn.Sequential, x: asg.Tensor) -> asg.Tensor:
    first, second = model
    hidden = hard_swish(product(x, rounded(first.weight).T) + first.bias)
    return product(hidden, rounded(second.weight).T) + second.bias


def loss(model: nn.Sequential, batch: dict[str, asg.Tensor]) -> asg.Tensor:
    return nn.functional.mse_loss(predict(model, batch["x"]), batch["y"])


def build() -> asg.Graph:
    """One step of training."""
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 1))
    batch = {"x": asg.spec((64, 2)), "y": asg.spec((64, 1))}
    return asg.training_step(model, loss, optim.AdamW(lr=0.02), **batch)


def train(exe: asg.runtime.executable.Executable, steps: int, seed: int) -> float:
    """Run steps on random numbers; return the last loss."""
    rng = np.random.default_rng(seed)
    value = 0.0
    for _ in range(steps):
        x = rng.uniform(-1, 1, (64, 2)).astype(np.float32)
        value = float(exe({"x": x, "y": x[:, :1] * x[:, 1:]})["loss"])
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    step = build()
    report = asg.testing.differential(step)
    print(report)
    assert report.is_right

    exe = asg.compile(step)
    print(f"loss after {options.steps} steps: {train(exe, options.steps, seed=0):.6f}")
    with tempfile.TemporaryDirectory() as folder:
        exe.save(Path(folder) / "product.asg")  # the texts of the kernels go along
        last = train(asg.load(Path(folder) / "product.asg"), 20, seed=1)
    print(f"after 20 more, from the bundle: {last:.6f}")
    assert last < 0.001


if __name__ == "__main__":
    main()
