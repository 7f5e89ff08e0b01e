"""JAX on the processor, as a contestant: what else one could run here. It is jitted."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

# It reads the environment when it is imported.
import jax
import numpy as np
import workloads
from jax import lax
from jax import numpy as jnp
from protocol import Facts, serve

jax.config.update("jax_default_matmul_precision", "highest")


class Ops:
    """`models.Ops` for JAX's arrays."""

    def matmul(self, x: Any, y: Any) -> Any:
        return x @ y

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return jnp.transpose(x, axes)

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return jnp.reshape(x, shape)

    def relu(self, x: Any) -> Any:
        return jax.nn.relu(x)

    def clip6(self, x: Any) -> Any:
        return jnp.clip(x, 0.0, 6.0)

    def gelu(self, x: Any, is_fast: bool) -> Any:
        return jax.nn.gelu(x, approximate=is_fast)

    def softmax(self, x: Any) -> Any:
        return jax.nn.softmax(x, -1)

    def layer_norm(self, x: Any, w: Any, b: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w + b

    def sum(self, x: Any, axes: Sequence[int]) -> Any:
        return jnp.sum(x, tuple(axes))

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        scores = q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1) @ v

    def embedding(self, table: Any, index: Any) -> Any:
        return table[index]

    def conv(self, x: Any, w: Any, stride: int, padding: int, groups: int) -> Any:
        around = [(padding, padding)] * 2
        return lax.conv_general_dilated(x, w, (stride, stride), around, feature_group_count=groups)

    def max_pool(self, x: Any) -> Any:
        around = [(0, 0), (0, 0), (1, 1), (1, 1)]
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), around)

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        logs = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], 1))


class Operation:
    """Something computed once."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.workload = workload

    def prepare(self) -> Facts:
        arrays = self.workload.arrays()
        start = time.perf_counter()
        self.tensors = {name: jnp.asarray(each) for name, each in arrays.items()}
        self.run = jax.jit(lambda tensors: self.workload.run(Ops(), tensors))
        answer = np.asarray(self.run(self.tensors))
        first = time.perf_counter() - start
        return {"first_s": first, "error": self.workload.check(answer), "kernels": 0}

    def step(self) -> None:
        self.run(self.tensors).block_until_ready()


class Steps:
    """Training steps; AdamW as PyTorch has it."""

    def __init__(self, training: workloads.Training) -> None:
        self.training = training

    def prepare(self) -> Facts:
        training = self.training
        arrays, self.batches = training.weights(), training.batches()
        start = time.perf_counter()
        weights = {name: jnp.asarray(each) for name, each in arrays.items()}
        zeros = {name: jnp.zeros_like(each) for name, each in weights.items()}
        self.state = weights, zeros, zeros, jnp.float32(0.0)
        self.jitted = jax.jit(self.update)
        losses = [self.loss()]
        first = time.perf_counter() - start
        losses += [self.loss() for _ in range(training.losses - 1)]
        facts = {"first_s": first, "warm_s": first, "losses": losses, "kernels": 0}
        return {**facts, "error": training.check(losses)}

    def update(self, state: Any, batch: Any) -> Any:
        weights, first, second, count = state
        b1, b2 = self.training.betas
        loss, gradients = jax.value_and_grad(
            lambda weights: self.training.loss(Ops(), weights, batch)
        )(weights)
        count = count + 1.0
        first = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, second, gradients)

        def changed(w: Any, m: Any, v: Any) -> Any:
            root = jnp.sqrt(v / (1.0 - b2**count)) + self.training.epsilon
            return w - self.training.rate * (m / (1.0 - b1**count)) / root

        return (jax.tree.map(changed, weights, first, second), first, second, count), loss

    def loss(self) -> float:
        self.state, loss = self.jitted(self.state, next(self.batches))
        return float(loss)

    def step(self) -> None:
        self.loss()


def describe() -> Facts:
    return {"version": jax.__version__}


if __name__ == "__main__":
    operations = {each.name: partial(Operation, each) for each in workloads.OPERATIONS}
    steps = {each.name: partial(Steps, each) for each in workloads.TRAININGS}
    serve(describe, {**operations, **steps})
