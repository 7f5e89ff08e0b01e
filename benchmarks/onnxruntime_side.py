"""ONNX Runtime's WebGPU provider, as a contestant; nothing may fall back to the CPU provider."""

from __future__ import annotations

import time
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime
import workloads
from onnx import TensorProto, helper
from onnx_ops import onnx_model
from protocol import Facts, clock, serve

PROVIDER = "WebGpuExecutionProvider"


class Operation:
    """Something computed once, from device memory to device memory."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.workload = workload

    def prepare(self) -> Facts:
        arrays = self.workload.arrays()
        # A user has the model in a file: it is in memory when the clock starts, weights included.
        model = onnx_model(self.workload, arrays).SerializeToString()
        start = time.perf_counter()
        self.session = session_of(model)
        self.wait = Waiter()
        self.binding = self.session.io_binding()
        for name, array in arrays.items():
            if name not in self.workload.weights:
                self.binding.bind_ortvalue_input(name, on_device(array))
        self.binding.bind_output("y", "webgpu")
        self.session.run_with_iobinding(self.binding)
        result = self.binding.get_outputs()[0].numpy()
        first = time.perf_counter() - start
        error = self.workload.check(result)
        waiting = min(clock(self.wait) for _ in range(5))
        return {"first_s": first, "error": error, "kernels": 0, "waiting_s": waiting}

    def step(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.wait()


def on_device(array: np.ndarray[Any, Any]) -> Any:
    """Return an array in device memory, which only a session may allocate."""
    kind = TensorProto.FLOAT if array.dtype.kind == "f" else TensorProto.INT32
    upload = open_session(list(array.shape), [("Identity", "x", "y")], kind)
    binding = upload.io_binding()
    binding.bind_cpu_input("x", array)
    binding.bind_output("y", "webgpu")
    upload.run_with_iobinding(binding)
    return binding.get_outputs()[0]


class Waiter:
    """Waits until the queue is empty, by reading four bytes from a session that comes last.

    `IOBinding.synchronize_outputs` does not wait: it returns while kernels still run.
    """

    def __init__(self) -> None:
        self.session = open_session([1], [("Neg", "x", "y")])
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("x", np.zeros(1, np.float32))
        self.binding.bind_output("y", "webgpu")

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.get_outputs()[0].numpy()


def open_session(
    shape: list[int], nodes: list[tuple[str, str, str]], kind: int = TensorProto.FLOAT
) -> onnxruntime.InferenceSession:
    """Open a session of nodes (op, inputs, output), all of one shape."""
    made = [helper.make_node(op, list(inputs), [output]) for op, inputs, output in nodes]
    names = sorted({name for _, inputs, _ in nodes for name in inputs}, reverse=True)
    types = {
        name: helper.make_tensor_value_info(name, kind, shape)
        for name in [*names, *(output for _, _, output in nodes)]
    }
    graph = helper.make_graph(
        made,
        "bench",
        [types[name] for name in names],
        [types[output] for _, _, output in nodes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return session_of(model.SerializeToString())


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """Open a session that uses the WebGPU provider only."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # Idle threads of its own would only take the driver's processors.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=[PROVIDER])


def describe() -> Facts:
    if PROVIDER not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime lacks {PROVIDER}")
    return {"version": version("onnxruntime-webgpu")}


if __name__ == "__main__":
    serve(describe, {each.name: partial(Operation, each) for each in workloads.OPERATIONS})
