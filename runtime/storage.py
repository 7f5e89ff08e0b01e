"""The device memory of an artefact: its buffers, and the tensors with a name in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from asg.artefact import Artefact, Dispatch, Slot
from asg.errors import InputError
from asg.runtime.arrays import to_words
from asg.runtime.commands import Buffer
from asg.runtime.inputs import check_state_names, require_values
from asg.runtime.readback import Readback
from asg.runtime.wgpu_device import Device

# Uploads are staged by the driver; after so many bytes they are let through.
_UPLOAD_BATCH = 64 << 20


class Storage:
    """All buffers of an artefact, with parameters, state and constants at their first values.

    Buffers of parameters and state that `share` has laid out alike are used together
    with it, as they are now.
    """

    def __init__(self, artefact: Artefact, device: Device, share: Storage | None = None) -> None:
        self._name = artefact.name
        self._device = device
        self._slots = {slot.name: slot for slot in artefact.persistent}
        self._state = [
            slot for slot in artefact.persistent if artefact.roles.get(slot.name) != "constant"
        ]
        self._unset: set[str] = share._unset if share is not None else set()
        self._layout = _layout(artefact)
        self.buffers: list[Buffer] = []
        shared: set[int] = set()
        try:
            for position, buffer in enumerate(artefact.buffers):
                found = share._alike(self._layout[position]) if share is not None else None
                if found is None:
                    label = f"{artefact.name}/{buffer.name}"
                    found = device.create_buffer(label, buffer.size)
                else:
                    found.users += 1
                    shared.add(position)
                self.buffers.append(found)
            own = [slot for slot in artefact.persistent if slot.buffer not in shared]
            self._unset |= {
                slot.name
                for slot in own
                if artefact.roles.get(slot.name) == "parameter" and slot.type.nbytes
            }
            self._write_all(self._words(artefact.values, own))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give all buffers back."""
        for buffer in self.buffers:
            buffer.close()
        self.buffers = []

    def _alike(self, layout: tuple[object, ...] | None) -> Buffer | None:
        if layout is None or layout not in self._layout:
            return None
        return self.buffers[self._layout.index(layout)]

    def write(self, slot: Slot, words: np.ndarray) -> None:
        """Write converted words to where a slot is."""
        self._unset.discard(slot.name)
        self._device.write(self.buffers[slot.buffer], slot.offset, words)

    def readback(self, slots: Sequence[Slot]) -> Readback:
        """Prepare to read some slots again and again."""
        places = [(self.buffers[slot.buffer], slot.offset, slot.type) for slot in slots]
        return Readback(self._device, places, f"{self._name}/read")

    def read(self, slots: Sequence[Slot]) -> list[np.ndarray]:
        """Read what is in some slots now."""
        readback = self.readback(slots)
        try:
            return readback.fetch(())
        finally:
            readback.close()

    def slot(self, name: str) -> Slot:
        """Return the place of a parameter, state or constant.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self._slots:
            raise InputError(f"{self._name} has no parameter or state {name!r}; {self._known()}")
        return self._slots[name]

    def shares(self, other: Storage, name: str) -> bool:
        """Tell whether a parameter or state lies in the same memory as in another storage."""
        own, its = self.slot(name), other.slot(name)
        is_same = self.buffers[own.buffer] is other.buffers[its.buffer]
        return is_same and own.offset == its.offset

    def require(self, names: Iterable[str]) -> None:
        """Refuse to use parameters that were never given a value.

        Raises:
            InputError: some of these were not.
        """
        require_values(self._name, [name for name in names if name in self._unset])

    def mark_written(self, names: Iterable[str]) -> None:
        """Note that a run has given these parameters a value."""
        self._unset.difference_update(names)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Read all parameters and state."""
        self.require(slot.name for slot in self._state)
        arrays = self.read(self._state)
        return {slot.name: array for slot, array in zip(self._state, arrays, strict=True)}

    def load_state_dict(self, values: Mapping[str, object], strict: bool) -> None:
        """Write parameters and state: all of them, or, after an error, none.

        Raises:
            InputError: a name is missing or unknown (only if strict), or a value does not fit.
        """
        check_state_names(self._name, [slot.name for slot in self._state], values, strict)
        self._write_all(self._words(values, self._state))

    def _words(
        self, values: Mapping[str, object], slots: Iterable[Slot]
    ) -> list[tuple[Slot, np.ndarray]]:
        return [
            (slot, to_words(f"{self._name}: {slot.name!r}", slot.type, values[slot.name]))
            for slot in slots
            if slot.name in values
        ]

    def _write_all(self, words: Sequence[tuple[Slot, np.ndarray]]) -> None:
        pending = 0
        for slot, array in words:
            self._unset.discard(slot.name)
            flat = array.reshape(-1)
            for first in range(0, flat.size, _UPLOAD_BATCH // 4):
                part = flat[first : first + _UPLOAD_BATCH // 4]
                self._device.write(self.buffers[slot.buffer], slot.offset + 4 * first, part)
                pending += part.nbytes
                if pending >= _UPLOAD_BATCH:
                    self._device.wait(self._device.submit(()))
                    pending = 0

    def _known(self) -> str:
        names = list(self._slots)
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return f"known: {', '.join(names[:20]) or 'none'}{more}"


def limits_needed(artefact: Artefact) -> dict[str, int]:
    """Return the limits that running an artefact at its best asks for."""
    needed = {"maxBufferSize": 0, "maxStorageBufferBindingSize": 0}
    for buffer in artefact.buffers:
        needed["maxBufferSize"] = max(needed["maxBufferSize"], buffer.size)
    for entry in artefact.entries.values():
        for step in entry.steps:
            for bound in step.ranges if isinstance(step, Dispatch) else ():
                largest = max(needed["maxStorageBufferBindingSize"], bound.size)
                needed["maxStorageBufferBindingSize"] = largest
    for kernel in artefact.kernels.values():
        for variant in kernel.variants:
            for name, value in variant.limits.items():
                needed[name] = max(needed.get(name, 0), value)
    return needed


def _layout(artefact: Artefact) -> list[tuple[object, ...] | None]:
    """Describe what lies in each buffer of parameters or state; None for others."""
    layout: list[tuple[object, ...] | None] = []
    for position, buffer in enumerate(artefact.buffers):
        slots = [
            (slot.name, slot.type, slot.offset, artefact.roles.get(slot.name))
            for slot in artefact.persistent
            if slot.buffer == position
        ]
        is_kept = buffer.role in ("parameter", "state")
        layout.append((buffer.size, *sorted(slots, key=str)) if is_kept and slots else None)
    return layout
