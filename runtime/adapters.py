"""Which adapters there are, which one is taken, and what is asked of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from asg.errors import DeviceError

AdapterType = Literal["discrete", "integrated", "virtual", "cpu", "unknown"]

# What every WebGPU implementation grants (https://www.w3.org/TR/webgpu/#limits), as far as
# compute goes. A device is opened with exactly these unless something needs more, so that what
# runs here runs in a browser too.
DEFAULT_LIMITS: Mapping[str, int] = {
    "maxBindGroups": 4,
    "maxBindingsPerBindGroup": 1000,
    "maxBufferSize": 256 << 20,
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupSizeX": 256,
    "maxComputeWorkgroupSizeY": 256,
    "maxComputeWorkgroupSizeZ": 64,
    "maxComputeWorkgroupStorageSize": 16384,
    "maxComputeWorkgroupsPerDimension": 65535,
    "maxStorageBufferBindingSize": 128 << 20,
    "maxStorageBuffersPerShaderStage": 8,
    "maxUniformBufferBindingSize": 64 << 10,
    "maxUniformBuffersPerShaderStage": 12,
    "minStorageBufferOffsetAlignment": 256,
    "minUniformBufferOffsetAlignment": 256,
}

# Worth asking for where they exist; names as in WebGPU, or as in wgpu for native extensions.
USEFUL_FEATURES = ("subgroups", "shader-f16", "shader-int64", "timestamp-query")

_ORDER: Mapping[AdapterType, int] = {
    "discrete": 0, "integrated": 1, "virtual": 2, "unknown": 3, "cpu": 4,
}  # fmt: skip
_INTEL = 0x8086
_NAMES = {0x10DE: "nvidia-gpu", 0x1002: "amd-gpu", _INTEL: "intel-gpu", 0x106B: "apple-gpu"}

# Class of adapters -> whether schedules are those for processors or for graphics cards.
ADAPTER_CLASSES: Mapping[str, Literal["cpu", "gpu"]] = {
    "cpu-simd": "cpu",
    "nvidia-gpu": "gpu",
    "amd-gpu": "gpu",
    "intel-gpu": "gpu",
    "apple-gpu": "gpu",
    "web-generic": "gpu",
}

NO_ADAPTER = """no graphics adapter is found
  fix: install a driver; a software one will do: apt install mesa-vulkan-drivers
       (`asg doctor` lists what is found; target="numpy" needs no adapter)"""


@dataclass(frozen=True)
class Adapter:
    """An adapter as the system lists it; `index` is its position there."""

    index: int
    name: str
    backend: str
    driver: str
    type: AdapterType
    vendor: int
    features: frozenset[str]
    limits: Mapping[str, int]

    def __str__(self) -> str:
        driver = f", {self.driver}" if self.driver else ""
        return f"{self.name} ({self.type}, {self.backend}{driver})"

    @property
    def is_software(self) -> bool:
        """Whether kernels run on the processor."""
        return self.type == "cpu"

    @property
    def identity(self) -> str:
        """What tells adapters of different kinds apart, whatever else is in the machine."""
        return f"{self.name}/{self.backend}/{self.type}/{self.vendor:#06x}"

    @property
    def has_fixed_subgroups(self) -> bool:
        """Whether every kernel gets the same subgroup size (Intel chooses one for each)."""
        return self.vendor != _INTEL

    @property
    def is_capable(self) -> bool:
        """Whether it offers WebGPU's defaults; OpenGL adapters mostly do not."""
        return self.backend != "OpenGL" and all(
            self.limits.get(name, 0) >= least
            for name, least in DEFAULT_LIMITS.items()
            if name.startswith("max")
        )


@dataclass(frozen=True)
class AdapterClass:
    """Adapters that the same schedules suit.

    `family` says which schedules are considered, `subgroup_size` which subgroups these may use (0:
    none), and `name` whose constants and winners rank them. `native_f16` says whether memory is
    best read as f16 where values are.
    """

    name: str
    family: Literal["cpu", "gpu"]
    subgroup_size: int
    native_f16: bool = False

    def __str__(self) -> str:
        subgroups = f", subgroups of {self.subgroup_size}" if self.subgroup_size else ""
        native = ", f16 in memory" if self.native_f16 else ""
        return f"{self.name} ({self.family} schedules{subgroups}{native})"


def classify(adapter: Adapter, subgroup_size: int) -> AdapterClass:
    """Return the class of an adapter whose subgroups have been probed.

    Software drivers run subgroups as vector instructions of a processor, and load f16 one by one.
    Drivers for graphics cards go by their vendor, and Metal is Apple's. What is not known gets
    what any browser runs.
    """
    if adapter.is_software:
        return AdapterClass("cpu-simd", "cpu", subgroup_size)
    name = "apple-gpu" if adapter.backend == "Metal" else _NAMES.get(adapter.vendor, "web-generic")
    is_offered = name != "web-generic" and "subgroups" in adapter.features
    size = subgroup_size if is_offered else 0
    return AdapterClass(name, ADAPTER_CLASSES[name], size, "shader-f16" in adapter.features)


def choose_adapter(adapters: Sequence[Adapter], spec: str | None) -> Adapter:
    """Return the adapter that `spec` names: a position, `gpu`, `cpu`, or a part of its name.

    Without one, the best: discrete before integrated before software.

    Raises:
        DeviceError: there is none, or none that fits.
    """
    if not adapters:
        raise DeviceError(NO_ADAPTER)
    wanted = (spec or "").strip()
    ranked = sorted(adapters, key=lambda each: (not each.is_capable, _ORDER[each.type]))
    if wanted.isdigit():
        fitting = [each for each in adapters if each.index == int(wanted)]
    elif wanted.lower() in ("", "best"):
        fitting = [each for each in ranked if each.is_capable] or ranked
    elif wanted.lower() in ("cpu", "gpu"):
        is_cpu = wanted.lower() == "cpu"
        fitting = [each for each in ranked if each.is_software == is_cpu]
    else:
        fitting = [each for each in ranked if wanted.lower() in each.name.lower()]
    if not fitting:
        known = "\n".join(f"  {each.index}: {each}" for each in adapters)
        raise DeviceError(
            f"no adapter is called {wanted!r}; there are {len(adapters)}\n{known}\n"
            "  fix: set ASG_DEVICE to a number, to part of a name, to cpu or gpu, or unset it"
        )
    return fitting[0]


def granted_limits(adapter: Adapter, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return WebGPU's defaults, raised to what is wanted as far as the adapter goes."""
    limits = dict(DEFAULT_LIMITS)
    for name, value in wanted.items():
        if name not in limits:
            raise DeviceError(f"{name!r} is not a limit; known: {', '.join(DEFAULT_LIMITS)}")
        limits[name] = max(limits[name], min(value, adapter.limits.get(name, 0)))
    return limits


def mebibytes(size: int) -> str:
    """Write a number of bytes for people."""
    if size < 1 << 20:
        return f"{size} bytes"
    return f"{size / (1 << 20):.1f} MiB" if size < 1 << 30 else f"{size / (1 << 30):.2f} GiB"


def host_memory() -> int:
    """Return the bytes of memory that the machine has, 0 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
