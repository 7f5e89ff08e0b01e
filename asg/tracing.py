"""From Python functions and modules to graphs: inputs, state, names, and the random key.

Tensors build nodes whoever runs them; a trace adds what one run of a function has in common:
the names of parameters, the values they start with, updates of state, and a random key of
which every random call gets its own. Outside a trace parameters become inputs on the fly, and
`graph` collects their values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np

from asg.errors import AsgError, GraphError, InputError
from asg.graph import Graph, Node, Value, rewrite
from asg.open_graph import OpenGraph, open_graph
from asg.open_types import OpenType, parse_type
from asg.ops.sources import convert_array, input
from asg.random import fold_in
from asg.seed import initial_seed
from asg.site import current_site, scope
from asg.tensor import Tensor, as_tensor
from asg.types import TensorType, as_dtype, spec
from asg.verify import check_updates

__all__ = ["graph", "input", "random_key", "state", "trace"]

Array = np.ndarray[Any, Any]
RNG = "rng"  # the random key's name among the inputs
_DIVIDER = "@"  # between a provisional name and its number; no user's name contains it


class Stored(Protocol):
    """A tensor with an initial value, such as a parameter or a buffer."""

    @property
    def data(self) -> Array: ...
    @property
    def label(self) -> str: ...
    @property
    def role(self) -> str: ...


@runtime_checkable
class ModuleLike(Protocol):
    """What a trace asks of a module."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def forward(self, *args: Any, **kwargs: Any) -> Any: ...
    def named_parameters(self) -> Iterable[tuple[str, Any]]: ...
    def named_buffers(self) -> Iterable[tuple[str, Any]]: ...
    def named_modules(self) -> Iterable[tuple[str, Any]]: ...


@dataclass(frozen=True)
class _Frame:
    """The names below an outermost module, and the path of the module that runs now."""

    root: ModuleLike  # keeps alive what the ids below stand for
    stored: Mapping[int, str]
    modules: Mapping[int, str]
    path: str = ""

    @staticmethod
    def of(root: ModuleLike) -> _Frame:
        stored = {id(item): name for name, item in root.named_buffers()}
        stored |= {id(item): name for name, item in root.named_parameters()}
        return _Frame(root, stored, {id(item): name for name, item in root.named_modules()})


@dataclass
class _Trace:
    """What gathers while a function is traced."""

    seed: int
    taken: set[str]
    tensors: dict[int, tuple[Stored, Tensor]] = field(default_factory=dict)
    updates: dict[str, Value] = field(default_factory=dict)
    key: Tensor | None = None
    calls: int = 0


_frame: ContextVar[_Frame | None] = ContextVar("asg_frame", default=None)
_active: ContextVar[_Trace | None] = ContextVar("asg_trace", default=None)
_initial: WeakKeyDictionary[Node, Array | Stored] = WeakKeyDictionary()


def state(name: str, initial: object, dtype: object = None) -> Tensor:
    """Return an input that is kept between runs and starts as the array `initial`.

    Give its value after a run to `graph(updates={name: tensor})`.

    Raises:
        DTypeError: a value does not fit `dtype`, or there is no such dtype.
    """
    array = np.array(initial)
    if dtype is not None or array.dtype == np.float64:
        array = convert_array(array, as_dtype(dtype or "f32"))
    tensor = input(name, spec(array.shape, array.dtype), role="state")
    _initial[tensor.node] = array
    return tensor


def stored_input(name: str, item: Stored) -> Tensor:
    """Return a new input for a parameter or buffer."""
    data = item.data
    tensor = input(name, spec(data.shape, data.dtype), role=item.role)
    _initial[tensor.node] = item
    return tensor


def resolve(item: Stored) -> Tensor | None:
    """Return the input that stands for `item` in the active trace; None outside of one."""
    active = _active.get()
    if active is None:
        return None
    found = active.tensors.get(id(item))
    if found is None:
        name = _unused(wanted_name(item), active.taken)
        active.taken.add(name)
        found = active.tensors[id(item)] = (item, stored_input(name, item))
    return found[1]


def wanted_name(item: Stored) -> str:
    """Return the name that `item` has in the outermost module being called."""
    frame = _frame.get()
    return frame.stored.get(id(item), item.label) if frame is not None else item.label


