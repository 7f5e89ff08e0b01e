"""The process's shared device, and the use of several to compile faster."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from asg.closing import Closing
from asg.errors import DeviceError
from asg.runtime.adapters import granted_limits
from asg.runtime.commands import Call, Pipeline, Work
from asg.runtime.disk_cache import DiskCache, digest
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Device

NOTES = DiskCache("drivers", 1 << 20)

_MOST_HELPERS = 16
_DUMMY_BYTES = 4096

_shared: dict[str, Device] = {}
_shared_lock = threading.Lock()
_precompiled: set[object] = set()


def shared_device(spec: str | None = None, limits: Mapping[str, int] | None = None) -> Device:
    """Return the process's device for `spec` (or ASG_DEVICE), opened at the first call."""
    wanted = spec or os.environ.get("ASG_DEVICE") or ""
    with _shared_lock:
        device = _shared.get(wanted)
        if device is None or device.is_lost:
            device = _shared[wanted] = Device.open(wanted, limits)
    return device if limits is None else device_for(device, limits)


def device_for(device: Device, limits: Mapping[str, int]) -> Device:
    """Return `device`, or one on the same adapter if that could grant higher limits.

    A new one takes the place of the old among the shared devices.
    """
    with _shared_lock:
        reachable = granted_limits(device.adapter, limits)
        for candidate in (device, *_shared.values()):
            is_fit = candidate.adapter == device.adapter and not candidate.is_lost
            if is_fit and all(candidate.limits[name] >= reachable[name] for name in limits):
                return candidate
        raised = {name: max(value, device.limits[name]) for name, value in reachable.items()}
        larger = Device.open(str(device.adapter.index), raised)
        for wanted, shared in _shared.items():
            if shared is device:
                _shared[wanted] = larger
        return larger


def compile_shaders(device: Device, shaders: Sequence[Shader]) -> list[Pipeline]:
    """Return the pipelines of shaders; a software driver compiles them on all cores.

    Raises:
        ShaderError: the driver refuses one; then none is held.
    """
    precompile(device, shaders)
    return device.acquire_pipelines(shaders)


def precompile(device: Device, shaders: Sequence[Shader]) -> bool:
    """Let a software driver compile shaders on all cores; whether that was needed.

    Mesa's lavapipe compiles a kernel when it is first dispatched, on the one thread that serves
    the device: seconds for a model. A dispatch of no workgroups compiles as well, and what was
    compiled lands in Mesa's disk cache, where other devices find it. So devices opened for the
    purpose compile side by side. A note on disk tells later starts that it has been done.
    """
    missing = {shader.key: shader for shader in shaders if shader.key not in _precompiled}
    workers = min(len(missing), os.cpu_count() or 1, _MOST_HELPERS)
    is_cached = os.environ.get("MESA_SHADER_CACHE_DISABLE", "").lower() not in ("1", "true")
    if workers < 2 or not device.adapter.is_software or not is_cached:
        return False
    if NOTES.get(_note(device, missing.values())) is not None:
        _precompiled.update(missing)
        return False
    # The longest take longest, so they go first.
    pending = deque(sorted(missing.values(), key=lambda shader: -len(shader.wgsl)))
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            pool.submit(_compile_pending, device, pending)
    _precompiled.update(missing)
    NOTES.put(_note(device, missing.values()), b"")
    return True


def _note(device: Device, shaders: Iterable[Shader]) -> str:
    """Name the shaders, and the driver and its cache that have seen them.

    What the note says may have become wrong (the driver forgets what was not used for long); then
    kernels are compiled at their first dispatch.
    """
    texts = sorted(digest(shader.key[0], *shader.key[1]) for shader in shaders)
    adapter = device.adapter
    return digest(adapter.identity, adapter.driver, _driver_cache(), *texts)


def _driver_cache() -> str:
    """Name Mesa's disk cache; one that was deleted and made again has another name."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    root = Path(os.environ.get("MESA_SHADER_CACHE_DIR") or home)
    for name in ("mesa_shader_cache_db", "mesa_shader_cache", "mesa_shader_cache_sf"):
        with suppress(OSError):
            return f"{root / name} {(root / name).stat().st_ino}"
    return f"{root} has none"


def _compile_pending(device: Device, pending: deque[Shader]) -> None:
    """Compile shaders on a device of our own until there are none left.

    Faults are left to the device proper, which reports them; a kernel may also ask for a
    larger buffer than the dummies are, and is then compiled later.
    """
    helper = Device.open(str(device.adapter.index), device.limits)
    helper.is_helper = True
    while pending:
        try:
            shader = pending.popleft()
        except IndexError:
            return
        try:
            _compile_one(helper, shader)
        except DeviceError:
            continue


def _compile_one(helper: Device, shader: Shader) -> None:
    (pipeline,) = helper.acquire_pipelines([shader])
    buffers = [helper.create_buffer("dummy", _DUMMY_BYTES) for _ in shader.accesses]
    group = helper.create_group(pipeline, [(buffer, 0, _DUMMY_BYTES) for buffer in buffers])
    try:
        helper.wait(helper.submit([Work([Call(pipeline, group, (0, 1, 1))])]))
    finally:
        for buffer in buffers:
            buffer.close()


class Compiler(Closing):
    """Compiles shaders on devices of its own, and gives up those that take longer than `limit`.

    A driver can't be interrupted: its device is then left to itself, and another one is opened.
    What was compiled lands in the driver's cache, where `device` finds it.
    """

    def __init__(self, device: Device, limit: float) -> None:
        self._device = device
        self._limit = limit
        self._pool: ThreadPoolExecutor | None = None
        self._helper: Device | None = None

    def compile(self, shader: Shader) -> bool:
        """Compile a shader; whether that was quick enough.

        Raises:
            DeviceError: the driver refuses it.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "asg-tune")
            self._helper = Device.open(str(self._device.adapter.index), self._device.limits)
            self._helper.is_helper = True
        assert self._helper is not None
        try:
            self._pool.submit(_compile_one, self._helper, shader).result(self._limit)
        except TimeoutError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Take no more shaders; one that is being compiled is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._pool = self._helper = None
