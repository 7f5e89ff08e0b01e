"""Slots of parameters, states and constants, and buffers of inputs: all that outlives a run.

Entries share parameters and state by name, constants by content and inputs by name. Parameters
or states that a flat join puts together lie in one buffer just as the join has them, so that the
join is that buffer's range and costs nothing. Where two joins want one parameter in different
places, the first in order of entries gets its way, and the members of the other are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asg.artefact import Buffer, BufferRole, Slot
from asg.errors import GraphError
from asg.graph import Literal, Value
from asg.passes.kernels import FusionPlan
from asg.passes.liveness import Area, areas
from asg.passes.storage import WORD, Location, align
from asg.types import TensorType

KEPT = ("parameter", "state")
_TITLES: dict[BufferRole, str] = {
    "parameter": "parameters",
    "state": "state",
    "constant": "constants",
}


@dataclass
class Persistent:
    """Buffers and slots as they are laid out; `joins` are the places of whole flat joins."""

    buffer_limit: int
    buffers: list[Buffer] = field(default_factory=list)
    slots: dict[str, Slot] = field(default_factory=dict)
    roles: dict[str, BufferRole] = field(default_factory=dict)
    contents: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    joins: dict[_Layout, Location] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    constants: dict[tuple[Literal, TensorType], str] = field(default_factory=dict)
    _open: dict[BufferRole, int] = field(default_factory=dict)
    _scratch: int | None = None

    def add_buffer(self, title: str, size: int, role: BufferRole) -> int:
        """Add a buffer under a name that none has; return its position."""
        taken = {buffer.name for buffer in self.buffers}
        name, count = title, 1
        while name in taken:
            count += 1
            name = f"{title}_{count}"
        self.buffers.append(Buffer(name, align(max(size, 1)), role))
        return len(self.buffers) - 1

    def add_slot(self, name: str, type_: TensorType, role: BufferRole) -> None:
        """Put a slot at the end of the role's last buffer, or into a new one."""
        size = align(max(type_.nbytes, 1))
        position = self._open.get(role)
        if position is None or self.buffers[position].size + size > self.buffer_limit:
            position = self.add_buffer(_TITLES[role], size, role)
            self._open[role] = position
            offset = 0
        else:
            buffer = self.buffers[position]
            offset = buffer.size
            self.buffers[position] = replace(buffer, size=offset + size)
        self._put(Slot(name, type_, position, offset), role)

    def add_join(self, layout: _Layout, types: Mapping[str, TensorType]) -> None:
        """Give a join a buffer, and each member its slot in it."""
        has_state = any(self.roles.get(name) == "state" for name, _ in layout.members)
        role: BufferRole = "state" if has_state else "parameter"
        position = self.add_buffer(_TITLES[role], layout.nbytes, role)
        self.joins[layout] = Location(position, 0, layout.nbytes)
        for name, offset in layout.members:
            self._put(Slot(name, types[name], position, offset), self.roles[name])

    def scratch(self, offset: int, nbytes: int) -> Location:
        """Return a place in the buffer that copies within one buffer go through."""
        if self._scratch is None:
            self._scratch = self.add_buffer("scratch", nbytes, "arena")
        buffer = self.buffers[self._scratch]
        size = max(buffer.size, align(offset + nbytes))
        self.buffers[self._scratch] = replace(buffer, size=size)
        return Location(self._scratch, offset, nbytes)

    def place(self, name: str) -> Location:
        """Return where a slot lies."""
        slot = self.slots[name]
        return Location(slot.buffer, slot.offset, slot.type.nbytes)

    def _put(self, slot: Slot, role: BufferRole) -> None:
        self.slots[slot.name] = slot
        self.roles[slot.name] = role


@dataclass(frozen=True)
class _Layout:
    """A flat join of parameters or states: its size, and each member with its offset, in bytes."""

    nbytes: int
    members: tuple[tuple[str, int], ...]


def lay_out(
    plans: Mapping[str, FusionPlan], buffer_limit: int
) -> tuple[dict[str, FusionPlan], Persistent]:
    """Give every parameter, state, constant and input its place.

    Returns the plans with members that got no place in their join turned into copies.

    Raises:
        GraphError: two entries mean different things by one name.
    """
    found = Persistent(buffer_limit)
    kept = _kept_types(plans, found)
    settled = {name: _settle_joins(plan, found, kept) for name, plan in plans.items()}
    for name, type_ in kept.items():
        if name not in found.slots:
            found.add_slot(name, type_, found.roles[name])
    for plan in plans.values():
        _add_constants(plan, found)
    _add_inputs(plans, found)
    return settled, found


def fixed_roots(plan: FusionPlan, found: Persistent) -> dict[Value, Location]:
    """Return the place of every root of `plan` that lies outside the arena."""
    fixed: dict[Value, Location] = {}
    for node in plan.graph.inputs:
        name, nbytes = node.attrs["name"], node.type.nbytes
        if name in found.slots:
            fixed[Value(node)] = found.place(name)
        else:
            fixed[Value(node)] = Location(found.inputs[name], 0, nbytes)
    for value, literal in _stored_constants(plan):
        fixed[value] = found.place(found.constants[literal, value.type])
    for root, layout in _kept_joins(plan).items():
        if layout in found.joins:
            fixed[root] = found.joins[layout]
    return fixed


