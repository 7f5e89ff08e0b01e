"""What `asg.compile` returns for open graphs: it compiles when sizes are known.

A `Specialiser` has the interface of an executable. A call binds the open sizes by the shapes of
its arrays, and the static inputs by their values; for each binding an ordinary executable is made
once and kept, the least recently used going first. Executables share parameters and state on the
device where they lay them out alike; what they do not is handed on from one to the next.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from asg.closing import Closing
from asg.errors import GraphError, InputError, ReleasedError
from asg.graph import Graph
from asg.open_graph import Binding, OpenGraph
from asg.runtime.device_array import DeviceArray
from asg.runtime.executable import Executable, NumpyExecutable
from asg.runtime.inputs import check_state_names
from asg.types import Shape

Made = Executable | NumpyExecutable
Make = Callable[[Mapping[str, Graph], Made | None], Made]
KEPT = 8  # executables
KEPT_ROLES = ("parameter", "state")


class OpenEntry:
    """An entry of open sizes, as users call it."""

    def __init__(self, name: str, graph: OpenGraph, owner: Specialiser) -> None:
        self.name, self.graph, self._owner = name, graph, owner

    def __repr__(self) -> str:
        return f"<{self.name}: {self.graph}>"

    def __call__(
        self,
        inputs: Mapping[str, object] | None = None,
        *,
        outputs: Iterable[str] | None = None,
        device_outputs: bool = False,
        check_finite: bool = False,
    ) -> dict[str, Any]:
        """Run the entry, compiled for the sizes of `inputs` (see `EntryPoint`)."""
        with self._owner.lock:
            given = dict(inputs or {})
            made = self._owner.executable(self.name, given)
            rest = {key: each for key, each in given.items() if key not in self.graph.statics}
            return made.entries[self.name](
                rest, outputs=outputs, device_outputs=device_outputs, check_finite=check_finite
            )


class Specialiser(Closing):
    """An executable of open sizes: the first call with new ones compiles.

    `make(graphs, lender)` compiles graphs; the executable may share what the lender keeps.
    """

    def __init__(
        self,
        graphs: Mapping[str, OpenGraph],
        make: Make,
        dims: Mapping[str, int] | None = None,
        kept: int = KEPT,
    ) -> None:
        self.lock = threading.RLock()
        self.name = next(iter(graphs.values())).name
        self._graphs, self._make = dict(graphs), make
        self._dims = dict(dims or {})
        self._kept = max(kept, 1)
        self._made: OrderedDict[object, tuple[str, Made]] = OrderedDict()
        self._latest: Made | None = None
        self._holders: dict[str, Made] = {}  # who has the newest value of a parameter or state
        self._changed: set[str] = set()  # what may no longer be what graphs start with
        self._pending: dict[str, object] = {}  # loaded before anything was made that has it
        self._hits = self._misses = self._evicted = 0
        self._is_closed = False
        self.entries: Mapping[str, OpenEntry] = MappingProxyType(
            {name: OpenEntry(name, graph, self) for name, graph in graphs.items()}
        )
        self._check_dims()

    # -- running ------------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Mapping[str, object] | None = None,
        *,
        outputs: Iterable[str] | None = None,
        device_outputs: bool = False,
        check_finite: bool = False,
    ) -> dict[str, Any]:
        """Run the first entry; see `OpenEntry`."""
        return next(iter(self.entries.values()))(
            inputs, outputs=outputs, device_outputs=device_outputs, check_finite=check_finite
        )

    def __getattr__(self, name: str) -> OpenEntry:
        entries: Mapping[str, OpenEntry] = self.__dict__.get("entries", {})
        if name not in entries:
            raise AttributeError(
                f"Specialiser has no attribute or entry {name!r}; "
                f"entries: {', '.join(entries) or 'none'}"
            )
        return entries[name]

    def __repr__(self) -> str:
        return f"<Specialiser {self.name}: {len(self._made)} of {self._kept} sizes compiled>"

    def executable(self, entry: str, inputs: Mapping[str, object]) -> Made:
        """Return the executable for the sizes of some inputs, with the newest state.

        Raises:
            InputError: an input is missing or unknown, or sizes disagree.
        """
        graph = self._graphs[entry]
        statics = self._statics(graph, inputs)
        shapes = {
            name: _shape(value) for name, value in inputs.items() if not graph.input(name).is_static
        }
        shapes |= {name: _shape(value) for name, value in statics.items()}
        return self._found({entry: graph.binding(shapes, statics, self.dims_of(graph))})

    def bind(
        self, dims: Mapping[str, int] | None = None, statics: Mapping[str, object] | None = None
    ) -> Made:
        """Return the executable for sizes by name; it stays this one's own."""
        wanted = {**self._dims, **(dims or {})}
        with self.lock:
            found = {}
            for key, graph in self._graphs.items():
                own = {name: each for name, each in wanted.items() if name in graph.known_sizes}
                given = statics or {}
                used = {name: given[name] for name in graph.statics if name in given}
                found[key] = graph.binding_of(own, used)
            return self._found(found)

    def _found(self, bindings: Mapping[str, Binding]) -> Made:
        """Return the executable of a binding, made now if there is none."""
        if self._is_closed:
            raise ReleasedError(f"{self.name} was closed and can't be used any more")
        key = tuple((name, each.key) for name, each in bindings.items())
        if key in self._made:
            self._hits += 1
            made = self._made[key][1]
            self._made.move_to_end(key)
        else:
            self._misses += 1
            made = self._compiled(bindings)
            self._made[key] = ("; ".join(map(str, bindings.values())), made)
        self._bring_up_to_date(made)
        self._latest = made
        self._evict()
        return made

    def _compiled(self, bindings: Mapping[str, Binding]) -> Made:
        graphs = {name: self._graphs[name].recipe(each) for name, each in bindings.items()}
        made = self._make(graphs, self._latest)
        names = _state_names(made)
        loaded = {key: self._pending.pop(key) for key in list(self._pending) if key in names}
        made.load_state_dict(loaded, strict=False)
        self._changed |= {name for graph in graphs.values() for name in graph.updates}
        self._changed |= loaded.keys()
        return made

    def _bring_up_to_date(self, made: Made) -> None:
        """Give an executable what others have changed and it does not share with them."""
        if made is self._latest:
            return
        for name in _state_names(made):
            holder = self._holders.get(name)
            if holder is not None and holder is not made and name in self._changed:
                _hand_on(name, holder, made)
            self._holders[name] = made

    def _evict(self) -> None:
        """Close what was used the longest time ago, but nothing that has the newest state."""
        newest = {id(made) for made in (self._latest, *self._holders.values())}
        old = [key for key, (_, made) in self._made.items() if id(made) not in newest]
        for key in old[: max(len(self._made) - self._kept, 0)]:
            self._made.pop(key)[1].close()
            self._evicted += 1

    def _statics(self, graph: OpenGraph, inputs: Mapping[str, object]) -> dict[str, object]:
        if not isinstance(inputs, Mapping):
            raise InputError(f"{self.name} takes a dict of arrays, got {type(inputs).__name__}")
        known = [each.name for each in graph.inputs]
        for name in inputs:
            if name not in known:
                raise InputError(f"{self.name} has no input {name!r}; inputs: {', '.join(known)}")
        missing = [name for name in graph.statics if name not in inputs]
        if missing:
            raise InputError(f"{self.name}: {', '.join(missing)} missing, which decide shapes")
        return {name: np.asarray(inputs[name]) for name in graph.statics}

    @property
    def is_bound(self) -> bool:
        """Whether `dims` leave nothing open."""
        return all(each.is_bound_by(self.dims_of(each)) for each in self._graphs.values())

    def dims_of(self, graph: OpenGraph) -> dict[str, int]:
        return {name: size for name, size in self._dims.items() if name in graph.known_sizes}

    def _check_dims(self) -> None:
        for name in self._dims:
            if not any(name in graph.known_sizes for graph in self._graphs.values()):
                known = ", ".join(dict.fromkeys(d for g in self._graphs.values() for d in g.dims))
                raise GraphError(f"dims names {name!r}; open dimensions: {known or 'none'}")
        for graph in self._graphs.values():
            graph.complete(self.dims_of(graph))

    # -- what an executable has -----------------------------------------------------------------

    @property
    def device(self) -> Any:
        """The device that it runs on; known once something was compiled."""
        return self._newest().device

    @property
    def kernels(self) -> Mapping[str, str]:
        """The kernels for the sizes that ran last."""
        return self._newest().kernels

    @property
    def plan(self) -> Any:
        """The memory plan for the sizes that ran last."""
        return self._newest().plan

    def report(self) -> dict[str, Any]:
        """Return the compiler's statistics for the sizes that ran last, and what is kept."""
        kept = {
            "kept": len(self._made),
            "limit": self._kept,
            "hits": self._hits,
            "misses": self._misses,
            "evicted": self._evicted,
            "bindings": [label for label, _ in self._made.values()],
        }
        found = self._latest.report() if self._latest is not None else {}
        return {**found, "specialisations": kept}

    def to_device(self, inputs: Mapping[str, object]) -> dict[str, DeviceArray | np.ndarray]:
        """Upload inputs; a call with the same sizes takes them without a copy."""
        with self.lock:
            statics = {name for graph in self._graphs.values() for name in graph.statics}
            made = self.executable(self._entry_for(inputs), inputs)
            rest = {name: each for name, each in inputs.items() if name not in statics}
            found: dict[str, Any] = dict(made.to_device(rest))
            return {**found, **{key: np.asarray(inputs[key]) for key in inputs if key in statics}}

    def sync(self) -> None:
        """Wait until everything has run."""
        if self._latest is not None:
            self._latest.sync()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Read parameters and state, by the names that the model gives them."""
        with self.lock:
            self._newest()
            found = {id(made): made.state_dict() for made in self._holders.values()}
            return {name: found[id(made)][name] for name, made in self._holders.items()}

    def load_state_dict(self, values: Mapping[str, object], strict: bool = True) -> None:
        """Write parameters and state; what nothing was compiled for yet is kept until then.

        Raises:
            InputError: a name is missing or unknown (only if strict), or a value does not fit.
        """
        with self.lock:
            if self._latest is None:
                self._pending.update(values)
                return
            check_state_names(self.name, list(self._holders), values, strict)
            for made in {id(each): each for each in self._holders.values()}.values():
                own = [name for name, holder in self._holders.items() if holder is made]
                made.load_state_dict(
                    {name: values[name] for name in own if name in values}, strict=False
                )
            self._changed |= values.keys()

    def save(
        self,
        path: str | os.PathLike[str],
        dims: Mapping[str, int] | None = None,
        statics: Mapping[str, object] | None = None,
    ) -> None:
        """Write a bundle for one set of sizes: `dims`, or those of the last run.

        Raises:
            GraphError: a size is open.
            BundleError: it can't be written.
        """
        is_told = dims is not None or statics is not None or self._latest is None
        (self.bind(dims, statics) if is_told else self._newest()).save(path)

    def close(self) -> None:
        """Give all device memory back."""
        with self.lock:
            for _, made in self._made.values():
                made.close()
            self._made.clear()
            self._holders.clear()
            self._latest, self._is_closed = None, True

    def _newest(self) -> Made:
        if self._is_closed:
            raise ReleasedError(f"{self.name} was closed and can't be used any more")
        if self._latest is None:
            raise GraphError(
                f"{self.name}: sizes are open, and nothing was compiled yet\n"
                "  fix: call it once, or bind(dims={…})"
            )
        return self._latest

    def _entry_for(self, inputs: Mapping[str, object]) -> str:
        """Return the first entry that has all these inputs."""
        for key, graph in self._graphs.items():
            if set(inputs) <= {each.name for each in graph.inputs}:
                return key
        return next(iter(self._graphs))


def _shape(value: object) -> Shape:
    shape = getattr(value, "shape", None)
    return tuple(np.asarray(value).shape if shape is None else shape)


def _state_names(made: Made) -> list[str]:
    if isinstance(made, NumpyExecutable):
        found = [n for graph in made.graphs.values() for n in graph.input_names(*KEPT_ROLES)]
        return list(dict.fromkeys(found))
    artefact = made.executor.artefact
    slots = [slot.name for slot in artefact.persistent]
    return [name for name in slots if artefact.roles.get(name) != "constant"]


def _hand_on(name: str, old: Made, new: Made) -> None:
    """Give `new` the value of a parameter or state that `old` has, if it is not the same memory."""
    if isinstance(old, NumpyExecutable) or isinstance(new, NumpyExecutable):
        new.load_state_dict({name: old.state_dict()[name]}, strict=False)
    elif not new.executor.shares(old.executor, name):
        new.executor.write(name, old.executor.read(name))
