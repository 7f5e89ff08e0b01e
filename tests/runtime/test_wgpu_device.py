"""Devices: what they say when something goes wrong, and what they count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asg.artefact import Artefact
from asg.errors import DeviceError, DeviceLostError, OutOfMemoryError, ReleasedError, ShaderError
from asg.runtime import wgpu_device
from asg.runtime.adapters import DEFAULT_LIMITS, NO_ADAPTER
from asg.runtime.devices import device_for, precompile, shared_device
from asg.runtime.executor import Executor
from asg.runtime.kernels import shader_of
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Device, adapters
from support import artefacts
from support.artefacts import N

pytestmark = pytest.mark.device

Load = Callable[[Artefact], Executor]
ONES = np.ones(N, np.float32)
BROKEN = "@compute @workgroup_size(1)\nfn main() {\n    let x: f32 = 1u;\n}\n"


def test_opens_the_adapter_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    first = adapters()[0]
    monkeypatch.setenv("ASG_DEVICE", "0")
    assert Device.open().adapter == first
    assert Device.open(first.name[:6]).adapter.name == first.name
    monkeypatch.setenv("ASG_DEVICE", "no such thing")
    with pytest.raises(DeviceError, match="no adapter is called 'no such thing'; there are "):
        Device.open()


def test_describes_itself(device: Device) -> None:
    adapter = device.adapter
    assert adapter.name in device.description
    assert adapter.backend in device.description
    assert repr(device) == f"<Device {device.description}>"
    assert device.is_cpu == (adapter.type == "cpu")


def test_asks_for_no_more_than_the_defaults() -> None:
    opened = Device.open()
    assert opened.limits == DEFAULT_LIMITS


def test_is_shared_and_grows(device: Device) -> None:
    assert shared_device() is device
    size = device.limits["maxComputeWorkgroupStorageSize"]
    assert device_for(device, {"maxComputeWorkgroupStorageSize": size}) is device
    if device.adapter.limits["maxComputeWorkgroupStorageSize"] > size:
        larger = device_for(device, {"maxComputeWorkgroupStorageSize": 1 << 30})
        granted = larger.limits["maxComputeWorkgroupStorageSize"]
        assert granted == device.adapter.limits["maxComputeWorkgroupStorageSize"]
        assert device_for(device, {"maxComputeWorkgroupStorageSize": size + 1}) is larger


def test_knows_its_subgroups(device: Device) -> None:
    size = device.subgroup_size
    assert size == 0 or size & (size - 1) == 0
    if "subgroups" not in device.features:
        assert size == 0


def test_no_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wgpu_device, "_listed", [])
    monkeypatch.setattr(wgpu_device.wgpu.gpu, "enumerate_adapters_sync", list)
    assert adapters() == []
    with pytest.raises(DeviceError) as caught:
        Device.open()
    assert str(caught.value) == NO_ADAPTER


def test_shader_that_is_refused(
    device: Device, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASG_WGSL_DUMP", str(tmp_path))
    kernel = artefacts.kernel("broken", BROKEN)
    model = replace(artefacts.model(), kernels={"broken": kernel}, entries={})
    with pytest.raises(ShaderError) as caught:
        load(model)
    lines = str(caught.value).splitlines()
    assert lines[:2] == [
        "internal: kernel broken is refused by the driver",
        "  computes: model.py:3",
    ]
    (path,) = tmp_path.glob("*.wgsl")
    assert lines[2] == f"  shader: {path}"
    assert lines[3].startswith("  driver: compiling kernel 'broken' failed on ")
    assert "expected to be `f32`, but got `u32`" in str(caught.value)
    assert path.read_text() == f"// broken\n{BROKEN}"


def test_every_shader_is_shown(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(wgpu_device, "on_shader", lambda *each: seen.append(each))
    monkeypatch.setenv("ASG_WGSL_DUMP", str(tmp_path))
    wgsl = "@compute @workgroup_size(1) fn main() { _ = 41; }\n"
    pipelines = device.acquire_pipelines(
        [Shader("one", wgsl, ()), Shader("half", wgsl, (), ("shader-f16",))]
        if "shader-f16" in device.features
        else [Shader("one", wgsl, ())]
    )
    expected = [("one", wgsl), ("half", f"// features: shader-f16\nenable f16;\n{wgsl}")]
    assert sorted(seen) == sorted(expected[: len(pipelines)])
    texts = {path.read_text() for path in tmp_path.glob("*.wgsl")}
    assert texts == {f"// {label}\n{text}" for label, text in seen}
    device.release_pipelines(pipelines)


def test_comments_make_no_new_pipeline() -> None:
    one = Shader("a", "// a\nfn f() {}\n", ("read",))
    assert one.key == Shader("b", "  // b\nfn f() {}\n", ("read",)).key
    assert one.key != Shader("a", "// a\nfn f() {}\n", ("read_write",)).key
    assert one.key != Shader("a", "fn g() {}\n", ("read",)).key


def test_buffer_that_is_too_large(device: Device) -> None:
    limit = device.limits["maxBufferSize"]
    with pytest.raises(DeviceError) as caught:
        device.create_buffer("weights", limit + 256)
    assert str(caught.value).startswith("buffer 'weights' needs ")
    assert f"{device.adapter.name} grants " in str(caught.value)


def test_out_of_memory(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    held = device.create_buffer("weights", 2 << 20)
    monkeypatch.setattr(device, "memory", device.allocated + (1 << 20))
    with pytest.raises(OutOfMemoryError) as caught:
        device.create_buffer("arena", 3 << 20)
    first, *listed = str(caught.value).splitlines()
    assert first.startswith(f"no memory for buffer 'arena' of 3.0 MiB on {device.adapter.name}: ")
    assert first.endswith(" are in use")
    assert "  2.0 MiB: weights" in listed
    held.close()


def test_out_of_memory_of_the_driver(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise wgpu_device.wgpu.GPUOutOfMemoryError("Not enough memory left.")

    before = device.live()
    monkeypatch.setattr(device._handle, "create_buffer", refuse)
    with pytest.raises(OutOfMemoryError) as caught:
        device.create_buffer("arena", 512)
    assert str(caught.value).startswith("no memory for buffer 'arena' of 512 bytes on ")
    assert str(caught.value).endswith("Not enough memory left.")
    assert device.live() == before


def test_closed_buffer(device: Device) -> None:
    buffer = device.create_buffer("weights", 256, staging=True)
    buffer.close()
    buffer.close()
    with pytest.raises(ReleasedError) as caught, device.mapped(buffer, 4, 0):
        pass
    assert str(caught.value) == "buffer 'weights' was closed"


def test_lost_device() -> None:
    device = Device.open()
    executor = Executor(artefacts.model(), device)
    executor.run("predict", {"x": ONES})
    device._handle.destroy()
    with pytest.raises(DeviceLostError) as caught:
        executor.run("predict", {"x": ONES})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("the device was lost while ")
    assert lines[0].endswith(f": {device.adapter.name}")
    assert lines[1] == "  gone: everything on it: parameters, optimizer state, device arrays"
    assert lines[2:4] == [
        "  fix: compile or load the model again, which opens a fresh device, then give",
        "       load_state_dict() what the last checkpoint holds",
    ]
    with pytest.raises(DeviceLostError) as caught:
        executor.state_dict()
    assert str(caught.value).splitlines()[0] == (
        "tiny: the device was lost, and the state of tiny with it"
    )
    executor.close()


def test_shared_device_is_replaced_when_it_is_lost(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asg.runtime.devices._shared", {})
    lost = shared_device()
    lost.is_lost = True
    assert shared_device() is not lost


def test_precompiling_leaves_nothing(device: Device) -> None:
    wgsl = "@compute @workgroup_size(1) fn main() { _ = NUMBER; }\n"
    kernels = [
        artefacts.kernel(f"k{number}", wgsl.replace("NUMBER", str(number))) for number in range(5)
    ]
    kernels.append(artefacts.kernel("broken", BROKEN))
    before = device.live()
    precompile(device, [shader_of(kernel, kernel.variants[0]) for kernel in kernels])
    assert device.live() == before


def test_no_complaints_on_standard_error() -> None:
    program = (
        "import asg.runtime.wgpu_device as w; d = w.Device.open(); b = d.create_buffer('b', 256)\n"
        "b.close(); print(d.subgroup_size)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr == ""
