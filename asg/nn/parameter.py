"""Tensors that bring an initial value along: parameters and buffers."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from asg import tracing
from asg.errors import ShapeError
from asg.graph import Node, Value
from asg.ops.sources import convert_array
from asg.tensor import Tensor
from asg.types import Shape, TensorType, as_dtype, spec

Array = np.ndarray[Any, Any]
_serial = itertools.count(1)


class StoredTensor(Tensor):
    """A tensor whose node depends on who asks: every trace makes an input of its own for it.

    Outside a trace the input is made on first use and kept as long as a graph needs it.
    """

    __slots__ = ("__weakref__", "_data", "_node", "label")
    role = "state"

    def __init__(self, data: object) -> None:
        array = np.array(data)  # a copy: the caller may change his
        dtype = "f32" if array.dtype == np.float64 else as_dtype(array.dtype)
        self._data = convert_array(array, as_dtype(dtype))
        self._node: ReferenceType[Node] | None = None
        self.label = type(self).__name__.lower()  # a module sets the attribute's name

    @property
    def value(self) -> Value:
        """The graph value that stands for this tensor now."""
        found = tracing.resolve(self)
        if found is not None:
            return found.value
        node = self._node() if self._node is not None else None
        if node is None:
            name = tracing.provisional_name(self, next(_serial))
            node = tracing.stored_input(name, self).node
            self._node = ref(node)
        return Value(node)

    @value.setter
    def value(self, value: Value) -> None:
        raise AttributeError("a stored tensor's graph value is not set; assign .data instead")

    @property
    def data(self) -> Array:
        """The array that the tensor starts a run with."""
        return self._data

    @data.setter
    def data(self, data: object) -> None:
        array = np.array(data)
        if array.shape != self._data.shape:
            raise ShapeError(
                f"{self.label} is {self.type} and can't hold an array of shape {array.shape}"
            )
        self._data = convert_array(array, self.type.dtype)

    @property
    def type(self) -> TensorType:
        return spec(self._data.shape, self._data.dtype)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    def __asg_tensor__(self) -> Tensor:
        return Tensor(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        converted = self._data if dtype is None else self._data.astype(dtype, copy=False)
        return converted.copy() if copy else converted

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data,), (None, {"label": self.label})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label}: {self.type})"


class Parameter(StoredTensor):
    """A tensor that training changes; arrays are kept as f32 (integers and bools as they are)."""

    __slots__ = ("requires_grad",)
    role = "parameter"

    def __init__(self, data: object, requires_grad: bool = True) -> None:
        super().__init__(data)
        self.requires_grad = requires_grad

    def __reduce__(self) -> tuple[Any, ...]:
        slots = {"label": self.label, "requires_grad": self.requires_grad}
        return type(self), (self._data,), (None, slots)


class Buffer(StoredTensor):
    """A tensor that belongs to a module without being trained, such as a running statistic."""

    __slots__ = ()
    role = "state"

    def update(self, value: Tensor) -> None:
        """Let the buffer be `value` after the run that is being traced.

        Raises:
            AsgError: no trace is active.
        """
        tracing.update(self.__asg_tensor__(), value)

    def latest(self) -> Tensor:
        """Return the value that the run being traced gives the buffer so far."""
        return tracing.latest(self.__asg_tensor__())
