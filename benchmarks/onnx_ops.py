"""`models.Ops` that write an ONNX graph: what a contestant can run that reads such files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import workloads
from onnx import ModelProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
OPSET = 20


class OnnxTensor:
    """A name in the graph under construction, with its shape."""

    def __init__(self, ops: OnnxOps, name: str, shape: Sequence[int]) -> None:
        self.ops, self.name, self.shape = ops, name, tuple(shape)

    def _with(self, op: str, other: OnnxTensor | float) -> OnnxTensor:
        right = other if isinstance(other, OnnxTensor) else self.ops.constant(np.float32(other))
        return self.ops.add(op, [self, right], np.broadcast_shapes(self.shape, right.shape))

    def __add__(self, other: OnnxTensor | float) -> OnnxTensor:
        return self._with("Add", other)

    def __mul__(self, other: OnnxTensor | float) -> OnnxTensor:
        return self._with("Mul", other)

    def __getitem__(self, key: int | slice) -> OnnxTensor:
        """Of the first axis."""
        if isinstance(key, int):
            index = self.ops.constant(np.int64(key))
            return self.ops.add("Gather", [self, index], self.shape[1:], axis=0)
        bounds = [self.ops.constant(np.array([each])) for each in (0, key.stop, 0)]
        return self.ops.add("Slice", [self, *bounds], (key.stop, *self.shape[1:]))


class OnnxOps:
    """Collects nodes and initializers."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def add(
        self, op: str, inputs: Sequence[OnnxTensor], shape: Sequence[int], **attrs: Any
    ) -> OnnxTensor:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [each.name for each in inputs], [name], **attrs))
        return OnnxTensor(self, name, shape)

    def constant(self, array: Any, name: str | None = None) -> OnnxTensor:
        array = np.asarray(array)
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return OnnxTensor(self, name, array.shape)

    def matmul(self, x: OnnxTensor, y: OnnxTensor) -> OnnxTensor:
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return self.add("MatMul", [x, y], (*lead, x.shape[-2], y.shape[-1]))

    def transpose(self, x: OnnxTensor, axes: Sequence[int]) -> OnnxTensor:
        return self.add("Transpose", [x], [x.shape[axis] for axis in axes], perm=list(axes))

    def reshape(self, x: OnnxTensor, shape: Sequence[int]) -> OnnxTensor:
        return self.add("Reshape", [x, self.constant(np.array(shape, np.int64))], shape)

    def relu(self, x: OnnxTensor) -> OnnxTensor:
        return self.add("Relu", [x], x.shape)

    def clip6(self, x: OnnxTensor) -> OnnxTensor:
        limits = [self.constant(np.float32(each)) for each in (0.0, 6.0)]
        return self.add("Clip", [x, *limits], x.shape)

    def gelu(self, x: OnnxTensor, is_fast: bool) -> OnnxTensor:
        return self.add("Gelu", [x], x.shape, approximate="tanh" if is_fast else "none")

    def softmax(self, x: OnnxTensor) -> OnnxTensor:
        return self.add("Softmax", [x], x.shape, axis=-1)

    def layer_norm(self, x: OnnxTensor, w: OnnxTensor, b: OnnxTensor) -> OnnxTensor:
        return self.add("LayerNormalization", [x, w, b], x.shape, axis=-1, epsilon=1e-5)

    def sum(self, x: OnnxTensor, axes: Sequence[int]) -> OnnxTensor:
        shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
        where = self.constant(np.array(axes, np.int64))
        return self.add("ReduceSum", [x, where], shape, keepdims=0)

    def attention(self, q: OnnxTensor, k: OnnxTensor, v: OnnxTensor) -> OnnxTensor:
        """Spelt out; the provider has no causal attention for plain ONNX."""
        mask = np.triu(np.full((q.shape[-2], k.shape[-2]), -1e30, np.float32), 1)
        scores = self.matmul(q, self.transpose(k, (0, 1, 3, 2))) * (1.0 / math.sqrt(q.shape[-1]))
        return self.matmul(self.softmax(scores + self.constant(mask)), v)

    def embedding(self, table: OnnxTensor, index: OnnxTensor) -> OnnxTensor:
        return self.add("Gather", [table, index], (*index.shape, *table.shape[1:]), axis=0)

    def conv(
        self, x: OnnxTensor, w: OnnxTensor, stride: int, padding: int, groups: int
    ) -> OnnxTensor:
        size = [(each + 2 * padding - w.shape[2]) // stride + 1 for each in x.shape[2:]]
        return self.add(
            "Conv", [x, w], (x.shape[0], w.shape[0], *size),
            strides=[stride] * 2, pads=[padding] * 4, group=groups,
        )  # fmt: skip

    def max_pool(self, x: OnnxTensor) -> OnnxTensor:
        shape = (*x.shape[:2], *((each + 1) // 2 for each in x.shape[2:]))
        return self.add("MaxPool", [x], shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def cross_entropy(self, logits: OnnxTensor, labels: OnnxTensor) -> OnnxTensor:
        raise NotImplementedError("ONNX files are run, not trained")


def onnx_model(
    workload: workloads.Workload, arrays: Mapping[str, Array], opset: int = OPSET
) -> ModelProto:
    """Return a workload as a model; its result is `y`, its weights are initializers."""
    ops = OnnxOps()
    tensors = {
        name: ops.constant(each, name) if name in workload.weights
        else OnnxTensor(ops, name, each.shape)
        for name, each in arrays.items()
    }  # fmt: skip
    result = workload.run(ops, tensors)
    for node in ops.nodes:
        for names in (node.input, node.output):
            names[:] = ["y" if name == result.name else name for name in names]
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT32}
    inputs = [
        helper.make_tensor_value_info(name, kinds[each.dtype.kind], each.shape)
        for name, each in arrays.items()
        if name not in workload.weights
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, result.shape)
    graph = helper.make_graph(ops.nodes, workload.name, inputs, [output], ops.initializers)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
