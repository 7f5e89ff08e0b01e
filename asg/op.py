"""What an op is: one value with all its rules, and the closed set of kinds.

A *kind* says how an op can be lowered; passes and codegen `match` on it. Every slot of `Op` is
required, so that a missing rule is a written statement (`not_differentiable("…")`), never an
omission.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from asg.graph import Attrs
from asg.index import Index
from asg.tensor import Tensor, apply
from asg.types import DType, Shape, TensorType

ShapeRule = Callable[[tuple[TensorType, ...], Attrs], TensorType | tuple[TensorType, ...]]


@dataclass(frozen=True)
class Elementwise:
    """Each result element depends on the operands' elements at the same index.

    `wgsl` is an expression with `{0}`, `{1}` … for operands; it must hold for scalars and for
    vec4 alike. `{F}`, `{I}`, `{U}`, `{B}` stand for f32, i32, u32, bool of that width, `{R}` for
    the result's type of that width (`vec4<i32>`) and `{r}` for its name (`i32`). A name beginning
    `asg_` is a helper of `shaders/helpers/`; operands are names, calls or in brackets. A
    mapping chooses by the first operand's dtype, a function by that and the result's. With several
    results, the expression yields a struct `.r0`, `.r1` ….
    `falling` is a cheaper expression for operands that are known never to be above 0.
    `cost` counts arithmetic operations per element. `ulp` says how far the expression may be from
    exact arithmetic, in units in the last place, where `asg.tolerances` does not.
    """

    wgsl: str | dict[DType, str] | Callable[[DType, DType], str]
    cost: int = 1
    commutative: bool = False
    ulp: float | None = None
    falling: str = ""

    def expression(self, source: DType, result: DType) -> str:
        """Return the expression for a first operand of dtype `source`."""
        if isinstance(self.wgsl, str):
            return self.wgsl
        if isinstance(self.wgsl, dict):
            return self.wgsl[source.compute]
        return self.wgsl(source, result)


@dataclass(frozen=True)
class Access:
    """Where a view's element comes from: coordinates in the operand and guards.

    Outside the guards (pairs `low <= index < high`) the element is `fill`.
    """

    coordinates: tuple[Index, ...]
    guards: tuple[tuple[Index, int, int], ...] = ()


@dataclass(frozen=True)
class View:
    """Only moves data. `access(attrs, in_shape, out_shape, coordinates)` finds the source.

    `is_bijection(attrs, in_shape)` tells whether every operand element appears exactly once;
    then `inverse` maps operand coordinates to result coordinates.
    """

    access: Callable[[Attrs, Shape, Shape, tuple[Index, ...]], Access]
    inverse: Callable[[Attrs, Shape, Shape, tuple[Index, ...]], tuple[Index, ...]] | None = None


@dataclass(frozen=True)
class Join:
    """Puts several operands side by side. `start(attrs, in_types)` gives each one's offset along
    `axis(attrs)`; elements that no operand covers are zero. `flat` joins work on the operands'
    elements in order, whatever their shapes."""

    axis: Callable[[Attrs], int]
    starts: Callable[[Attrs, tuple[TensorType, ...]], tuple[int, ...]]
    flat: bool = False


class Combine(enum.Enum):
    """How a reduction combines two elements."""

    SUM = "sum"
    PROD = "prod"
    MAX = "max"
    MIN = "min"
    ANY = "any"
    ALL = "all"


@dataclass(frozen=True)
class Reduction:
    """Combines elements along `attrs["axes"]`, which disappear from the shape."""

    combine: Combine


@dataclass(frozen=True)
class ArgReduction:
    """Index of the largest or smallest element along `attrs["axis"]`; the first among equals."""

    largest: bool


@dataclass(frozen=True)
class Contraction:
    """Batched matrix product `[…, m, k] x […, k, n]`, batch axes equal on both sides."""


@dataclass(frozen=True)
class Gather:
    """`gather(x, index)`: element `index` of `x` along `attrs["axis"]` (see its doc)."""


@dataclass(frozen=True)
class Scatter:
    """Changes elements of the first operand at positions that the second one tells.

    `scatter_add(x, index, updates)` adds where `gather` would read; without `adds`,
    `dynamic_update_slice(x, start, update)` puts a slice in the place of another.
    """

    adds: bool = True


@dataclass(frozen=True)
class Source:
    """No operands: a graph input, a constant, or a function of the coordinates (`iota`)."""

    index: Callable[[Attrs, tuple[Index, ...]], Index] | None = None


@dataclass(frozen=True)
class Composite:
    """Spelt out in other ops by `expand(node_attrs, *operands)` before it is lowered.

    An op is kept whole until then because its own gradient is better than that of its expansion
    (softmax needs only its result), or because a pass looks for it. `is_sum`: each result element
    is a sum of products of the operands' elements, and rounds like one. `is_call`: a function of
    the user's, which may hold anything, and so is spelt out before any other pass.
    """

    expand: Callable[..., Tensor | tuple[Tensor, ...]]
    is_sum: bool = False
    is_call: bool = False


@dataclass(frozen=True)
class Attention:
    """Softmax of scores times values, or a gradient of it (`asg/ops/attention.py`).

    One kernel computes it without storing the scores, or `expand(attrs, *operands)` spells it
    out. `part`: the result and the logarithms of the sums, the gradient of the queries, or the
    gradients of keys and values.
    """

    part: Literal["forward", "query_grad", "key_grad"]
    expand: Callable[..., Tensor | tuple[Tensor, ...]]


Form = Literal["sort", "merge", "scan", "recur", "search", "segments", "suppress", "written"]


@dataclass(frozen=True)
class Written:
    """A kernel's text by hand, for operand types and attributes, and its number of workgroups.

    Operands and results are bound in order, each by itself and from its first element on. `ulp`
    says how exact the results are, in units in the last place.
    """

    text: Callable[[tuple[TensorType, ...], Attrs], str]
    workgroups: Callable[[tuple[TensorType, ...], Attrs], tuple[int, int, int]]
    ulp: float


@dataclass(frozen=True)
class Procedure:
    """One kernel with loops of its own, that nothing joins; `form` says which writer it has.

    `combine`: how it joins elements, if it does. `is_sum`: result elements are sums of operands'
    elements, and round like them. `written` is the text of form `written`.
    """

    form: Form
    combine: Combine | None = None
    is_sum: bool = False
    written: Written | None = None


@dataclass(frozen=True)
class Cut:
    """`cut(x, count)`: a result of which the first `count` elements are real.

    Whoever runs the graph cuts it (`asg/cutting.py`); no kernel meets it.
    """


Kind = (
    Elementwise
    | View
    | Join
    | Reduction
    | ArgReduction
    | Contraction
    | Gather
    | Scatter
    | Source
    | Composite
    | Attention
    | Procedure
    | Cut
)


@dataclass(frozen=True)
class NoGradient:
    """Why an op has no gradient. `is_zero`: the gradient is zero almost everywhere or meaningless
    (integers), so nothing flows back; otherwise asking for one is an error."""

    reason: str
    is_zero: bool


@dataclass(frozen=True)
class ByExpansion:
    """The gradient of a composite or of an attention op is that of what it is spelt out in."""


GradRule = Callable[..., Sequence[Tensor | None]] | NoGradient | ByExpansion


def not_differentiable(reason: str) -> NoGradient:
    """Say that nothing flows back: `not_differentiable("floor is flat almost everywhere")`."""
    return NoGradient(reason, is_zero=True)


def no_gradient(reason: str) -> NoGradient:
    """Say that a gradient may exist but is not offered; asking for it is an error."""
    return NoGradient(reason, is_zero=False)


@dataclass(frozen=True)
class Example:
    """A worked case by hand (not from NumPy): operands, expected result(s), attributes."""

    inputs: Sequence[Any]
    output: Any
    attrs: Attrs | None = None
    dtypes: Sequence[str] | None = None  # of the operands; f32 unless told


@dataclass(frozen=True)
class Sample:
    """Operand types and attributes to test an op with; values are drawn from `low … high`."""

    types: Sequence[str]
    attrs: Attrs | None = None
    low: float = -2.0
    high: float = 2.0
    gradient: bool = True  # checked against central differences (not near a kink)
    lows: Sequence[float] | None = None  # bounds for each operand, where they differ
    highs: Sequence[float] | None = None


@dataclass(frozen=True)
class BadSample:
    """Operand types that must be refused, with text that the first line of the error contains."""

    types: Sequence[str]
    match: str
    attrs: Attrs | None = None


@dataclass(frozen=True, eq=False)
class Op:
    """A primitive: its type rule, NumPy meaning, gradient, lowering and test material.

    Attributes:
        shape: result types from operand types and attributes; raises `ShapeError`/`DTypeError`.
        numpy: `numpy(*arrays, **attrs)`; the interpreter casts the result to the type's dtype.
        grad: `grad(node, g, *operands)` gives one cotangent (or None) per operand, all of them
            `Tensor`s; `node` is the (first) result. With several results `g` is a tuple.
        broadcasts: operands are broadcast to one shape before the rule sees them.
        promotes: operands from position `promotes_from` on meet in one dtype.
        defaults: attributes that a call need not give.
    """

    name: str
    doc: str
    kind: Kind
    shape: ShapeRule
    numpy: Callable[..., Any]
    grad: GradRule
    examples: Sequence[Example]
    samples: Sequence[Sample]
    errors: Sequence[BadSample]
    broadcasts: bool = False
    promotes: bool = False
    promotes_from: int = 0
    defaults: Attrs = field(default_factory=dict)

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Apply the op to tensors, arrays or numbers; build a node."""
        return apply(self, args, {**self.defaults, **attrs})

    def __repr__(self) -> str:
        return f"<op {self.name}>"


Array = np.ndarray[Any, Any]
