"""ASG, as a contestant."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import problems
import workloads
from protocol import Facts, serve

import asg
from asg import functions, nn, optim
from asg.nn import functional
from asg.ops.convolution import convolution
from asg.ops.windows import windows
from asg.tensor import Tensor

# The model is the example's own.
sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from char_gpt import CharGpt, loss_of

asg.compile  # noqa: B018 (the compiler is imported when it is first named)


class Ops:
    """`models.Ops` for ASG's tensors."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(*axes)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(*shape) if shape else x.reshape(())

    def relu(self, x: Tensor) -> Tensor:
        return functions.relu(x)

    def clip6(self, x: Tensor) -> Tensor:
        return functions.clip(x, 0.0, 6.0)

    def gelu(self, x: Tensor, is_fast: bool) -> Tensor:
        return functions.gelu(x, approximate="tanh" if is_fast else "none")

    def softmax(self, x: Tensor) -> Tensor:
        return functions.softmax(x, axis=-1)

    def layer_norm(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], w, b, 1e-5)

    def sum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return functions.sum(x, axis=tuple(axes))

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def embedding(self, table: Tensor, index: Tensor) -> Tensor:
        return functional.embedding(index, table)

    def conv(self, x: Tensor, w: Tensor, stride: int, padding: int, groups: int) -> Tensor:
        around = ((padding, padding), (padding, padding))
        found: Tensor = convolution(
            x, w, strides=(stride, stride), padding=around, dilation=(1, 1),
            lhs_dilation=(1, 1), groups=groups,
        )  # fmt: skip
        return found

    def max_pool(self, x: Tensor) -> Tensor:
        padded = functions.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        covered = windows(padded, sizes=(3, 3), strides=(2, 2), dilation=(1, 1))
        return functions.max(covered, axis=(-2, -1))

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels)


class Operation:
    """Something computed once, from device memory to device memory."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.workload = workload

    def prepare(self) -> Facts:
        arrays = self.workload.arrays()
        start = time.perf_counter()
        roles = {name: "parameter" if name in self.workload.weights else "input" for name in arrays}
        tensors = {
            name: asg.input(name, each.shape, str(each.dtype), role=roles[name])
            for name, each in arrays.items()
        }
        graph = asg.graph(outputs={"y": self.workload.run(Ops(), tensors)})
        kept = {name: each for name, each in arrays.items() if roles[name] == "parameter"}
        given = {name: each for name, each in arrays.items() if roles[name] == "input"}
        # Weights are constants, as they are for ONNX Runtime.
        frozen = asg.freeze(graph.with_values(kept))
        self.exe: Any = asg.compile(frozen, numerics=self.workload.numerics)
        self.given = self.exe.to_device(given)
        answer = np.asarray(self.exe(self.given, device_outputs=True)["y"])
        first = time.perf_counter() - start
        error = self.workload.check(answer)
        return {"first_s": first, "error": error, "kernels": kernels(self.exe)}

    def step(self) -> None:
        self.exe(self.given, device_outputs=True)
        self.exe.sync()


class Weights(nn.Module):
    """Parameters by name, for models that are functions."""

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in arrays}
        for name, array in arrays.items():
            setattr(self, f"w_{self.names[name]}", nn.Parameter(array))

    def by_name(self) -> dict[str, Tensor]:
        return {name: getattr(self, f"w_{each}") for name, each in self.names.items()}


class Steps:
    """Training steps, each from a batch in host memory to its loss in host memory."""

    def __init__(self, training: workloads.Training) -> None:
        self.training = training

    def graph(self, weights: Mapping[str, np.ndarray[Any, Any]] | None = None) -> asg.Graph:
        """Return the whole step, beginning with the weights that all contestants have."""
        training, first_batch = self.training, next(self.training.batches())
        weights = weights if weights is not None else training.weights()

        def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
            return asg.reshape(training.loss(Ops(), model.by_name(), batch), ())

        optimizer = optim.AdamW(
            lr=training.rate, betas=training.betas, eps=training.epsilon, weight_decay=0.0
        )
        specs = {name: asg.spec(x.shape, str(x.dtype)) for name, x in first_batch.items()}
        return asg.training_step(Weights(weights), loss, optimizer, **specs)

    def prepare(self, **options: Any) -> Facts:
        """Compile, with `options` of `asg.compile`, and make the first steps."""
        training = self.training
        weights, self.batches = training.weights(), training.batches()
        start = time.perf_counter()
        self.exe: Any = asg.compile(self.graph(weights), **options)
        losses = [self.loss()]
        first = time.perf_counter() - start
        losses += [self.loss() for _ in range(training.losses - 1)]
        error = training.check(losses)
        facts = {"first_s": first, "warm_s": first, "losses": losses, "error": error}
        return {**facts, "kernels": kernels(self.exe)}

    def loss(self) -> float:
        return float(self.exe(next(self.batches), outputs=["loss"])["loss"])

    def step(self) -> None:
        self.loss()


class Training:
    """A step from a batch in host memory to its loss in host memory."""

    def prepare(self) -> Facts:
        start = time.perf_counter()
        model = CharGpt(
            problems.VOCABULARY,
            problems.WIDTH,
            problems.LAYERS,
            problems.HEADS,
            problems.CONTEXT,
            dropout=0.0,
        )
        model.load_state_dict(problems.initial_weights())
        optimizer = optim.AdamW(
            lr=problems.RATE,
            betas=problems.BETAS,
            eps=problems.EPSILON,
            weight_decay=problems.DECAY,
            clip_norm=problems.CLIP,
        )
        window = asg.spec((problems.BATCH, problems.CONTEXT), "i32")
        self.exe: Any = asg.compile(
            asg.training_step(model, loss_of, optimizer, x=window, y=window)
        )
        self.batches = problems.batches()
        losses = [self.loss()]
        first = time.perf_counter() - start
        losses += [self.loss() for _ in range(problems.LOSSES - 1)]
        report = self.exe.report()
        return {
            "first_s": first,
            "warm_s": first,
            "losses": losses,
            "kernels": kernels(self.exe),
            "flops": report["graph_flops"],
            "bytes": report["bytes_lower_bound"],
            "parameters": sum(parameter.size for parameter in model.parameters()),
        }

    def loss(self) -> float:
        x, y = next(self.batches)
        return float(self.exe({"x": x, "y": y}, outputs=["loss"])["loss"])

    def step(self) -> None:
        self.loss()


def kernels(exe: Any) -> int:
    """Dispatches of a run, copies between buffers among them."""
    report = exe.report()
    return int(report["dispatch_count"] + report["copies"])


def describe() -> Facts:
    probe: Any = asg.compile(asg.graph(outputs={"y": asg.input("x", (1,)) + 1.0}))
    with probe:
        return {"version": asg.__version__, "device": probe.device.description}


if __name__ == "__main__":
    operations = {each.name: partial(Operation, each) for each in workloads.OPERATIONS}
    steps = {each.name: partial(Steps, each) for each in workloads.TRAININGS}
    serve(describe, {**operations, **steps, "training": Training})
