"""Arrays that stay on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from asg.artefact import Artefact
from asg.errors import InputError, ReleasedError
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from asg.runtime.wgpu_device import Device
from asg.types import spec
from support import artefacts
from support.artefacts import VALUES, N

pytestmark = pytest.mark.device

Load = Callable[[Artefact], Executor]
ONES = np.ones(N, np.float32)
W = VALUES["w"]


def test_go_in_and_stay(tiny: Executable) -> None:
    inputs = tiny.to_device({"x": 3 * ONES})
    assert (inputs["x"].shape, inputs["x"].dtype, inputs["x"].type) == (
        (N,),
        np.dtype(np.float32),
        spec((N,)),
    )
    outputs = tiny(inputs, device_outputs=True)
    np.testing.assert_array_equal(np.asarray(outputs["y"]), 3 * ONES + W)
    # The input is bound as it is, not changed, and can be used again.
    np.testing.assert_array_equal(np.asarray(inputs["x"]), 3 * ONES)
    np.testing.assert_array_equal(tiny(inputs)["z"], 2 * (3 * ONES + W))


def test_bound_without_a_copy(tiny: Executable, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tiny.to_device({"x": ONES})
    device = tiny.device
    written: list[str] = []
    monkeypatch.setattr(device, "write", lambda buffer, *_: written.append(buffer.label))
    for _ in range(3):
        tiny(inputs, device_outputs=True)
    assert written == []
    groups = device.live()["bind_groups"]
    tiny(inputs, device_outputs=True)
    assert device.live()["bind_groups"] == groups


def test_output_as_input(tiny: Executable) -> None:
    outputs = tiny({"x": ONES}, device_outputs=True)
    np.testing.assert_array_equal(tiny({"x": outputs["y"]})["y"], ONES + 2 * W)


def test_output_of_one_executable_as_input_of_another(tiny: Executable, load: Load) -> None:
    other = Executable(load(artefacts.model()))
    outputs = tiny({"x": ONES}, device_outputs=True)
    np.testing.assert_array_equal(other({"x": outputs["z"]})["y"], 2 * ONES + 3 * W)
    assert outputs["z"].is_valid


def test_output_that_lies_where_inputs_go(load: Load) -> None:
    # With x in the arena, in place of z, uploads must not hit what is still to be copied.
    tiny = artefacts.model()
    entry = tiny.entries["predict"]
    x = replace(artefacts.SLOTS["z"], name="x")
    wgsl = artefacts.ADD.replace("read> x", "read_write> x")
    kernel = artefacts.kernel("add", wgsl, "x:read_write", "w:read", "y:read_write")
    ranges = artefacts.whole("z"), artefacts.whole("w"), artefacts.whole("y")
    steps = replace(artefacts.ADD_STEP, ranges=ranges), entry.steps[1]
    entry = replace(entry, inputs=(x,), steps=steps, values={**entry.values, "x": x})
    model = replace(artefacts.with_kernel(tiny, kernel), entries={"predict": entry})
    executable = Executable(load(model))
    outputs = executable({"x": ONES}, device_outputs=True)
    np.testing.assert_array_equal(executable({"x": outputs["z"]})["y"], 2 * ONES + 3 * W)


def test_valid_until_the_next_run(tiny: Executable) -> None:
    first = tiny({"x": ONES}, device_outputs=True)["y"]
    kept = first.take()
    tiny({"x": 5 * ONES})
    assert not first.is_valid
    assert repr(first) == "<DeviceArray 'y' f32[64], released>"
    with pytest.raises(ReleasedError) as caught:
        np.asarray(first)
    assert str(caught.value) == (
        "device array 'y' (f32[64]) is gone, since tiny ran again\n"
        "  fix: keep it with .take(), or read it with np.asarray() before that"
    )
    with pytest.raises(ReleasedError):
        tiny({"x": first})
    np.testing.assert_array_equal(np.asarray(kept), ONES + W)
    assert kept.take() is kept


def test_valid_after_a_refused_call(tiny: Executable) -> None:
    array = tiny({"x": ONES}, device_outputs=True)["y"]
    with pytest.raises(InputError):
        tiny({"x": ONES[:1]})
    np.testing.assert_array_equal(np.asarray(array), ONES + W)


def test_gone_with_its_executable(load: Load) -> None:
    executable = Executable(load(artefacts.model()))
    array = executable({"x": ONES}, device_outputs=True)["y"]
    kept = array.take()
    executable.close()
    with pytest.raises(ReleasedError) as caught:
        np.asarray(array)
    assert str(caught.value).splitlines()[0] == (
        "device array 'y' (f32[64]) is gone, since tiny was closed"
    )
    np.testing.assert_array_equal(np.asarray(kept), ONES + W)


def test_closed(tiny: Executable, device: Device) -> None:
    before = device.live()["buffers"]
    array = tiny.to_device({"x": ONES})["x"]
    assert device.live()["buffers"] == before + 1
    array.close()
    assert device.live()["buffers"] == before
    with pytest.raises(ReleasedError) as caught:
        tiny({"x": array})
    assert str(caught.value) == "device array 'x' (f32[64]) was closed"


def test_forgotten(tiny: Executable, device: Device) -> None:
    before = device.live()["buffers"]
    array = tiny.to_device({"x": ONES})
    assert device.live()["buffers"] == before + 1
    del array
    assert device.live()["buffers"] == before


def test_many_inputs_keep_few_bind_groups(tiny: Executable, device: Device) -> None:
    tiny({"x": ONES})
    before = device.live()["bind_groups"]
    for value in range(40):
        found = tiny(tiny.to_device({"x": value * ONES}), outputs=["y"])
        np.testing.assert_array_equal(found["y"], value * ONES + W)
    assert device.live()["bind_groups"] <= before + 16


def test_wrong_type(tiny: Executable, load: Load) -> None:
    masks = Executable(load(artefacts.masks()))
    with pytest.raises(InputError) as caught:
        tiny({"x": masks.to_device({"b": [True] * 4})["b"]})
    assert str(caught.value) == (
        "predict: input 'x' is a device array bool[4], and f32[64] is needed"
    )


def test_wrong_name(tiny: Executable) -> None:
    with pytest.raises(InputError) as caught:
        tiny.to_device({"q": ONES})
    assert str(caught.value) == "tiny has no input 'q'; inputs: x: f32[64]"


def test_conversion_of_the_element_type(tiny: Executable) -> None:
    array = tiny({"x": ONES}, device_outputs=True)["y"]
    assert np.asarray(array, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="device array 'y' can't be read without a copy"):
        np.array(array, copy=False)


def test_array_of_another_device(tiny: Executable) -> None:
    elsewhere = Device.open()
    other = Executor(artefacts.model(), elsewhere)
    array = other.to_device({"x": ONES})["x"]
    np.testing.assert_array_equal(tiny({"x": array})["y"], ONES + W)
    array.close()
    other.close()
    assert set(elsewhere.live().values()) == {0}
