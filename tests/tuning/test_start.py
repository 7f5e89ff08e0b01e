"""Kernels compile while weights are uploaded; a driver that has compiled them is left alone."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asg
from asg.compiler import lower
from asg.errors import OutOfMemoryError, ShaderError
from asg.runtime import devices
from asg.runtime.devices import NOTES, precompile
from asg.runtime.executor import Executor
from asg.runtime.kernels import shader_of
from asg.runtime.shaders import Shader
from asg.runtime.storage import Storage
from asg.runtime.wgpu_device import Device
from support import artefacts

pytestmark = pytest.mark.device

NOTHING = {"buffers": 0, "bind_groups": 0, "pipelines": 0}
BROKEN = "@compute @workgroup_size(1)\nfn main() {\n    let x: f32 = 1u;\n}\n"


def shaders(*numbers: int) -> list[Shader]:
    found = []
    for number in numbers:
        wgsl = f"@compute @workgroup_size(1) fn main() {{ _ = {number}; }}\n"
        kernel = artefacts.kernel(f"k{number}", wgsl)
        found.append(shader_of(kernel, kernel.variants[0]))
    return found


def test_a_driver_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caches: Path
) -> None:
    device = Device.open()
    if not device.is_cpu or (os.cpu_count() or 1) < 2:
        pytest.skip("only software drivers are helped, by other cores")
    monkeypatch.delenv("MESA_SHADER_CACHE_DISABLE", raising=False)

    def start(*numbers: int) -> bool:
        monkeypatch.setattr(devices, "_precompiled", set())
        return precompile(device, shaders(*numbers))

    assert start(1, 2, 3)
    assert not start(3, 1, 2)
    assert start(1, 2, 4)
    assert NOTES.usage().files == 2
    monkeypatch.setenv("MESA_SHADER_CACHE_DIR", str(tmp_path / "another"))
    assert start(1, 2, 3)
    monkeypatch.setenv("ASG_CACHE", "0")
    assert start(1, 2, 3)
    assert device.live() == NOTHING


def weighted() -> asg.Graph:
    w = asg.input("w", (64, 64), role="parameter")
    graph = asg.graph(outputs={"y": asg.softmax(asg.input("x", (8, 64)) @ w)})
    return graph.with_values({"w": np.ones((64, 64), np.float32)})


def test_a_refused_kernel_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASG_WGSL_DUMP", str(tmp_path))
    device = Device.open()
    artefact = lower({"main": weighted()})
    name, kernel = next(iter(artefact.kernels.items()))
    broken = replace(kernel, variants=(replace(kernel.variants[-1], wgsl=BROKEN),))
    kernels = {**artefact.kernels, name: broken}
    with pytest.raises(ShaderError, match="is refused by the driver"):
        Executor(replace(artefact, kernels=kernels), device)
    assert device.live() == NOTHING


def test_too_little_memory_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.open()
    compiled = threading.Event()
    acquire = Device.acquire_pipelines

    def noted(self: Device, shaders: list[Shader]) -> list[object]:
        found = acquire(self, shaders)
        compiled.set()
        return found

    def refuse(*_: object) -> None:
        assert compiled.wait(60), "kernels are compiled meanwhile"
        raise OutOfMemoryError("no memory for weights")

    monkeypatch.setattr(Device, "acquire_pipelines", noted)
    monkeypatch.setattr(Storage, "_write_all", refuse)
    with pytest.raises(OutOfMemoryError, match="no memory for weights"):
        Executor(lower({"main": weighted()}), device)
    assert device.live() == NOTHING


def test_threads_share_what_both_compile() -> None:
    device = Device.open()
    made: list[list[object]] = []

    def acquire() -> None:
        made.append(list(device.acquire_pipelines(shaders(*range(20)))))

    threads = [threading.Thread(target=acquire) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert all(each is other for row in made for each, other in zip(row, made[0], strict=True))
    assert device.live()["pipelines"] == 20
    for row in made:
        device.release_pipelines(row)  # type: ignore[arg-type]
    assert device.live() == NOTHING


def test_closing_gives_everything_back() -> None:
    device = Device.open()
    with Executor(lower({"main": weighted()}), device) as executor:
        executor.run("main", {"x": np.ones((8, 64), np.float32)})
        assert device.live() != NOTHING
    assert device.live() == NOTHING
