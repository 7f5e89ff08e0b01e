"""From a loaded model to an artefact, with whatever device there is."""

from __future__ import annotations

from collections.abc import Mapping

from asg.artefact import Artefact, Entry
from asg.cli.models import Loaded
from asg.codegen.context import Target
from asg.compiler import as_entries, lower, target_for
from asg.errors import DeviceError, GraphError
from asg.runtime.adapters import AdapterClass
from asg.runtime.devices import shared_device
from asg.runtime.wgpu_device import Device
from asg.tolerances import Numerics

ANY_GPU = AdapterClass("web-generic", "gpu", 0)


def find_device(spec: str | None) -> Device | None:
    """Return the device, or None where there is no adapter and none was asked for."""
    try:
        return shared_device(spec)
    except DeviceError:
        if spec:
            raise
        return None


def choose_target(
    family: str | None, device: Device | None, numerics: Numerics = "precise"
) -> Target:
    """Return what to compile for: what the adapter is best at, or a family by name.

    Without an adapter, the schedules for graphics cards: most devices are.
    """
    adapter = ANY_GPU if device is None else device.adapter_class
    return target_for(adapter, family, numerics)


def build(
    loaded: Loaded, family: str | None, spec: str | None, numerics: Numerics = "precise"
) -> Artefact:
    """Return a bundle's artefact, or compile the model."""
    if loaded.artefact is not None:
        return loaded.artefact
    entries = as_entries(loaded.entries)
    target = choose_target(family, find_device(spec), numerics)
    return lower(entries, target=target, passes=loaded.passes, name=loaded.name)


def find_entry(artefact: Artefact, name: str | None) -> Entry:
    """Return an entry by name, or the first.

    Raises:
        GraphError: there is none of that name.
    """
    entries: Mapping[str, Entry] = artefact.entries
    if name is None:
        return next(iter(entries.values()))
    if name not in entries:
        raise GraphError(f"there is no entry {name!r}; entries: {', '.join(entries)}")
    return entries[name]
