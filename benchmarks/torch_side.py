"""PyTorch on the processor, as a contestant: what else one could run here. It is eager.

`gpu.py` runs the same on a graphics card, in f32 proper: without TF32.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import workloads
from protocol import Facts, serve
from torch.nn import functional


class Ops:
    """`models.Ops` for PyTorch's tensors."""

    def matmul(self, x: Any, y: Any) -> Any:
        return x @ y

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return x.permute(*axes)

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return x.reshape(*shape)

    def relu(self, x: Any) -> Any:
        return functional.relu(x)

    def clip6(self, x: Any) -> Any:
        return functional.relu6(x)

    def gelu(self, x: Any, is_fast: bool) -> Any:
        return functional.gelu(x, approximate="tanh" if is_fast else "none")

    def softmax(self, x: Any) -> Any:
        return functional.softmax(x, -1)

    def layer_norm(self, x: Any, w: Any, b: Any) -> Any:
        return functional.layer_norm(x, x.shape[-1:], w, b, 1e-5)

    def sum(self, x: Any, axes: Sequence[int]) -> Any:
        return torch.sum(x, tuple(axes))

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def embedding(self, table: Any, index: Any) -> Any:
        return functional.embedding(index, table)

    def conv(self, x: Any, w: Any, stride: int, padding: int, groups: int) -> Any:
        return functional.conv2d(x, w, None, stride, padding, 1, groups)

    def max_pool(self, x: Any) -> Any:
        return functional.max_pool2d(x, 3, 2, 1)

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        return functional.cross_entropy(logits, labels.long())


class Operation:
    """Something computed once."""

    def __init__(self, workload: workloads.Workload, device: str = "cpu") -> None:
        self.workload, self.device = workload, device

    def prepare(self) -> Facts:
        arrays = self.workload.arrays()
        start = time.perf_counter()
        self.tensors = {n: torch.from_numpy(each).to(self.device) for n, each in arrays.items()}
        answer = self.run().cpu().numpy()
        first = time.perf_counter() - start
        return {"first_s": first, "error": self.workload.check(answer), "kernels": 0}

    def run(self) -> Any:
        with torch.inference_mode():
            return self.workload.run(Ops(), self.tensors).contiguous()

    def step(self) -> None:
        self.run()
        wait(self.device)


class Steps:
    """Training steps."""

    def __init__(self, training: workloads.Training, device: str = "cpu") -> None:
        self.training, self.device = training, device

    def prepare(self) -> Facts:
        training = self.training
        arrays, self.batches = training.weights(), training.batches()
        start = time.perf_counter()
        self.weights = {
            name: torch.nn.Parameter(torch.from_numpy(each).to(self.device))
            for name, each in arrays.items()
        }
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()), lr=training.rate, betas=training.betas,
            eps=training.epsilon, weight_decay=0.0,
        )  # fmt: skip
        losses = [self.loss()]
        first = time.perf_counter() - start
        losses += [self.loss() for _ in range(training.losses - 1)]
        facts = {"first_s": first, "warm_s": first, "losses": losses, "kernels": 0}
        return {**facts, "error": training.check(losses)}

    def loss(self) -> float:
        arrays = next(self.batches)
        batch = {name: torch.from_numpy(each).to(self.device) for name, each in arrays.items()}
        self.optimizer.zero_grad()
        loss = self.training.loss(Ops(), self.weights, batch)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def step(self) -> None:
        self.loss()


def wait(device: str) -> None:
    """Wait for what a graphics card still computes."""
    if device != "cpu":
        torch.cuda.synchronize()


def graphics_card() -> str | None:
    """Return the name of the card that PyTorch can use, set to compute in f32; None without one."""
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return str(torch.cuda.get_device_name())


def describe() -> Facts:
    return {"version": torch.__version__, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    operations = {each.name: partial(Operation, each) for each in workloads.OPERATIONS}
    steps = {each.name: partial(Steps, each) for each in workloads.TRAININGS}
    serve(describe, {**operations, **steps})
