"""From an artefact's kernels to pipelines: which variant runs here."""

from __future__ import annotations

from collections.abc import Mapping

from asg.artefact import Kernel, Variant
from asg.errors import DeviceError
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Device


def choose_variant(kernel: Kernel, device: Device) -> Variant:
    """Return the first variant that the device can run.

    Raises:
        DeviceError: there is none, not even the portable one.
    """
    reasons = []
    for variant in kernel.variants:
        reason = obstacle(variant, device)
        if reason is None:
            return variant
        reasons.append(reason)
    raise DeviceError(
        f"kernel {kernel.name} has no variant for {device.adapter.name}: {'; '.join(reasons)}\n"
        f"  {device.adapter.name} has subgroups {device.subgroups}"
    )


def shader_of(kernel: Kernel, variant: Variant) -> Shader:
    """Return what the device compiles for a kernel."""
    accesses = tuple(argument.access for argument in kernel.arguments)
    return Shader(
        kernel.name,
        variant.wgsl,
        accesses,
        tuple(variant.features),
        kernel.sites,
        is_by_hand=kernel.kind == "written",
    )


def choose_variants(kernels: Mapping[str, Kernel], device: Device) -> dict[str, Variant]:
    """Return the variant of each kernel that runs on a device."""
    return {name: choose_variant(kernel, device) for name, kernel in kernels.items()}


def obstacle(variant: Variant, device: Device) -> str | None:
    """Say what keeps a device from running a variant, None for nothing."""
    for feature in variant.features:
        if feature not in device.features:
            return f"no {feature}"
    for name, least in variant.limits.items():
        if device.limits.get(name, 0) < least:
            return f"{name} is {device.limits.get(name, 0)}, {least} is needed"
    if variant.subgroup_size and variant.subgroup_size != device.subgroup_size:
        return f"subgroups of {device.subgroup_size}, {variant.subgroup_size} is needed"
    return None
