"""The machine as far as ASG is concerned: versions, adapters, what is missing and how to get it.

Roof: uses the runtime.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

from asg.errors import DeviceError
from asg.program_cache import CACHE as PROGRAMS
from asg.runtime.adapters import DEFAULT_LIMITS, Adapter, choose_adapter
from asg.runtime.devices import NOTES
from asg.runtime.disk_cache import cache_root
from asg.runtime.probing import CACHE as PROBES
from asg.runtime.wgpu_device import Device, adapters
from asg.tuning import CACHE as SCHEDULES

CACHES = (PROGRAMS, SCHEDULES, PROBES, NOTES)

PACKAGES = ("asg", "numpy", "wgpu", "jinja2", "safetensors", "click", "rich")
# Package -> what it is for, and the extra that brings it.
OPTIONAL = {
    "scikit-learn": ("data sets of the examples", "examples"),
    "jsonschema": ("tests of the bundle's schema", "dev"),
}


def versions() -> dict[str, str]:
    """Return the versions of Python, the system and what ASG needs."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    return found | {name: _version(name) or "missing" for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def describe_adapter(description: str = "") -> dict[str, Any]:
    """Return the adapter of this description (or the first) as plain data, if it is there."""
    try:
        found = adapters()
    except DeviceError:
        return {}
    for adapter in found:
        if not description or str(adapter) == description:
            return adapter_data(adapter)
    return {"description": description}


def adapter_data(adapter: Adapter) -> dict[str, Any]:
    """Return an adapter as plain data."""
    return {
        "index": adapter.index,
        "name": adapter.name,
        "backend": adapter.backend,
        "driver": adapter.driver,
        "type": adapter.type,
        "is_capable": adapter.is_capable,
        "features": sorted(adapter.features),
        "limits": dict(adapter.limits),
    }


def examine(spec: str | None = None) -> dict[str, Any]:
    """Return what `asg doctor` tells, as plain data: `problems` are texts with their cure."""
    problems: list[str] = []
    try:
        found = adapters()
    except DeviceError as error:
        found = []
        problems.append(str(error))
    report: dict[str, Any] = {
        "versions": versions(),
        "optional": {
            name: {"version": _version(name), "use": use, "install": f"pip install 'asg[{extra}]'"}
            for name, (use, extra) in OPTIONAL.items()
        },
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("ASG_") or name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")
        },
        "adapters": [adapter_data(adapter) for adapter in found],
        "chosen": None,
        "subgroups": None,
        "adapter_class": None,
        "caches": _caches(),
        "problems": problems,
    }
    try:
        chosen = choose_adapter(found, spec or os.environ.get("ASG_DEVICE"))
        report["chosen"] = chosen.index
        report["limits"] = _limits(chosen)
        device = Device.open(str(chosen.index))
        report["subgroups"] = asdict(device.subgroups)
        report["adapter_class"] = str(device.adapter_class)
        problems += _weaknesses(chosen)
    except DeviceError as error:
        problems.append(str(error))
    return report


def _caches() -> dict[str, Any]:
    """Return where the caches are, None where they are off, and what each holds."""
    root = cache_root()
    return {
        "folder": None if root is None else str(root),
        "holding": {cache.name: asdict(cache.usage()) for cache in CACHES},
    }


def _limits(adapter: Adapter) -> dict[str, dict[str, int]]:
    """Return what the adapter offers beside what every WebGPU implementation grants."""
    return {
        name: {"default": default, "adapter": adapter.limits.get(name, 0)}
        for name, default in DEFAULT_LIMITS.items()
    }


def _weaknesses(adapter: Adapter) -> list[str]:
    found: list[str] = []
    if not adapter.is_capable:
        found.append(
            f"{adapter} offers less than WebGPU's defaults\n"
            "  fix: install a Vulkan driver, or set ASG_DEVICE to another adapter"
        )
    if adapter.is_software:
        found.append(
            f"{adapter.name} computes on the processor: right, but slow\n"
            "  fix: install the driver of your graphics card, where there is one"
        )
    return found
