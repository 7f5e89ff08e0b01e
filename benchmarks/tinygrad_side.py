"""tinygrad on Dawn, as a contestant: a captured `TinyJit`, tinygrad's defaults otherwise.

With `BEAM=2` in the environment it searches for better kernels. Its fused optimizer
(`FUSE_OPTIM=1`) saves a few kernels and takes longer, so it is not used.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import problems
import pydawn
import workloads
from protocol import Facts, serve

# dawn-python brings the library under a name that tinygrad doesn't look for.
_MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower())
_LIBRARY = f"libwebgpu_dawn_{_MACHINE or platform.machine().lower()}.so"
if sys.platform == "linux":
    os.environ.setdefault("WEBGPU_PATH", str(Path(pydawn.__file__).parent / "lib" / _LIBRARY))
    os.environ.setdefault("WEBGPU_BACKEND", "WGPUBackendType_Vulkan")
os.environ["DEV"] = "WEBGPU"

# It reads the environment when it is imported.
from tinygrad import Context, Device, Tensor, TinyJit  # noqa: E402
from tinygrad.nn import Embedding  # noqa: E402
from tinygrad.nn.optim import AdamW  # noqa: E402
from tinygrad.runtime.autogen import webgpu  # noqa: E402

Weights = dict[str, Tensor]

_dispatched = itertools.count()
_dispatch = webgpu.wgpuComputePassEncoderDispatchWorkgroups


def _counted_dispatch(*arguments: Any) -> Any:
    next(_dispatched)
    return _dispatch(*arguments)


webgpu.wgpuComputePassEncoderDispatchWorkgroups = _counted_dispatch


class Ops:
    """`models.Ops` for tinygrad's tensors."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(*axes)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(*shape)

    def relu(self, x: Tensor) -> Tensor:
        return x.relu()

    def clip6(self, x: Tensor) -> Tensor:
        return x.clip(0.0, 6.0)

    def gelu(self, x: Tensor, is_fast: bool) -> Tensor:
        return x.gelu() if is_fast else gelu(x)

    def softmax(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def layer_norm(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return x.layernorm(eps=1e-5) * w + b

    def sum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.sum(tuple(axes))

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q.scaled_dot_product_attention(k, v, is_causal=True)

    def embedding(self, table: Tensor, index: Tensor) -> Tensor:
        embedding = Embedding(*table.shape)
        embedding.weight = table
        return embedding(index)

    def conv(self, x: Tensor, w: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        return x.conv2d(w, None, groups, stride, 1, padding)

    def max_pool(self, x: Tensor) -> Tensor:
        return x.max_pool2d((3, 3), 2, 1, 1)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.sparse_categorical_crossentropy(labels)


class Operation:
    """Something computed once, from device memory to device memory."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.workload = workload

    def prepare(self) -> Facts:
        arrays = self.workload.arrays()
        start = time.perf_counter()
        self.tensors = {name: Tensor(each).realize() for name, each in arrays.items()}
        names = list(self.tensors)
        # A result that is only a view would not be computed at all.
        self.jitted = TinyJit(
            lambda *given: (
                self.workload.run(Ops(), dict(zip(names, given, strict=True)))
                .contiguous()
                .realize()
            )
        )
        answer = self.run().numpy()
        first = time.perf_counter() - start
        error = self.workload.check(answer)
        # The second call captures, and the third is the first that only plays.
        self.step()
        self.step()
        self.workload.check(self.run().numpy())
        return {"first_s": first, "error": error, "kernels": count_dispatches(self.step)}

    def run(self) -> Tensor:
        return self.jitted(*self.tensors.values())

    def step(self) -> None:
        self.run()
        Device[Device.DEFAULT].synchronize()


class Steps:
    """Training steps, each from a batch in host memory to its loss in host memory."""

    def __init__(self, training: workloads.Training) -> None:
        self.training = training

    def prepare(self) -> Facts:
        training = self.training
        arrays, self.batches = training.weights(), training.batches()
        start = time.perf_counter()
        self.weights = {name: Tensor(x).realize().is_param_(True) for name, x in arrays.items()}
        self.optimizer = AdamW(
            list(self.weights.values()), lr=training.rate, b1=training.betas[0],
            b2=training.betas[1], eps=training.epsilon, weight_decay=0.0,
        )  # fmt: skip
        self.jitted = TinyJit(self.update)
        losses = [self.loss()]
        first = time.perf_counter() - start
        losses.append(self.loss())
        warm = time.perf_counter() - start
        losses += [self.loss() for _ in range(training.losses - 2)]
        error = training.check(losses)
        facts = {"first_s": first, "warm_s": warm, "losses": losses, "error": error}
        return {**facts, "kernels": count_dispatches(self.step)}

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.training.loss(Ops(), self.weights, {"x": x, "y": y})
        loss.backward()
        return loss.realize(*self.optimizer.schedule_step())

    def loss(self) -> float:
        batch = next(self.batches)
        x, y = (Tensor(batch[name]).realize() for name in "xy")
        with Context(TRAINING=1):
            return float(self.jitted(x, y).item())

    def step(self) -> None:
        self.loss()


class Training:
    """A step from a batch in host memory to its loss in host memory."""

    def prepare(self) -> Facts:
        start = time.perf_counter()
        weights = problems.initial_weights()
        self.weights = {
            name: Tensor(array).realize().is_param_(True) for name, array in weights.items()
        }
        self.optimizer = AdamW(
            list(self.weights.values()),
            lr=problems.RATE,
            b1=problems.BETAS[0],
            b2=problems.BETAS[1],
            eps=problems.EPSILON,
            weight_decay=problems.DECAY,
        )
        self.jitted = TinyJit(self.update)
        self.batches = problems.batches()
        losses = [self.loss()]
        first = time.perf_counter() - start
        losses.append(self.loss())
        warm = time.perf_counter() - start
        losses += [self.loss() for _ in range(problems.LOSSES - 2)]
        kernels = count_dispatches(self.step)
        return {"first_s": first, "warm_s": warm, "losses": losses, "kernels": kernels}

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = logits_of(self.weights, x).sparse_categorical_crossentropy(y)
        loss.backward()
        clip_norm(self.optimizer.params, problems.CLIP)
        return loss.realize(*self.optimizer.schedule_step())

    def loss(self) -> float:
        x, y = (Tensor(array).realize() for array in next(self.batches))
        with Context(TRAINING=1):
            return float(self.jitted(x, y).item())

    def step(self) -> None:
        self.loss()


def clip_norm(params: list[Tensor], limit: float) -> None:
    """Scale the gradients as PyTorch's `clip_grad_norm_`."""
    for each in params:
        # Otherwise they are computed twice, for the norm and for the update: five times slower.
        each.grad = each.grad.contiguous()
    total = sum((each.grad.square().sum() for each in params), Tensor(0.0))
    factor = (limit / (total.sqrt() + 1e-6)).minimum(1.0).contiguous()
    for each in params:
        each.grad = each.grad * factor


def logits_of(weights: Weights, index: Tensor) -> Tensor:
    """The model of examples/char_gpt.py, without dropout."""
    embedding = Embedding(problems.VOCABULARY, problems.WIDTH)
    embedding.weight = weights["tokens.weight"]
    x = embedding(index) + weights["positions.weight"]
    for layer in range(problems.LAYERS):
        block = f"blocks.{layer}"
        x = x + attention(weights, f"{block}.attn", norm(weights, f"{block}.norm1", x))
        hidden = linear(weights, f"{block}.mlp.fc1", norm(weights, f"{block}.norm2", x))
        x = x + linear(weights, f"{block}.mlp.fc2", gelu(hidden))
    return norm(weights, "norm", x).linear(weights["head.weight"].transpose())


def attention(weights: Weights, name: str, x: Tensor) -> Tensor:
    shape = (*x.shape[:2], 3, problems.HEADS, problems.WIDTH // problems.HEADS)
    weight, bias = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
    parts = x.linear(weight.transpose(), bias).reshape(shape).permute(2, 0, 3, 1, 4)
    attended = parts[0].scaled_dot_product_attention(parts[1], parts[2], is_causal=True)
    return linear(weights, f"{name}.out_proj", attended.transpose(1, 2).reshape(x.shape))


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x.linear(weights[f"{name}.weight"].transpose(), weights[f"{name}.bias"])


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x.layernorm(eps=1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    """By erf; tinygrad's own goes by tanh."""
    return 0.5 * x * (1.0 + (x / math.sqrt(2.0)).erf())


def count_dispatches(function: Any) -> int:
    before = next(_dispatched)
    function()
    return next(_dispatched) - before - 1


def describe() -> Facts:
    handle = Device[Device.DEFAULT].device_res
    info = webgpu.WGPUAdapterInfo()
    webgpu.wgpuAdapterGetInfo(webgpu.wgpuDeviceGetAdapter(handle), info)
    texts = [
        bytes(np.ctypeslib.as_array(each.data, (each.length,)).view(np.uint8)).decode()
        for each in (info.device, info.description)
        if each.length
    ]
    return {
        "version": version("tinygrad"),
        "dawn": version("dawn-python"),
        "device": ", ".join(texts),
        "beam": os.environ.get("BEAM", "0"),
    }


if __name__ == "__main__":
    operations = {each.name: partial(Operation, each) for each in workloads.OPERATIONS}
    steps = {each.name: partial(Steps, each) for each in workloads.TRAININGS}
    serve(describe, {**operations, **steps, "training": Training})
