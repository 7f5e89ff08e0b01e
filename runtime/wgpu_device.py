"""The one module that knows wgpu: opens devices, makes their objects, submits their work.

wgpu-py reports every error at the call that caused it; here each becomes one of `asg.errors`.
What is called a thousand times a second goes straight to the C library under wgpu-py (whose
version is pinned): that halves the cost of encoding, and of waiting for a result.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import wgpu
from wgpu.backends.wgpu_native import _api as native
from wgpu.backends.wgpu_native.extras import set_instance_extras

from asg.errors import AsgError, DeviceError, DeviceLostError, OutOfMemoryError
from asg.runtime.adapters import (
    DEFAULT_LIMITS,
    USEFUL_FEATURES,
    Adapter,
    AdapterClass,
    AdapterType,
    choose_adapter,
    classify,
    granted_limits,
    host_memory,
)
from asg.runtime.c_types import hasten
from asg.runtime.commands import Buffer, Call, Command, Pipeline, Work
from asg.runtime.faults import device_fault, out_of_memory, refused, too_large
from asg.runtime.probing import Subgroups, probe
from asg.runtime.shaders import Shader, dump_shader

# Called with (label, text) for every shader module made.
on_shader: Callable[[str, str], None] | None = None

_lib: Any = native.lib
_ffi: Any = native.ffi
hasten(_ffi)
_TYPES: Mapping[str, AdapterType] = {
    "DiscreteGPU": "discrete", "IntegratedGPU": "integrated", "CPU": "cpu",
}  # fmt: skip
_NATIVE_FEATURES = {"subgroups": "subgroup"}  # where wgpu has its own name for WebGPU's
_STORAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
_STAGING = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
_listing = threading.Lock()
_listed: list[tuple[Adapter, Any]] = []
_QUERIES = 2048  # a query set holds at most 4096, two for each dispatch


class Device:
    """A device and its queue. Threads may share it; every object it makes has a label."""

    def __init__(self, adapter: Adapter, handle: Any) -> None:
        self.adapter = adapter
        self.description = str(adapter)
        self.features = frozenset(_spec_features(handle.features))
        self.limits: Mapping[str, int] = _spec_limits(handle.limits)
        self.is_lost = False
        self.is_helper = False  # compiles for another device; nobody watches its shaders
        self.memory = host_memory() if adapter.is_software else 0  # 0: the driver knows
        self._handle = handle
        self._queue = handle.queue
        self._lock = threading.RLock()
        self.allocated = 0  # bytes in all buffers
        self._buffers: dict[Buffer, None] = {}
        self._pipelines: dict[object, Pipeline] = {}
        self._layouts: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self._groups = 0
        self._subgroups: Subgroups | None = None

    @staticmethod
    def open(spec: str | None = None, limits: Mapping[str, int] | None = None) -> Device:
        """Open the adapter that `spec` or ASG_DEVICE names, or else the best one.

        `limits` (WebGPU names) are raised above WebGPU's defaults as far as the adapter goes.

        Raises:
            DeviceError: there is no such adapter, or it refuses.
        """
        listed = _enumerate()
        adapter = choose_adapter([each for each, _ in listed], spec or os.environ.get("ASG_DEVICE"))
        handle = next(handle for each, handle in listed if each is adapter)
        return Device(adapter, _request(adapter, handle, granted_limits(adapter, limits or {})))

    @property
    def is_cpu(self) -> bool:
        """Whether kernels run on the processor."""
        return self.adapter.is_software

    def __repr__(self) -> str:
        return f"<Device {self.description}>"

    @property
    def subgroups(self) -> Subgroups:
        """What subgroups are like here, as kernels saw it."""
        with self._lock:
            if self._subgroups is None:
                self._subgroups = probe(self)
            return self._subgroups

    @property
    def subgroup_size(self) -> int:
        """Lanes of a subgroup where lane = local_invocation_index % size holds; else 0."""
        return self.subgroups.usable

    @property
    def adapter_class(self) -> AdapterClass:
        """Which class of adapters it belongs to."""
        return classify(self.adapter, self.subgroup_size)

    def live(self) -> dict[str, int]:
        """Count the objects that exist now."""
        with self._lock:
            return {
                "buffers": len(self._buffers),
                "bind_groups": self._groups,
                "pipelines": len(self._pipelines),
            }

    # -- buffers ------------------------------------------------------------------------------

    def create_buffer(self, label: str, size: int, *, staging: bool = False) -> Buffer:
        """Make a buffer of zeros; a staging buffer is what results are read through.

        Raises:
            OutOfMemoryError: there is no memory left for it.
            DeviceError: it is larger than the device allows.
        """
        if size > self.limits["maxBufferSize"]:
            raise too_large(self.adapter, label, size, self.limits["maxBufferSize"])
        if self.memory and self.allocated + size > self.memory:
            raise self._out_of_memory(label, size, "")
        try:
            with self._guard(f"creating buffer {label!r}"):
                usage = _STAGING if staging else _STORAGE
                handle = self._handle.create_buffer(label=label, size=size, usage=usage)
        except OutOfMemoryError as error:
            raise self._out_of_memory(label, size, str(error)) from None
        buffer = Buffer(handle, label, size, self._forget_buffer)
        with self._lock:
            self._buffers[buffer] = None
            self.allocated += size
        return buffer

    def _out_of_memory(self, label: str, size: int, detail: str) -> OutOfMemoryError:
        with self._lock:
            held: dict[str, int] = {}
            for buffer in list(self._buffers):  # a garbage collection may take some away
                held[buffer.label] = held.get(buffer.label, 0) + buffer.size
        return out_of_memory(self.adapter, label, size, self.memory, held, detail)

    def _forget_buffer(self, buffer: Buffer) -> None:
        with self._lock:
            del self._buffers[buffer]
            self.allocated -= buffer.size

    def write(self, buffer: Buffer, offset: int, words: np.ndarray) -> None:
        """Upload contiguous 4-byte elements; what is submitted later sees them."""
        if words.nbytes:
            with self._guard(f"writing buffer {buffer.label!r}"):
                self._queue.write_buffer(buffer.handle, offset, words)

    @contextmanager
    def mapped(self, staging: Buffer, size: int, submission: int) -> Iterator[np.ndarray]:
        """Give the first `size` bytes of a staging buffer, valid inside the block."""
        failures: list[str | None] = []

        @_ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator,unused-ignore]
        def on_map(status: int, message: Any, _1: Any, _2: Any) -> None:
            is_good = status == _lib.WGPUMapAsyncStatus_Success
            failures.append(None if is_good else native.from_c_string_view(message))

        info = native.new_struct(
            "WGPUBufferMapCallbackInfo",
            mode=_lib.WGPUCallbackMode_AllowProcessEvents,
            callback=on_map,
        )
        with self._guard(f"reading {staging.label!r}"):
            _lib.wgpuBufferMapAsync(staging.raw, wgpu.MapMode.READ, 0, size, info)
            while not failures:
                self._poll(submission)
        if failures[0] is not None:
            raise self._fault(f"reading {staging.label!r}", failures[0])
        try:
            pointer = _lib.wgpuBufferGetConstMappedRange(staging.raw, 0, size)
            yield np.frombuffer(_ffi.buffer(pointer, size), np.uint8)
        finally:
            _lib.wgpuBufferUnmap(staging.raw)

    # -- kernels ------------------------------------------------------------------------------

    def acquire_pipelines(self, shaders: Sequence[Shader]) -> list[Pipeline]:
        """Compile shaders, in parallel, those that are compiled already excepted.

        Raises:
            ShaderError: the driver refuses one; then none is held.
        """
        with self._lock:
            missing = {each.key: each for each in shaders if each.key not in self._pipelines}
            for shader in missing.values():
                self._prepare_layout(shader.accesses)
        # Without the lock: other threads upload meanwhile, or compile the same for themselves.
        workers = min(8, os.cpu_count() or 1, len(missing))
        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                made = list(pool.map(self._compile, missing.values()))
        else:
            made = [self._compile(shader) for shader in missing.values()]
        own = {pipeline.key: pipeline for pipeline in made}
        with self._lock:
            found: dict[object, Pipeline] = {}
            for shader in shaders:
                known = self._pipelines.get(shader.key) or own.get(shader.key)
                # Its last user may have given it back while the others were compiled.
                found[shader.key] = known or found.get(shader.key) or self._compile(shader)
            self._pipelines.update(found)
            pipelines = [found[shader.key] for shader in shaders]
            for pipeline in pipelines:
                pipeline.users += 1
            return pipelines

    def release_pipelines(self, pipelines: Sequence[Pipeline]) -> None:
        """Give pipelines back; one that nobody holds is dropped."""
        with self._lock:
            for pipeline in pipelines:
                pipeline.users -= 1
                if pipeline.users == 0:
                    del self._pipelines[pipeline.key]

    def _prepare_layout(self, accesses: tuple[str, ...]) -> None:
        if accesses not in self._layouts:
            with self._guard("laying out bindings"):
                self._layouts[accesses] = _make_layout(self._handle, accesses)

    def _compile(self, shader: Shader) -> Pipeline:
        if not self.is_helper:
            if on_shader is not None:
                on_shader(shader.label, shader.full_text)
            dump_shader(shader)
        layout, pipeline_layout = self._layouts[shader.accesses]
        try:
            with self._guard(f"compiling kernel {shader.label!r}"):
                handle = _make_pipeline(self._handle, pipeline_layout, shader)
        except (DeviceLostError, OutOfMemoryError):
            raise
        except DeviceError as error:
            raise refused(shader, error) from None
        return Pipeline(handle, layout, shader.label, shader.key)

    def create_group(self, pipeline: Pipeline, ranges: Sequence[tuple[Buffer, int, int]]) -> Any:
        """Make a bind group of (buffer, offset, size) for each binding of a pipeline."""
        entries = [
            {
                "binding": binding,
                "resource": {"buffer": buffer.handle, "offset": offset, "size": size},
            }
            for binding, (buffer, offset, size) in enumerate(ranges)
        ]
        with self._guard(f"binding the buffers of kernel {pipeline.label!r}"):
            group = self._handle.create_bind_group(layout=pipeline.layout, entries=entries)
        with self._lock:
            self._groups += 1
        return group

    def release_groups(self, count: int) -> None:
        """Note that so many bind groups are dropped."""
        with self._lock:
            self._groups -= count

    # -- running ------------------------------------------------------------------------------

    def submit(self, commands: Sequence[Command]) -> int:
        """Submit commands as one command buffer; return what `wait` takes.

        Raises:
            DeviceLostError: the device is gone.
            DeviceError: the commands are not valid; none of them runs.
        """
        with self._guard("encoding commands"):
            encoder = self._handle.create_command_encoder()
            for command in commands:
                if isinstance(command, Work):
                    _encode_pass(encoder, command)
                else:
                    encoder.copy_buffer_to_buffer(
                        command.source.handle,
                        command.source_offset,
                        command.target.handle,
                        command.target_offset,
                        command.size,
                    )
            finished = encoder.finish()
        with self._guard("submitting commands"):
            array = _ffi.new("WGPUCommandBuffer[]", [finished._internal])
            return int(_lib.wgpuQueueSubmitForIndex(self._queue._internal, 1, array))

    def wait(self, submission: int) -> None:
        """Block until a submission has run."""
        with self._guard("waiting for the device"):
            self._poll(submission)

    def sync(self) -> None:
        """Block until everything submitted has run."""
        with self._guard("waiting for the device"):
            _lib.wgpuDevicePoll(self._handle._internal, True, _ffi.NULL)

    def _poll(self, submission: int) -> None:
        # Only our own submission: another thread's may take long.
        index = _ffi.new("WGPUSubmissionIndex *", submission)
        _lib.wgpuDevicePoll(self._handle._internal, True, index)

    def time_calls(self, calls: Sequence[Call]) -> list[float] | None:
        """Run dispatches one after another; return seconds of each, None without a clock."""
        if "timestamp-query" not in self.features:
            return None
        seconds: list[float] = []
        for start in range(0, len(calls), _QUERIES):
            seconds += self._time_batch(calls[start : start + _QUERIES])
        return seconds

    def _time_batch(self, calls: Sequence[Call]) -> list[float]:
        count = 2 * len(calls)
        staging = self.create_buffer("timestamps", 8 * count, staging=True)
        resolved = self._handle.create_buffer(
            size=8 * count, usage=wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
        )
        with self._guard("timing kernels"):
            queries = self._handle.create_query_set(type="timestamp", count=count)
            encoder = self._handle.create_command_encoder()
            for position, call in enumerate(calls):
                writes = {
                    "query_set": queries,
                    "beginning_of_pass_write_index": 2 * position,
                    "end_of_pass_write_index": 2 * position + 1,
                }
                _encode_pass(encoder, Work([call]), writes)
            encoder.resolve_query_set(queries, 0, count, resolved, 0)
            encoder.copy_buffer_to_buffer(resolved, 0, staging.handle, 0, 8 * count)
            array = _ffi.new("WGPUCommandBuffer[]", [encoder.finish()._internal])
            submission = int(_lib.wgpuQueueSubmitForIndex(self._queue._internal, 1, array))
        with self.mapped(staging, 8 * count, submission) as data:
            ticks = data.view(np.uint64).copy()
        staging.close()
        resolved.destroy()
        period = _lib.wgpuQueueGetTimestampPeriod(self._queue._internal)
        spans = ticks[1::2].astype(np.int64) - ticks[0::2].astype(np.int64)
        return [float(span) * period * 1e-9 for span in spans]

    # -- errors -------------------------------------------------------------------------------

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Make every error of wgpu inside the block one of ours."""
        cause: Exception | None = None
        native.error_handler.capture(doing)
        try:
            yield
        except AsgError:
            raise
        except (wgpu.GPUError, RuntimeError, ValueError) as error:
            cause = error
        finally:
            captured = native.error_handler.release(doing)
        if cause is not None or captured is not None:
            kind, text = captured or ("", str(cause))
            is_memory = kind == "OutOfMemory" or isinstance(cause, wgpu.GPUOutOfMemoryError)
            raise self._fault(doing, text, is_memory)

    def _fault(self, doing: str, text: str, is_memory: bool = False) -> DeviceError:
        error = device_fault(self.adapter, doing, text, is_memory)
        self.is_lost = self.is_lost or isinstance(error, DeviceLostError)
        return error


