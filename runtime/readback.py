"""Reading tensors back: copied into a buffer the host can map, then out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asg.runtime.arrays import from_words
from asg.runtime.commands import Buffer, Command, Transfer
from asg.runtime.wgpu_device import Device
from asg.types import TensorType

# Larger results come in several rounds, so that reading takes little extra memory.
_BATCH = 64 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes `first` to `last` of a tensor, at `at` in the staging buffer."""

    tensor: int
    first: int
    last: int
    at: int


class Readback:
    """A list of tensors that are read together, in one round trip where they are small."""

    def __init__(
        self, device: Device, places: Sequence[tuple[Buffer, int, TensorType]], label: str = "read"
    ) -> None:
        self._device = device
        self._label = label
        self._types = [kind for _, _, kind in places]
        self._batches = _batches(self._types)
        self._buffer: Buffer | None = None
        self._transfers = [
            [
                Transfer(
                    places[piece.tensor][0],
                    places[piece.tensor][1] + piece.first,
                    self._staging(),
                    piece.at,
                    piece.last - piece.first,
                )
                for piece in batch
            ]
            for batch in self._batches
        ]

    def _staging(self) -> Buffer:
        if self._buffer is None:
            size = max(_length(batch) for batch in self._batches)
            self._buffer = self._device.create_buffer(self._label, size, staging=True)
        return self._buffer

    def fetch(self, before: Sequence[Command]) -> list[np.ndarray]:
        """Run the commands of `before`, then read every tensor."""
        if not self._batches and before:
            self._device.submit(before)
        if len(self._batches) == 1:
            return self._fetch_at_once(before)
        whole = [np.empty(kind.nbytes, np.uint8) for kind in self._types]
        for batch, transfers in zip(self._batches, self._transfers, strict=True):
            submission = self._device.submit([*before, *transfers])
            before = ()
            with self._device.mapped(self._staging(), _length(batch), submission) as data:
                for piece in batch:
                    part = data[piece.at : piece.at + piece.last - piece.first]
                    whole[piece.tensor][piece.first : piece.last] = part
        return [
            from_words(data, kind, is_ours=True)
            for data, kind in zip(whole, self._types, strict=True)
        ]

    def _fetch_at_once(self, before: Sequence[Command]) -> list[np.ndarray]:
        """Read tensors that fit one batch, where each is one piece, without a copy in between."""
        (batch,), (transfers,) = self._batches, self._transfers
        results = [np.empty(kind.shape, kind.dtype.numpy) for kind in self._types]
        submission = self._device.submit([*before, *transfers])
        with self._device.mapped(self._staging(), _length(batch), submission) as data:
            for piece in batch:
                part = data[piece.at : piece.at + piece.last]
                results[piece.tensor] = from_words(part, self._types[piece.tensor])
        return results

    def close(self) -> None:
        """Give the staging buffer back."""
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None


def _batches(types: Sequence[TensorType]) -> list[list[_Piece]]:
    """Cut tensors into batches of at most `_BATCH` bytes."""
    batches: list[list[_Piece]] = []
    room = 0
    for tensor, kind in enumerate(types):
        first = 0
        while first < kind.nbytes:
            if room == 0:
                batches.append([])
                room = _BATCH
            last = min(kind.nbytes, first + room)
            batches[-1].append(_Piece(tensor, first, last, _BATCH - room))
            room -= last - first
            first = last
    return batches


def _length(batch: Sequence[_Piece]) -> int:
    last = batch[-1]
    return last.at + last.last - last.first
