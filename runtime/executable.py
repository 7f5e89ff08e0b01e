"""What `asg.compile` and `asg.load` return: a model that can be called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from asg.closing import Closing
from asg.errors import BundleError, InputError, ReleasedError
from asg.graph import Graph
from asg.plan_view import PlanView
from asg.runtime.arrays import to_array
from asg.runtime.bundle import load_bundle, save_bundle
from asg.runtime.cuts import (
    cut_all,
    output_names,
    refuse_on_device,
    visible_outputs,
    with_counts,
)
from asg.runtime.device_array import DeviceArray
from asg.runtime.devices import shared_device
from asg.runtime.entry_point import EntryPoint, Results
from asg.runtime.executor import Executor
from asg.runtime.inputs import check_names, check_state_names, require_values, slot_types
from asg.runtime.interpreter import run_with_updates
from asg.runtime.profile import Timing
from asg.runtime.wgpu_device import Device
from asg.types import INTERFACES, TensorType


class Executable(Closing):
    """A compiled model on a device. `exe({...})` runs its first entry, `exe.NAME({...})` one.

    Close it, or use it as a context manager, to give its device memory back at a known time.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        artefact = executor.artefact
        self.name = artefact.name
        self.entries: Mapping[str, EntryPoint] = MappingProxyType(
            {
                name: EntryPoint(
                    name,
                    slot_types(entry.inputs),
                    slot_types(visible_outputs(entry)),
                    partial(self._run, name),
                )
                for name, entry in artefact.entries.items()
            }
        )
        self.kernels: Mapping[str, str] = MappingProxyType(
            {name: variant.wgsl for name, variant in executor.variants.items()}
        )
        plan = artefact.report.get("plan", {})
        self.plan: PlanView | None = PlanView.from_report(plan) if "entries" in plan else None

    def _run(
        self,
        entry: str,
        inputs: Mapping[str, object],
        outputs: Iterable[str] | None,
        on_device: bool,
    ) -> Results:
        program = self.executor.artefact.entries[entry]
        if not program.cuts:
            run = self.executor.run_on_device if on_device else self.executor.run
            return dict(run(entry, inputs, outputs))
        names = output_names(program) if outputs is None else list(dict.fromkeys(outputs))
        if on_device:
            refuse_on_device(program, names)
            return dict(self.executor.run_on_device(entry, inputs, names))
        found = self.executor.run(entry, inputs, with_counts(program, names))
        return dict(cut_all(program, names, found))

    def __call__(
        self,
        inputs: Mapping[str, object] | None = None,
        *,
        outputs: Iterable[str] | None = None,
        device_outputs: bool = False,
        check_finite: bool = False,
    ) -> Results:
        """Run the first entry; see `EntryPoint`."""
        return first_entry(self.entries)(
            inputs, outputs=outputs, device_outputs=device_outputs, check_finite=check_finite
        )

    def __getattr__(self, name: str) -> EntryPoint:
        return entry_attribute(self, name)

    def __repr__(self) -> str:
        return f"<Executable {self.name}: {', '.join(self.entries)}; {self.device.description}>"

    @property
    def device(self) -> Device:
        """The device that it runs on."""
        return self.executor.device

    def report(self) -> dict[str, Any]:
        """Return the compiler's statistics, and the device they came to run on."""
        return {**self.executor.artefact.report, "device": self.device.description}

    def to_device(self, inputs: Mapping[str, object]) -> dict[str, DeviceArray]:
        """Upload inputs; a call takes them without a copy."""
        return self.executor.to_device(inputs)

    def sync(self) -> None:
        """Wait until everything has run."""
        self.executor.sync()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Read parameters and state, by the names that the model gives them."""
        return self.executor.state_dict()

    def load_state_dict(self, values: Mapping[str, object], strict: bool = True) -> None:
        """Write parameters and state: all of them or, after an error, none.

        Raises:
            InputError: a name is missing or unknown (only if strict), or a value does not fit.
        """
        self.executor.load_state_dict(values, strict)

    def profile(
        self, inputs: Mapping[str, object], entry: str | None = None, repeat: int = 3
    ) -> list[Timing]:
        """Time every kernel of an entry (the first by default); state stays as it is."""
        name = entry if entry is not None else first_entry(self.entries).name
        return self.executor.profile(name, inputs, repeat)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a bundle, with parameters and state as they are now: a folder, or an `.asg` zip.

        Raises:
            BundleError: something else is there already, or it can't be written.
        """
        artefact = self.executor.artefact
        save_bundle(artefact, {**artefact.values, **self.state_dict()}, path)

    def close(self) -> None:
        """Give all device memory back."""
        self.executor.close()