def adapters() -> list[Adapter]:
    """List the adapters of this machine, for `asg doctor`."""
    return [adapter for adapter, _ in _enumerate()]


def _enumerate() -> list[tuple[Adapter, Any]]:
    """List the adapters of WebGPU's own backends (Vulkan, Metal, D3D12), once."""
    with _listing:
        if not _listed:
            # EGL complains on standard error, and some drivers fail, where there is none.
            os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
            try:
                # Not OpenGL: it lacks subgroups, and its handles abort the process when two
                # threads drop them.
                with suppress(RuntimeError):  # other code has made the instance already
                    set_instance_extras(backends=["Primary"])
                found = wgpu.gpu.enumerate_adapters_sync()
            except (wgpu.GPUError, RuntimeError) as error:
                raise DeviceError(f"listing adapters: {error}") from error
            _listed.extend((_describe(index, handle), handle) for index, handle in enumerate(found))
        return list(_listed)


def _describe(index: int, handle: Any) -> Adapter:
    info = handle.info
    return Adapter(
        index=index,
        name=info["device"] or info["vendor"] or "unnamed",
        backend=info["backend_type"],
        driver=info["description"],
        type=_TYPES.get(info["adapter_type"], "unknown"),
        vendor=info["vendor_id"],
        features=frozenset(_spec_features(handle.features)),
        limits=_spec_limits(handle.limits),
    )


