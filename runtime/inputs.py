"""Whether the names and shapes of what is handed in are those of an entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from asg.artefact import Artefact, Slot
from asg.errors import InputError
from asg.types import Shape, TensorType

_SHOWN = 20


def check_names(
    entry: str,
    known: Mapping[str, TensorType],
    needed: Set[str],
    inputs: Mapping[str, object],
) -> None:
    """Refuse a call that names inputs the entry does not have, or lacks some that it needs.

    Raises:
        InputError: so it is.
    """
    if not isinstance(inputs, Mapping):
        raise InputError(
            f"{entry} takes a dict of arrays by name, got {type(inputs).__name__}; {_listed(known)}"
        )
    for name in inputs:
        if name not in known:
            raise InputError(f"{entry} has no input {name!r}; {_listed(known)}")
    missing = [name for name in known if name in needed and name not in inputs]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"{entry}: {', '.join(map(repr, missing))} {verb} missing; {_listed(known)}"
        )


def slot_types(slots: Iterable[Slot]) -> dict[str, TensorType]:
    """Return types by name."""
    return {slot.name: slot.type for slot in slots}


def input_slot(artefact: Artefact, name: str, shape: Shape) -> Slot:
    """Return the place of the input called `name`, of the entry that takes this shape if any.

    Raises:
        InputError: no entry has such an input.
    """
    slots = [slot for entry in artefact.entries.values() for slot in entry.inputs]
    named = [slot for slot in slots if slot.name == name]
    if not named:
        raise InputError(f"{artefact.name} has no input {name!r}; {_listed(slot_types(slots))}")
    return next((slot for slot in named if slot.type.shape == shape), named[0])


def check_state_names(
    owner: str, known: Sequence[str], values: Mapping[str, object], strict: bool
) -> None:
    """Refuse a state that is no dict, or, if strict, lacks a name or has one too many.

    Raises:
        InputError: so it is.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{owner}: a state is a dict of arrays by name, got {type(values).__name__}"
        )
    if not strict:
        return
    missing = [name for name in known if name not in values]
    unknown = [str(name) for name in values if name not in set(known)]
    if not missing and not unknown:
        return
    parts = [f"missing: {', '.join(missing)}"] if missing else []
    parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
    raise InputError(
        f"{owner}: the state does not fit; {'; '.join(parts)}\n"
        "  fix: strict=False loads the names that fit and leaves the others as they are"
    )


def require_values(owner: str, missing: Sequence[str]) -> None:
    """Refuse to go on without the values of some parameters.

    Raises:
        InputError: there are any.
    """
    if not missing:
        return
    shown = ", ".join(missing[:_SHOWN])
    more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    raise InputError(
        f"{owner}: parameters without a value: {shown}{more}\n"
        "  fix: load_state_dict(), or compile the graph with values"
    )


def _listed(types: Mapping[str, TensorType]) -> str:
    shown = [f"{name}: {kind}" for name, kind in types.items()][:_SHOWN]
    more = f", and {len(types) - _SHOWN} more" if len(types) > _SHOWN else ""
    return f"inputs: {', '.join(shown) or 'none'}{more}"
