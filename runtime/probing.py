"""What subgroups are like on a device, found by running kernels.

Adapters report a range of sizes only, and nobody says which invocations share a subgroup. Kernels
written for subgroups of eight need to know both. The answer is kept on disk for each adapter and
driver; the adapter's name holds what else it depends on (the vector width of a software driver).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from asg.errors import DeviceError, DeviceLostError
from asg.runtime.adapters import Adapter
from asg.runtime.commands import Call, Transfer, Work
from asg.runtime.disk_cache import DiskCache, digest
from asg.runtime.shaders import Shader

if TYPE_CHECKING:
    from asg.runtime.wgpu_device import Device

# Invocations: what kernels use, up to the most that WebGPU grants. (Kernels with subgroups have
# one axis; naga does not let others ask for their lane.)
WORKGROUPS = (8, 64, 128, 256)

CACHE = DiskCache("probes", 1 << 20)

_LARGEST = 128  # what WebGPU allows a subgroup
_FROM_LANE = 3  # whom each invocation asks
_WORDS = 5

_PROBE = """\
@group(0) @binding(0) var<storage, read_write> found: array<u32>;

@compute @workgroup_size(SIZE)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    found[5u * local] = lane;
    found[5u * local + 1u] = size;
    found[5u * local + 2u] = subgroupBroadcastFirst(local);
    found[5u * local + 3u] = subgroupShuffle(local, 3u);
    found[5u * local + 4u] = subgroupAdd(1u);
}
"""


@dataclass(frozen=True)
class Subgroups:
    """What the probe found: `size` where every kernel gets the same, else 0.

    `is_linear` says that the invocations of a subgroup follow each other, so that the lane is
    `local_invocation_index % size`. `detail` is for people.
    """

    size: int
    is_linear: bool
    detail: str

    @property
    def usable(self) -> int:
        """The size that kernels may be written for, 0 for none."""
        return self.size if self.is_linear else 0

    def __str__(self) -> str:
        return self.detail


def probe(device: Device) -> Subgroups:
    """Return what subgroups are like, from the cache where this was asked before."""
    if "subgroups" not in device.features:
        return Subgroups(0, False, "not offered")
    if not device.adapter.has_fixed_subgroups:
        return Subgroups(0, False, "of a size that the driver chooses for each kernel")
    key = _key(device.adapter)
    found = decode(CACHE.get(key))
    if found is None:
        try:
            found = judge([_run(device, count) for count in WORKGROUPS])
        except DeviceLostError:
            raise
        except DeviceError as error:
            return Subgroups(0, False, f"unknown, since the probe failed: {error}")
        CACHE.put(key, json.dumps(asdict(found)).encode())
    return found


def judge(answers: Sequence[np.ndarray]) -> Subgroups:
    """Return what the answers of all invocations mean, an array for each workgroup."""
    sizes: dict[int, None] = {}
    out_of_order: list[str] = []
    for words in answers:
        sizes.update(dict.fromkeys(int(size) for size in words[:, 1]))
        size = int(words[0, 1])
        if size <= _FROM_LANE or size > _LARGEST:
            return Subgroups(0, False, f"of {size} lanes, which kernels can't use")
        if not np.array_equal(words, _expected(len(words), size)):
            out_of_order.append(str(len(words)))
    if len(sizes) > 1:
        return Subgroups(0, False, f"of different sizes: {', '.join(map(str, sorted(sizes)))}")
    (size,) = sizes
    if out_of_order:
        where = ", ".join(out_of_order)
        return Subgroups(size, False, f"of {size} lanes out of order (workgroups of {where})")
    return Subgroups(size, True, f"of {size} lanes in order")


def _expected(count: int, size: int) -> np.ndarray:
    """Return what invocations of a workgroup say where neighbours share a subgroup."""
    local = np.arange(count, dtype=np.uint32)
    first = local - local % size
    columns = [
        local % size,
        np.full(count, size),
        first,
        first + _FROM_LANE,
        np.minimum(size, count - first),
    ]
    return np.stack(columns, axis=1).astype(np.uint32)


def decode(data: bytes | None) -> Subgroups | None:
    """Return the probe's result that was stored, if it is one."""
    if data is None:
        return None
    try:
        fields: Any = json.loads(data)
        size, is_linear, detail = fields["size"], fields["is_linear"], fields["detail"]
    except (ValueError, KeyError, TypeError):
        return None
    is_typed = type(size) is int and type(is_linear) is bool and type(detail) is str
    return Subgroups(size, is_linear, detail) if is_typed and 0 <= size <= _LARGEST else None


def _key(adapter: Adapter) -> str:
    """Name everything that the answer depends on: kernels, their compiler, adapter and driver."""
    return digest(
        _PROBE, str(WORKGROUPS), metadata.version("wgpu"), adapter.identity, adapter.driver
    )


def probe_shader(count: int) -> Shader:
    """Return the kernel that tells what each invocation of a workgroup sees."""
    wgsl = _PROBE.replace("SIZE", str(count))
    return Shader(f"probe_subgroups_{count}", wgsl, ("read_write",), ("subgroups",))


def _run(device: Device, count: int) -> np.ndarray:
    size = 4 * _WORDS * count
    (pipeline,) = device.acquire_pipelines([probe_shader(count)])
    found = device.create_buffer("subgroups found", size)
    staging = device.create_buffer("subgroups read", size, staging=True)
    group = device.create_group(pipeline, [(found, 0, size)])
    try:
        work = Work([Call(pipeline, group, (1, 1, 1))])
        submission = device.submit([work, Transfer(found, 0, staging, 0, size)])
        with device.mapped(staging, size, submission) as data:
            return data.view(np.uint32).reshape(count, _WORDS).copy()
    finally:
        found.close()
        staging.close()
        device.release_groups(1)
        device.release_pipelines([pipeline])
