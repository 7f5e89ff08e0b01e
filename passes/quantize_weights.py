"""Replace the weight matrices of a graph, an imported one say, by weights of a few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Contraction
from asg.ops.linear import swap_last
from asg.ops.movement import permute
from asg.ops.quantized import dequantize
from asg.ops.sources import input
from asg.quantization import PackedWeight, check_options, quantize_weight
from asg.tensor import Tensor, build
from asg.types import DType, TensorType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class QuantizeWeights:
    """Let each matrix that only products read, as their right operand, be `dequantize` of words,
    scales and, unless `symmetric`, zero points: state named `w.words`, `w.scales`, `w.zeros`.

    Rounding is that of `asg.quantize_weight`, with groups along the axis that products sum over.
    A matrix stays as it is where it is updated, a result, smaller than `least` elements, or read
    by anything else. Comes before differentiation and before other passes.
    """

    bits: int = 4
    group_size: int | None = 64
    symmetric: bool = True
    least: int = 4096

    def __post_init__(self) -> None:
        check_options(self.bits, 1 if self.group_size is None else self.group_size)

    def __call__(self, graph: Graph) -> Graph:
        chosen = self._chosen(graph)
        if not chosen:
            return graph
        values = dict(graph.values)
        stands_for: dict[Value, Value] = {}  # the words of a weight -> what they stand for

        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if node in chosen:
                words, weight = self._packed(node, chosen[node], values)
                stands_for[words] = weight
                return (words,)
            changed = [stands_for.get(value, value) for value in inputs]
            if changed == list(inputs):
                return None
            found = build(node.op, changed, node.attrs)
            return tuple(each.value for each in (found if isinstance(found, tuple) else (found,)))

        return rewrite(graph, change).with_values(values)

    def _chosen(self, graph: Graph) -> dict[Node, bool]:
        """Return the parameters to quantise, and whether products read them transposed."""
        found: dict[Node, bool] = {}
        for name in graph.input_names("parameter"):
            node = graph.input(name)
            is_matrix = node.type.rank == 2 and node.type.dtype is DType.F32
            if not is_matrix or node.type.size < self.least or name in graph.updates:
                continue
            turned = _ways_of_reading(graph, Value(node))
            if len(turned) == 1 and None not in turned and name in graph.values:
                found[node] = bool(turned.pop())
        return found

    def _packed(self, node: Node, is_turned: bool, values: dict[str, Array]) -> tuple[Value, Value]:
        """Make the inputs of a weight; return its words, and what they stand for."""
        name = node.attrs["name"]
        array = values.pop(name)
        packed = quantize_weight(
            array if is_turned else array.T, self.bits, self.group_size, self.symmetric
        )
        operands = [
            _state(f"{name}.{part}", each, values) for part, each in _arrays(packed).items()
        ]
        weight: Tensor = dequantize(
            *operands, bits=packed.bits, rows=packed.shape[1], group_size=packed.group_size
        )
        return operands[0].value, (swap_last(weight) if is_turned else weight).value


def _arrays(packed: PackedWeight) -> dict[str, Array]:
    arrays = {"words": packed.words, "scales": packed.scales}
    return arrays if packed.zeros is None else {**arrays, "zeros": packed.zeros}


def _state(name: str, array: Array, values: dict[str, Array]) -> Tensor:
    values[name] = array
    dtype = DType.U32 if array.dtype == np.uint32 else DType.F32
    result: Tensor = input(name, TensorType(array.shape, dtype), role="state")
    return result


def _ways_of_reading(graph: Graph, weight: Value) -> set[bool | None]:
    """Return how products read a matrix, transposed or not; None among them for anything else."""
    found: set[bool | None] = set()
    pending = [(weight, False)]
    while pending:
        value, is_turned = pending.pop()
        if value in graph.results:
            found.add(None)
        for user in graph.users.get(value, ()):
            if user.op is permute and user.attrs["axes"] == (1, 0):
                pending.append((Value(user), not is_turned))
            elif isinstance(user.op.kind, Contraction) and user.inputs[0] != value:
                found.add(is_turned)
            else:
                found.add(None)
    return found