def _kept_types(plans: Mapping[str, FusionPlan], found: Persistent) -> dict[str, TensorType]:
    """Return the type of every parameter and state; note roles and contents."""
    kept: dict[str, TensorType] = {}
    for entry, plan in plans.items():
        for node in plan.graph.inputs:
            name, role = node.attrs["name"], node.attrs["role"]
            if role not in KEPT:
                continue
            first = kept.setdefault(name, node.type)
            if first != node.type:
                raise GraphError(
                    f"entry {entry} has {role} {name!r} as {node.type}, another entry as {first}"
                )
            # Updated in one entry, only read in another: state wins, both mean one slot.
            if found.roles.get(name) != "state":
                found.roles[name] = role
        for name, array in plan.graph.values.items():
            found.contents.setdefault(name, array)
    return kept


def _settle_joins(
    plan: FusionPlan, found: Persistent, kept: Mapping[str, TensorType]
) -> FusionPlan:
    """Place the joins of parameters and states; copy where their members lie elsewhere."""
    layouts = _kept_joins(plan)
    for layout in layouts.values():
        is_free = not any(name in found.slots for name, _ in layout.members)
        if layout not in found.joins and is_free and layout.members:
            found.add_join(layout, kept)
    placed, copies = dict(plan.placed), list(plan.copies)
    all_areas = areas(plan)
    for member in plan.placed:
        wanted = layouts.get(_root(all_areas[member]))
        is_settled = wanted is not None and wanted in found.joins
        if not is_settled and _is_given(member):
            place = placed.pop(member)
            copies.append((member, place.parent, place.offset))
    return replace(plan, placed=placed, copies=tuple(copies))


def _kept_joins(plan: FusionPlan) -> dict[Value, _Layout]:
    """Return every root join all of whose members are parameters or states."""
    if not plan.placed:
        return {}
    all_areas = areas(plan)
    joins = {place.parent for place in plan.placed.values()}
    mixed = {_root(all_areas[join]) for _, join, _ in plan.copies}
    members: dict[Value, list[tuple[str, int]]] = {}
    for value in plan.placed:
        root = _root(all_areas[value])
        if value in joins:
            continue  # a join inside another: its own members stand for it
        if _is_given(value) and value.node.attrs.get("role") in KEPT:
            entry = (plan.graph.names[value], all_areas[value].offset)
            members.setdefault(root, []).append(entry)
        else:
            mixed.add(root)
    return {
        root: _Layout(root.type.nbytes, tuple(sorted(found, key=lambda pair: (pair[1], pair[0]))))
        for root, found in members.items()
        if root not in mixed
    }


def _is_given(value: Value) -> bool:
    """Tell whether a value exists before any kernel ran: an input or a constant."""
    node = value.node
    return not node.inputs and ("role" in node.attrs or _literal(value) is not None)


def _root(area: Area) -> Value:
    assert isinstance(area.root, Value)  # areas of graph values have values for roots
    return area.root


def _literal(value: Value) -> Literal | None:
    """Return the contents of a constant, None for any other value."""
    if value.node.inputs:
        return None
    return next((held for held in value.node.attrs.values() if isinstance(held, Literal)), None)


def _stored_constants(plan: FusionPlan) -> list[tuple[Value, Literal]]:
    """Return the constants that need a slot: those that no kernel writes."""
    written = {output for kernel in plan.kernels for output in kernel.outputs}
    found = [(value, _literal(value)) for value in plan.stored if value not in written]
    return [(value, literal) for value, literal in found if literal is not None]


def _add_constants(plan: FusionPlan, found: Persistent) -> None:
    for value, literal in _stored_constants(plan):
        if (literal, value.type) in found.constants:
            continue
        stem = plan.graph.names[value]
        name, count = stem, 1
        while name in found.slots:
            count += 1
            name = f"{stem}.{count}"
        found.add_slot(name, value.type, "constant")
        found.constants[literal, value.type] = name
        found.contents[name] = np.broadcast_to(literal.array, value.type.shape)


def _add_inputs(plans: Mapping[str, FusionPlan], found: Persistent) -> None:
    """Give every input a buffer; entries that use one name share the biggest."""
    sizes: dict[str, int] = {}
    for entry, plan in plans.items():
        for node in plan.graph.inputs:
            name = node.attrs["name"]
            if node.attrs["role"] in KEPT:
                continue
            if name in found.slots and found.roles[name] != "constant":
                raise GraphError(
                    f"entry {entry} has input {name!r}, another entry a {found.roles[name]} "
                    "of that name; give one another name"
                )
            sizes[name] = max(sizes.get(name, WORD), node.type.nbytes)
    for name, size in sizes.items():
        found.inputs[name] = found.add_buffer(name, size, "input")
