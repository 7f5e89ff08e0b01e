"""Symbolic tensors: a value of a graph with NumPy's operators.

`apply` is the one place where nodes are born from user code: operands are converted, promoted
and broadcast, the op's type rule runs, and a mistake stops here with the user's own line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from asg.errors import AsgError, DTypeError, ShapeError
from asg.graph import Attrs, Node, Value
from asg.site import current_scope, current_site
from asg.types import DType, Shape, TensorType

if TYPE_CHECKING:
    from asg.op import Op

_operators: dict[str, Callable[..., Any]] = {}


def bind_operators(table: dict[str, Callable[..., Any]]) -> None:
    """Give tensors their operators; called once, when the op table exists."""
    _operators.update(table)


@runtime_checkable
class TensorLike(Protocol):
    """Something that stands for a tensor while a function is traced, such as a parameter."""

    def __asg_tensor__(self) -> Tensor: ...


class Tensor:
    """A symbolic value. Arithmetic builds graph nodes; nothing is computed."""

    __slots__ = ("value",)
    __array_priority__ = 1000  # NumPy arrays on the left defer to these operators
    __array_ufunc__ = None

    def __init__(self, value: Value) -> None:
        self.value = value

    @property
    def node(self) -> Node:
        return self.value.node

    @property
    def attrs(self) -> Attrs:
        """Attributes of the node that makes this value."""
        return self.value.node.attrs

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> Shape:
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        result: Tensor = self.permute(*reversed(range(self.ndim)))
        return result

    def __repr__(self) -> str:
        return f"Tensor({self.type} from {self.node.op.name})"

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a tensor without axes has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        raise AsgError(
            f"a symbolic {self.type} has no truth value while the graph is built; "
            f"use asg.where (at {current_site()})"
        )

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        """Functions that take a tensor first are methods too: `x.sum(axis=0)`."""
        if name.startswith("_") or name not in _operators:
            raise AttributeError(f"a tensor has no attribute {name!r}")
        function = _operators[name]
        return lambda *args, **kwargs: function(self, *args, **kwargs)

    def __getitem__(self, index: Any) -> Tensor:
        return _call("getitem", self, index)

    def __add__(self, other: Any) -> Tensor:
        return _call("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _call("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _call("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _call("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _call("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _call("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _call("true_divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _call("true_divide", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return _call("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _call("floor_divide", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return _call("remainder", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return _call("remainder", other, self)

    def __pow__(self, other: Any) -> Tensor:
        return _call("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _call("pow", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _call("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _call("matmul", other, self)

    def __neg__(self) -> Tensor:
        return _call("neg", self)

    def __abs__(self) -> Tensor:
        return _call("abs", self)

    def __invert__(self) -> Tensor:
        return _call("invert", self)

    def __and__(self, other: Any) -> Tensor:
        return _call("bitwise_and", self, other)

    def __rand__(self, other: Any) -> Tensor:
        return _call("bitwise_and", other, self)

    def __or__(self, other: Any) -> Tensor:
        return _call("bitwise_or", self, other)

    def __ror__(self, other: Any) -> Tensor:
        return _call("bitwise_or", other, self)

    def __xor__(self, other: Any) -> Tensor:
        return _call("bitwise_xor", self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return _call("bitwise_xor", other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return _call("shift_left", self, other)

    def __rshift__(self, other: Any) -> Tensor:
        return _call("shift_right", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _call("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _call("less_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _call("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _call("greater_equal", self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _call("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _call("not_equal", self, other)

    __hash__ = object.__hash__


def _call(name: str, *args: Any, **kwargs: Any) -> Tensor:
    result: Tensor = _operators[name](*args, **kwargs)
    return result


def as_tensor(value: Any, dtype: DType | None = None) -> Tensor:
    """Return `value` as a tensor: tensors as they are, numbers and arrays as constants.

    With a `dtype`, constants have it, and tensors are cast where that loses nothing.

    Raises:
        DTypeError: a tensor's dtype has numbers that `dtype` has not.
    """
    if isinstance(value, (Tensor, TensorLike)):
        tensor = value if isinstance(value, Tensor) else value.__asg_tensor__()
        if dtype is None or tensor.dtype is dtype:
            return tensor
        if not dtype.holds(tensor.dtype):
            raise DTypeError(
                f"{dtype} is needed, got {tensor!r}\n  fix: asg.cast(…, {str(dtype)!r})"
            )
        cast: Tensor = _call("cast", tensor, dtype)
        return cast
    return _call("constant", value, dtype=dtype)


def apply(op: Op, args: Sequence[Any], attrs: Attrs) -> Any:
    """Build a node of `op` and return its result (a tuple where there are several).

    Elementwise operands are promoted and broadcast as NumPy does, numbers taking the dtype of
    the tensors beside them.

    Raises:
        ShapeError, DTypeError: the op's rule refuses the operands.
    """
    operands = _convert(op, args)
    if op.broadcasts:
        operands = _broadcast(op, operands)
    return build(op, [tensor.value for tensor in operands], attrs)


def build(op: Op, inputs: Sequence[Value], attrs: Attrs) -> Any:
    """Build a node of `op` on values that already fit."""
    types = infer(op, inputs, attrs)
    node = Node(op, tuple(inputs), dict(attrs), types)
    results = tuple(Tensor(value) for value in node.values)
    return results[0] if len(results) == 1 else results


def infer(op: Op, inputs: Sequence[Value], attrs: Attrs) -> tuple[TensorType, ...]:
    """Run the type rule of `op`; an error names operands, origins and the user's line."""
    try:
        result = op.shape(tuple(value.type for value in inputs), attrs)
    except (ShapeError, DTypeError) as error:
        raise explain(error, op, inputs) from None
    return result if isinstance(result, tuple) else (result,)


