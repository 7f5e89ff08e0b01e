"""ASG, as a contestant."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import problems
from protocol import Facts, serve

import asg
from asg import optim

# The model is the example's own.
sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from char_gpt import CharGpt, loss_of


class Product:
    """x @ w, from device memory to device memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def prepare(self) -> Facts:
        start = time.perf_counter()
        x, w = (asg.input(name, (self.size, self.size)) for name in "xw")
        self.exe: Any = asg.compile(asg.graph(outputs={"y": x @ w}))
        operands = dict(zip("xw", problems.matrices(self.size), strict=True))
        self.operands = self.exe.to_device(operands)
        result = np.asarray(self.exe(self.operands, device_outputs=True)["y"])
        first = time.perf_counter() - start
        error = problems.check_product(self.size, result)
        return {"first_s": first, "error": error, "kernels": kernels(self.exe)}

    def step(self) -> None:
        self.exe(self.operands, device_outputs=True)
        self.exe.sync()


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
    products = {f"matmul_{size}": partial(Product, size) for size in problems.SIZES}
    serve(describe, {**products, "training": Training})
