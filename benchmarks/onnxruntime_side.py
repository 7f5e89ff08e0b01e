"""ONNX Runtime's WebGPU provider, as a contestant; nothing may fall back to the CPU provider."""

from __future__ import annotations

import time
from functools import partial
from importlib.metadata import version

import numpy as np
import onnxruntime
import problems
from onnx import TensorProto, helper
from protocol import Facts, clock, serve

PROVIDER = "WebGpuExecutionProvider"


class Product:
    """x @ w, from device memory to device memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def prepare(self) -> Facts:
        start = time.perf_counter()
        shape = [self.size, self.size]
        self.session = open_session(shape, [("MatMul", "xw", "y")])
        self.wait = Waiter()
        # Only a session may allocate on this device, so the operands are copied by one.
        upload = open_session(shape, [("Identity", "x", "p"), ("Identity", "w", "q")])
        binding = upload.io_binding()
        for name, operand in zip("xw", problems.matrices(self.size), strict=True):
            binding.bind_cpu_input(name, operand)
        for name in "pq":
            binding.bind_output(name, "webgpu")
        upload.run_with_iobinding(binding)
        self.binding = self.session.io_binding()
        for name, operand in zip("xw", binding.get_outputs(), strict=True):
            self.binding.bind_ortvalue_input(name, operand)
        self.binding.bind_output("y", "webgpu")
        self.session.run_with_iobinding(self.binding)
        result = self.binding.get_outputs()[0].numpy()
        first = time.perf_counter() - start
        error = problems.check_product(self.size, result)
        waiting = min(clock(self.wait) for _ in range(5))
        return {"first_s": first, "error": error, "kernels": 1, "waiting_s": waiting}

    def step(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.wait()


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
    shape: list[int], nodes: list[tuple[str, str, str]]
) -> onnxruntime.InferenceSession:
    """Open a session of nodes (op, inputs, output), all of one shape."""
    made = [helper.make_node(op, list(inputs), [output]) for op, inputs, output in nodes]
    names = sorted({name for _, inputs, _ in nodes for name in inputs}, reverse=True)
    types = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in [*names, *(output for _, _, output in nodes)]
    }
    graph = helper.make_graph(
        made,
        "bench",
        [types[name] for name in names],
        [types[output] for _, _, output in nodes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # Idle threads of its own would only take the driver's processors.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])


def describe() -> Facts:
    if PROVIDER not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime lacks {PROVIDER}")
    return {"version": version("onnxruntime-webgpu")}


if __name__ == "__main__":
    serve(describe, {f"matmul_{size}": partial(Product, size) for size in problems.SIZES})
