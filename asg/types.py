"""Element types and tensor types: `f32[2, 3]`."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from functools import cache
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
    F16 = "f16"
    BF16 = "bf16"
    I16 = "i16"
    U16 = "u16"
    I8 = "i8"
    U8 = "u8"

    def __str__(self) -> str:
        return self.value

    __repr__ = __str__

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of arrays that cross the interface."""
        return bfloat16() if self is DType.BF16 else _NUMPY[self]

    @property
    def is_float(self) -> bool:
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @property
    def is_signed(self) -> bool:
        """Whether it has negative numbers."""
        return self.is_float or self in (DType.I32, DType.I16, DType.I8)

    @property
    def is_narrow(self) -> bool:
        """Whether elements are packed, several to a word, and computed in a wider type."""
        return self.itemsize < WORD

    @property
    def compute(self) -> DType:
        """The type that kernels compute in: f32, i32, u32 or bool."""
        return _COMPUTE.get(self, self)

    @property
    def itemsize(self) -> int:
        """Bytes per element in a device buffer; a bool takes a whole word."""
        return _ITEMSIZE.get(self, WORD)

    @property
    def per_word(self) -> int:
        """Elements in a word of a device buffer."""
        return WORD // self.itemsize

    def holds(self, other: DType) -> bool:
        """Tell whether every number of `other` is one of this type."""
        if other is self or other is DType.BOOL:
            return True
        if self is DType.BOOL or (other.is_float and not self.is_float):
            return False
        if other.is_float:
            return self is DType.F32
        (low, high), (other_low, other_high) = _whole(self), _whole(other)
        return low <= other_low and other_high <= high


WORD = 4  # bytes

_FLOATS = (DType.F32, DType.F16, DType.BF16)
_NUMPY = {
    DType.F32: np.dtype(np.float32),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.BOOL: np.dtype(np.bool_),
    DType.F16: np.dtype(np.float16),
    DType.I16: np.dtype(np.int16),
    DType.U16: np.dtype(np.uint16),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
}
_COMPUTE = {
    DType.F16: DType.F32, DType.BF16: DType.F32,
    DType.I16: DType.I32, DType.I8: DType.I32,
    DType.U16: DType.U32, DType.U8: DType.U32,
}  # fmt: skip
_ITEMSIZE = {
    DType.F16: 2, DType.BF16: 2, DType.I16: 2, DType.U16: 2, DType.I8: 1, DType.U8: 1,
}  # fmt: skip
_WHOLE_BITS = {DType.F32: 24, DType.F16: 11, DType.BF16: 8}  # of whole numbers that are exact
_BY_NAME: dict[str, DType] = {
    "f32": DType.F32, "float32": DType.F32, "float": DType.F32,
    "i32": DType.I32, "int32": DType.I32, "int": DType.I32,
    "u32": DType.U32, "uint32": DType.U32,
    "bool": DType.BOOL,
    "f16": DType.F16, "float16": DType.F16, "half": DType.F16,
    "bf16": DType.BF16, "bfloat16": DType.BF16,
    "i16": DType.I16, "int16": DType.I16, "u16": DType.U16, "uint16": DType.U16,
    "i8": DType.I8, "int8": DType.I8, "u8": DType.U8, "uint8": DType.U8,
}  # fmt: skip


# What an output may be handed out as, beside its own type: the host's numbers of 64 bits.
INTERFACES: dict[str, np.dtype[Any]] = {
    "i64": np.dtype(np.int64), "u64": np.dtype(np.uint64), "f64": np.dtype(np.float64),
}  # fmt: skip


def check_interface(name: str, dtype: DType, interface: str) -> None:
    """Refuse to hand an output out as what can't hold it.

    Raises:
        DTypeError: `interface` is none, or has not every number of `dtype`.
    """
    if interface not in INTERFACES:
        known = ", ".join(INTERFACES)
        raise DTypeError(f"output {name!r}: an interface is one of {known}, got {interface!r}")
    fits = {"f": dtype.is_float, "i": dtype.is_integer}
    fits["u"] = dtype.is_integer and not dtype.is_signed
    if not fits[interface[0]]:
        raise DTypeError(f"output {name!r} is {dtype}, and can't be handed out as {interface}")


@cache
def bfloat16() -> np.dtype[Any]:
    """Return NumPy's dtype for bf16, which a package beside NumPy brings."""
    try:
        import ml_dtypes
    except ImportError:
        raise DTypeError("bf16 needs the package ml_dtypes; fix: pip install ml_dtypes") from None
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _whole(dtype: DType) -> tuple[int, int]:
    """Return the whole numbers that a type holds without a gap."""
    if dtype.is_float:
        return -(1 << _WHOLE_BITS[dtype]), 1 << _WHOLE_BITS[dtype]
    bits = 8 * dtype.itemsize - dtype.is_signed
    return (-(1 << bits) if dtype.is_signed else 0), (1 << bits) - 1


def is_floating(array: np.ndarray[Any, Any]) -> bool:
    """Tell whether an array holds floats; NumPy does not count bf16 among them."""
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")


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
        """Bytes in a device buffer: whole words."""
        return -(-self.size * self.dtype.itemsize // WORD) * WORD

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
