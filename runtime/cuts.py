"""Outputs that are cut on the host: what is read for them, and what is returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from asg.artefact import Entry, Slot
from asg.cutting import shortened
from asg.errors import InputError

Array = np.ndarray[Any, Any]


def visible_outputs(entry: Entry) -> tuple[Slot, ...]:
    """Return the outputs that callers see: all but the numbers that say where others end."""
    hidden = {count for _, count in entry.cuts.values()}
    return tuple(slot for slot in entry.outputs if slot.name not in hidden)


def output_names(entry: Entry) -> list[str]:
    """Return the names of the outputs that callers see."""
    return [slot.name for slot in visible_outputs(entry)]


def with_counts(entry: Entry, names: Iterable[str]) -> list[str]:
    """Return what must be read for some outputs: themselves, and where they end."""
    wanted = list(names)
    counts = [entry.cuts[name][1] for name in wanted if name in entry.cuts]
    return list(dict.fromkeys([*wanted, *counts]))


def cut_all(entry: Entry, names: Iterable[str], found: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs told, each as long as its count says."""
    results: dict[str, Array] = {}
    for name in names:
        results[name] = found[name]
        if name in entry.cuts:
            axis, count = entry.cuts[name]
            results[name] = shortened(found[name], axis, int(found[count]))
    return results


def refuse_on_device(entry: Entry, names: Iterable[str]) -> None:
    """Refuse to leave on the device what only the host can cut.

    Raises:
        InputError: one of the outputs is cut.
    """
    for name in names:
        if name in entry.cuts:
            raise InputError(
                f"{entry.name}: output {name!r} has a length known at run time only, so it is cut "
                "on the host; device_outputs can't hold it"
            )
