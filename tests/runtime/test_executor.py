"""Running artefacts on a device."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asg.artefact import Artefact, Step, Variant
from asg.errors import DeviceError, InputError, NonFiniteError, ReleasedError
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


def test_runs(tiny: Executable) -> None:
    found = tiny({"x": ONES})
    assert list(found) == ["y", "z"]
    np.testing.assert_array_equal(found["y"], ONES + W)
    np.testing.assert_array_equal(found["z"], 2 * (ONES + W))


def test_entries(tiny: Executable) -> None:
    assert list(tiny.entries) == ["predict", "train"]
    assert tiny.entries["predict"].inputs == {"x": spec((N,))}
    assert repr(tiny.predict) == "<predict(x: f32[64]) -> y: f32[64], z: f32[64]>"
    np.testing.assert_array_equal(tiny.train({"x": ONES})["y"], ONES + W)
    with pytest.raises(AttributeError) as caught:
        tiny.evaluate  # noqa: B018
    assert str(caught.value) == (
        "Executable has no attribute or entry 'evaluate'; entries: predict, train"
    )


def test_state_lives_from_run_to_run_and_is_shared(tiny: Executable) -> None:
    for _ in range(3):
        tiny.train({"x": ONES})
    state = tiny.state_dict()
    assert list(state) == ["w", "steps"]
    assert state["steps"] == 8
    np.testing.assert_array_equal(state["w"], W + 1.5)
    np.testing.assert_array_equal(tiny.predict({"x": ONES})["y"], ONES + W + 1.5)


def test_some_outputs(tiny: Executable) -> None:
    assert list(tiny({"x": ONES}, outputs=["z"])) == ["z"]
    assert tiny({}, outputs=[]) == {}
    # Updates happen whether or not an output is asked for.
    assert tiny.train({"x": ONES}, outputs=[]) == {}
    assert tiny.state_dict()["steps"] == 6


def test_booleans_and_copies_within_a_buffer(load: Load) -> None:
    found = load(artefacts.masks()).run("main", {"b": [True, False, False, True]})
    assert found["m"].dtype == np.bool_
    assert found["m"].tolist() == [False, True, True, False]
    assert found["again"].tolist() == [False, True, True, False]


WRONG_CALLS: list[tuple[Any, dict[str, Any], str]] = [
    ({"x": ONES, "q": ONES}, {}, "train has no input 'q'; inputs: x: f32[64]"),
    ({}, {}, "train: 'x' is missing; inputs: x: f32[64]"),
    (ONES, {}, "train takes a dict of arrays by name, got ndarray; inputs: x: f32[64]"),
    (
        {"x": ONES[:3]},
        {},
        "train: input 'x' has shape [3], and [64] is needed (f32[64])",
    ),
    ({"x": ONES == 1}, {}, "train: input 'x' has dtype bool, and f32 is needed"),
    ({"x": ONES}, {"outputs": ["loss"]}, "train has no output 'loss'; outputs: y"),
    ({"x": ONES}, {"outputs": "y"}, "train: outputs is a list of names: ['y']"),
    (
        {"x": ONES},
        {"check_finite": True, "device_outputs": True},
        "train: check_finite reads results back, device_outputs don't",
    ),
]


@pytest.mark.parametrize(("inputs", "options", "message"), WRONG_CALLS)
def test_wrong_call_leaves_state_alone(
    tiny: Executable, inputs: Any, options: dict[str, Any], message: str
) -> None:
    before = tiny.state_dict()
    with pytest.raises(InputError) as caught:
        tiny.train(inputs, **options)
    assert str(caught.value).splitlines()[0] == message
    for name, array in tiny.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_state_dict_round_trip(tiny: Executable) -> None:
    tiny.train({"x": ONES})
    saved = tiny.state_dict()
    tiny.train({"x": ONES})
    tiny.load_state_dict(saved)
    assert tiny.state_dict()["steps"] == 6
    tiny.load_state_dict({"steps": 40, "other": 1}, strict=False)
    assert tiny.state_dict()["steps"] == 40
    np.testing.assert_array_equal(tiny.state_dict()["w"], saved["w"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": W}, "tiny: the state does not fit; missing: steps"),
        (
            {"w": W, "rate": 1.0},
            "tiny: the state does not fit; missing: steps; unknown: rate",
        ),
        (
            {"w": W + 1, "steps": 1.5},
            "tiny: 'steps' has dtype float64, and i32 is needed",
        ),
    ],
)
def test_state_that_does_not_fit_changes_nothing(
    tiny: Executable, state: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        tiny.load_state_dict(state)
    assert str(caught.value).splitlines()[0] == message
    np.testing.assert_array_equal(tiny.state_dict()["w"], W)


def test_reads_and_writes_by_name(load: Load) -> None:
    executor = load(artefacts.model())
    assert executor.read("rate") == 0.5
    executor.write("w", ONES)
    np.testing.assert_array_equal(executor.run("predict", {"x": ONES})["y"], 2 * ONES)
    with pytest.raises(InputError) as caught:
        executor.read("bias")
    assert str(caught.value) == ("tiny has no parameter or state 'bias'; known: w, steps, rate")


def test_values_of_a_run_can_be_read(load: Load) -> None:
    executor = load(artefacts.model())
    executor.run("predict", {"x": ONES})
    np.testing.assert_array_equal(executor.read_value("predict", "y"), ONES + W)
    with pytest.raises(InputError, match="predict has no value 'q' in memory"):
        executor.read_value("predict", "q")


def test_step_by_step(load: Load) -> None:
    executor = load(artefacts.model())
    seen: list[tuple[int, tuple[str, ...], float]] = []

    def observe(position: int, step: Step) -> None:
        value = executor.read_value("train", step.writes[0])
        seen.append((position, step.writes, float(value.reshape(-1)[0])))

    found = executor.run_steps("train", {"x": ONES}, observe)
    assert seen == [(0, ("y",), 1.0), (1, ("w_1",), 0.5), (2, ("steps_1",), 6.0)]
    np.testing.assert_array_equal(found["y"], ONES + W)


def test_nan_guard(tiny: Executable) -> None:
    x = ONES.copy()
    x[3] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        tiny({"x": x}, check_finite=True)
    assert str(caught.value).splitlines()[0] == (
        "predict: output 'y' is not finite: nan at [3], 1 of 64 elements"
    )
    assert np.isnan(tiny({"x": x})["y"][3])


def test_profile_leaves_state_alone(tiny: Executable) -> None:
    timings = tiny.profile({"x": ONES}, entry="train")
    assert [(each.step, each.name, each.kind, each.flops) for each in timings] == [
        (0, "add", "map", 64),
        (1, "nudge", "map", 64),
        (2, "count", "map", 64),
    ]
    assert all(0 <= each.seconds < 1 for each in timings)
    assert tiny.state_dict()["steps"] == 5
    np.testing.assert_array_equal(tiny.state_dict()["w"], W)


def test_profile_of_copies(load: Load) -> None:
    executor = load(artefacts.masks())
    timings = executor.profile("main", {"b": [True] * 4})
    assert [each.name for each in timings] == ["negate", "copy"]


def test_profile_without_timestamps(
    load: Load, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "features", device.features - {"timestamp-query"})
    timings = load(artefacts.model()).profile("predict", {"x": ONES})
    assert [each.name for each in timings] == ["add", "double"]
    assert all(each.seconds > 0 for each in timings)


def test_report_names_the_device(tiny: Executable, device: Device) -> None:
    assert tiny.report() == {
        "dispatches": {"map": 5},
        "plan": artefacts.PLAN,
        "device": device.description,
    }
    assert tiny.plan is not None
    assert tiny.plan.arena_bytes == 512


def test_closed(load: Load, device: Device) -> None:
    before = device.live()
    executable = Executable(load(artefacts.model()))
    with executable:
        executable({"x": ONES})
        assert device.live()["buffers"] > before["buffers"]
    assert device.live() == before
    for use in (
        lambda: executable({"x": ONES}),
        lambda: executable({"x": ONES}, device_outputs=True),
        lambda: executable.to_device({"x": ONES}),
        executable.state_dict,
        lambda: executable.load_state_dict({}),
        executable.sync,
    ):
        with pytest.raises(ReleasedError) as caught:
            use()
        assert str(caught.value) == "tiny was closed and can't be used any more"
    executable.close()


def test_forgotten_executors_give_their_memory_back(device: Device) -> None:
    before = device.live()
    executor = Executor(artefacts.model(), device)
    executor.run("predict", {"x": ONES})
    del executor
    gc.collect()
    assert device.live() == before


def test_failed_load_gives_everything_back(device: Device) -> None:
    before = device.live()
    wrong = replace(artefacts.model(), values={"w": np.ones(3, np.float32)})
    with pytest.raises(InputError) as caught:
        Executor(wrong, device)
    assert str(caught.value) == ("tiny: 'w' has shape [3], and [64] is needed (f32[64])")
    assert device.live() == before


def test_two_executors_share_parameters(load: Load, device: Device) -> None:
    first = load(artefacts.model())
    first.run("train", {"x": ONES})
    second = Executor(artefacts.model(), device, share=first)
    np.testing.assert_array_equal(second.read("w"), W + 0.5)
    second.run("train", {"x": ONES})
    assert first.read("steps") == 7
    first.close()
    np.testing.assert_array_equal(second.read("w"), W + 1.0)
    second.close()


def test_pipelines_are_shared(load: Load, device: Device) -> None:
    load(artefacts.model())
    count = device.live()["pipelines"]
    load(artefacts.model())
    assert device.live()["pipelines"] == count


def test_threads_share_a_device(load: Load) -> None:
    shared = load(artefacts.model())
    failures: list[BaseException] = []

    def work(executor: Executor, seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for _ in range(50):
                x = random.standard_normal(N, dtype=np.float32)
                found = executor.run("predict", {"x": x})
                np.testing.assert_array_equal(found["z"], 2 * (x + W))
        except BaseException as error:
            failures.append(error)

    executors = [shared, shared, load(artefacts.model()), load(artefacts.masks())]
    threads = [
        threading.Thread(target=work, args=(executor, seed))
        for seed, executor in enumerate(executors[:3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_first_variant_that_fits(load: Load, device: Device) -> None:
    portable = artefacts.KERNELS["double"].variants[0]
    tripled = portable.wgsl.replace("2.0", "3.0")
    candidates = [
        (Variant(tripled, (1, 1, 1), features=("no-such-feature",)), 2),
        (Variant(tripled, (1, 1, 1), limits={"maxBindGroups": 1000}), 2),
        (Variant(tripled, (1, 1, 1), subgroup_size=1000), 2),
        (Variant(tripled, (1, 1, 1)), 3),
    ]
    if device.subgroup_size:
        candidates.append((Variant(tripled, (1, 1, 1), subgroup_size=device.subgroup_size), 3))
    for variant, factor in candidates:
        kernel = replace(artefacts.KERNELS["double"], variants=(variant, portable))
        executor = load(artefacts.with_kernel(artefacts.model(), kernel))
        found = executor.run("predict", {"x": ONES}, ["z"])["z"]
        np.testing.assert_array_equal(found, factor * (ONES + W))


def test_no_variant_fits(load: Load, device: Device) -> None:
    variant = Variant(artefacts.DOUBLE, (1, 1, 1), features=("telepathy",))
    kernel = replace(artefacts.KERNELS["double"], variants=(variant,))
    with pytest.raises(DeviceError) as caught:
        load(artefacts.with_kernel(artefacts.model(), kernel))
    assert str(caught.value) == (
        f"kernel double has no variant for {device.adapter.name}: no telepathy\n"
        f"  {device.adapter.name} has subgroups {device.subgroups}"
    )


def test_long_runs_are_split(load: Load, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asg.runtime.recording._DISPATCHES", 1)
    submitted: list[int] = []
    submit = device.submit

    def counting(commands: Any) -> int:
        submitted.append(len(commands))
        return submit(commands)

    executor = load(artefacts.model())
    monkeypatch.setattr(device, "submit", counting)
    found = executor.run("predict", {"x": ONES})
    assert len(submitted) == 2
    np.testing.assert_array_equal(found["z"], 2 * (ONES + W))


def test_large_results_come_in_batches(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asg.runtime.readback._BATCH", 200)
    monkeypatch.setattr("asg.runtime.storage._UPLOAD_BATCH", 100)
    executor = load(artefacts.model())
    found = executor.run("predict", {"x": ONES})
    np.testing.assert_array_equal(found["y"], ONES + W)
    np.testing.assert_array_equal(found["z"], 2 * (ONES + W))
    executor.load_state_dict({"w": 3 * W, "steps": 1})
    np.testing.assert_array_equal(executor.read("w"), 3 * W)
