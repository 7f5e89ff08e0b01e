"""Which adapter is taken."""

from __future__ import annotations

import pytest

from asg.errors import DeviceError
from asg.runtime.adapters import (
    ADAPTER_CLASSES,
    DEFAULT_LIMITS,
    Adapter,
    AdapterClass,
    AdapterType,
    choose_adapter,
    classify,
    granted_limits,
    mebibytes,
)


def adapter(index: int, name: str, kind: AdapterType, backend: str = "Vulkan") -> Adapter:
    limits = {key: 2 * value for key, value in DEFAULT_LIMITS.items()}
    return Adapter(index, name, backend, "1.2", kind, 0x10DE, frozenset(), limits)


SOFTWARE = adapter(0, "llvmpipe", "cpu")
OPENGL = adapter(1, "Radeon", "discrete", "OpenGL")
LAPTOP = adapter(2, "Radeon 780M", "integrated")
CARD = adapter(3, "GeForce RTX 4090", "discrete")
ALL = [SOFTWARE, OPENGL, LAPTOP, CARD]


@pytest.mark.parametrize(
    ("listed", "spec", "expected"),
    [
        (ALL, None, CARD),
        (ALL, "best", CARD),
        ([SOFTWARE, OPENGL, LAPTOP], None, LAPTOP),
        ([SOFTWARE, OPENGL], None, SOFTWARE),
        ([OPENGL], None, OPENGL),
        (ALL, "cpu", SOFTWARE),
        (ALL, "gpu", CARD),
        (ALL, " GPU ", CARD),
        (ALL, "radeon", LAPTOP),
        (ALL, "1", OPENGL),
    ],
)
def test_choice(listed: list[Adapter], spec: str | None, expected: Adapter) -> None:
    assert choose_adapter(listed, spec) is expected


def test_no_adapter() -> None:
    with pytest.raises(DeviceError) as caught:
        choose_adapter([], None)
    assert str(caught.value) == (
        "no graphics adapter is found\n"
        "  fix: install a driver; a software one will do: apt install mesa-vulkan-drivers\n"
        '       (`asg doctor` lists what is found; target="numpy" needs no adapter)'
    )


@pytest.mark.parametrize("spec", ["7", "Arc"])
def test_no_such_adapter(spec: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_adapter([SOFTWARE, CARD], spec)
    assert str(caught.value) == (
        f"no adapter is called {spec!r}; there are 2\n"
        "  0: llvmpipe (cpu, Vulkan, 1.2)\n"
        "  3: GeForce RTX 4090 (discrete, Vulkan, 1.2)\n"
        "  fix: set ASG_DEVICE to a number, to part of a name, to cpu or gpu, or unset it"
    )


def test_limits_are_the_defaults_unless_more_is_wanted() -> None:
    assert granted_limits(CARD, {}) == DEFAULT_LIMITS
    raised = granted_limits(CARD, {"maxBufferSize": 1 << 40, "maxBindGroups": 5})
    assert raised == {**DEFAULT_LIMITS, "maxBufferSize": 512 << 20, "maxBindGroups": 5}
    assert granted_limits(CARD, {"maxBindGroups": 1}) == DEFAULT_LIMITS


def test_unknown_limit() -> None:
    with pytest.raises(DeviceError, match="'maxFun' is not a limit; known: maxBindGroups, "):
        granted_limits(CARD, {"maxFun": 1})


def test_intel_has_no_fixed_subgroup_size() -> None:
    intel = Adapter(0, "Arc", "Vulkan", "", "discrete", 0x8086, frozenset(), {})
    assert not intel.has_fixed_subgroups
    assert CARD.has_fixed_subgroups


@pytest.mark.parametrize(
    ("kind", "backend", "vendor", "offered", "expected"),
    [
        ("cpu", "Vulkan", 0x10005, True, AdapterClass("cpu-simd", "cpu", 8)),
        ("cpu", "Vulkan", 0x10005, False, AdapterClass("cpu-simd", "cpu", 8)),
        ("discrete", "Vulkan", 0x10DE, True, AdapterClass("nvidia-gpu", "gpu", 8)),
        ("discrete", "D3D12", 0x10DE, False, AdapterClass("nvidia-gpu", "gpu", 0)),
        ("integrated", "Vulkan", 0x1002, True, AdapterClass("amd-gpu", "gpu", 8)),
        ("integrated", "D3D12", 0x8086, True, AdapterClass("intel-gpu", "gpu", 8)),
        ("integrated", "Metal", 0, True, AdapterClass("apple-gpu", "gpu", 8)),
        ("discrete", "Metal", 0x1002, True, AdapterClass("apple-gpu", "gpu", 8)),
        ("unknown", "Vulkan", 0x5143, True, AdapterClass("web-generic", "gpu", 0)),
    ],
)
def test_classes(
    kind: AdapterType, backend: str, vendor: int, offered: bool, expected: AdapterClass
) -> None:
    features = frozenset({"subgroups"} if offered else ())
    listed = Adapter(0, "some adapter", backend, "1", kind, vendor, features, {})
    assert classify(listed, 8) == expected
    assert ADAPTER_CLASSES[expected.name] == expected.family


@pytest.mark.parametrize(
    ("size", "text"),
    [(4, "4 bytes"), (1 << 20, "1.0 MiB"), (3 << 29, "1.50 GiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert mebibytes(size) == text
