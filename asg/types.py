"""Element types and tensor types: `f32[2, 3]`."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError

Shape = tuple[int, ...]


class DType(enum.Enum):
    """An element type; the value is its name in text form and in errors."""

    F32 = "f32"
    I32 = "i32"
    U32 = "u32"
    BOOL = "bool"

    def __str__(self) -> str:
        return self.value

    __repr__ = __str__

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of arrays that cross the interface."""
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        return self is DType.F32

    @property
    def is_integer(self) -> bool:
        return self in (DType.I32, DType.U32)

    @property
    def itemsize(self) -> int:
        """Bytes per element in a device buffer; a bool takes a whole word."""
        return 4


_NUMPY = {
    DType.F32: np.dtype(np.float32),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.BOOL: np.dtype(np.bool_),
}
_BY_NAME: dict[str, DType] = {
    "f32": DType.F32, "float32": DType.F32, "float": DType.F32,
    "i32": DType.I32, "int32": DType.I32, "int": DType.I32,
    "u32": DType.U32, "uint32": DType.U32,
    "bool": DType.BOOL,
}  # fmt: skip


def as_dtype(value: object) -> DType:
    """Return the `DType` named by a `DType`, a name or a NumPy dtype.

    Raises:
        DTypeError: the type has no counterpart here (64-bit types never narrow silently).
    """
    if isinstance(value, DType):
        return value
    name = value if isinstance(value, str) else None
    if name is None:
        try:
            name = np.dtype(value).name  # type: ignore[call-overload]
        except TypeError:
            raise DTypeError(f"{value!r} is not a dtype; known: {', '.join(_known())}") from None
    if name not in _BY_NAME:
        raise DTypeError(f"dtype {name} is not supported; known: {', '.join(_known())}")
    return _BY_NAME[name]


def _known() -> list[str]:
    return [dtype.value for dtype in DType]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type of a value."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in a device buffer."""
        return self.size * self.dtype.itemsize

    @property
    def rank(self) -> int:
        return len(self.shape)


def as_shape(value: object) -> Shape:
    """Return a shape as a tuple of non-negative ints.

    Raises:
        ShapeError: a size is negative or not an integer.
    """
    sizes = (value,) if isinstance(value, (int, np.integer)) else tuple(value)  # type: ignore[arg-type]
    for size in sizes:
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool):
            raise ShapeError(f"a shape holds integers, got {size!r} in {value!r}")
        if size < 0:
            raise ShapeError(f"a size can't be negative, got {size} in {tuple(sizes)}")
    return tuple(int(size) for size in sizes)


def spec(shape: object, dtype: object = "f32") -> TensorType:
    """Describe an input: `asg.spec((32, 784), "f32")`."""
    return TensorType(as_shape(shape), as_dtype(dtype))


def parse_type(text: str) -> TensorType:
    """Read `f32[2, 3]`.

    Raises:
        DTypeError, ShapeError: the text is not a tensor type.
    """
    name, bracket, rest = text.strip().partition("[")
    if not bracket or not rest.endswith("]"):
        raise ShapeError(f"{text!r} is not a tensor type; write it like f32[2, 3] or f32[]")
    sizes = [part for part in rest[:-1].split(",") if part.strip()]
    if not all(part.strip().isdigit() for part in sizes):
        raise ShapeError(f"{text!r} is not a tensor type; sizes are non-negative integers")
    return TensorType(tuple(int(part) for part in sizes), as_dtype(name.strip()))
