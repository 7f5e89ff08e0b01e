"""One kernel by itself, several ways of writing it, on a device: what each computes, how fast.

Roof: uses codegen and the runtime. All ways share one set of buffers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.artefact import Variant
from asg.closing import Closing
from asg.codegen.context import BoundValues, KernelContext, Target
from asg.extract import extract
from asg.graph import Graph, Value
from asg.passes.kernels import FusedKernel
from asg.runtime.arrays import to_words
from asg.runtime.commands import Buffer, Call, Pipeline, Work
from asg.runtime.readback import Readback
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Device
from asg.sample_inputs import sample_inputs

Array = np.ndarray[Any, Any]

_BLOCK = 256  # what the size of a binding is a multiple of
_BATCH_SECONDS = 5e-3  # a shorter submission measures the submission
_MOST_REPEATS = 64
_STALE = 7.5  # what results are before a run


def alone(graph: Graph, kernel: FusedKernel, target: Target) -> KernelContext:
    """Return the context of a kernel whose every value has a binding of its own."""
    bound = [BoundValues(((value, 0),), False) for value in kernel.reads]
    bound += [BoundValues(((value, 0),), True) for value in kernel.outputs]
    return KernelContext(graph, kernel, tuple(bound), target)


def part_of(context: KernelContext) -> Graph:
    """Return the graph of what a kernel computes from what it reads."""
    kernel, names = context.kernel, context.names
    outputs = {names[value]: value for value in kernel.outputs}
    return extract(context.graph, outputs, kernel.reads, name=kernel.name)


def shader_for(context: KernelContext, variant: Variant) -> Shader:
    """Return what a device compiles for one way of writing a kernel."""
    accesses = tuple("read_write" if bound.writable else "read" for bound in context.bound)
    return Shader(context.kernel.name, variant.wgsl, accesses, tuple(variant.features))


@dataclass(frozen=True)
class Way:
    """A way of writing the kernel that is ready to run."""

    pipeline: Pipeline
    call: Call


class KernelBench(Closing):
    """Buffers for a kernel, with random operands; and the ways that were added."""

    def __init__(self, device: Device, context: KernelContext, part: Graph, seed: int = 0) -> None:
        self.device = device
        self.context = context
        self.arrays: Mapping[str, Array] = sample_inputs(part, seed=seed)
        self._ways: list[Way] = []
        self._buffers: list[Buffer] = []
        try:
            for bound in context.bound:
                (value, _), *_ = bound.values
                size = max(-(-value.type.nbytes // _BLOCK) * _BLOCK, _BLOCK)
                self._buffers.append(device.create_buffer(context.names[value], size))
            self.load()
        except BaseException:
            self.close()
            raise

    def load(self) -> None:
        """Put operands in their places, and nonsense where results will be."""
        for bound, buffer in zip(self.context.bound, self._buffers, strict=True):
            (value, _), *_ = bound.values
            name = self.context.names[value]
            words = np.full(buffer.size // 4, _STALE, np.float32)
            if name in self.arrays and not bound.writable:
                words = to_words(name, value.type, self.arrays[name])
            self.device.write(buffer, 0, words)

    def add(self, variant: Variant) -> Way:
        """Make one way ready.

        Raises:
            ShaderError: the driver refuses it.
        """
        (pipeline,) = self.device.acquire_pipelines([shader_for(self.context, variant)])
        try:
            ranges = [(buffer, 0, buffer.size) for buffer in self._buffers]
            group = self.device.create_group(pipeline, ranges)
        except BaseException:
            self.device.release_pipelines([pipeline])
            raise
        way = Way(pipeline, Call(pipeline, group, variant.workgroups))
        self._ways.append(way)
        return way

    def run(self, way: Way) -> dict[str, Array]:
        """Run once from fresh buffers; return the results by name."""
        self.load()
        self.device.wait(self.device.submit([Work([way.call])]))
        names = self.context.names
        outputs: list[tuple[Buffer, int, Any]] = []
        found: list[Value] = []
        for bound, buffer in zip(self.context.bound, self._buffers, strict=True):
            if bound.writable:
                (value, _), *_ = bound.values
                outputs.append((buffer, 0, value.type))
                found.append(value)
        readback = Readback(self.device, outputs, "tuning")
        try:
            arrays = readback.fetch(())
        finally:
            readback.close()
        return {names[value]: array for value, array in zip(found, arrays, strict=True)}

    def time(self, ways: Sequence[Way], expected: Sequence[float]) -> list[float]:
        """Return seconds of one run of each way, the least of some; `expected` as far as known.

        With timestamps ways take turns. Without them each is submitted as a batch.
        """
        counts = [_repeats(seconds) for seconds in expected]
        rounds = [
            position
            for number in range(max(counts))
            for position in range(len(ways))
            if number < counts[position]
        ]
        timed = self.device.time_calls([ways[position].call for position in rounds])
        if timed is None:
            return [self._time_batch(way, count) for way, count in zip(ways, counts, strict=True)]
        best = [math.inf] * len(ways)
        for position, seconds in zip(rounds, timed, strict=True):
            best[position] = min(best[position], seconds)
        return best

    def _time_batch(self, way: Way, count: int) -> float:
        started = time.perf_counter()
        self.device.wait(self.device.submit([Work([way.call] * count)]))
        return (time.perf_counter() - started) / count

    def close(self) -> None:
        """Give everything on the device back."""
        self.device.release_groups(len(self._ways))
        self.device.release_pipelines([way.pipeline for way in self._ways])
        self._ways = []
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []


def _repeats(seconds: float) -> int:
    """Return how often to run something for long enough; once where nothing is known."""
    if not seconds > 0 or math.isinf(seconds):
        return 1
    return min(max(math.ceil(_BATCH_SECONDS / seconds), 1), _MOST_REPEATS)
