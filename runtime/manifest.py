"""An artefact as JSON and back; what comes back is checked to the last figure.

A bundle may come from a stranger, so nothing in it is believed: every field has its type and
its range, offsets lie inside buffers, names refer to something. The text of kernels and the
values of arrays are files of their own, which `bundle.py` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from asg.artefact import (
    FORMAT_VERSION,
    Argument,
    Artefact,
    Buffer,
    Copy,
    Dispatch,
    Entry,
    Kernel,
    Range,
    Slot,
    Step,
    Variant,
)
from asg.errors import DTypeError
from asg.runtime.adapters import DEFAULT_LIMITS
from asg.runtime.fields import Field
from asg.types import INTERFACES, DType, TensorType, check_interface

ROLES = ("parameter", "state", "constant")
BUFFER_ROLES = ("arena", "input", *ROLES)

# Far above what any real model has, low enough that nothing here takes long.
_COUNT = 100_000
_BYTES = 1 << 36
_FLOPS = 1 << 62
_RANK = 32
_ARGUMENTS = 64
_VARIANTS = 16
_WORKGROUPS = 65_535
_BLOCK = 256  # what the offset of a bound range is a multiple of


def encode(artefact: Artefact, texts: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """Return an artefact without texts and arrays; `texts` names the file of each variant."""
    return {
        "name": artefact.name,
        "buffers": [
            {"name": each.name, "size": each.size, "role": each.role} for each in artefact.buffers
        ],
        "persistent": [
            {**_slot(each), "role": artefact.roles[each.name]} for each in artefact.persistent
        ],
        "kernels": {
            name: _kernel(kernel, [texts[name, each] for each in range(len(kernel.variants))])
            for name, kernel in artefact.kernels.items()
        },
        # An array, since the first entry is what a plain call runs.
        "entries": [_entry(entry) for entry in artefact.entries.values()],
        "report": dict(artefact.report),
    }


def _slot(slot: Slot) -> dict[str, Any]:
    return {
        "name": slot.name,
        "dtype": slot.type.dtype.value,
        "shape": list(slot.type.shape),
        "buffer": slot.buffer,
        "offset": slot.offset,
    }


def _output(slot: Slot) -> dict[str, Any]:
    return {**_slot(slot), **({"interface": slot.interface} if slot.interface else {})}


def _kernel(kernel: Kernel, files: list[str]) -> dict[str, Any]:
    variants = [
        {
            "file": file,
            "workgroups": list(each.workgroups),
            "features": list(each.features),
            "subgroup_size": each.subgroup_size,
            "limits": dict(each.limits),
            "schedule": each.schedule,
        }
        for each, file in zip(kernel.variants, files, strict=True)
    ]
    return {
        "kind": kernel.kind,
        "arguments": [{"name": each.name, "access": each.access} for each in kernel.arguments],
        "variants": variants,
        "nodes": list(kernel.nodes),
        "sites": list(kernel.sites),
        "flops": kernel.flops,
        "bytes_moved": kernel.bytes_moved,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "inputs": [_slot(slot) for slot in entry.inputs],
        "outputs": [_output(slot) for slot in entry.outputs],
        "updates": dict(entry.updates),
        "steps": [_step(step) for step in entry.steps],
        "values": {name: _slot(slot) for name, slot in entry.values.items()},
        **({"cuts": {name: list(each) for name, each in entry.cuts.items()}} if entry.cuts else {}),
    }


def _step(step: Step) -> dict[str, Any]:
    names = {"reads": list(step.reads), "writes": list(step.writes)}
    if isinstance(step, Dispatch):
        return {"kernel": step.kernel, "ranges": [_range(each) for each in step.ranges], **names}
    return {"source": _range(step.source), "target": _range(step.target), **names}


def _range(bound: Range) -> list[int]:
    return [bound.buffer, bound.offset, bound.size]


def decode(
    root: Field,
    text: Callable[[str], str],
    values: Mapping[str, np.ndarray],
    sources: Mapping[str, str],
) -> Artefact:
    """Return the artefact that a manifest describes; `text` reads the file of a variant.

    Raises:
        BundleError: something is missing, has the wrong type, or is out of range.
    """
    name, report = root["name"].text(), root["report"].mapping()
    buffers = tuple(_read_buffer(each) for each in root["buffers"].items(_COUNT))
    persistent = tuple(
        _read_slot(each, buffers, ("role",)) for each in root["persistent"].items(_COUNT)
    )
    roles = {
        slot.name: each["role"].choice(ROLES)
        for slot, each in zip(persistent, root["persistent"].items(_COUNT), strict=True)
    }
    if len(roles) != len(persistent):
        raise root["persistent"].error("two slots have one name")
    kernels = {key: _read_kernel(key, each, text) for key, each in root["kernels"].entries(_COUNT)}
    known = {slot.name: slot for slot in persistent}
    found = [
        _read_entry(each, buffers, known, roles, kernels) for each in root["entries"].items(_COUNT)
    ]
    entries = {entry.name: entry for entry in found}
    if not entries or len(entries) < len(found):
        raise root["entries"].error("there is no entry, or two have one name")
    _check_values(root, values, known)
    return Artefact(
        name=name,
        buffers=buffers,
        persistent=persistent,
        roles=roles,
        kernels=kernels,
        entries=entries,
        values=values,
        sources=sources,
        report=report,
        version=FORMAT_VERSION,
    )


def _read_buffer(field: Field) -> Buffer:
    field.only("name", "size", "role")
    size = field["size"].integer(_BLOCK, _BYTES)
    if size % _BLOCK:
        raise field["size"].error(f"{size} is not a multiple of {_BLOCK}")
    role: Any = field["role"].choice(BUFFER_ROLES)
    return Buffer(field["name"].text(), size, role)


def _read_slot(field: Field, buffers: tuple[Buffer, ...], more: tuple[str, ...] = ()) -> Slot:
    field.only("name", "dtype", "shape", "buffer", "offset", *more)
    has_interface = "interface" in more and "interface" in field.mapping()
    dtype = DType(field["dtype"].choice([each.value for each in DType]))
    shape = tuple(each.integer(0, _BYTES) for each in field["shape"].items(_RANK))
    kind = TensorType(shape, dtype)
    position = field["buffer"].integer(0, len(buffers) - 1)
    offset = field["offset"].integer(0, _BYTES)
    if offset % 4:
        raise field["offset"].error(f"{offset} is not a multiple of 4")
    _check_end(field, offset + kind.nbytes, buffers[position])
    slot = Slot(field["name"].text(), kind, position, offset)
    if not has_interface:
        return slot
    interface = field["interface"].choice(tuple(INTERFACES))
    try:
        check_interface(slot.name, dtype, interface)
    except DTypeError as error:
        raise field["interface"].error(str(error)) from None
    return replace(slot, interface=interface)


def _read_range(field: Field, buffers: tuple[Buffer, ...]) -> Range:
    parts = field.items(3)
    if len(parts) != 3:
        raise field.error("a range is [buffer, offset, size]")
    position = parts[0].integer(0, len(buffers) - 1)
    offset, size = parts[1].integer(0, _BYTES), parts[2].integer(4, _BYTES)
    if offset % 4 or size % 4:
        raise field.error(f"offset {offset} and size {size} must be multiples of 4")
    _check_end(field, offset + size, buffers[position])
    return Range(position, offset, size)


def _check_end(field: Field, end: int, buffer: Buffer) -> None:
    if end > buffer.size:
        raise field.error(f"ends at {end}, and buffer {buffer.name!r} has {buffer.size} bytes")


def _read_kernel(name: str, field: Field, text: Callable[[str], str]) -> Kernel:
    field.only("kind", "arguments", "variants", "nodes", "sites", "flops", "bytes_moved")
    arguments = []
    for each in field["arguments"].items(_ARGUMENTS):
        each.only("name", "access")
        access: Any = each["access"].choice(("read", "read_write"))
        arguments.append(Argument(each["name"].text(), access))
    variants = tuple(_read_variant(each, text) for each in field["variants"].items(_VARIANTS))
    if not variants:
        raise field["variants"].error("a kernel has at least one variant")
    return Kernel(
        name=name,
        kind=field["kind"].text(),
        arguments=tuple(arguments),
        variants=variants,
        nodes=field["nodes"].texts(_COUNT),
        sites=field["sites"].texts(_COUNT),
        flops=field["flops"].integer(0, _FLOPS),
        bytes_moved=field["bytes_moved"].integer(0, _FLOPS),
    )


def _read_variant(field: Field, text: Callable[[str], str]) -> Variant:
    field.only("file", "workgroups", "features", "subgroup_size", "limits", "schedule")
    counts = field["workgroups"].items(3)
    if len(counts) != 3:
        raise field["workgroups"].error("three counts are needed")
    x, y, z = (each.integer(0, _WORKGROUPS) for each in counts)
    limits = {}
    for name, each in field["limits"].entries(len(DEFAULT_LIMITS)):
        if name not in DEFAULT_LIMITS:
            raise each.error("is no limit of WebGPU that is known here")
        limits[name] = each.integer(0, _BYTES)
    return Variant(
        wgsl=text(field["file"].text()),
        workgroups=(x, y, z),
        features=field["features"].texts(_ARGUMENTS),
        subgroup_size=field["subgroup_size"].integer(0, 1024),
        limits=limits,
        schedule=field["schedule"].text(),
    )


def _read_entry(
    field: Field,
    buffers: tuple[Buffer, ...],
    persistent: Mapping[str, Slot],
    roles: Mapping[str, str],
    kernels: Mapping[str, Kernel],
) -> Entry:
    field.only("name", "inputs", "outputs", "updates", "steps", "values", "cuts")
    inputs = tuple(_read_slot(each, buffers) for each in field["inputs"].items(_COUNT))
    outputs = tuple(
        _read_slot(each, buffers, ("interface",)) for each in field["outputs"].items(_COUNT)
    )
    for part, slots in (("inputs", inputs), ("outputs", outputs)):
        if len({slot.name for slot in slots}) != len(slots):
            raise field[part].error("two slots have one name")
    values = {key: _read_slot(each, buffers) for key, each in field["values"].entries(_COUNT)}
    places = {*persistent, *(slot.name for slot in inputs), *values}
    updates = {}
    for key, each in field["updates"].entries(_COUNT):
        if roles.get(key) not in ("parameter", "state"):
            raise each.error("is no parameter or state")
        updates[key] = each.text()
        if updates[key] not in places:
            raise each.error(f"the value {updates[key]!r} has no place")
    steps = tuple(
        _read_step(each, buffers, kernels, places) for each in field["steps"].items(_COUNT)
    )
    cuts = _read_cuts(field, {slot.name: slot for slot in outputs})
    return Entry(field["name"].text(), inputs, outputs, updates, steps, values, cuts)


def _read_cuts(field: Field, outputs: Mapping[str, Slot]) -> dict[str, tuple[int, str]]:
    """Return which outputs are cut, and where; a manifest without cuts has no such field."""
    found: dict[str, tuple[int, str]] = {}
    if "cuts" not in field.mapping():
        return found
    for name, each in field["cuts"].entries(_COUNT):
        if name not in outputs:
            raise each.error("is no output")
        parts = each.items(2)
        if len(parts) != 2:
            raise each.error("an axis and the name of a count are needed")
        axis = parts[0].integer(0, max(outputs[name].type.rank - 1, 0))
        count = parts[1].text()
        if count not in outputs or outputs[count].type != TensorType((), DType.I32):
            raise each.error(f"{count!r} is no output of type i32[]")
        found[name] = axis, count
    return found


def _read_step(
    field: Field, buffers: tuple[Buffer, ...], kernels: Mapping[str, Kernel], places: set[str]
) -> Step:
    reads, writes = field["reads"].texts(_COUNT), field["writes"].texts(_COUNT)
    for value in (*reads, *writes):
        if value not in places:
            raise field.error(f"the value {value!r} has no place")
    if "kernel" not in field.mapping():
        field.only("source", "target", "reads", "writes")
        source, target = (_read_range(field[end], buffers) for end in ("source", "target"))
        if source.size != target.size:
            raise field.error(f"copies {source.size} bytes to {target.size}")
        apart = abs(source.offset - target.offset) >= source.size
        if source.buffer == target.buffer and not apart:
            raise field.error("source and target overlap")
        return Copy(source, target, reads, writes)
    field.only("kernel", "ranges", "reads", "writes")
    kernel = kernels.get(field["kernel"].text())
    if kernel is None:
        raise field["kernel"].error(f"there is no kernel {field['kernel'].text()!r}")
    ranges = tuple(_read_range(each, buffers) for each in field["ranges"].items(_ARGUMENTS))
    if len(ranges) != len(kernel.arguments):
        raise field["ranges"].error(f"{len(ranges)} for {len(kernel.arguments)} arguments")
    for position, bound in enumerate(ranges):
        if bound.offset % _BLOCK:
            raise field["ranges"].error(f"[{position}]: offset is not a multiple of {_BLOCK}")
    return Dispatch(kernel.name, ranges, reads, writes)


def _check_values(
    root: Field, values: Mapping[str, np.ndarray], persistent: Mapping[str, Slot]
) -> None:
    for name, array in values.items():
        slot = persistent.get(name)
        if slot is None:
            raise root.error(f"weights.safetensors holds {name!r}, which has no place")
        found = f"{array.dtype}{list(array.shape)}"
        if array.shape != slot.type.shape or array.dtype != slot.type.dtype.numpy:
            raise root.error(f"weights.safetensors holds {name!r} as {found}, not {slot.type}")