def provisional_name(item: Stored, serial: int) -> str:
    """Return a name that `graph` replaces by the wanted one, or one like it."""
    return f"{wanted_name(item)}{_DIVIDER}{serial}"


def update(tensor: Tensor, value: Tensor) -> None:
    """Record the value that a state input has after the run that is being traced.

    Raises:
        AsgError: no trace is active.
        GraphError: `tensor` is not an input with state.
    """
    active = _active.get()
    node = tensor.node
    if active is None:
        raise AsgError(
            f"an update of state outside a trace would be lost (at {current_site()}); "
            "use asg.trace, or give it to asg.graph(updates=…)"
        )
    if not node.is_input or node.attrs["role"] == "input":
        raise GraphError(f"only parameters and state can be updated, not a {node.op.name}")
    if value.type != tensor.type:
        raise GraphError(f"update of {node.attrs['name']!r}, {tensor.type}, with a {value.type}")
    active.updates[node.attrs["name"]] = value.value


def latest(tensor: Tensor) -> Tensor:
    """Return the value recorded for a state input, or the input itself where there is none."""
    active = _active.get()
    recorded = (
        active.updates.get(tensor.node.attrs["name"]) if active and tensor.node.is_input else None
    )
    return tensor if recorded is None else Tensor(recorded)


def random_key() -> Tensor:
    """Return the key u32[2] of the next random call; no two calls of a trace get the same.

    Raises:
        AsgError: no trace is active.
    """
    key, index = random_stream()
    folded: Tensor = fold_in(key, index)
    return folded


def random_stream() -> tuple[Tensor, int]:
    """Return the trace's key u32[2], and the number of this random call, from 1.

    The state `rng` holds the seed and the number of runs made, and every run leaves it one
    further, so that no two runs share a key. A call that counts its words as (number, position)
    shares none with another.

    Raises:
        AsgError: no trace is active.
    """
    active = _active.get()
    if active is None:
        raise AsgError(
            f"randomness (such as dropout in training) needs a trace (at {current_site()}); "
            "use asg.trace or asg.training_step, call model.eval(), or pass a key"
        )
    if active.key is None:
        active.taken.add(RNG)
        active.key = state(RNG, np.array([active.seed % 2**32, 0], np.uint32))
        active.updates[RNG] = (active.key + np.array([0, 1], np.uint32)).value
    active.calls += 1
    return active.key, active.calls


@contextmanager
def calling(module: ModuleLike) -> Iterator[None]:
    """Name parameters and scopes after `module` while it runs."""
    frame = _frame.get()
    if frame is None or id(module) not in frame.modules:
        frame = _Frame.of(module)
    path = frame.modules[id(module)]
    is_below = frame.path and path.startswith(frame.path + ".")
    token = _frame.set(replace(frame, path=path))
    try:
        with scope(path[len(frame.path) + 1 :] if is_below else path):
            yield
    finally:
        _frame.reset(token)


def graph(
    outputs: Mapping[str, Any],
    updates: Mapping[str, Any] | None = None,
    *,
    name: str = "graph",
    inputs: Iterable[Tensor] = (),
    interfaces: Mapping[str, str] | None = None,
) -> Graph:
    """Return the graph that computes `outputs`: `asg.graph(outputs={"y": y})`.

    `updates` gives the value of each state input after a run. Parameters used on the way come
    along with the values they have now. `inputs` fixes the order of inputs. `interfaces` says
    which outputs are handed out in 64 bits: `{"total": "i64"}`, or `u64`, `f64`.

    Raises:
        GraphError: two inputs share a name, or an update has no input with state or not its type.
    """
    if not isinstance(outputs, Mapping):
        raise GraphError(f"outputs are a dict of names and tensors, got {type(outputs).__name__}")
    for key in outputs:
        if not isinstance(key, str) or not key:
            raise GraphError(f"the name of an output is a text, got {key!r}")
    results = {key: as_tensor(item).value for key, item in outputs.items()}
    changed = {key: as_tensor(item).value for key, item in (updates or {}).items()}
    declared = [tensor.node for tensor in inputs]
    found = _inputs([*results.values(), *changed.values()])
    initial = {node: _initial[node] for node in (*declared, *found) if node in _initial}
    _check_initial(initial)
    built = Graph.build(results, updates=changed, name=name, inputs=declared)
    check_updates(built)
    renamed = _final_names(built.input_names())
    values: dict[str, Array] = {}
    for node, item in initial.items():
        provisional: str = node.attrs["name"]
        values[renamed.get(provisional, provisional)] = _array(item)
    final = (_rename(built, renamed) if renamed else built).with_values(values)
    return final.with_interfaces(interfaces) if interfaces else final


