"""What some tests need of the machine: a wgpu adapter, and Tint."""

from __future__ import annotations

import os
import tempfile
from functools import cache

import wgpu

from support.wgsl_check import check_tint

TRIVIAL = "@compute @workgroup_size(1) fn main() {}"

# wgpu's OpenGL adapters lack what compute needs, so one of those is no device.
BACKENDS = ("Vulkan", "Metal", "D3D12")


def is_required() -> bool:
    """Whether a missing device or compiler fails the run, as in `make test`."""
    return os.environ.get("ASG_REQUIRE_DEVICE", "0") not in ("", "0")


@cache
def device_problem() -> str | None:
    """Why no wgpu device can be had, or None."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    adapters = wgpu.gpu.enumerate_adapters_sync()
    if any(adapter.info["backend_type"] in BACKENDS for adapter in adapters):
        return None
    return "no wgpu adapter is found: `make vulkan` installs a software one"


@cache
def tint_problem() -> str | None:
    """Why Tint compiles nothing here, or None; tried out in earnest."""
    try:
        refused = check_tint({"trivial": TRIVIAL})["trivial"]
    except RuntimeError as error:
        return str(error)
    return f"Tint refuses a trivial shader: {refused}" if refused else None
