"""What tests of the runtime share: a device, and artefacts loaded on it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from asg.artefact import Artefact
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.wgpu_device import Device
from support import artefacts

Load = Callable[[Artefact], Executor]


@pytest.fixture
def device() -> Device:
    """The device that executables of this process share."""
    return shared_device()


@pytest.fixture
def load(device: Device) -> Iterator[Load]:
    """`load(artefact)`: an executor that is closed after the test; nothing of it may be left."""
    gc.collect()
    before = device.live()
    executors: list[Executor] = []

    def load_one(artefact: Artefact) -> Executor:
        executors.append(Executor(artefact, device))
        return executors[-1]

    yield load_one
    for executor in executors:
        executor.close()
    # A caught exception and the frame it was raised in hold each other, and arrays with them.
    gc.collect()
    assert device.live() == before


@pytest.fixture
def tiny(load: Load) -> Executable:
    """The tiny model with its entries `predict` and `train`."""
    return Executable(load(artefacts.model()))