def trace(
    function: Callable[..., Any],
    *specs: object,
    names: Sequence[str] | None = None,
    name: str | None = None,
    seed: int | None = None,
    **kwspecs: object,
) -> Any:
    """Run `function` (or a module) on symbolic inputs and return what it computes as a graph.

    `asg.trace(model, asg.spec((32, 784)))`. Specs are types, texts such as `"f32[2, 3]"`, or
    arrays, of which the type counts. Inputs are named after the function's parameters, or by
    `names` or keyword. One result is called `output`, several `output_0`, `output_1` …; those
    of a dict keep their keys. Parameters of a module are named as in `named_parameters()`.
    `seed` begins the state `rng` where anything random is used. Where a spec has names for sizes
    (`asg.spec(("batch", 784))`), the result is an open graph, for which `function` runs once per
    set of sizes.

    Raises:
        InputError: a spec is not a type, or names and specs do not match.
        GraphError: the result holds something other than tensors.
    """
    types = _named_specs(function, specs, names, kwspecs)
    positional = list(types)[: len(specs)]

    def run(tensors: Mapping[str, Tensor]) -> Any:
        keywords = {key: tensor for key, tensor in tensors.items() if key not in positional}
        return function(*(tensors[key] for key in positional), **keywords)

    label = name or str(getattr(function, "__name__", type(function).__name__.lower()))
    root = function if isinstance(function, ModuleLike) else None
    return trace_open(run, types, root=root, name=_identifier(label), seed=seed)


def trace_open(
    function: Callable[[Mapping[str, Tensor]], Any],
    types: Mapping[str, TensorType | OpenType],
    *,
    root: ModuleLike | None = None,
    name: str = "graph",
    seed: int | None = None,
) -> Graph | OpenGraph:
    """Trace `function` (see `trace_call`), or return the recipe to, where a size is open."""
    start = initial_seed() if seed is None else seed  # one for all sizes
    make = partial(trace_call, function, root=root, name=name, seed=start)
    closed = {key: each for key, each in types.items() if isinstance(each, TensorType)}
    return make(closed) if len(closed) == len(types) else open_graph(name, types, make)


def trace_call(
    function: Callable[[Mapping[str, Tensor]], Any],
    types: Mapping[str, TensorType],
    *,
    root: ModuleLike | None = None,
    name: str = "graph",
    seed: int | None = None,
) -> Graph:
    """Trace `function`, which takes the inputs as one dict; names are those below `root`."""
    active = _Trace(seed=initial_seed() if seed is None else seed, taken=set(types))
    frame = _Frame.of(root) if root is not None else None
    if frame is not None:
        _check_inputs(types, frame.stored.values())
    tokens = _active.set(active), _frame.set(frame)
    try:
        tensors = {key: input(key, type_) for key, type_ in types.items()}
        outputs = _named_outputs(function(tensors))
        values = {key: Tensor(value) for key, value in active.updates.items()}
        return graph(outputs, values, name=name, inputs=tensors.values())
    finally:
        _active.reset(tokens[0])
        _frame.reset(tokens[1])


def as_spec(value: object) -> TensorType | OpenType:
    """Return the type that a type, a text or an array describes.

    Raises:
        InputError: `value` is none of them.
    """
    if isinstance(value, (TensorType, OpenType)):
        return value
    if isinstance(value, str):
        return parse_type(value)
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return spec(value.shape, value.dtype)
    raise InputError(
        f"{value!r} is no spec; give asg.spec(shape, dtype), a text as 'f32[2, 3]', or an array"
    )