class NumpyExecutable(Closing):
    """The interpreter behind the interface of an executable: slow, and right by definition."""

    device = "numpy"

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self.graphs = dict(graphs)
        self.name = next(iter(self.graphs.values())).name
        self.kernels: Mapping[str, str] = {}
        self.plan: PlanView | None = None
        self._is_closed = False
        self._types: dict[str, TensorType] = {}
        self._state: dict[str, np.ndarray] = {}
        self._unset: set[str] = set()
        self._parts: dict[tuple[str, tuple[str, ...]], Graph] = {}
        for graph in self.graphs.values():
            self._add_state(graph)
        self.entries: Mapping[str, EntryPoint] = MappingProxyType(
            {
                name: EntryPoint(
                    name,
                    {key: graph.input(key).type for key in graph.input_names("input")},
                    {key: value.type for key, value in graph.outputs.items()},
                    partial(self._run, name),
                )
                for name, graph in self.graphs.items()
            }
        )

    def _add_state(self, graph: Graph) -> None:
        for name in graph.input_names("parameter", "state"):
            kind = graph.input(name).type
            self._types[name] = kind
            start = graph.values.get(name)
            if start is not None:
                self._state[name] = to_array(f"{self.name}: {name!r}", kind, start).copy()
                self._unset.discard(name)
            elif name not in self._state:
                self._state[name] = np.zeros(kind.shape, kind.dtype.numpy)
                if graph.input(name).attrs["role"] == "parameter" and kind.size:
                    self._unset.add(name)

    def _run(
        self,
        entry: str,
        inputs: Mapping[str, object],
        outputs: Iterable[str] | None,
        on_device: bool,
    ) -> Results:
        self._check_open()
        graph = self._part(entry, outputs)
        types = self.entries[entry].inputs
        needed = set(graph.input_names("input"))
        check_names(entry, types, needed, inputs)
        given = {
            name: to_array(f"{entry}: input {name!r}", types[name], value)
            for name, value in inputs.items()
        }
        self._require(graph.input_names("parameter"))
        state = {name: self._state[name] for name in graph.input_names("parameter", "state")}
        results, updates = run_with_updates(
            graph, {name: given[name] for name in given if name in needed}, values=state
        )
        self._state.update(updates)
        self._unset.difference_update(updates)
        # Copies: some are the inputs, the state or constants themselves.
        return {
            name: np.array(array, INTERFACES.get(graph.interfaces.get(name, "")))
            for name, array in results.items()
        }

    def _part(self, entry: str, outputs: Iterable[str] | None) -> Graph:
        """Return the graph of an entry cut down to some outputs, with the inputs that they read."""
        graph = self.graphs[entry]
        names = tuple(graph.outputs if outputs is None else outputs)
        for name in names:
            if name not in graph.outputs:
                raise InputError(
                    f"{entry} has no output {name!r}; outputs: {', '.join(graph.outputs)}"
                )
        if (entry, names) not in self._parts:
            self._parts[entry, names] = Graph.build(
                {name: graph.outputs[name] for name in names},
                updates=graph.updates,
                name=graph.name,
                values=graph.values,
                inputs=[graph.input(name) for name in graph.updates],
                interfaces=graph.interfaces,
            )
        return self._parts[entry, names]

    def __call__(
        self,
        inputs: Mapping[str, object] | None = None,
        *,
        outputs: Iterable[str] | None = None,
        device_outputs: bool = False,
        check_finite: bool = False,
    ) -> Results:
        """Run the first entry; see `EntryPoint`."""
        return first_entry(self.entries)(
            inputs, outputs=outputs, device_outputs=device_outputs, check_finite=check_finite
        )

    def __getattr__(self, name: str) -> EntryPoint:
        return entry_attribute(self, name)

    def __repr__(self) -> str:
        return f"<NumpyExecutable {self.name}: {', '.join(self.entries)}>"

    def report(self) -> dict[str, Any]:
        """Return that nothing was compiled."""
        return {"device": self.device}

    def to_device(self, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        """Return the inputs as arrays; this device is the host."""
        return {name: np.asarray(value) for name, value in inputs.items()}

    def sync(self) -> None:
        """Do nothing: everything has run."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copy parameters and state, by the names that the model gives them."""
        self._check_open()
        self._require(self._state)
        return {name: array.copy() for name, array in self._state.items()}

    def load_state_dict(self, values: Mapping[str, object], strict: bool = True) -> None:
        """Replace parameters and state: all of them or, after an error, none.

        Raises:
            InputError: a name is missing or unknown (only if strict), or a value does not fit.
        """
        self._check_open()
        check_state_names(self.name, list(self._types), values, strict)
        fresh = {
            name: to_array(f"{self.name}: {name!r}", kind, values[name]).copy()
            for name, kind in self._types.items()
            if name in values
        }
        self._state.update(fresh)
        self._unset.difference_update(fresh)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Refuse: there are no kernels to save.

        Raises:
            BundleError: always.
        """
        raise BundleError(
            f'{path}: {self.name} has no kernels to save\n  fix: compile it with target="wgpu"'
        )

    def close(self) -> None:
        """Forget parameters and state."""
        self._is_closed = True
        self._state = {}

    def _require(self, names: Iterable[str]) -> None:
        require_values(self.name, [name for name in names if name in self._unset])

    def _check_open(self) -> None:
        if self._is_closed:
            raise ReleasedError(f"{self.name} was closed and can't be used any more")


def load(path: str | os.PathLike[str], *, device: str | None = None) -> Executable:
    """Load a bundle that `exe.save` wrote; needs no compiler.

    Args:
        path: the folder or the `.asg` zip.
        device: which adapter, as ASG_DEVICE says it.

    Raises:
        BundleError: the bundle is damaged, tampered with, or from a newer version.
        DeviceError: no adapter, or it refuses what the bundle needs.
    """
    return Executable(Executor(load_bundle(path), shared_device(device)))


def first_entry(entries: Mapping[str, EntryPoint]) -> EntryPoint:
    """Return the entry that a plain call runs."""
    return next(iter(entries.values()))


def entry_attribute(owner: Executable | NumpyExecutable, name: str) -> EntryPoint:
    """Return an entry by name, for `exe.predict`.

    Raises:
        AttributeError: there is none; the message names those that there are.
    """
    # Looked up in the dict, since the attribute may not be there yet.
    entries: Mapping[str, EntryPoint] = owner.__dict__.get("entries", {})
    if name not in entries:
        raise AttributeError(
            f"{type(owner).__name__} has no attribute or entry {name!r}; "
            f"entries: {', '.join(entries) or 'none'}"
        )
    return entries[name]
