"""Kernels written by hand in WGSL, with their meaning in NumPy beside them.

reverse = asg.wgsl_kernel(
    "reverse",
    types=lambda x: x,
    numpy=lambda x: x[::-1].copy(),
    source='''
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < x_size) {
        y[id.x] = x[x_size - 1u - id.x];
    }
}
''',
    workgroups=lambda x: -(-x.size // 64),
    gradient=lambda g, y, x: reverse(g),
)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from asg.custom.rules import (
    Signature,
    Types,
    as_tuple,
    check_name,
    guard_gradient,
    guard_numpy,
    guard_types,
)
from asg.custom.wgsl_source import check_text, constants, read_bindings
from asg.errors import AsgError, ShapeError
from asg.graph import Attrs
from asg.op import (
    NoGradient,
    Op,
    Procedure,
    Written,
    no_gradient,
)
from asg.types import TensorType

MOST_GROUPS = 65_535  # WebGPU's default per dimension

Source = str | Callable[..., str]
Grid = int | tuple[int, ...]


def wgsl_kernel(
    name: str,
    *,
    types: Callable[..., Types],
    numpy: Callable[..., Any],
    source: Source,
    workgroups: Grid | Callable[..., Grid],
    gradient: Callable[..., Any] | NoGradient | None = None,
    doc: str = "",
    ulp: float = 8.0,
    is_sum: bool = False,
) -> Op:
    """Return an op that is computed by a WGSL text, as it stands.

    The text declares its operands, then its results, as bindings 0, 1 … of group 0: operands
    `var<storage, read>`, results `var<storage, read_write>`. Its entry point is `main`. Rows are
    contiguous; a bool is a u32 that is 0 or 1. Each invocation must stay inside the tensors
    (`arrayLength` may be more than a tensor has), and the kernel must write every element of its
    results, in which anything may stand before.

    Args:
        types: `types(*operand_types, **attributes)` gives the type of the result, or a tuple.
        numpy: what the kernel means; its keyword-only parameters are the op's attributes.
        source: the text, or `source(*operand_types, **attributes)`. It may use `x_size` (a u32),
            `x_shape[0]` … for a binding called `x`, and attributes that are numbers, by name.
        workgroups: how many: a number, up to three, or a function of the operands' types and the
            attributes.
        gradient: `gradient(cotangent, result, *operands, **attributes)` gives a cotangent (or
            None) for each operand; without it, there is no gradient.
        ulp: how exact the results are, in units in the last place.
        is_sum: each result element is a sum of products of elements, and rounds like one.

    Raises:
        GraphError: the name is taken or can't be one.
    """
    check_name(name)
    signature = Signature.of(name, numpy)
    text = _Text(source, workgroups, guard_types(signature, types))
    if gradient is None:
        gradient = no_gradient("its definition gives none")
    return Op(
        name=name,
        doc=doc or inspect.getdoc(numpy) or "A kernel written by hand.",
        kind=Procedure("written", is_sum=is_sum, written=Written(text.write, text.grid, ulp)),
        shape=text.types,
        numpy=guard_numpy(name, text.types, numpy),
        grad=gradient if isinstance(gradient, NoGradient) else guard_gradient(name, gradient),
        examples=(),
        samples=(),
        errors=(),
        defaults=signature.defaults,
    )


class _Text:
    """A kernel's text and grid for operands of given types, checked when a node is built."""

    def __init__(
        self,
        source: Source,
        workgroups: Grid | Callable[..., Grid],
        rule: Callable[[tuple[TensorType, ...], Attrs], Types],
    ) -> None:
        self.source = source
        self.workgroups = workgroups
        self.rule = rule

    def types(self, operands: tuple[TensorType, ...], attrs: Attrs) -> Types:
        """The type rule; it also refuses a text or a grid that does not fit."""
        results = self.rule(operands, attrs)
        check_text(self._text(operands, attrs), operands, as_tuple(results))
        self.grid(operands, attrs)
        return results

    def write(self, operands: tuple[TensorType, ...], attrs: Attrs) -> str:
        """Return the whole text."""
        text = self._text(operands, attrs).strip("\n")
        names = [binding.name for binding in read_bindings(text)]
        types = (*operands, *as_tuple(self.rule(operands, attrs)))
        return f"{constants(text, names, types, attrs)}{text}\n"

    def grid(self, operands: tuple[TensorType, ...], attrs: Attrs) -> tuple[int, int, int]:
        """Return the number of workgroups along each axis."""
        found: Any = self.workgroups
        if callable(found):
            found = _call("workgroups", found, operands, attrs)
        sizes = found if isinstance(found, tuple) else (found,)
        is_whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
        if not 1 <= len(sizes) <= 3 or not is_whole:
            raise ShapeError(f"workgroups are one to three integers, got {found!r}")
        if not all(0 <= size <= MOST_GROUPS for size in sizes):
            raise ShapeError(f"workgroups are at most {MOST_GROUPS} along an axis, got {found!r}")
        x, y, z = (*sizes, 1, 1)[:3]
        return max(x, 1), max(y, 1), max(z, 1)

    def _text(self, operands: tuple[TensorType, ...], attrs: Attrs) -> str:
        if isinstance(self.source, str):
            return self.source
        text = _call("source", self.source, operands, attrs)
        if not isinstance(text, str):
            raise ShapeError(f"source gives {type(text).__name__}, a text is wanted")
        return text


def _call(
    what: str, function: Callable[..., Any], types: Sequence[TensorType], attrs: Attrs
) -> Any:
    try:
        return function(*types, **attrs)
    except AsgError:
        raise
    except Exception as error:
        raise ShapeError(f"{what} fails: {type(error).__name__}: {error}") from error
