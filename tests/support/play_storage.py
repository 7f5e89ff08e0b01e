"""Plays a storage plan on plain byte arrays: what a device would do, kernels computed by NumPy.

Knows nothing of how plans are made. Every read comes out of the bytes where a binding says, every
result goes into them; so a plan that lets values damage each other gives other numbers than the
interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asg.artefact import Copy, Range, Slot
from asg.graph import Value
from asg.passes.storage import EntryStorage, KernelStep, StoragePlan
from asg.types import DType, TensorType

Array = np.ndarray[Any, Any]


class Machine:
    """Buffers of a plan, all zero but for the contents of slots."""

    def __init__(self, plan: StoragePlan) -> None:
        self.plan = plan
        self.buffers = [np.zeros(buffer.size, np.uint8) for buffer in plan.buffers]
        for slot in plan.persistent:
            if slot.name in plan.contents:
                self.write_slot(slot, plan.contents[slot.name])

    def run(self, entry: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run an entry; return its outputs."""
        found = self.plan.entries[entry]
        for slot in found.inputs:
            self.write_slot(slot, inputs[slot.name])
        for step in found.steps:
            if isinstance(step, KernelStep):
                self.dispatch(found, step)
            else:
                self.copy(step)
        return {slot.name: self.read_slot(slot) for slot in found.outputs}

    def state(self) -> dict[str, Array]:
        """Return the contents of parameters and state."""
        return {
            slot.name: self.read_slot(slot)
            for slot in self.plan.persistent
            if self.plan.roles[slot.name] != "constant"
        }

    def dispatch(self, entry: EntryStorage, step: KernelStep) -> None:
        places = {
            value: (bound.range.buffer, bound.range.offset + 4 * element)
            for bound in step.bindings
            for value, element in bound.elements.items()
        }
        computed = {value: self.read(value.type, *places[value]) for value in step.kernel.reads}
        for node in entry.plan.graph.nodes:
            if node not in step.kernel.nodes or all(value in computed for value in node.values):
                continue
            operands = [computed[value] for value in node.inputs]
            with np.errstate(all="ignore"):
                made = node.op.numpy(*operands, **node.attrs)
            results = made if len(node.types) > 1 else (made,)
            for value, result in zip(node.values, results, strict=True):
                computed.setdefault(value, np.asarray(result).astype(value.type.dtype.numpy))
        for value in step.kernel.outputs:
            self.write(value, computed[value], *places[value])

    def copy(self, step: Copy) -> None:
        assert step.source.buffer != step.target.buffer
        self._bytes(step.target)[:] = self._bytes(step.source)

    def _bytes(self, place: Range) -> Array:
        return self.buffers[place.buffer][place.offset : place.offset + place.size]

    def read_slot(self, slot: Slot) -> Array:
        return self.read(slot.type, slot.buffer, slot.offset)

    def write_slot(self, slot: Slot, array: Array) -> None:
        self._store(array, slot.type, slot.buffer, slot.offset)

    def write(self, value: Value, array: Array, buffer: int, offset: int) -> None:
        self._store(array, value.type, buffer, offset)

    def read(self, type_: TensorType, buffer: int, offset: int) -> Array:
        raw = self.buffers[buffer][offset : offset + type_.nbytes]
        words = raw.view(np.uint32 if type_.dtype is DType.BOOL else type_.dtype.numpy)
        # The last word of narrow elements may hold more than there are.
        return words[: type_.size].astype(type_.dtype.numpy).reshape(type_.shape)

    def _store(self, array: Array, type_: TensorType, buffer: int, offset: int) -> None:
        word = np.dtype(np.uint32) if type_.dtype is DType.BOOL else type_.dtype.numpy
        raw = np.ascontiguousarray(np.asarray(array).astype(word)).reshape(-1).view(np.uint8)
        self.buffers[buffer][offset : offset + type_.nbytes] = 0
        self.buffers[buffer][offset : offset + raw.size] = raw
