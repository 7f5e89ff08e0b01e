"""Random graphs from the op table, for tests that hold of every graph.

Every node is computed while the graph grows, in float32, in float64 and from inputs moved a
little. A node whose results disagree is left out. So a graph has no huge numbers, no NaN, and no
comparison that rounding could turn; whoever computes it rightly gets nearly the same numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
from hypothesis import strategies as st

from asg.errors import AsgError
from asg.graph import Graph, Value
from asg.narrow import evaluate
from asg.op import (
    ArgReduction,
    Attention,
    Composite,
    Contraction,
    Cut,
    Elementwise,
    Gather,
    Join,
    NoGradient,
    Op,
    Procedure,
    Reduction,
    Sample,
    Scatter,
    Source,
    View,
)
from asg.ops import TABLE
from asg.ops.arithmetic import add, mul, neg, sub
from asg.ops.convert import cast_
from asg.ops.indexing import gather, scatter_add
from asg.ops.join import concatenate, pack
from asg.ops.logic import select
from asg.ops.movement import broadcast, dilate, flip, pad, permute, reshape, slice_
from asg.ops.reduction import reduce_sum
from asg.ops.sources import constant, constant_, input, input_, iota
from asg.ops.windows import window_sources, windows
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType, is_floating, parse_type

Array = np.ndarray[Any, Any]

SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 13, 16, 33)
MAX_ELEMENTS = 4096
OFTEN = (add, broadcast, concatenate, flip, mul, neg, pad, permute, reduce_sum, reshape, select,
         slice_, sub)  # fmt: skip
TELLING = (0, 1, 2, -1, 0.5, -0.5, 3)  # numbers that rules of algebra know
LARGEST = 1e4  # of any float
MOVED = 1e-5  # how far inputs move, relatively


@dataclass(frozen=True)
class RandomGraph:
    """A graph and arrays for its inputs; parameters and state have their values in it."""

    graph: Graph
    inputs: dict[str, Array]
    seed: int | None = None


def random_graph(
    seed: int, *, steps: int = 12, smooth: bool = False, empty: bool = True
) -> RandomGraph:
    """Return the graph of a seed, always the same one.

    Args:
        steps: how many ops are tried.
        smooth: only floats and ops that have a gradient.
        empty: whether axes of size 0 may occur.
    """
    made = _Maker(random.Random(seed), smooth, empty).make(steps)
    return RandomGraph(made.graph, made.inputs, seed)


def graphs(
    *, steps: int = 12, smooth: bool = False, empty: bool = True
) -> st.SearchStrategy[RandomGraph]:
    """Return a hypothesis strategy for random graphs."""
    return st.randoms(use_true_random=False).map(
        lambda source: _Maker(source, smooth, empty).make(steps)
    )


@dataclass(frozen=True)
class _Known:
    """A tensor with its value, computed in three ways."""

    tensor: Tensor
    arrays: tuple[Array, Array, Array]  # float32, float64, float64 from moved inputs

    @property
    def type(self) -> TensorType:
        return self.tensor.type


class _NotNowError(Exception):
    """What was tried does not fit the values at hand."""


@dataclass
class _Maker:
    random: random.Random
    smooth: bool
    empty: bool
    pool: list[_Known] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)

    def make(self, steps: int) -> RandomGraph:
        ops = [op for op in TABLE.values() if self.is_usable(op)]
        ops += [op for op in ops if any(op is often for often in OFTEN)] * 4
        for _ in range(self.random.randint(1, 3)):
            self.input(TensorType(self.shape(), self.dtype()))
        for _ in range(steps):
            try:
                self.grow(self.random.choice(ops))
            except (AsgError, _NotNowError):
                continue
        return self.finish()

    def is_usable(self, op: Op) -> bool:
        if op is input_ or (self.smooth and isinstance(op.grad, NoGradient)):
            return False
        return bool(op.samples)

    def finish(self) -> RandomGraph:
        """Return what nothing reads, and some other values, as outputs."""
        used = {value for known in self.pool for value in known.tensor.node.inputs}
        made = [known.tensor.value for known in self.pool if known.tensor.node.op is not input_]
        made = made or [known.tensor.value for known in self.pool]
        ends = [value for value in made if value not in used] or made[-1:]
        extra = [value for value in made if self.random.random() < 0.1]
        chosen = list(dict.fromkeys([*ends, *extra]))[:6]
        outputs = {f"y{position}": value for position, value in enumerate(chosen)}
        updates = self.updates(made)
        kept = [
            known.tensor.node
            for known in self.pool
            if known.tensor.node.op is input_
            and (known.tensor.attrs["name"] in updates or self.random.random() < 0.3)
        ]
        graph = Graph.build(outputs, updates=updates, name="random", inputs=kept)
        stored = {name: self.values[name] for name in graph.input_names("parameter", "state")}
        inputs = {name: self.values[name] for name in graph.input_names("input")}
        return RandomGraph(graph.with_values(stored), inputs)

    def updates(self, made: Sequence[Value]) -> dict[str, Value]:
        """Let some states become other values of their type."""
        found: dict[str, Value] = {}
        for known in self.pool:
            node = known.tensor.node
            if node.op is input_ and node.attrs["role"] == "state":
                fitting = [value for value in made if value.type == known.type]
                if fitting:
                    found[node.attrs["name"]] = self.random.choice(fitting)
        return found

    # What is drawn

    def dtype(self) -> DType:
        if self.smooth or self.random.random() < 0.7:
            return DType.F32
        return self.random.choice(list(DType))

    def shape(self) -> Shape:
        rank = self.random.choice((0, 1, 1, 2, 2, 2, 3, 4))
        sizes = [self.random.choice(SIZES) for _ in range(rank)]
        if self.empty and rank and self.random.random() < 0.03:
            sizes[self.random.randrange(rank)] = 0
        while math.prod(sizes) > MAX_ELEMENTS:
            sizes[sizes.index(max(sizes))] = 2
        return tuple(sizes)

    def input(self, type_: TensorType, low: float = -2, high: float = 2) -> _Known:
        """Add an input with a value."""
        name = f"x{len(self.values)}"
        role = self.random.choice(("input", "input", "parameter", "state"))
        self.values[name] = array = self.array(type_, low, high)
        return self.add(input(name, type_, role=role), _three(array, is_moved=True))

    def array(self, type_: TensorType, low: float, high: float) -> Array:
        source = np.random.default_rng(self.random.getrandbits(32))
        if type_.dtype.is_float:
            drawn = source.uniform(low, high, type_.shape)
        elif type_.dtype is DType.BOOL:
            drawn = source.integers(0, 2, type_.shape)
        else:
            least = low if type_.dtype.is_signed else max(low, 0)
            drawn = source.integers(int(least), int(max(high, least)) + 1, type_.shape)
        return np.asarray(drawn).astype(type_.dtype.numpy)

    def add(self, tensor: Tensor, arrays: tuple[Array, Array, Array]) -> _Known:
        known = _Known(tensor, arrays)
        self.pool.append(known)
        return known

    def pick(self, fits: Callable[[TensorType], bool]) -> _Known:
        """Return one of the values at hand, the later ones more often."""
        fitting = [known for known in self.pool if fits(known.type)]
        if not fitting:
            raise _NotNowError
        return fitting[max(self.random.randrange(len(fitting)) for _ in range(2))]

    # How a graph grows

    def grow(self, op: Op) -> None:
        kind = op.kind
        match kind:
            case Elementwise():
                self.elementwise(op)
            case View():
                if op is window_sources:  # takes what only windows make
                    self.from_sample(op, self.random.choice(list(op.samples)))
                    return
                x = self.pick(lambda type_: True)
                self.apply(op, [x], self.view_attrs(op, x.type))
            case Join():
                self.join(op)
            case Reduction():
                x = self.pick(_takes(op))
                axes = [axis for axis in range(x.type.rank) if self.random.random() < 0.5]
                self.apply(op, [x], {"axes": tuple(axes)})
            case ArgReduction():
                x = self.pick(lambda type_: type_.rank > 0 and _takes(op)(type_))
                self.apply(op, [x], {"axis": self.random.randrange(x.type.rank)})
            case Contraction():
                x = self.pick(lambda type_: type_.rank > 1 and type_.dtype.is_float)
                shape = (*x.type.shape[:-2], x.type.shape[-1], self.random.choice(SIZES))
                self.apply(op, [x, self.find(TensorType(shape, x.type.dtype))], {})
            case Gather() | Scatter():
                self.indexed(op)
            case Source():
                self.source(op)
            case Cut():
                raise _NotNowError  # only whole outputs are cut
            case Composite() | Attention() | Procedure():
                self.from_sample(op, self.random.choice(list(op.samples)))
            case _:
                assert_never(kind)

    def elementwise(self, op: Op) -> None:
        sample = self.random.choice(list(op.samples))
        types = [parse_type(text) for text in sample.types]
        first = self.pick(lambda type_: type_.dtype.compute is types[0].dtype)
        operands = [self.within(first, sample, 0)]
        for position, type_ in enumerate(types[1:], start=1):
            shape = first.type.shape
            if op.broadcasts:
                shape = tuple(self.random.choice((size, size, size, 1)) for size in shape)
                shape = shape[self.random.randint(0, len(shape)) if shape else 0 :]
            dtype = first.type.dtype if type_.dtype is types[0].dtype else type_.dtype
            found = self.find(TensorType(shape, dtype))
            operands.append(self.within(found, sample, position))
        attrs = dict(sample.attrs or {})
        if op is cast_ and not self.smooth:
            attrs["dtype"] = self.random.choice(list(DType))
        self.apply(op, operands, attrs)

    def within(self, known: _Known, sample: Sample, position: int) -> _Known:
        """Return values that lie in the sample's bounds: the same ones, or an input's."""
        low, high = _bounds(sample, position)
        array = known.arrays[1]
        if known.type.dtype is DType.BOOL or not array.size or (low, high) == (-2, 2):
            return known
        if array.min() >= low and array.max() <= high:
            return known
        return self.input(known.type, low, high)

    def find(self, type_: TensorType) -> _Known:
        """Return a value of a type: one at hand, one reshaped, a number, or an input."""
        if self.random.random() < 0.15 and type_.dtype is not DType.BOOL:
            return self.number(type_)
        if self.random.random() < 0.7:
            same = [known for known in self.pool if known.type == type_]
            if same:
                return self.random.choice(same)
            near = [
                known
                for known in self.pool
                if known.type.dtype is type_.dtype and known.type.size == type_.size
            ]
            if near:
                return self.apply(reshape, [self.random.choice(near)], {"shape": type_.shape})
        return self.input(type_)

    def number(self, type_: TensorType) -> _Known:
        """Return a tensor with one of the telling numbers everywhere."""
        number = self.random.choice(TELLING)
        if not type_.dtype.is_float:
            number = int(abs(number))
        array = np.asarray(number).astype(type_.dtype.numpy)
        scalar = self.add(constant(array), _three(array, is_moved=False))
        return self.apply(broadcast, [scalar], {"shape": type_.shape})

    def view_attrs(self, op: Op, type_: TensorType) -> dict[str, Any]:
        shape, draw = type_.shape, self.random
        if op is reshape:
            return {"shape": self.factors(type_.size)}
        if op is permute:
            return {"axes": tuple(draw.sample(range(len(shape)), len(shape)))}
        if op is broadcast:
            wide = [size if size != 1 else draw.choice((1, 2, 3, 7)) for size in shape]
            return {"shape": tuple([draw.choice((1, 2, 5))] * draw.randint(0, 1) + wide)}
        if op is flip:
            return {"axes": tuple(axis for axis in range(len(shape)) if draw.random() < 0.5)}
        if op is slice_:
            starts = [draw.randint(0, max(size - 1, 0)) for size in shape]
            stops = [draw.randint(min(a + 1, n), n) for a, n in zip(starts, shape, strict=True)]
            steps = tuple(draw.choice((1, 1, 1, 2, 3)) for _ in shape)
            return {"starts": tuple(starts), "stops": tuple(stops), "steps": steps}
        if op is pad:
            low, high = (tuple(draw.randint(-1, 3) for _ in shape) for _ in range(2))
            fill = False if type_.dtype is DType.BOOL else draw.randint(0, 2)
            return {"low": low, "high": high, "fill": fill}
        if op is dilate:
            return {"steps": tuple(draw.choice((1, 1, 2, 3)) for _ in shape)}
        if op is windows:
            return self.window_attrs(shape)
        raise NotImplementedError(f"random_graphs: say how to draw attributes of {op.name}")

    def window_attrs(self, shape: Shape) -> dict[str, Any]:
        """Return windows that fit into the last axes."""
        draw = self.random
        count = 0
        while count < min(2, len(shape)) and shape[len(shape) - count - 1]:
            count += 1
        sizes = tuple(draw.randint(1, min(size, 3)) for size in shape[len(shape) - count :])
        fits = all(
            2 * size - 1 <= n for size, n in zip(sizes, shape[len(shape) - count :], strict=True)
        )
        dilation = tuple(draw.choice((1, 2)) if fits else 1 for _ in sizes)
        strides = tuple(draw.choice((1, 1, 2)) for _ in sizes)
        return {"sizes": sizes, "strides": strides, "dilation": dilation}

    def factors(self, size: int) -> Shape:
        """Return a shape of so many elements."""
        if size == 0:
            return tuple(self.random.sample((0, 2, 3), 3))
        shape = [1] * self.random.randint(0 if size == 1 else 1, 4)
        factor = 2
        while size > 1:
            while size % factor:
                factor += 1
            shape[self.random.randrange(len(shape))] *= factor
            size //= factor
        return tuple(shape)

    def join(self, op: Op) -> None:
        first = self.pick(lambda type_: type_.rank > 0)
        shape, dtype = first.type.shape, first.type.dtype
        if op is concatenate:
            axis = self.random.randrange(len(shape))
            other = (*shape[:axis], self.random.choice(SIZES), *shape[axis + 1 :])
            parts = [first, self.find(TensorType(other, dtype))]
            self.random.shuffle(parts)
            self.apply(op, parts, {"axis": axis})
        elif op is pack:
            parts = [first, self.pick(lambda type_: type_.dtype is dtype)]
            gap = self.random.randint(0, 3)
            start = gap + parts[0].type.size
            total = start + parts[1].type.size + self.random.randint(0, 3)
            self.apply(op, parts, {"offsets": (gap, start), "total": total})
        else:
            self.from_sample(op, self.random.choice(list(op.samples)))

    def indexed(self, op: Op) -> None:
        if op is not gather and op is not scatter_add:
            self.from_sample(op, self.random.choice(list(op.samples)))
            return
        x = self.pick(lambda type_: type_.rank > 0 and type_.dtype is not DType.BOOL)
        axis = self.random.randrange(x.type.rank)
        size = x.type.shape[axis]
        picked = tuple(self.random.choice((1, 2, 5)) for _ in range(self.random.randint(0, 2)))
        # A position past the end is clamped and has no gradient, which differences can't see.
        last = size - 1 if self.smooth else size
        index = self.input(TensorType(picked, DType.I32), -size, last)
        operands = [x, index]
        if op is scatter_add:
            shape = (*x.type.shape[:axis], *picked, *x.type.shape[axis + 1 :])
            operands.append(self.find(TensorType(shape, x.type.dtype)))
        self.apply(op, operands, {"axis": axis})

    def source(self, op: Op) -> None:
        shape = self.shape()
        if op is iota:
            if not shape or self.smooth:
                raise _NotNowError
            dtype = self.random.choice((DType.I32, DType.F32, DType.U32))
            axis = self.random.randrange(len(shape))
            self.apply(op, [], {"shape": shape, "axis": axis, "dtype": dtype})
        elif op is constant_:
            type_ = TensorType(self.random.choice(((), (), shape)), self.dtype())
            array = self.array(type_, -2, 2)
            self.add(constant(array), _three(array, is_moved=False))
        else:
            self.from_sample(op, self.random.choice(list(op.samples)))

    def from_sample(self, op: Op, sample: Sample) -> None:
        """Apply an op to operands of just the types that its sample says."""
        operands = [
            self.within(self.find(parse_type(text)), sample, position)
            for position, text in enumerate(sample.types)
        ]
        self.apply(op, operands, dict(sample.attrs or {}))

    def apply(self, op: Op, operands: Sequence[_Known], attrs: dict[str, Any]) -> _Known:
        """Build a node and compute it; keep it if all three ways agree."""
        built = op(*(known.tensor for known in operands), **attrs)
        results = built if isinstance(built, tuple) else (built,)
        if sum(result.size for result in results) > MAX_ELEMENTS:
            raise _NotNowError
        node = results[0].node
        ways: list[tuple[Array, ...]] = []
        for way in range(3):
            arrays = [known.arrays[way] for known in operands]
            if op.broadcasts:
                arrays = [np.broadcast_to(array, node.type.shape) for array in arrays]
            with np.errstate(all="ignore"):
                ways.append(evaluate(op, arrays, node.attrs, node.types))
        kept = [
            _Known(result, tuple(_typed(way[i], result.dtype, n) for n, way in enumerate(ways)))
            for i, result in enumerate(results)
        ]
        if not all(_agree(known) for known in kept):
            raise _NotNowError
        self.pool.extend(kept)
        return kept[0]


def _three(array: Array, *, is_moved: bool) -> tuple[Array, Array, Array]:
    if not is_floating(array):
        return array, array, array
    wide = array.astype(np.float64)
    pattern = np.cos(np.arange(array.size, dtype=np.float64)).reshape(array.shape)
    return array, wide, wide * (1 + MOVED * pattern) if is_moved else wide


def _typed(array: Any, dtype: DType, way: int) -> Array:
    """Results of narrow types are rounded in all ways, or no two of them would agree."""
    target = np.dtype(np.float64) if dtype.is_float and way else dtype.numpy
    rounded = array.astype(dtype.numpy) if dtype.is_narrow else array
    return np.asarray(rounded).astype(target)


def _agree(known: _Known) -> bool:
    first, exact, moved = known.arrays
    if known.type.dtype.is_float:
        if not np.isfinite(exact).all() or np.abs(exact).max(initial=0) > LARGEST:
            return False
        scale = 1 + np.abs(exact).max(initial=0)
        off = np.abs(first.astype(np.float64) - exact).max(initial=0)
        return bool(off < 1e-5 * scale and np.abs(moved - exact).max(initial=0) < 1e-3 * scale)
    return bool(np.array_equal(first, exact) and np.array_equal(exact, moved))


def _bounds(sample: Sample, position: int) -> tuple[float, float]:
    low = sample.lows[position] if sample.lows is not None else sample.low
    high = sample.highs[position] if sample.highs is not None else sample.high
    return low, high


def _takes(op: Op) -> Callable[[TensorType], bool]:
    """Return whether an op of one operand has a sample of this element type."""
    dtypes = {parse_type(sample.types[0]).dtype for sample in op.samples}
    return lambda type_: type_.dtype.compute in dtypes