def _convert(op: Op, args: Sequence[Any]) -> list[Tensor]:
    """Turn arguments into tensors; numbers and mixed dtypes take the common dtype."""
    ready = [
        as_tensor(arg) if isinstance(arg, (Tensor, TensorLike, np.ndarray)) else arg for arg in args
    ]
    if not op.promotes:
        return [arg if isinstance(arg, Tensor) else as_tensor(arg) for arg in ready]
    skip = op.promotes_from  # leading operands with a dtype of their own, such as a condition
    common = _common_dtype(op, ready, skip)
    converted: list[Tensor] = []
    for position, arg in enumerate(ready):
        if position < skip:
            converted.append(as_tensor(arg))
        elif not isinstance(arg, Tensor):
            converted.append(as_tensor(arg, common))
        else:
            converted.append(arg if arg.dtype is common else _call("cast", arg, common))
    return converted


def _common_dtype(op: Op, args: Sequence[Any], skip: int) -> DType | None:
    """Return the dtype that mixed operands meet in; a float number beside integers makes f32."""
    tensors = [arg for arg in args[skip:] if isinstance(arg, Tensor)]
    numbers = [arg for arg in args[skip:] if not isinstance(arg, Tensor)]
    dtypes = list(dict.fromkeys(tensor.dtype for tensor in tensors))
    if any(isinstance(number, (float, np.floating)) for number in numbers):
        has_float = any(dtype.is_float for dtype in dtypes)
        dtypes = dtypes if has_float else [*dtypes, DType.F32]
    elif not dtypes:
        return None
    elif dtypes == [DType.BOOL] and any(type(number) is int for number in numbers):
        dtypes = [DType.I32]
    try:
        return reduce(promoted, dtypes)
    except DTypeError as error:
        values = [arg.value for arg in args if isinstance(arg, Tensor)]
        raise explain(error, op, values) from None


def promoted(first: DType, second: DType) -> DType:
    """Return the dtype in which two meet, as in PyTorch: the least that holds both; for a float
    and an integer the float, for f16 and bf16 f32.

    Raises:
        DTypeError: it would have 64 bits (u32 beside a signed integer).
    """
    if first.is_float != second.is_float:
        return first if first.is_float else second
    if first.holds(second) or second.holds(first):
        return first if first.holds(second) else second
    if first.is_float:
        return DType.F32
    for dtype in (DType.I16, DType.I32):
        if dtype.holds(first) and dtype.holds(second):
            return dtype
    signed, other = sorted((first, second), key=lambda dtype: not dtype.is_signed)
    raise DTypeError(f"{signed} and {other} do not mix; fix: cast one of them")


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the shape that `shapes` broadcast to, by NumPy's rule.

    Raises:
        ShapeError: two sizes differ and neither is 1; the message names the axis.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[int] = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            listed = " and ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
            raise ShapeError(
                f"shapes {listed} do not broadcast: axis {axis} has "
                f"{' and '.join(map(str, sorted(sizes)))}"
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _broadcast(op: Op, operands: list[Tensor]) -> list[Tensor]:
    try:
        shape = broadcast_shapes(*(tensor.shape for tensor in operands))
    except ShapeError as error:
        raise explain(error, op, [tensor.value for tensor in operands]) from None
    return [
        tensor if tensor.shape == shape else _call("broadcast_to", tensor, shape)
        for tensor in operands
    ]


def explain(
    error: ShapeError | DTypeError, op: Op, inputs: Sequence[Value]
) -> ShapeError | DTypeError:
    """Add operands, origins and the user's line to the first line of `error`.

    Text after `; fix: ` becomes a line of its own at the end.
    """
    first, _, fix = str(error).partition("; fix: ")
    lines = [first if first.startswith(f"{op.name}: ") else f"{op.name}: {first}"]
    for label, value in zip(operand_labels(inputs), inputs, strict=True):
        lines.append(f"  {label}: {value.type!s:<14} {_origin(value):<22} {value.node.site}")
    site = current_site()
    if site is not None:
        scope = f" ({current_scope()})" if current_scope() else ""
        lines.append(f"  at {site} in {site.function}{scope}:  {site.source}")
    if fix:
        lines.append(f"  fix: {fix}")
    return type(error)("\n".join(lines))


def operand_labels(inputs: Sequence[Value]) -> list[str]:
    """Return what an error calls each operand: its name where it has a short one, or a letter."""
    names = [str(value.node.attrs.get("name", "")) for value in inputs]
    if all(name.isidentifier() and len(name) <= 8 for name in names) and len({*names}) == len(
        names
    ):
        return names
    letters = "xyzwabcdefgh"
    return [letters[i] if i < len(letters) else f"x{i}" for i in range(len(names))]


def _origin(value: Value) -> str:
    node = value.node
    if node.is_input:
        return f"{node.attrs['role']} {node.attrs['name']!r}"
    return f"result of {node.op.name}"