def _named_specs(
    function: Callable[..., Any],
    specs: Sequence[object],
    names: Sequence[str] | None,
    kwspecs: Mapping[str, object],
) -> dict[str, TensorType | OpenType]:
    known = list(names) if names is not None else _parameter_names(function, len(specs))
    if len(known) < len(specs) or (names is not None and len(known) > len(specs)):
        raise InputError(f"{len(specs)} specs but {len(known)} names: {', '.join(known)}")
    pairs = [*zip(known, specs, strict=False), *kwspecs.items()]
    for twice in {key for key, _ in pairs if [name for name, _ in pairs].count(key) > 1}:
        raise InputError(f"input {twice!r} is given twice")
    return {key: as_spec(value) for key, value in pairs}


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    target = function.forward if isinstance(function, ModuleLike) else function
    names: list[str] = []
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{index}" for index in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    if len(names) < count:
        raise InputError(f"{count} specs for a function of {len(names)}: {', '.join(names)}")
    return names


def _named_outputs(result: Any) -> dict[str, Tensor]:
    if isinstance(result, Mapping):
        named = dict(result)
    elif isinstance(result, (tuple, list)):
        named = {f"output_{index}": item for index, item in enumerate(result)}
    else:
        named = {"output": result}
    for key, item in named.items():
        if not isinstance(item, Tensor):
            raise GraphError(
                f"the traced function returns {type(item).__name__} as {key!r}; "
                "return a tensor, or a tuple or dict of tensors"
            )
    return named


def _check_inputs(types: Mapping[str, TensorType], stored: Iterable[str]) -> None:
    for clash in sorted({*types} & {*stored, RNG}):
        raise GraphError(f"input {clash!r} has the name of a parameter; pass names=[…]")


def _inputs(values: Iterable[Value]) -> list[Node]:
    """Return every input that `values` need."""
    seen: set[Node] = set()
    pending = [value.node for value in values]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(value.node for value in node.inputs)
    return sorted((node for node in seen if node.is_input), key=lambda n: n.serial)


def _check_initial(initial: Mapping[Node, Array | Stored]) -> None:
    first: dict[str, tuple[Node, Array | Stored]] = {}
    for node, item in initial.items():
        name = node.attrs["name"]
        other, other_item = first.setdefault(name, (node, item))
        if other_item is not item and not np.array_equal(_array(other_item), _array(item)):
            raise GraphError(
                f"two inputs are called {name!r} and start with different values: "
                f"{other.type} at {other.site} and {node.type} at {node.site}"
            )


def _array(item: Array | Stored) -> Array:
    return item if isinstance(item, np.ndarray) else item.data


def _final_names(names: Sequence[str]) -> dict[str, str]:
    """Return what each provisional name becomes: the wanted one, numbered where it is taken."""
    taken = {name for name in names if _DIVIDER not in name}
    renamed: dict[str, str] = {}
    for name in names:
        if _DIVIDER in name:
            renamed[name] = _unused(name.rpartition(_DIVIDER)[0], taken)
            taken.add(renamed[name])
    return renamed


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _rename(built: Graph, renamed: Mapping[str, str]) -> Graph:
    def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not node.is_input or node.attrs["name"] not in renamed:
            return None
        attrs = node.attrs
        return (input(renamed[attrs["name"]], attrs["type"], role=attrs["role"]).value,)

    def final(updates: Mapping[str, Value]) -> dict[str, Value]:
        return {renamed.get(name, name): value for name, value in updates.items()}

    # `rewrite` looks updates up by name, so they travel as outputs meanwhile.
    joint = {f"o{key}": value for key, value in built.outputs.items()}
    joint |= {f"u{key}": value for key, value in built.updates.items()}
    plain = Graph(built.name, built.inputs, joint, {}, built.nodes, {})
    moved = rewrite(plain, change)
    outputs = {key: moved.outputs[f"o{key}"] for key in built.outputs}
    updates = final({key: moved.outputs[f"u{key}"] for key in built.updates})
    return Graph.build(outputs, updates=updates, name=built.name, inputs=moved.inputs)


def _identifier(text: str) -> str:
    cleaned = "".join(letter if letter.isalnum() else "_" for letter in text).strip("_")
    return cleaned if cleaned and not cleaned[0].isdigit() else f"graph{cleaned}"
