"""Kernels that read and write f16 as such, where a device has them: they run here, and agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asg
from asg.codegen.context import Target
from asg.compiler import lower, target_for
from asg.errors import AsgError
from asg.graph import Graph
from asg.op import Op, Sample
from asg.ops.bits import bitcast
from asg.runtime.adapters import Adapter, AdapterClass, classify
from asg.runtime.devices import shared_device
from asg.runtime.interpreter import run
from asg.types import DType, parse_type
from support import needs
from support.narrow_samples import narrow_samples
from support.samples import draw, name_sample, sample_graph
from support.wgsl_check import check_naga, check_tint, is_native

Array = np.ndarray[Any, Any]

SCHEDULES = ["cpu", "gpu"]
ODD = [0, 1, 2, 3, 4, 5, 7, 8, 13, 64, 127]


def _cases() -> list[tuple[Op, Sample, str]]:
    """Up to two samples of each op, one for each family of schedules."""
    found: dict[str, list[tuple[Op, Sample, str]]] = {}
    for op, sample in narrow_samples():
        cases = found.setdefault(op.name, [])
        is_half = DType.F16 in {parse_type(text).dtype for text in sample.types}
        if is_half and len(cases) < len(SCHEDULES):
            cases.append((op, sample, SCHEDULES[(len(found) + len(cases)) % len(SCHEDULES)]))
    return [case for cases in found.values() for case in cases]


CASES = _cases()


@pytest.fixture
def has_halves() -> None:
    """Skip with a reason where the adapter can't run these kernels; the suite's gate fails."""
    if "shader-f16" in shared_device(None).features:
        return
    problem = "the adapter has no shader-f16: kernels in f16 are written, but not run"
    if needs.is_required():
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


def on_device(graph: Graph, inputs: Mapping[str, Array], schedule: str) -> dict[str, Array]:
    """What a device computes, having made sure which variants it runs."""
    with asg.compile(graph, schedule=schedule) as executable:
        variants = executable.executor.variants
        for name, kernel in executable.executor.artefact.kernels.items():
            has_native = any("shader-f16" in each.features for each in kernel.variants)
            assert has_native == ("shader-f16" in variants[name].features)
            assert has_native == ("array<f16>" in variants[name].wgsl
                                  or "array<vec4<f16>>" in variants[name].wgsl)  # fmt: skip
        if schedule.endswith("+f16"):
            assert any("shader-f16" in each.features for each in variants.values())
        return {name: np.asarray(array) for name, array in executable(inputs).items()}


def assert_same_bits(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        if array.dtype != np.float16:
            np.testing.assert_array_equal(found[name], array)
            continue
        is_nan = np.isnan(array)
        np.testing.assert_array_equal(np.isnan(found[name]), is_nan)
        bits = (each.view(np.uint16)[~is_nan] for each in (found[name], array))
        np.testing.assert_array_equal(*bits)


@pytest.mark.device
@pytest.mark.usefixtures("has_halves")
@pytest.mark.parametrize(
    ("op", "sample", "schedule"),
    CASES,
    ids=[f"{name_sample(op, sample)}-{schedule}" for op, sample, schedule in CASES],
)
def test_samples_give_what_packed_words_give(op: Op, sample: Sample, schedule: str) -> None:
    """The arithmetic is the same, so are the bits; `test_narrow` compares those with NumPy."""
    graph = sample_graph(op, sample)
    arrays = {f"a{i}": array for i, array in enumerate(draw(op, sample))}
    inputs = {
        node.attrs["name"]: arrays[node.attrs["name"]].astype(node.type.dtype.numpy)
        for node in graph.inputs
    }
    with asg.compile(graph, schedule=f"{schedule}+words") as executable:
        expected = {name: np.asarray(array) for name, array in executable(inputs).items()}
        kernels = executable.executor.artefact.kernels.values()
        assert not any(each.features == ("shader-f16",) for k in kernels for each in k.variants)
    with asg.compile(graph, schedule=f"{schedule}+f16") as executable:
        found = {name: np.asarray(array) for name, array in executable(inputs).items()}
    assert_same_bits(found, expected)


@pytest.mark.device
@pytest.mark.usefixtures("has_halves")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1 << 16, (1 << 16) - 1])
def test_every_number_is_loaded_and_stored_exactly(count: int, schedule: str) -> None:
    """Infinities and subnormal numbers are among them; NaN stays NaN."""
    numbers = np.arange(count, dtype=np.uint16).view(np.float16)
    x = asg.input("x", (count,), "f16")
    wide = bitcast(asg.cast(x, "f32"), dtype=DType.U32)
    narrow = asg.cast(asg.input("w", (count,)), "f16")
    graph = asg.graph(outputs={"wide": wide, "turned": asg.flip(x), "narrow": narrow})
    inputs = {"x": numbers, "w": numbers.astype(np.float32)}
    found = on_device(graph, inputs, f"{schedule}+f16")
    is_nan = np.isnan(numbers)
    expected = numbers.astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(found["wide"][~is_nan], expected[~is_nan])
    assert np.isnan(found["wide"].view(np.float32)[is_nan]).all()
    assert_same_bits(
        {"turned": found["turned"], "narrow": found["narrow"]},
        {"turned": numbers[::-1].copy(), "narrow": numbers},
    )


@pytest.mark.device
@pytest.mark.usefixtures("has_halves")
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rounding_is_to_nearest_even(schedule: str) -> None:
    """Halfway between neighbours, and a unit beside that: the device's conversion has no part."""
    own = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    numbers = np.concatenate([
        (own.view(np.uint32) + np.uint32((1 << 12) + step)).view(np.float32)
        for step in (-1, 0, 1)
    ])  # fmt: skip
    graph = asg.graph(outputs={"y": asg.cast(asg.input("x", numbers.shape), "f16")})
    with np.errstate(all="ignore"):
        expected = numbers.astype(np.float16)
    assert_same_bits(on_device(graph, {"x": numbers}, f"{schedule}+f16"), {"y": expected})


