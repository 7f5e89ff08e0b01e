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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import problems
import pydawn
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


class Product:
    """x @ w, from device memory to device memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def prepare(self) -> Facts:
        start = time.perf_counter()
        self.operands = [Tensor(each).realize() for each in problems.matrices(self.size)]
        self.product = TinyJit(lambda x, w: (x @ w).realize())
        error = problems.check_product(self.size, self.product(*self.operands).numpy())
        first = time.perf_counter() - start
        # The second call captures, and the third is the first that only plays.
        self.step()
        self.step()
        problems.check_product(self.size, self.product(*self.operands).numpy())
        return {"first_s": first, "error": error, "kernels": count_dispatches(self.step)}

    def step(self) -> None:
        self.product(*self.operands)
        Device[Device.DEFAULT].synchronize()


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
    products = {f"matmul_{size}": partial(Product, size) for size in problems.SIZES}
    serve(describe, {**products, "training": Training})
