"""What subgroups are like is asked, remembered for the same adapter and driver, and shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asg.errors import DeviceError
from asg.runtime import probing
from asg.runtime.kernels import choose_variant
from asg.runtime.probing import CACHE, WORKGROUPS, Subgroups, decode, judge, probe
from asg.runtime.wgpu_device import Device
from support import artefacts

Words = np.ndarray


def answers(size: int, count: int) -> Words:
    """What invocations say where each subgroup has `size` neighbours, by hand."""
    rows = []
    for local in range(count):
        first = local // size * size
        rows.append([local - first, size, first, first + 3, min(size, count - first)])
    return np.array(rows, np.uint32)


@pytest.mark.parametrize("size", [4, 8, 32, 64, 128])
def test_neighbours_in_order(size: int) -> None:
    found = judge([answers(size, count) for count in WORKGROUPS])
    assert found == Subgroups(size, True, f"of {size} lanes in order")
    assert found.usable == size


def test_lanes_in_another_order() -> None:
    all_answers = [answers(8, count) for count in WORKGROUPS]
    all_answers[1] = all_answers[1][::-1].copy()
    found = judge(all_answers)
    assert found == Subgroups(8, False, "of 8 lanes out of order (workgroups of 64)")
    assert found.usable == 0


def test_lanes_in_order_that_share_no_subgroup() -> None:
    """Every second invocation is in the other subgroup, though lanes count up."""
    words = answers(8, 64)
    words[:, 2] = np.arange(64) % 2
    assert judge([words]).usable == 0


def test_size_that_depends_on_the_workgroup() -> None:
    found = judge([answers(32, 8), answers(64, 64), answers(64, 128), answers(64, 256)])
    assert found == Subgroups(0, False, "of different sizes: 32, 64")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 129])
def test_sizes_that_nobody_can_use(size: int) -> None:
    words = np.zeros((64, 5), np.uint32)
    words[:, 1] = size
    assert judge([words]).usable == 0


@pytest.mark.parametrize(
    "data",
    [None, b"", b"[]", b"{}", b'{"size": "8", "is_linear": true, "detail": ""}',
     b'{"size": 8, "is_linear": 1, "detail": ""}', b'{"size": -8, "is_linear": true, "detail": ""}',
     b"\xff"],
)  # fmt: skip
def test_what_is_not_a_result(data: bytes | None) -> None:
    assert decode(data) is None


@pytest.mark.device
def test_asked_once_for_an_adapter_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.open()
    found = probe(device)
    assert device.subgroups == found
    assert device.subgroup_size == found.usable
    if "subgroups" in device.features and device.adapter.has_fixed_subgroups:
        assert CACHE.usage().files == 1
        monkeypatch.setattr(probing, "_run", None)  # would fail if it were called
        assert probe(Device.open()) == found
    assert Device.open().live() == {"buffers": 0, "bind_groups": 0, "pipelines": 0}


@pytest.mark.device
def test_asked_again_for_another_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.open()
    if "subgroups" not in device.features or not device.adapter.has_fixed_subgroups:
        pytest.skip("the adapter's subgroups are not probed")
    probe(device)
    asked = []

    def run(device: Device, count: int) -> Words:
        asked.append(count)
        return answers(16, count)

    monkeypatch.setattr(probing, "_run", run)
    other = Device.open()
    other.adapter = replace(device.adapter, driver="another")
    assert probe(other) == Subgroups(16, True, "of 16 lanes in order")
    assert asked == list(WORKGROUPS)


@pytest.mark.device
def test_a_damaged_answer_is_asked_again() -> None:
    device = Device.open()
    found = probe(device)
    key = probing._key(device.adapter)
    CACHE.put(key, b'{"size": 8}')
    assert probe(Device.open()) == found


@pytest.mark.device
def test_a_probe_that_fails_means_no_subgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.open()
    if "subgroups" not in device.features or not device.adapter.has_fixed_subgroups:
        pytest.skip("the adapter's subgroups are not probed")

    def fail(device: Device, count: int) -> Words:
        raise DeviceError("the driver is out of order")

    monkeypatch.setattr(probing, "_run", fail)
    assert device.subgroups.usable == 0
    assert "the driver is out of order" in str(device.subgroups)
    assert CACHE.usage().files == 0


@pytest.mark.device
def test_errors_show_the_result() -> None:
    device = Device.open()
    kernel = artefacts.kernel("k", "@compute @workgroup_size(1) fn main() {}\n")
    variant = replace(kernel.variants[0], subgroup_size=7)
    with pytest.raises(DeviceError) as caught:
        choose_variant(replace(kernel, variants=(variant,)), device)
    assert "7 is needed" in str(caught.value)
    assert f"has subgroups {device.subgroups}" in str(caught.value)
