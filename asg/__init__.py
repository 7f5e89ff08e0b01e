"""ASG compiles model graphs to WebGPU compute shaders.

Build a graph with symbolic tensors and `asg.nn`, differentiate it with `asg.grad`, compile it
with `asg.compile`, and check it against the NumPy interpreter.

This folder holds what a computation is: types, graph, ops, index maps, text form, `nn`, `optim`,
the artefact. That is the ground; it imports NumPy and nothing of what is built on it. The roof
lives here too: this file, the compiler driver, the trainer, the comparisons with the interpreter
and the command line. It may import everything, and here does so when a name is first used. Begin
reading at `graph.py`, then `op.py`; `compiler.py` shows how the parts are called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asg import errors, functions, ops
from asg.custom import custom_gradient, define_op, register_op, wgsl_kernel
from asg.errors import AsgError
from asg.functions import *  # noqa: F403
from asg.graph import Graph
from asg.graph_file import load_graph, save_graph
from asg.open_graph import OpenGraph
from asg.open_types import spec
from asg.parse import parse_graph
from asg.site import scope
from asg.tensor import Tensor
from asg.tracing import graph, input, state, trace
from asg.types import DType, TensorType
from asg.verify import verify

if TYPE_CHECKING:
    from asg import nn, onnx, optim, testing
    from asg.compiler import compile
    from asg.data import Batches
    from asg.nn.quantized import quantize
    from asg.passes.autodiff import grad, value_and_grad
    from asg.passes.freeze import freeze
    from asg.quantization import PackedWeight, dequantize_weight, quantize_weight
    from asg.runtime.executable import load
    from asg.seed import manual_seed
    from asg.trainer import Trainer
    from asg.training import training_step

__version__ = "0.1.0"

_LAZY = {
    "compile": "asg.compiler",
    "load": "asg.runtime.executable",
    "freeze": "asg.passes.freeze",
    "grad": "asg.passes.autodiff",
    "value_and_grad": "asg.passes.autodiff",
    "training_step": "asg.training",
    "Trainer": "asg.trainer",
    "Batches": "asg.data",
    "manual_seed": "asg.seed",
    "nn": "asg.nn",
    "onnx": "asg.onnx",
    "optim": "asg.optim",
    "PackedWeight": "asg.quantization",
    "dequantize_weight": "asg.quantization",
    "quantize": "asg.nn.quantized",
    "quantize_weight": "asg.quantization",
    "testing": "asg.testing",
}
_MODULES = ("nn", "onnx", "optim", "testing")

__all__ = [
    "AsgError",
    "Batches",
    "DType",
    "Graph",
    "OpenGraph",
    "PackedWeight",
    "Tensor",
    "TensorType",
    "Trainer",
    "compile",
    "custom_gradient",
    "define_op",
    "dequantize_weight",
    "errors",
    "freeze",
    "grad",
    "graph",
    "input",
    "load",
    "load_graph",
    "manual_seed",
    "nn",
    "onnx",
    "ops",
    "optim",
    "parse_graph",
    "quantize",
    "quantize_weight",
    "register_op",
    "save_graph",
    "scope",
    "spec",
    "state",
    "testing",
    "trace",
    "training_step",
    "value_and_grad",
    "verify",
    "wgsl_kernel",
    *functions.__all__,
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'asg' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    found = module if name in _MODULES else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
