"""The artefact: what codegen makes and runtimes play. Frozen data, no behaviour.

Everything a run needs and nothing else: kernels as WGSL text, buffers, and for each entry the
list of steps. No step refers to the graph; the names of graph values are kept for people and
for checking. A bundle is this, saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from asg.types import TensorType

FORMAT_VERSION = 1

BufferRole = Literal["arena", "input", "parameter", "state", "constant"]


@dataclass(frozen=True)
class Buffer:
    """Device memory. `size` in bytes, a multiple of 256; contents start as zero."""

    name: str
    size: int
    role: BufferRole


@dataclass(frozen=True)
class Slot:
    """A named tensor's place: `offset` bytes into the buffer at position `buffer`.

    Rows are contiguous (row-major); a bool takes a 32-bit word that is 0 or 1, narrow elements
    share words, the first lowest. An output with an `interface` is handed out as that: `i64`,
    `u64` or `f64`.
    """

    name: str
    type: TensorType
    buffer: int
    offset: int
    interface: str = ""


@dataclass(frozen=True)
class Variant:
    """One way to run a kernel: WGSL text, what the device must offer for it, and its grid.

    `features` are WebGPU names (`subgroups`, `shader-f16`) or native extensions
    (`shader-int64`); `subgroup_size` is the exact size the text was written for (0: any).
    `limits` are WebGPU limit names with the least value needed, where above the defaults.
    The text holds no `enable` line; loaders prepend what their implementation wants.
    """

    wgsl: str
    workgroups: tuple[int, int, int]
    features: tuple[str, ...] = ()
    subgroup_size: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    schedule: str = ""


@dataclass(frozen=True)
class Argument:
    """A storage binding in the kernel's text: position in the tuple is the binding number."""

    name: str
    access: Literal["read", "read_write"]


@dataclass(frozen=True)
class Kernel:
    """A compute shader (entry point `main`, bind group 0). The first variant that fits is run;
    the last is always portable: default WebGPU limits, no features.

    `nodes` and `sites` say which graph nodes and source lines it computes.
    """

    name: str
    kind: str  # kernel class: map, reduce, row, contract, scatter, …
    arguments: tuple[Argument, ...]
    variants: tuple[Variant, ...]
    nodes: tuple[str, ...]
    sites: tuple[str, ...]
    flops: int
    bytes_moved: int


@dataclass(frozen=True)
class Range:
    """A bound range of a buffer, in bytes; `offset` is a multiple of 256."""

    buffer: int
    offset: int
    size: int


@dataclass(frozen=True)
class Dispatch:
    """Run a kernel. `reads` and `writes` name graph values, for slicing and for checking."""

    kernel: str
    ranges: tuple[Range, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Copy:
    """Copy bytes between (or within, not overlapping) buffers."""

    source: Range
    target: Range
    reads: tuple[str, ...]
    writes: tuple[str, ...]


Step = Dispatch | Copy


@dataclass(frozen=True)
class Entry:
    """A program over the shared buffers: upload `inputs`, run `steps`, read `outputs`.

    `updates` names the state (by slot name) that a run changes, with the graph value it becomes;
    steps that only serve outputs nobody asked for may be left out, those that serve updates not.
    `values` locates every graph value that a step reads or writes, for checking; with buffer
    reuse, a place holds its value only from its step until the place is written again. `cuts` says
    which outputs are shorter than their slots: along which axis, and which output holds the
    number of elements that are real.
    """

    name: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    updates: Mapping[str, str]
    steps: tuple[Step, ...]
    values: Mapping[str, Slot]
    cuts: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Artefact:
    """A compiled model: entries that share buffers, kernels and state.

    `persistent` are the slots of parameters, state and constants; `values` their contents at
    the start (absent: zero). `roles` tells parameter, state or constant for each of them.
    `sources` keeps each entry's graph in text form. `report` holds the compiler's statistics,
    `plan` the memory plan in a form that can be printed and drawn.
    """

    name: str
    buffers: tuple[Buffer, ...]
    persistent: tuple[Slot, ...]
    roles: Mapping[str, str]
    kernels: Mapping[str, Kernel]
    entries: Mapping[str, Entry]
    values: Mapping[str, np.ndarray]
    sources: Mapping[str, str]
    report: Mapping[str, Any]
    version: int = FORMAT_VERSION
