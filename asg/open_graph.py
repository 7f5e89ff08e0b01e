"""Graphs whose sizes are open: a recipe that is made anew for every set of sizes.

An `OpenGraph` has named inputs with symbolic sizes, and perhaps *static* inputs, whose values
decide shapes. `bind` gives numbers to both and returns an ordinary `Graph`; passes never see
anything else. `map` changes what every binding becomes, so that `asg.grad` and
`asg.training_step` work on open graphs too. `asg.compile` returns a specialiser for one.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asg.errors import GraphError, InputError
from asg.graph import Graph
from asg.open_types import OpenType, Size
from asg.types import DType, Shape, TensorType

Array = np.ndarray[Any, Any]
Recipe = Callable[["Binding"], Graph]

_ARITHMETIC: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class OpenInput:
    """An input with sizes that are numbers or names; `sizes` is None where even the rank is open.

    The values of a static input decide shapes. They are read on the host, and are no input of
    the graphs that come of a binding.
    """

    name: str
    sizes: tuple[Size, ...] | None
    dtype: DType
    is_static: bool = False

    def __str__(self) -> str:
        sizes = "[…]" if self.sizes is None else f"[{', '.join(map(str, self.sizes))}]"
        return f"{self.name}: {'static ' if self.is_static else ''}{self.dtype}{sizes}"


@dataclass(frozen=True)
class Binding:
    """Numbers for what is open: sizes by name, values of static inputs, shapes of the others."""

    dims: Mapping[str, int] = field(default_factory=dict)
    statics: Mapping[str, Array] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two bindings equal."""
        statics = tuple(
            (name, array.shape, array.dtype.str, array.tobytes())
            for name, array in sorted(self.statics.items())
        )
        return tuple(sorted(self.dims.items())), statics, tuple(sorted(self.shapes.items()))

    def __str__(self) -> str:
        parts = [f"{name}={size}" for name, size in sorted(self.dims.items())]
        parts += [f"{name}={array.tolist()}" for name, array in sorted(self.statics.items())]
        return ", ".join(parts) or "nothing open"


