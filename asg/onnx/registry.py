"""Which function converts which ONNX operator, from which opset on.

A converter is a function from a `Call` to tensors, marked by `@converter("Add", since=7)`. The
marks are gathered by `operators/__init__.py`, module by module, into one frozen table. As in
ONNX, the one with the largest `since` that the model's opset reaches is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from asg.errors import InternalError

if TYPE_CHECKING:
    from asg.onnx.call import Call

Convert = Callable[["Call"], Any]
MICROSOFT = "com.microsoft"
_MARK = "__onnx_converters__"


@dataclass(frozen=True)
class Converter:
    """How one operator becomes nodes of a graph.

    `statics` are the positions of operands whose values decide shapes, so that they must be
    known when a graph is made; -1 stands for every operand.
    """

    op: str
    since: int
    domain: str
    statics: tuple[int, ...]
    convert: Convert


def converter(
    *ops: str, since: int = 1, domain: str = "", statics: Iterable[int] = ()
) -> Callable[[Convert], Convert]:
    """Mark a function as the converter of ONNX operators from an opset on."""

    def mark(function: Convert) -> Convert:
        marks = [Converter(op, since, domain, tuple(statics), function) for op in ops]
        setattr(function, _MARK, [*getattr(function, _MARK, []), *marks])
        return function

    return mark


@dataclass(frozen=True)
class Table:
    """All converters, by domain and operator, the newest first."""

    converters: Mapping[tuple[str, str], tuple[Converter, ...]] = field(default_factory=dict)

    def find(self, domain: str, op: str, opset: int) -> Converter | None:
        """Return the converter for an operator in an opset; None where there is none."""
        found = self.converters.get((domain, op), ())
        return next((each for each in found if each.since <= opset), None)

    def first(self, domain: str, op: str) -> int | None:
        """Return the oldest opset in which the operator can be converted."""
        found = self.converters.get((domain, op), ())
        return found[-1].since if found else None


def gather(modules: Iterable[ModuleType]) -> Table:
    """Return the table of all converters that are marked in modules.

    Raises:
        InternalError: two are marked for one operator and opset.
    """
    found: dict[tuple[str, str], dict[int, Converter]] = {}
    for module in modules:
        for function in vars(module).values():
            if getattr(function, "__module__", None) != module.__name__:
                continue
            for each in getattr(function, _MARK, ()):
                versions = found.setdefault((each.domain, each.op), {})
                if each.since in versions:
                    raise InternalError(f"two converters for {each.op}-{each.since}")
                versions[each.since] = each
    return Table(
        {
            key: tuple(versions[since] for since in sorted(versions, reverse=True))
            for key, versions in found.items()
        }
    )
