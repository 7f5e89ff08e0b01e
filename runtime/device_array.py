"""Arrays that stay on the device between calls."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from asg.artefact import Slot
from asg.errors import ReleasedError
from asg.runtime.commands import Buffer, Transfer
from asg.runtime.readback import Readback
from asg.runtime.wgpu_device import Device
from asg.types import Shape, TensorType


class Owner(Protocol):
    """What runs and thereby makes its earlier outputs invalid."""

    @property
    def name(self) -> str: ...

    @property
    def generation(self) -> int:
        """Counts the runs; -1 once it is closed."""


class DeviceArray:
    """A tensor in device memory. `np.asarray(array)` reads it back.

    One that a call returned lives in the executable's own memory and is valid until the
    executable runs again; `take()` gives one that stays.
    """

    def __init__(
        self, device: Device, buffer: Buffer, slot: Slot, owner: Owner | None = None
    ) -> None:
        self.device = device
        self.name = slot.name
        self.type = slot.type
        self._slot = slot
        self._buffer: Buffer | None = buffer
        self._owner = owner
        self._generation = owner.generation if owner is not None else 0

    def __repr__(self) -> str:
        state = "" if self.is_valid else ", released"
        return f"<DeviceArray {self.name!r} {self.type}{state}>"

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype.numpy

    @property
    def is_valid(self) -> bool:
        """Whether its contents are still there."""
        if self._buffer is None:
            return False
        return self._owner is None or self._owner.generation == self._generation

    @property
    def is_owned(self) -> bool:
        """Whether it has a buffer to itself."""
        return self._owner is None

    def place(self) -> tuple[Buffer, int]:
        """Return the buffer and the offset in it.

        Raises:
            ReleasedError: the contents are gone.
        """
        if self._buffer is None:
            raise ReleasedError(f"device array {self.name!r} ({self.type}) was closed")
        if self._owner is not None and self._owner.generation != self._generation:
            did = "was closed" if self._owner.generation < 0 else "ran again"
            raise ReleasedError(
                f"device array {self.name!r} ({self.type}) is gone, since {self._owner.name} {did}"
                "\n  fix: keep it with .take(), or read it with np.asarray() before that"
            )
        return self._buffer, self._slot.offset

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"device array {self.name!r} can't be read without a copy")
        buffer, offset = self.place()
        readback = Readback(self.device, [(buffer, offset, self.type)])
        try:
            (array,) = readback.fetch(())
        finally:
            readback.close()
        return array if dtype is None else array.astype(dtype)

    def take(self) -> DeviceArray:
        """Return an array with the same contents that stays valid until it is closed."""
        source, offset = self.place()
        if self._owner is None:
            return self
        target = self.device.create_buffer(self.name, padded(self.type))
        if self.type.nbytes:
            self.device.submit([Transfer(source, offset, target, 0, self.type.nbytes)])
        return DeviceArray(self.device, target, Slot(self.name, self.type, -1, 0))

    def close(self) -> None:
        """Give the memory back; one that an executable owns is only forgotten."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None and self._owner is None:
            buffer.close()

    def __del__(self) -> None:
        # The constructor may have failed before there was a buffer.
        if getattr(self, "_buffer", None) is not None:
            self.close()


def padded(kind: TensorType) -> int:
    """Return the bytes that a buffer for a tensor has: whole blocks of 256, at least one."""
    return max(256, -(-kind.nbytes // 256) * 256)