def _spec_features(names: Iterable[str]) -> list[str]:
    spec = {native_name: name for name, native_name in _NATIVE_FEATURES.items()}
    return [spec.get(name, name) for name in names]


def _spec_limits(limits: Mapping[str, int]) -> dict[str, int]:
    return {name: limits[_dashed(name)] for name in DEFAULT_LIMITS}


def _dashed(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: f"-{match.group().lower()}", name)


def _request(adapter: Adapter, handle: Any, limits: Mapping[str, int]) -> Any:
    features = [name for name in USEFUL_FEATURES if name in adapter.features]
    try:
        # wgpu-py grants the adapter's maxima for what is not named.
        return handle.request_device_sync(
            label="asg",
            required_features=[_NATIVE_FEATURES.get(name, name) for name in features],
            required_limits={_dashed(name): value for name, value in limits.items()},
        )
    except (wgpu.GPUError, RuntimeError) as error:
        raise DeviceError(f"opening {adapter}: {error}") from error


def _make_layout(handle: Any, accesses: tuple[str, ...]) -> tuple[Any, Any]:
    kinds = {"read": "read-only-storage", "read_write": "storage"}
    entries = [
        {
            "binding": binding,
            "visibility": wgpu.ShaderStage.COMPUTE,
            "buffer": {"type": kinds[access]},
        }
        for binding, access in enumerate(accesses)
    ]
    layout = handle.create_bind_group_layout(entries=entries)
    return layout, handle.create_pipeline_layout(bind_group_layouts=[layout])


def _make_pipeline(handle: Any, layout: Any, shader: Shader) -> Any:
    module = handle.create_shader_module(label=shader.label, code=shader.full_text)
    return handle.create_compute_pipeline(
        label=shader.label, layout=layout, compute={"module": module, "entry_point": "main"}
    )


def _encode_pass(encoder: Any, work: Work, timestamps: Mapping[str, Any] | None = None) -> None:
    step = encoder.begin_compute_pass(timestamp_writes=timestamps)
    raw, null = step._internal, _ffi.NULL
    set_pipeline = _lib.wgpuComputePassEncoderSetPipeline
    set_group = _lib.wgpuComputePassEncoderSetBindGroup
    dispatch = _lib.wgpuComputePassEncoderDispatchWorkgroups
    for pipeline, group, x, y, z in work.raw:
        if pipeline is not None:
            set_pipeline(raw, pipeline)
        set_group(raw, 0, group, 0, null)
        dispatch(raw, x, y, z)
    step.end()