@dataclass(frozen=True, eq=False)
class OpenGraph:
    """A graph with open sizes. `recipe` makes the graph of a binding that has every size."""

    name: str
    inputs: tuple[OpenInput, ...]
    recipe: Recipe

    def __str__(self) -> str:
        return f"open graph {self.name}({', '.join(map(str, self.inputs))})"

    __repr__ = __str__

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of open sizes, in order."""
        found = [size for each in self.inputs for size in each.sizes or () if isinstance(size, str)]
        return tuple(dict.fromkeys(found))

    @property
    def known_sizes(self) -> tuple[str, ...]:
        """The names that may be given a size: open sizes, and what those are expressions of."""
        return tuple(dict.fromkeys([*self.dims, *(n for name in self.dims for n in _names(name))]))

    @property
    def statics(self) -> tuple[str, ...]:
        """The names of inputs whose values decide shapes."""
        return tuple(each.name for each in self.inputs if each.is_static)

    def input(self, name: str) -> OpenInput:
        """Return an input by name.

        Raises:
            GraphError: there is none.
        """
        for each in self.inputs:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.inputs) or "none"
        raise GraphError(f"{self.name} has no input {name!r}; inputs: {known}")

    def map(self, change: Callable[[Graph], Graph]) -> OpenGraph:
        """Return an open graph whose every binding is `change` of this one's."""
        inner = self.recipe
        return replace(self, recipe=lambda binding: change(inner(binding)))

    def bind(
        self, dims: Mapping[str, int] | None = None, statics: Mapping[str, object] | None = None
    ) -> Graph:
        """Return the graph with sizes by name and values of static inputs.

        Raises:
            GraphError: something stays open, or is named that is not open.
        """
        return self.recipe(self.binding_of(dims, statics))

    def binding_of(
        self, dims: Mapping[str, int] | None = None, statics: Mapping[str, object] | None = None
    ) -> Binding:
        """Return the binding that sizes by name and values of static inputs make (see `bind`)."""
        given = {name: self._static(name, value) for name, value in (statics or {}).items()}
        missing = [name for name in self.statics if name not in given]
        if missing:
            raise GraphError(
                f"{self.name}: values of {', '.join(missing)} decide shapes; give them"
            )
        sizes = self.complete(dims or {})
        for each in self.inputs:
            if each.is_static:
                self.match(each, given[each.name].shape, sizes)
        shapes = {
            each.name: tuple(self._size(size, sizes, each.name) for size in each.sizes or ())
            for each in self.inputs
            if not each.is_static
        }
        if any(each.sizes is None and not each.is_static for each in self.inputs):
            raise GraphError(f"{self.name}: the rank of an input is open; call it instead")
        return Binding(sizes, given, shapes)

    def binding(
        self, shapes: Mapping[str, Shape], statics: Mapping[str, object], dims: Mapping[str, int]
    ) -> Binding:
        """Return the binding that inputs of these shapes, and `dims`, make.

        Raises:
            InputError: shapes disagree with each other, with `dims` or with the graph.
        """
        sizes = dict(dims)
        # Plain names first: the others are sums and products of them.
        for each in self.inputs:
            if each.name in shapes:
                self.match(each, shapes[each.name], sizes)
        sizes = self.complete(sizes)
        found: dict[str, Shape] = {}
        for each in self.inputs:
            if each.is_static:
                continue
            if each.name in shapes:
                found[each.name] = shapes[each.name]
            elif each.sizes is not None:
                found[each.name] = tuple(self._size(size, sizes, each.name) for size in each.sizes)
            else:
                raise InputError(f"{self.name}: {each.name!r} is missing, and its rank is open")
        given = {name: self._static(name, value) for name, value in statics.items()}
        return Binding(sizes, given, found)

    def match(self, input: OpenInput, shape: Shape, sizes: dict[str, int]) -> None:
        """Add to `sizes` what a shape says of them.

        Raises:
            InputError: the shape is not one of this input, or two sizes of a name differ.
        """
        if input.sizes is None:
            return
        if len(shape) != len(input.sizes):
            raise InputError(f"{self.name}: input {input} is given the shape {list(shape)}")
        for axis, (wanted, given) in enumerate(zip(input.sizes, shape, strict=True)):
            known = sizes.get(wanted) if isinstance(wanted, str) else wanted
            if known is None:
                sizes[str(wanted)] = given
            elif known != given:
                label = f"{wanted} is {known}" if isinstance(wanted, str) else f"it has {known}"
                raise InputError(
                    f"{self.name}: input {input}: axis {axis} of the array given has {given} "
                    f"elements, but {label}"
                )

    def complete(self, dims: Mapping[str, int]) -> dict[str, int]:
        """Return sizes with those added that are expressions of others (`past + 1`).

        Raises:
            GraphError: a name is not open, or a size is no number of elements.
        """
        names = self.dims
        for name, size in dims.items():
            if name not in self.known_sizes:
                known = ", ".join(names) or "none"
                raise GraphError(f"{self.name}: {name!r} is no open dimension; open: {known}")
            if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
                raise GraphError(f"{self.name}: dimension {name!r} can't be {size!r}")
        sizes = {name: int(size) for name, size in dims.items()}
        for name in names:
            value = _evaluate(name, sizes)
            if value is not None and sizes.setdefault(name, value) != value:
                raise GraphError(f"{self.name}: {name!r} is {sizes[name]}, but should be {value}")
        return sizes

    def is_bound_by(self, dims: Mapping[str, int]) -> bool:
        """Tell whether `dims` leave nothing open."""
        sizes = self.complete(dims)
        has_ranks = all(each.sizes is not None for each in self.inputs)
        return has_ranks and not self.statics and all(name in sizes for name in self.dims)

    def _size(self, size: Size, sizes: Mapping[str, int], name: str) -> int:
        if isinstance(size, int):
            return size
        if size not in sizes:
            raise GraphError(
                f"{self.name}: dimension {size!r} of input {name!r} is open; "
                f"fix: dims={{{size!r}: …}}"
            )
        return sizes[size]

    def _static(self, name: str, value: object) -> Array:
        if not self.input(name).is_static:
            raise GraphError(f"{self.name}: the values of {name!r} decide no shape")
        return np.array(value)


def open_graph(
    name: str,
    types: Mapping[str, TensorType | OpenType],
    make: Callable[[Mapping[str, TensorType]], Graph],
) -> OpenGraph:
    """Return an open graph whose recipe takes types by name."""

    def recipe(binding: Binding) -> Graph:
        return make(
            {key: TensorType(binding.shapes[key], each.dtype) for key, each in types.items()}
        )

    sizes = {
        key: each.shape if isinstance(each, TensorType) else each.sizes
        for key, each in types.items()
    }
    inputs = tuple(OpenInput(key, sizes[key], each.dtype) for key, each in types.items())
    return OpenGraph(name, inputs, recipe)


def closed(graph: Graph) -> OpenGraph:
    """Return a graph as an open one, of which nothing is open."""
    inputs = tuple(
        OpenInput(node.attrs["name"], node.type.shape, node.type.dtype)
        for node in graph.inputs
        if node.attrs["role"] == "input"
    )
    return OpenGraph(graph.name, inputs, lambda binding: graph)


def _names(text: str) -> Iterable[str]:
    """Return the names in a size that is an expression; of a plain name, none."""
    tree = _tree(text)
    if tree is None or isinstance(tree, ast.Name):
        return ()
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _tree(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body if len(text) < 200 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _evaluate(text: str, sizes: Mapping[str, int]) -> int | None:
    """Return what an expression comes to, or None where it is none or a name is open."""
    tree = _tree(text)

    def value(node: ast.AST) -> int | None:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name):
                return sizes.get(name)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                a, b = value(left), value(right)
                is_quotient = isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod))
                if a is None or b is None or (is_quotient and b == 0):
                    return None
                return _ARITHMETIC[type(op)](a, b)
        return None

    return None if tree is None or isinstance(tree, ast.Name) else value(tree)
