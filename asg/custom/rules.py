"""Guards around the functions that a user gives: each mistake is one error that names the op."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.errors import AsgError, DTypeError, GradientError, GraphError, ShapeError
from asg.format import PLAIN_NAME, RESERVED
from asg.graph import Attrs
from asg.op import Array, GradRule, ShapeRule
from asg.ops import TABLE
from asg.ops.convert import cast
from asg.tensor import Tensor, TensorLike, as_tensor
from asg.types import DType, TensorType, as_dtype

Types = TensorType | tuple[TensorType, ...]
_TEXT = (bool, int, float, str, DType, TensorType, type(None), np.generic)
_KINDS = {"f": "a float", "i": "a signed integer", "u": "an unsigned integer", "b": "a bool"}


def check_name(name: object) -> str:
    """Return the name of a new op.

    Raises:
        GraphError: it can't stand in a graph's text, or one of ASG's own ops has it.
    """
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name) or "." in name:
        raise GraphError(f"an op's name is a Python identifier, got {name!r}")
    if name in RESERVED or name in TABLE:
        raise GraphError(f"an op can't be called {name!r}: ASG uses the name itself")
    return name


@dataclass(frozen=True)
class Signature:
    """How a function is called: operands by position, attributes as keyword-only parameters.

    `operands` are the names of the operands; the last takes any number with `is_open`. Attributes
    in `required` have no default.
    """

    operands: tuple[str, ...]
    is_open: bool
    defaults: Mapping[str, Any]
    required: tuple[str, ...]

    @staticmethod
    def of(name: str, function: Callable[..., Any]) -> Signature:
        """Read the signature of the function that gives an op its operands and attributes."""
        if isinstance(function, np.ufunc):
            return Signature(tuple(f"x{n}" for n in range(function.nin)), False, {}, ())
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # some built-in functions have none
            return Signature((), True, {}, ())
        operands: list[str] = []
        defaults: dict[str, Any] = {}
        required: list[str] = []
        for each in parameters:
            if each.kind is each.VAR_KEYWORD:
                raise GraphError(f"{name}: attributes are named one by one, not **{each.name}")
            if each.kind is not each.KEYWORD_ONLY:
                operands.append(each.name)
            elif each.default is each.empty:
                required.append(each.name)
            else:
                defaults[each.name] = each.default
        is_open = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        return Signature(tuple(operands), is_open, defaults, tuple(required))

    def check(self, count: int, attrs: Attrs) -> None:
        """Check how an op is called.

        Raises:
            ShapeError: too few or too many operands, or an attribute is missing or unknown.
            DTypeError: an attribute has no text form.
        """
        least = len(self.operands) - self.is_open
        if count < least or (count > least and not self.is_open):
            plural = "" if least == 1 else "s"
            more = " or more" if self.is_open else ""
            raise ShapeError(f"takes {least}{more} operand{plural}, got {count}")
        for key in self.required:
            if key not in attrs:
                raise ShapeError(f"lacks the attribute {key}=")
        for key, value in attrs.items():
            if isinstance(value, (Tensor, TensorLike)):
                raise DTypeError(f"attribute {key}= is a tensor; operands are given by position")
            if key not in self.defaults and key not in self.required:
                known = ", ".join((*self.required, *self.defaults)) or "none"
                raise ShapeError(f"has no attribute {key}=; its attributes: {known}")
            if not _has_text(value):
                raise DTypeError(
                    f"attribute {key}= is {type(value).__name__}, which has no text form; it can "
                    "be a number, a text, a dtype, a type or a tuple of these"
                )


def _has_text(value: object) -> bool:
    return all(map(_has_text, value)) if isinstance(value, tuple) else isinstance(value, _TEXT)


def guard_types(signature: Signature, rule: Callable[..., Types]) -> ShapeRule:
    """Return a type rule that checks how it is called and what the user's rule yields."""

    def guarded(types: tuple[TensorType, ...], attrs: Attrs) -> Types:
        signature.check(len(types), attrs)
        try:
            found = rule(*types, **attrs)
        except AsgError:
            raise
        except Exception as error:
            raise ShapeError(f"its type rule fails: {type(error).__name__}: {error}") from error
        for each in found if isinstance(found, tuple) else (found,):
            if not isinstance(each, TensorType):
                raise ShapeError(
                    f"its type rule gives {each!r}, which is no type; asg.spec makes one"
                )
        if found == ():
            raise ShapeError("its type rule gives no results")
        return found

    return guarded


