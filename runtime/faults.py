"""What a device's faults are called, and what their messages say."""

from __future__ import annotations

from collections.abc import Mapping

from asg.errors import DeviceError, DeviceLostError, OutOfMemoryError, ShaderError
from asg.runtime.adapters import Adapter, mebibytes
from asg.runtime.shaders import Shader, keep_refused

_LARGEST = 5


def device_fault(adapter: Adapter, doing: str, text: str, is_memory: bool) -> DeviceError:
    """Return the error for what the driver said while we were `doing` something."""
    if "device is lost" in text.lower() or "device lost" in text.lower():
        return DeviceLostError(
            f"the device was lost while {doing}: {adapter.name}\n"
            "  gone: everything on it: parameters, optimizer state, device arrays\n"
            "  fix: compile or load the model again, which opens a fresh device, then give\n"
            "       load_state_dict() what the last checkpoint holds\n"
            f"  driver: {text}"
        )
    message = f"{doing} failed on {adapter.name}: {text}"
    return OutOfMemoryError(message) if is_memory else DeviceError(message)


def out_of_memory(
    adapter: Adapter, label: str, size: int, total: int, held: Mapping[str, int], detail: str
) -> OutOfMemoryError:
    """Return the error for a buffer that finds no room; `held` names those that have some."""
    limit = f" of {mebibytes(total)}" if total else ""
    largest = sorted(held.items(), key=lambda item: -item[1])[:_LARGEST]
    listed = "".join(f"\n  {mebibytes(each)}: {name}" for name, each in largest)
    driver = f"\n  driver: {detail}" if detail else ""
    return OutOfMemoryError(
        f"no memory for buffer {label!r} of {mebibytes(size)} on {adapter.name}: "
        f"{mebibytes(sum(held.values()))}{limit} are in use{listed}{driver}"
    )


def too_large(adapter: Adapter, label: str, size: int, limit: int) -> DeviceError:
    """Return the error for a buffer that the device would never grant."""
    return DeviceError(
        f"buffer {label!r} needs {mebibytes(size)}, and {adapter.name} grants "
        f"{mebibytes(limit)} for one buffer"
    )


def refused(shader: Shader, error: DeviceError) -> ShaderError:
    """Return the error for a shader that does not compile: the compiler's fault, or that of who
    wrote it."""
    sites = f"\n  computes: {', '.join(shader.sites)}" if shader.sites else ""
    kernel = f"internal: kernel {shader.label} is"
    if shader.is_by_hand:
        kernel = f"kernel {shader.label}, written by hand, is"
    return ShaderError(
        f"{kernel} refused by the driver{sites}\n"
        f"  shader: {keep_refused(shader)}\n  driver: {error}"
    )
