"""Types in which some sizes are names, which stand for sizes that are open: `f32[batch, 784]`."""

from __future__ import annotations

from dataclasses import dataclass

from asg import types
from asg.errors import ShapeError
from asg.types import DType, TensorType, as_dtype, as_shape

Size = int | str


@dataclass(frozen=True, slots=True)
class OpenType:
    """Sizes, of which some are names, and element type of an input."""

    sizes: tuple[Size, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.sizes))}]"

    __repr__ = __str__


def spec(shape: object, dtype: object = "f32") -> TensorType | OpenType:
    """Describe an input: `asg.spec((32, 784), "f32")`; a name stands for an open size.

    Raises:
        ShapeError, DTypeError: a size is neither a number nor a name, or there is no such type.
    """
    if isinstance(shape, (tuple, list)) and any(isinstance(size, str) for size in shape):
        return OpenType(tuple(map(_size, shape)), as_dtype(dtype))
    return types.spec(shape, dtype)


def parse_type(text: str) -> TensorType | OpenType:
    """Read `f32[2, 3]` or `f32[batch, 3]`.

    Raises:
        DTypeError, ShapeError: the text is not a tensor type.
    """
    name, _, rest = text.strip().partition("[")
    sizes = [part.strip() for part in rest.removesuffix("]").split(",")]
    if not rest.endswith("]") or not any(size.isidentifier() for size in sizes):
        return types.parse_type(text)
    numbers = [int(size) if size.isdigit() else size for size in sizes]
    return OpenType(tuple(map(_size, numbers)), as_dtype(name.strip()))


def _size(size: object) -> Size:
    if not isinstance(size, str):
        return as_shape((size,))[0]
    if not size.isidentifier():
        raise ShapeError(f"an open size is a name such as 'batch', got {size!r}")
    return size
