"""Convolve operands that have zeros between neighbours without meeting the zeros.

Of a kernel's taps only every `lhs_dilation`-th meets an element, the others meet zeros. Which ones
do depends on the result's position modulo `lhs_dilation`: its *phase*. Each phase is a convolution
of the operand as it is with some of the taps, and the phases interleaved are the whole. Gradients
of strided convolutions are of this kind, and transposed convolutions.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from math import gcd, prod

from asg.graph import Attrs, Graph, Node, Value, rewrite
from asg.ops.convolution import convolution
from asg.ops.join import pack
from asg.ops.movement import broadcast, permute, reshape, slice_
from asg.ops.sources import constant
from asg.passes.convolve import is_grouped_sum
from asg.passes.layouts import is_read_last, to_first, to_last
from asg.tensor import Tensor
from asg.types import Shape


@dataclass(frozen=True)
class SplitPhases:
    """Make several convolutions of one with zeros between its operand's neighbours.

    Attributes:
        worthwhile: products that are saved; below, further kernels cost more than zeros.

    Comes after differentiation and `ChooseLayouts`, and before `Convolve`, which it leaves the
    phases to.
    """

    worthwhile: int = 1 << 20

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op is convolution for node in graph.nodes):
            return graph
        return rewrite(graph, partial(self._split, graph))

    def _split(
        self, graph: Graph, node: Node, inputs: tuple[Value, ...]
    ) -> tuple[Value, ...] | None:
        if node.op is not convolution:
            return None
        steps, (x, w) = node.attrs["lhs_dilation"], map(Tensor, inputs)
        products = node.type.size * prod(w.shape[1:])
        if max(steps) == 1 or products - products // prod(steps) < self.worthwhile:
            return None
        # Sums by groups are maps, which test each position anyway: zeros cost them little.
        if is_grouped_sum(node.attrs, w) or any(map(_is_strided, steps, node.attrs["strides"])):
            return None
        is_last = is_read_last(graph, Value(node))
        result = _interleaved(node.attrs, x, w, node.type.shape[2:], is_last)
        return None if result is None else (result.value,)


def _is_strided(step: int, stride: int) -> bool:
    """Tell whether results of one phase lie further apart than the operand's elements."""
    return step > 1 and stride > 1


@dataclass(frozen=True)
class _Axis:
    """What one phase does along one axis: every `step`-th tap from `first` on."""

    first: int
    step: int
    taps: int
    dilation: int
    padding: tuple[int, int]


def _interleaved(attrs: Attrs, x: Tensor, w: Tensor, sizes: Shape, is_last: bool) -> Tensor | None:
    steps = attrs["lhs_dilation"]
    counts = tuple(-(-size // step) for size, step in zip(sizes, steps, strict=True))
    phases: list[Tensor] = []
    for position in itertools.product(*map(range, steps)):
        axes = [_axis(attrs, x, w, axis, place) for axis, place in enumerate(position)]
        if any(min(axis.padding) <= -size for axis, size in zip(axes, x.shape[2:], strict=True)):
            return None  # a phase that sees nothing of the operand
        phase = _phase(attrs, x, w, axes, (x.shape[0], w.shape[0], *counts))
        phases.append(to_last(phase) if is_last else phase)
    lead, rank = len(steps), len(steps) + 2
    places = 1 if is_last else 2  # of a phase, which come after its images, or channels too
    offsets = tuple(phases[0].size * number for number in range(len(phases)))
    whole = pack(*phases, offsets=offsets, total=phases[0].size * len(phases))
    whole = reshape(whole, shape=(*steps, *phases[0].shape))
    pairs = itertools.chain.from_iterable((lead + places + axis, axis) for axis in range(lead))
    outer = (lead,) if is_last else (lead, lead + 1)
    whole = permute(whole, axes=(*outer, *pairs, *((lead + rank - 1,) if is_last else ())))
    spread = tuple(count * step for count, step in zip(counts, steps, strict=True))
    if is_last:
        whole = to_first(reshape(whole, shape=(x.shape[0], *spread, w.shape[0])))
    else:
        whole = reshape(whole, shape=(x.shape[0], w.shape[0], *spread))
    stops = (*whole.shape[:2], *sizes)
    result: Tensor = slice_(whole, starts=(0,) * rank, stops=stops, steps=(1,) * rank)
    return result


def _axis(attrs: Attrs, x: Tensor, w: Tensor, axis: int, place: int) -> _Axis:
    """Return the taps that meet elements where a result's position is `place` modulo the step.

    Result `step q + place` has tap `k` at `step q + place + k dilation - low`, which is an element
    where `step` divides it.
    """
    step, dilation = attrs["lhs_dilation"][axis], attrs["dilation"][axis]
    (low, high), taps, size = attrs["padding"][axis], w.shape[axis + 2], x.shape[axis + 2]
    if step == 1:
        return _Axis(0, 1, taps, dilation, (low, high))
    shared = gcd(step, dilation)
    every = range(taps)
    met = [tap for tap in every if (place + tap * dilation - low) % step == 0]
    if not met:
        return _Axis(0, 1, 0, 1, (0, 0))
    before = (low - place - met[0] * dilation) // step
    whole = (size - 1) * step + 1 + low + high - (taps - 1) * dilation
    count = -(-whole // step)
    after = count + (len(met) - 1) * (dilation // shared) - size - before
    return _Axis(met[0], step // shared, len(met), dilation // shared, (before, after))


def _phase(attrs: Attrs, x: Tensor, w: Tensor, axes: list[_Axis], shape: Shape) -> Tensor:
    if any(axis.taps == 0 for axis in axes):
        zeros: Tensor = broadcast(constant(0.0), shape=shape)
        return zeros
    own = slice_(
        w,
        starts=(0, 0, *(axis.first for axis in axes)),
        stops=(*w.shape[:2], *(axis.first + axis.step * (axis.taps - 1) + 1 for axis in axes)),
        steps=(1, 1, *(axis.step for axis in axes)),
    )
    result: Tensor = convolution(
        x, own, strides=attrs["strides"], padding=tuple(axis.padding for axis in axes),
        dilation=tuple(axis.dilation for axis in axes), lhs_dilation=(1,) * len(axes),
        groups=attrs["groups"],
    )  # fmt: skip
    return result
