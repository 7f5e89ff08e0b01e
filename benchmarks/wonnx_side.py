"""wonnx, as a contestant: an ONNX runtime on wgpu, in Rust. Its Python binding takes lists and
returns lists, so what is timed here is a run from host memory to host memory."""

from __future__ import annotations

import time
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import wonnx
import workloads
from onnx_ops import onnx_model
from protocol import Facts, serve

OPSET = 13  # it refuses later ones


class Operation:
    """Something computed once."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.workload = workload

    def prepare(self) -> Facts:
        arrays = self.workload.arrays()
        start = time.perf_counter()
        model = onnx_model(self.workload, arrays, OPSET)
        self.session = guarded(wonnx.Session.from_bytes, model.SerializeToString())
        self.given = {
            name: each.ravel().tolist()
            for name, each in arrays.items()
            if name not in self.workload.weights
        }
        (output,) = model.graph.output
        shape = [each.dim_value for each in output.type.tensor_type.shape.dim]
        answer = np.array(self.run(), np.float32).reshape(shape)
        first = time.perf_counter() - start
        return {"first_s": first, "error": self.workload.check(answer), "kernels": 0}

    def run(self) -> Any:
        return guarded(self.session.run, self.given)["y"]

    def step(self) -> None:
        self.run()


def guarded(function: Any, *arguments: Any) -> Any:
    """Call into Rust, whose panics would end the process.

    Raises:
        RuntimeError: it panicked.
    """
    try:
        return function(*arguments)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as panic:
        raise RuntimeError(f"wonnx panicked: {panic}") from panic


def describe() -> Facts:
    return {"version": version("wonnx")}


if __name__ == "__main__":
    serve(describe, {each.name: partial(Operation, each) for each in workloads.OPERATIONS})
