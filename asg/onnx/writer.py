"""ONNX nodes under construction: what an export rule writes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from asg.types import DType

Array = np.ndarray[Any, Any]

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
I32, I64 = TensorProto.INT32, TensorProto.INT64
U8, U32 = TensorProto.UINT8, TensorProto.UINT32
BOOL = TensorProto.BOOL

ELEMENT = {
    DType.F32: FLOAT, DType.I32: I32, DType.U32: U32, DType.BOOL: BOOL,
    DType.F16: TensorProto.FLOAT16, DType.BF16: TensorProto.BFLOAT16,
    DType.I16: TensorProto.INT16, DType.U16: TensorProto.UINT16,
    DType.I8: TensorProto.INT8, DType.U8: TensorProto.UINT8,
}  # fmt: skip
DOMAIN = "asg"  # of the functions that a model brings along
SIGN = 0x8000_0000


Rule = Callable[..., str | tuple[str, ...]]  # of a writer, a node and the operands' names


class Writer:
    """Nodes in order. A call writes one and returns the name of its result.

    Attributes:
        functions: bodies that the model brings along, by name.
        label: what the names of new tensors begin with.
        note: what is said of new nodes.
    """

    def __init__(self, opset: int, functions: dict[str, Any] | None = None) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.functions: dict[str, Any] = {} if functions is None else functions
        self.label = ""
        self.note = ""
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, op: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        """Write a node with one result."""
        return self.several(op, 1, *inputs, domain=domain, **attrs)[0]

    def several(
        self, op: str, count: int, *inputs: str, domain: str = "", **attrs: Any
    ) -> tuple[str, ...]:
        """Write a node with `count` results."""
        results = tuple(self._fresh(op) for _ in range(count))
        node = helper.make_node(op, inputs, results, domain=domain, **attrs)
        node.name = results[0]
        node.doc_string = self.note
        self.nodes.append(node)
        return results

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Return the name of a constant; equal ones are one."""
        value = np.asarray(array, dtype)
        key = value.dtype.name, value.shape, value.tobytes()
        if key not in self._constants:
            proto = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape))
            self._constants[key] = self("Constant", value=proto)
        return self._constants[key]

    def is_shared(self, name: str) -> bool:
        """Tell whether a tensor is a constant, which others may read."""
        return name in self._constants.values()

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a vector of i64, as sizes and axes are given."""
        return self.constant(np.array(values, np.int64))

    def cast(self, x: str, to: int) -> str:
        """Write a cast."""
        return self("Cast", x, to=to)

    def where(self, condition: str, x: str, y: str, dtype: DType) -> str:
        """Write a choice between elements; u32 go through i32."""
        if dtype is DType.BOOL:
            first = self("And", condition, x)
            return self("Or", first, self("And", self("Not", condition), y))
        if dtype is DType.U32:
            return self.cast(self("Where", condition, self.cast(x, I32), self.cast(y, I32)), U32)
        return self("Where", condition, x, y)

    def ordered(self, x: str, dtype: DType) -> str:
        """Return numbers that compare as those of `x` do, of a type that runtimes compare."""
        if dtype is DType.BOOL:
            return self.cast(x, I32)
        return self.flipped(x, I32) if dtype is DType.U32 else x

    def flipped(self, x: str, to: int) -> str:
        """Return a u32 as an i32 of the same order, or an i32 as what it came from."""
        sign = self.constant(SIGN, np.uint32)
        if to == U32:
            return self("BitwiseXor", self.cast(x, U32), sign)
        return self.cast(self("BitwiseXor", x, sign), I32)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Write a change of shape; a 0 is a size."""
        return self("Reshape", x, self.integers(shape), allowzero=1)

    def call(
        self,
        name: str,
        inputs: Sequence[str],
        count: int,
        body: Callable[..., Sequence[str]],
    ) -> tuple[str, ...]:
        """Call a function of this name, whose body is written the first time."""
        if name not in self.functions:
            inner = Writer(self.opset, self.functions)
            parameters = [f"x{place}" for place in range(len(inputs))]
            results = list(body(inner, *parameters))
            self.functions[name] = helper.make_function(
                DOMAIN, name, parameters, results, inner.nodes,
                [helper.make_opsetid("", self.opset)],
            )  # fmt: skip
        return self.several(name, count, *inputs, domain=DOMAIN)

    def _fresh(self, op: str) -> str:
        self._count += 1
        return f"{self.label}/{op}_{self._count}" if self.label else f"{op}_{self._count}"


def rename(nodes: Sequence[Any], old: str, new: str) -> bool:
    """Give a tensor another name in some nodes; tell whether one of them makes it."""
    is_made = False
    for node in nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
                    is_made = is_made or names is node.output
    return is_made


def value_info(name: str, shape: Sequence[int | str], dtype: DType) -> onnx.ValueInfoProto:
    """Return the declaration of an input or output."""
    return helper.make_tensor_value_info(name, ELEMENT[dtype], list(shape))