@pytest.mark.device
@pytest.mark.usefixtures("has_halves")
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_odd_sizes(schedule: str) -> None:
    outputs: dict[str, Any] = {}
    inputs: dict[str, Array] = {}
    for size in ODD:
        x = asg.input(f"x{size}", (size,), "f16")
        inputs[f"x{size}"] = np.random.default_rng(size).uniform(-3, 3, size).astype(np.float16)
        outputs[f"twice{size}"] = x + x
        outputs[f"turned{size}"] = asg.flip(x)
        outputs[f"rest{size}"] = x[1:]
        outputs[f"each{size}"] = x[::2]
        outputs[f"padded{size}"] = asg.pad(x, ((1, 2),), 0.1)
    graph = asg.graph(outputs=outputs)
    assert_same_bits(on_device(graph, inputs, f"{schedule}+f16"), run(graph, inputs))


@pytest.mark.device
@pytest.mark.usefixtures("has_halves")
def test_f16_beside_other_narrow_types() -> None:
    x, y = asg.input("x", (3, 5), "f16"), asg.input("y", (3, 5), "bf16")
    z = asg.input("z", (15,), "i8")
    graph = asg.graph(
        outputs={
            "sum": x + asg.cast(y, "f16"),
            "other": asg.cast(x, "bf16"),
            "whole": z + asg.cast(asg.reshape(x, (15,)), "i8"),
        }
    )
    numbers = np.random.default_rng(0).integers(-5, 5, (3, 5))
    inputs = {
        name: numbers.astype(node.numpy) for name, node in (("x", DType.F16), ("y", DType.BF16))
    }
    inputs["z"] = numbers.reshape(15).astype(np.int8)
    found = on_device(graph, inputs, "gpu+f16")
    for name, array in run(graph, inputs).items():
        np.testing.assert_array_equal(found[name].astype(np.float32), array.astype(np.float32))


