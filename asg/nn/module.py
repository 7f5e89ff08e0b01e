"""`Module`: what owns parameters, with PyTorch's names and habits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from asg import tracing
from asg.errors import AsgError, InputError
from asg.nn.parameter import Buffer, Parameter, StoredTensor
from asg.ops.sources import convert_array
from asg.types import as_dtype

Array = np.ndarray[Any, Any]
Self = TypeVar("Self", bound="Module")


class Difference(NamedTuple):
    """How a state dict differs from a module."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A part of a model: subclass it, assign parameters and modules, write `forward`.

    Parameters, buffers and modules are registered by assigning them to attributes. Calling the
    module runs `forward` with the nodes that it builds under the module's own scope.
    """

    training: bool
    _parameters: dict[str, Parameter]
    _buffers: dict[str, Buffer]
    _modules: dict[str, Module]
    _transient: set[str]  # buffers that a state dict leaves out

    def __init__(self) -> None:
        members = self.__dict__  # not setattr, which reads the tables that this makes
        for table in ("_parameters", "_buffers", "_modules"):
            members[table] = {}
        members["_transient"] = set()
        members["training"] = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Build the module's result; subclasses say how."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with tracing.calling(self):
            return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AsgError(f"{type(self).__name__}.__init__ must call super().__init__() first")
        tables: list[dict[str, Any]] = [self._parameters, self._buffers, self._modules]
        for table, kind in zip(tables, (Parameter, Buffer, Module), strict=True):
            if isinstance(value, kind):
                self._forget(name)
                table[name] = value
                if isinstance(value, StoredTensor):
                    value.label = name
                return
        if any(name in table for table in tables) and value is not None:
            raise AsgError(f"{name!r} is registered; assign a parameter or module, or its .data")
        self._forget(name)
        self.__dict__[name] = value

    def _forget(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules, self.__dict__):
            table.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            members = self.__dict__.get(table, {})
            if name in members:
                return members[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        self.__getattribute__(name) if name in self.__dict__ else self.__getattr__(name)
        self._forget(name)

    def register_buffer(self, name: str, data: object, persistent: bool = True) -> None:
        """Add a buffer; one that is not `persistent` stays out of the state dict."""
        setattr(self, name, Buffer(data))
        if not persistent:
            self._transient.add(name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter, or None for one that is left out."""
        setattr(self, name, parameter)

    # ---- walking

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules directly below, with their names."""
        yield from self._modules.items()

    def children(self) -> Iterator[Module]:
        """Yield the modules directly below."""
        yield from self._modules.values()

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield this module (named "") and all below, each once."""
        seen: set[int] = set()
        for path, module in self._walk(""):
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below, each once."""
        yield from (module for _, module in self.named_modules())

    def _walk(self, path: str) -> Iterator[tuple[str, Module]]:
        yield path, self
        for name, child in self._modules.items():
            yield from child._walk(f"{path}.{name}" if path else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once, with its dotted path; a shared one goes by its first."""
        yield from _once((name, item) for name, item in self._stored() if is_parameter(item))

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        yield from (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Yield every buffer once, with its dotted path."""
        yield from _once((name, item) for name, item in self._stored() if not is_parameter(item))

    def _stored(self, *, transient: bool = True) -> Iterator[tuple[str, Any]]:
        """Yield parameters and buffers under every path that leads to them."""
        for path, module in self._walk(""):
            prefix = f"{path}." if path else ""
            for name, item in (*module._parameters.items(), *module._buffers.items()):
                if transient or name not in module._transient:
                    yield prefix + name, item

    # ---- state

    def state_dict(self) -> dict[str, Array]:
        """Return the arrays of parameters and buffers by dotted path, a shared one by each."""
        return {name: item.data for name, item in self._stored(transient=False)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Difference:
        """Take over arrays by name; with `strict`, names must match exactly.

        A parameter that goes by several names needs one of them only. Nothing changes where
        anything is refused.

        Raises:
            InputError: names are missing or unexpected, or shapes or dtypes differ; all of
                them are listed.
        """
        own = dict(self._stored(transient=False))
        given = {id(own[name]) for name in state if name in own}
        difference = Difference(
            [name for name, item in own.items() if name not in state and id(item) not in given],
            [name for name in state if name not in own],
        )
        problems = _name_problems(difference) if strict else []
        loaded: list[tuple[StoredTensor, Array]] = []
        for name in (name for name in state if name in own):
            array, problem = _fitting(own[name], name, state[name])
            problems += problem
            loaded.append((own[name], array))
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise InputError(f"{type(self).__name__} can't load the state dict:\n{listed}")
        for item, array in loaded:
            item.data = array
        return difference

    # ---- modes

    def train(self: Self, mode: bool = True) -> Self:
        """Switch training behaviour (dropout) on or off, here and below."""
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self: Self) -> Self:
        """Switch training behaviour off."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Include parameters in training, or leave them as they are."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def apply(self: Self, function: Callable[[Module], object]) -> Self:
        """Call `function` on every module, those below first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def extra_repr(self) -> str:
        """Return what the printed module says between its brackets."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._modules.items()
        ]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        body = "".join(f"  {line}\n" for line in ([extra] if extra else []) + lines)
        return f"{type(self).__name__}(\n{body})"


class ModuleList(Module):
    """Modules in a list, registered under their positions."""

    def __init__(self, modules: Sequence[Module] | Iterator[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Sequence[Module]) -> ModuleList:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        found = list(self._modules.values())[index]
        return found if isinstance(found, Module) else ModuleList(found)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class Sequential(Module):
    """Modules that run one after the other: `Sequential(Linear(4, 8), ReLU(), Linear(8, 2))`."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for index, module in enumerate(modules):
            setattr(self, str(index), module)

    def forward(self, x: Any) -> Any:
        for module in self._modules.values():
            x = module(x)
        return x

    def __getitem__(self, index: int) -> Module:
        return list(self._modules.values())[index]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


def is_parameter(item: object) -> bool:
    """Tell parameters from buffers."""
    return isinstance(item, Parameter)


def _once(pairs: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, item in pairs:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item


def _name_problems(difference: Difference) -> list[str]:
    problems = []
    if difference.missing_keys:
        problems.append(f"missing: {', '.join(difference.missing_keys)}")
    if difference.unexpected_keys:
        problems.append(f"unexpected: {', '.join(difference.unexpected_keys)}")
    return problems


def _fitting(item: StoredTensor, name: str, given: Any) -> tuple[Array, list[str]]:
    array = np.asarray(given)
    if array.shape != item.shape:
        wanted = f"{name}: the module has {item.type}, the state dict {list(array.shape)}"
        return array, [wanted]
    try:
        return convert_array(array, as_dtype(item.data.dtype)), []
    except TypeError as error:
        return array, [f"{name}: {error}"]
