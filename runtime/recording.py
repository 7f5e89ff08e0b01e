"""Steps of an artefact as commands of a device: pipelines looked up, buffers bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asg.artefact import Artefact, Copy, Dispatch, Entry, Kernel, Variant
from asg.runtime.commands import Buffer, Call, Command, Pipeline, Transfer, Work
from asg.runtime.wgpu_device import Device

# A submission that takes seconds is killed by the watchdog of some systems, so a long run is
# split. The rates are low guesses, for kernels that use an adapter badly.
_LONGEST_SUBMISSION = 0.5  # seconds
_FLOPS_PER_SECOND = {"discrete": 2e12, "integrated": 1e11, "virtual": 1e11, "unknown": 1e11}
_BYTES_PER_SECOND = {"discrete": 1e11, "integrated": 1e10, "virtual": 1e10, "unknown": 1e10}
_DISPATCHES = 4000


class Recording:
    """Commands in submissions that are short enough, with the bind groups only they use."""

    def __init__(self, chunks: Sequence[Sequence[Command]], groups: Sequence[Any]) -> None:
        self.chunks = chunks
        self.groups = groups


class Recorder:
    """Turns steps into commands and keeps the bind groups for an executor's own buffers."""

    def __init__(
        self,
        artefact: Artefact,
        device: Device,
        buffers: Sequence[Buffer],
        pipelines: Mapping[str, Pipeline],
        variants: Mapping[str, Variant],
    ) -> None:
        self._kernels = artefact.kernels
        self._name = artefact.name
        self._device = device
        self._buffers = buffers
        self._pipelines = pipelines
        self._variants = variants
        self._groups: dict[object, Any] = {}
        self._scratch: Buffer | None = None
        self._scratch_size = max(
            (
                step.source.size
                for entry in artefact.entries.values()
                for step in entry.steps
                if isinstance(step, Copy) and step.source.buffer == step.target.buffer
            ),
            default=0,
        )

    def close(self) -> None:
        """Drop all bind groups and the scratch buffer."""
        self._device.release_groups(len(self._groups))
        self._groups = {}
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def release(self, recording: Recording) -> None:
        """Drop the bind groups that only a recording used."""
        self._device.release_groups(len(recording.groups))
        recording.groups = ()

    def record(
        self, entry: Entry, steps: Sequence[int], replaced: Mapping[int, Buffer]
    ) -> Recording:
        """Return the commands for some steps, other buffers standing in for the `replaced`."""
        groups: list[Any] = []
        chunks: list[list[Command]] = [[]]
        calls: list[Call] = []
        seconds, count = 0.0, 0
        for position in steps:
            step = entry.steps[position]
            cost = self._seconds(step)
            if calls and (seconds + cost > _LONGEST_SUBMISSION or count >= _DISPATCHES):
                chunks[-1].append(Work(calls))
                chunks.append([])
                calls, seconds, count = [], 0.0, 0
            seconds, count = seconds + cost, count + 1
            if isinstance(step, Dispatch):
                calls.append(self.call(step, replaced, groups))
                continue
            if calls:
                chunks[-1].append(Work(calls))
                calls = []
            chunks[-1].extend(self.transfers(step, replaced))
        if calls:
            chunks[-1].append(Work(calls))
        return Recording(chunks, groups)

    def call(self, step: Dispatch, replaced: Mapping[int, Buffer], groups: list[Any]) -> Call:
        """Return a dispatch; a bind group made for replaced buffers is put into `groups`."""
        pipeline = self._pipelines[step.kernel]
        workgroups = self._variants[step.kernel].workgroups
        if any(bound.buffer in replaced for bound in step.ranges):
            group = self._bind(pipeline, step, replaced)
            groups.append(group)
            return Call(pipeline, group, workgroups)
        key = pipeline.key, step.ranges
        if key not in self._groups:
            self._groups[key] = self._bind(pipeline, step, replaced)
        return Call(pipeline, self._groups[key], workgroups)

    def _bind(self, pipeline: Pipeline, step: Dispatch, replaced: Mapping[int, Buffer]) -> Any:
        ranges = [
            (replaced.get(bound.buffer, self._buffers[bound.buffer]), bound.offset, bound.size)
            for bound in step.ranges
        ]
        return self._device.create_group(pipeline, ranges)

    def transfers(self, step: Copy, replaced: Mapping[int, Buffer]) -> list[Transfer]:
        """Return a copy step; WebGPU copies between different buffers only."""
        source = replaced.get(step.source.buffer, self._buffers[step.source.buffer])
        target = replaced.get(step.target.buffer, self._buffers[step.target.buffer])
        first, last, size = step.source.offset, step.target.offset, step.source.size
        if source is not target:
            return [Transfer(source, first, target, last, size)]
        if self._scratch is None:
            label = f"{self._name}/copy scratch"
            self._scratch = self._device.create_buffer(label, self._scratch_size)
        return [
            Transfer(source, first, self._scratch, 0, size),
            Transfer(self._scratch, 0, target, last, size),
        ]

    def _seconds(self, step: Dispatch | Copy) -> float:
        adapter = self._device.adapter.type
        if adapter == "cpu":  # nobody watches
            return 0.0
        if isinstance(step, Copy):
            return step.source.size / _BYTES_PER_SECOND[adapter]
        kernel: Kernel = self._kernels[step.kernel]
        return max(
            kernel.flops / _FLOPS_PER_SECOND[adapter],
            kernel.bytes_moved / _BYTES_PER_SECOND[adapter],
        )


def bindable_inputs(artefact: Artefact, entry: Entry) -> frozenset[str]:
    """Return the inputs whose buffer an array on the device can stand in for.

    The buffer must hold nothing else, and no step may write to it.
    """
    holders = [slot.buffer for slot in artefact.persistent]
    holders += [slot.buffer for slot in (*entry.inputs, *entry.outputs)]
    written = set()
    for step in entry.steps:
        if isinstance(step, Copy):
            written.add(step.target.buffer)
            continue
        arguments = artefact.kernels[step.kernel].arguments
        for argument, bound in zip(arguments, step.ranges, strict=True):
            if argument.access == "read_write":
                written.add(bound.buffer)
    return frozenset(
        slot.name
        for slot in entry.inputs
        if slot.offset == 0 and holders.count(slot.buffer) == 1 and slot.buffer not in written
    )