def _layer() -> Graph:
    """Kernels of most classes over f16."""
    x, w = asg.input("x", (2, 9, 16), "f16"), asg.input("w", (16, 12), "f16")
    hidden = asg.relu(x @ w)
    scores = asg.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    return asg.graph(
        outputs={
            "soft": asg.softmax(hidden, axis=-1),
            "columns": asg.sum(hidden, axis=1),
            "seen": scores,
            "running": asg.cumsum(hidden, axis=1),
            "sorted": asg.sort(hidden, axis=-1)[0],
            "rows": asg.take(w, asg.constant(np.array([3, 0, 5], np.int32)), axis=0),
        }
    )


@pytest.mark.device
@pytest.mark.usefixtures("has_halves")
def test_devices_without_f16_run_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _layer()
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.uniform(-1, 1, graph.input(name).type.shape).astype(np.float16)
        for name in graph.input_names()
    }
    expected = on_device(graph, inputs, "gpu+f16")
    device = shared_device(None)
    monkeypatch.setattr(device, "features", device.features - {"shader-f16"})
    with asg.compile(graph, schedule="gpu+f16") as executable:
        assert all(not each.features for each in executable.executor.variants.values())
        found = {name: np.asarray(array) for name, array in executable(inputs).items()}
    assert_same_bits(found, expected)


@pytest.mark.device
@pytest.mark.tint
@pytest.mark.parametrize("family", SCHEDULES)
def test_both_compilers_accept_the_text(family: str) -> None:
    target = Target(family, 8 if family == "cpu" else 0, native_f16=True)
    artefact = lower({"main": _layer()}, target=target)
    texts = {
        f"{name}.{number}": variant.wgsl
        for name, kernel in artefact.kernels.items()
        for number, variant in enumerate(kernel.variants)
        if "shader-f16" in variant.features
    }
    assert len(texts) >= 5
    assert not any("enable" in text for text in texts.values())
    assert not {name: verdict for name, verdict in check_naga(texts).items() if verdict}
    portable = {name: text for name, text in texts.items() if not is_native(text)}
    assert not {name: verdict for name, verdict in check_tint(portable).items() if verdict}


def test_the_last_variant_needs_nothing() -> None:
    artefact = lower({"main": _layer()}, target=Target("gpu", native_f16=True))
    for kernel in artefact.kernels.values():
        assert not kernel.variants[-1].features
        assert "f16>" not in kernel.variants[-1].wgsl
    plain = lower({"main": _layer()}, target=Target("gpu"))
    assert all(len(kernel.variants) == 1 for kernel in plain.kernels.values())
    for name, kernel in plain.kernels.items():
        assert kernel.variants[-1] == artefact.kernels[name].variants[-1]


def test_the_target_says_how_f16_are_read() -> None:
    software = AdapterClass("cpu-simd", "cpu", 8)
    card = AdapterClass("nvidia-gpu", "gpu", 32, native_f16=True)
    assert not target_for(software).native_f16
    assert not target_for(software, "gpu").native_f16
    assert target_for(software, "gpu+f16").native_f16
    assert replace(target_for(software, "gpu+f16"), native_f16=False) == target_for(software, "gpu")
    assert target_for(card).native_f16
    assert target_for(card, "gpu").native_f16
    assert not target_for(card, "gpu+words").native_f16
    assert not target_for(card, "cpu").native_f16
    with pytest.raises(AsgError, match=r"schedule 'gpu\+f8' is unknown; .* \+f16 or \+words"):
        target_for(card, "gpu+f8")


@pytest.mark.parametrize("kind", ["cpu", "discrete"])
@pytest.mark.parametrize("offered", [True, False])
def test_graphics_cards_read_f16_where_they_have_it(kind: Any, offered: bool) -> None:
    features = frozenset({"shader-f16"} if offered else ())
    adapter = Adapter(0, "some adapter", "Vulkan", "1", kind, 0x10DE, features, {})
    assert classify(adapter, 32).native_f16 == (offered and kind == "discrete")