def guard_numpy(name: str, rule: ShapeRule, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a NumPy rule that checks whether the user's gives what the type rule says."""

    def guarded(*arrays: Array, **attrs: Any) -> Any:
        given = tuple(map(type_of, arrays))
        types = as_tuple(rule(given, attrs))
        found = function(*arrays, **attrs)
        results = found if isinstance(found, (tuple, list)) and len(types) > 1 else (found,)
        if len(results) != len(types):
            raise ShapeError(
                f"{name}: its NumPy function gives {len(results)} results, its type rule "
                f"{len(types)}"
            )
        checked = tuple(map(_check_array, [name] * len(types), results, types))
        return checked if len(types) > 1 else checked[0]

    return guarded


def type_of(array: Array) -> TensorType:
    """Return the type that an array stands for; references are computed in float64."""
    is_reference = array.dtype == np.float64
    return TensorType(array.shape, DType.F32 if is_reference else as_dtype(array.dtype))


def _check_array(name: str, result: Any, type_: TensorType) -> Array:
    array = np.asarray(result)
    if array.shape != type_.shape:
        raise ShapeError(
            f"{name}: its NumPy function gives shape {list(array.shape)}, its type rule says "
            f"{type_}"
        )
    kind = type_.dtype.numpy.kind
    if array.dtype.kind != kind:
        raise DTypeError(
            f"{name}: its NumPy function gives {array.dtype}, its type rule says {type_}: "
            f"{_KINDS[kind]}"
        )
    return array


def guard_gradient(name: str, function: Callable[..., Any]) -> GradRule:
    """Return a gradient rule that calls `function(cotangent, result, *operands, **attributes)`.

    With several results, the first two arguments are tuples.
    """

    def guarded(node: Tensor, cotangent: Any, *operands: Tensor) -> list[Tensor | None]:
        results = tuple(Tensor(value) for value in node.node.values)
        result = results if len(results) > 1 else node
        found = function(cotangent, result, *operands, **node.attrs)
        parts = list(found) if isinstance(found, (tuple, list)) else [found]
        if len(parts) != len(operands):
            raise GradientError(
                f"{name}: its gradient gives {len(parts)} cotangent(s) for {len(operands)} "
                "operand(s); None stands for an operand that gets none"
            )
        return [
            _check_cotangent(name, place, part, operand)
            for place, (part, operand) in enumerate(zip(parts, operands, strict=True))
        ]

    return guarded


def _check_cotangent(name: str, place: int, part: Any, operand: Tensor) -> Tensor | None:
    if part is None or not operand.dtype.is_float:
        return None
    found = as_tensor(part)
    if found.dtype.is_float:
        found = cast(found, operand.dtype)
    if found.type != operand.type:
        raise GradientError(
            f"{name}: its gradient for operand {place} is {found.type}, the operand {operand.type}"
        )
    return found


def guard_expansion(
    name: str, rule: ShapeRule, function: Callable[..., Any]
) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """Return an expansion `expand(attrs, *operands)` that checks whether the user's function
    gives what the type rule says."""

    def guarded(attrs: Attrs, *operands: Tensor) -> Tensor | tuple[Tensor, ...]:
        results = as_tensors(name, function(*operands, **attrs))
        wanted = as_tuple(rule(tuple(operand.type for operand in operands), attrs))
        found = tuple(result.type for result in results)
        if found != wanted:
            raise ShapeError(
                f"{name}: it is spelt out as {_list(found)}, its type rule says {_list(wanted)}"
            )
        return results if len(results) > 1 else results[0]

    return guarded


def as_tensors(name: str, found: Any) -> tuple[Tensor, ...]:
    """Return the results of a user's function over tensors.

    Raises:
        GraphError: it yields something that is no tensor.
    """
    results: Sequence[Any] = found if isinstance(found, (tuple, list)) else (found,)
    if not results or not all(_is_tensor(each) for each in results):
        raise GraphError(f"{name}: gives {found!r}; a tensor or a tuple of tensors is wanted")
    return tuple(as_tensor(each) for each in results)


def _is_tensor(value: object) -> bool:
    return isinstance(value, (Tensor, TensorLike, int, float, np.ndarray, np.generic))


def as_tuple(types: Types) -> tuple[TensorType, ...]:
    """Return one type or several as a tuple."""
    return types if isinstance(types, tuple) else (types,)


def _list(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))
