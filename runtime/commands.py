"""What a device runs: dispatches of pipelines over buffers, and copies between these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asg.errors import ReleasedError


class Buffer:
    """Device memory with a name, given back when its last user closes it."""

    __slots__ = ("_on_close", "handle", "label", "size", "users")

    def __init__(
        self, handle: Any, label: str, size: int, on_close: Callable[[Buffer], None]
    ) -> None:
        self._on_close = on_close
        self.handle = handle
        self.label = label
        self.size = size
        self.users = 1

    @property
    def raw(self) -> Any:
        """The C library's handle.

        Raises:
            ReleasedError: the buffer was closed.
        """
        if self.handle is None:
            raise ReleasedError(f"buffer {self.label!r} was closed")
        return self.handle._internal

    def close(self) -> None:
        """Give the memory back, unless it is shared with others."""
        self.users -= 1
        if self.users > 0:
            return
        handle, self.handle = self.handle, None
        if handle is not None:
            self._on_close(self)
            handle.destroy()


class Pipeline:
    """A compiled kernel; `layout` is what its bind groups are made for."""

    __slots__ = ("handle", "key", "label", "layout", "users")

    def __init__(self, handle: Any, layout: Any, label: str, key: object) -> None:
        self.handle = handle
        self.layout = layout
        self.label = label
        self.key = key
        self.users = 0


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One dispatch: pipeline, bind group and workgroup counts."""

    pipeline: Pipeline
    group: Any
    workgroups: tuple[int, int, int]


class Work:
    """The dispatches of one compute pass, laid out for encoding."""

    __slots__ = ("calls", "raw")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)  # keeps alive what `raw` points at
        raw, last = [], None
        for call in calls:
            pipeline = None if call.pipeline is last else call.pipeline.handle._internal
            raw.append((pipeline, call.group._internal, *call.workgroups))
            last = call.pipeline
        self.raw = tuple(raw)


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """A copy of `size` bytes from one buffer to another."""

    source: Buffer
    source_offset: int
    target: Buffer
    target_offset: int
    size: int


Command = Work | Transfer
