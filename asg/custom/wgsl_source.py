"""Kernels written by hand: what their text declares, and the text that the memory plan wants.

A kernel's operands and results are storage bindings of group 0, operands first. How a binding is
accessed depends on where its value lies, so the text is rewritten there, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asg.errors import DTypeError, ShapeError
from asg.format import format_attribute
from asg.types import DType, TensorType

MOST_BINDINGS = 8  # WebGPU's default for storage buffers in one stage

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_RESOURCE = re.compile(
    r"(?P<place>(?:@\s*(?:group|binding)\s*\(\s*\w+\s*\)\s*)+)"
    r"var\s*(?:<\s*(?P<space>\w+)\s*(?:,\s*(?P<access>\w+)\s*)?>)?"
    r"\s*(?P<name>\w+)\s*:\s*(?P<type>[^;=]+);"
)
_PLACE = re.compile(r"@\s*(group|binding)\s*\(\s*(\d+)[ui]?\s*\)")
_ARRAY = re.compile(r"array<(?:atomic<)?(?:vec[24]<?)?(f32|i32|u32|f|i|u)>*(?:,\w+)?>")
_SCALARS = {"f": "f32", "i": "i32", "u": "u32"}
_STORED = {DType.BOOL: "u32"}


@dataclass(frozen=True)
class Binding:
    """A storage binding as a text declares it; `span` is where `<storage…>` stands in it."""

    number: int
    name: str
    access: str
    type: str
    span: tuple[int, int]


def read_bindings(text: str) -> list[Binding]:
    """Return the storage bindings of a text, by number.

    Raises:
        ShapeError: it declares another resource, another group, or a number twice.
    """
    blank = _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found: dict[int, Binding] = {}
    for match in _RESOURCE.finditer(blank):
        places = dict(_PLACE.findall(match["place"]))
        name = match["name"]
        if match["space"] != "storage":
            raise ShapeError(f"its WGSL declares {name!r}, which is no storage buffer")
        if places.get("group") != "0" or "binding" not in places:
            raise ShapeError(f"its WGSL declares {name!r} elsewhere than in group 0")
        number = int(places["binding"])
        if number in found:
            raise ShapeError(f"its WGSL has two bindings {number}: {found[number].name}, {name}")
        start = match.end("place")
        span = start, start + blank[start:].index(">") + 1
        type_ = "".join(match["type"].split())
        found[number] = Binding(number, name, match["access"] or "read", type_, span)
    return [found[number] for number in sorted(found)]


def check_text(
    text: str, operands: Sequence[TensorType], results: Sequence[TensorType]
) -> list[Binding]:
    """Check that a text binds what a kernel has; return the bindings.

    Raises:
        ShapeError: bindings are missing, too many, or written where they may not be.
        DTypeError: a binding holds another element type.
    """
    if re.search(r"^\s*(enable|requires)\b", text, re.MULTILINE):
        raise ShapeError("its WGSL has a line that begins `enable` or `requires`; leave it out")
    if not re.search(r"@compute\b[^{]*\bfn\s+main\s*\(", text, re.DOTALL):
        raise ShapeError("its WGSL has no entry point `@compute … fn main(…)`")
    bindings = read_bindings(text)
    types = [*operands, *results]
    wanted = f"{len(operands)} operand(s) and {len(results)} result(s)"
    if [each.number for each in bindings] != list(range(len(types))):
        numbers = ", ".join(str(each.number) for each in bindings) or "none"
        raise ShapeError(
            f"its WGSL declares the bindings {numbers}; {wanted} need 0 to {len(types) - 1}"
        )
    if len(types) > MOST_BINDINGS:
        raise ShapeError(f"{wanted} need {len(types)} bindings, WebGPU offers {MOST_BINDINGS}")
    for place, (binding, type_) in enumerate(zip(bindings, types, strict=True)):
        _check_binding(binding, type_, is_result=place >= len(operands))
    return bindings


def _check_binding(binding: Binding, type_: TensorType, *, is_result: bool) -> None:
    what = f"binding {binding.number} ({binding.name})"
    if is_result and binding.access != "read_write":
        raise ShapeError(f"{what} is a result, its WGSL declares it read; declare it read_write")
    if not is_result and binding.access != "read":
        raise ShapeError(f"{what} is an operand, which no kernel may write; declare it read")
    array = _ARRAY.fullmatch(binding.type)
    if array is None:
        return  # a struct or an alias, which only a compiler can look into
    scalar = _SCALARS.get(array[1], array[1])
    stored = _STORED.get(type_.dtype, str(type_.dtype))
    if scalar != stored:
        raise DTypeError(f"{what} is {type_}, stored as {stored}, its WGSL declares {binding.type}")


def with_accesses(text: str, bindings: Sequence[Binding], accesses: Sequence[str]) -> str:
    """Return the text with each binding accessed as the memory plan wants it."""
    pairs = sorted(zip(bindings, accesses, strict=True), key=lambda pair: -pair[0].span[0])
    for binding, access in pairs:
        start, end = binding.span
        text = f"{text[:start]}var<storage, {access}>{text[end:]}"
    return text


def constants(
    text: str, names: Sequence[str], types: Sequence[TensorType], attrs: Mapping[str, Any]
) -> str:
    """Return declarations of the sizes and attributes that a text speaks of without saying them:
    `x_size`, `x_shape[1]`, and the attributes that are numbers."""
    lines: list[str] = []
    for name, type_ in zip(names, types, strict=True):
        if _speaks_of(text, f"{name}_size"):
            lines.append(f"const {name}_size = {type_.size}u;")
        if type_.shape and _speaks_of(text, f"{name}_shape"):
            sizes = ", ".join(f"{size}u" for size in type_.shape)
            lines.append(f"const {name}_shape = array<u32, {type_.rank}>({sizes});")
    for key, value in attrs.items():
        if isinstance(value, (bool, int, float)) and _speaks_of(text, key):
            ending = "" if isinstance(value, bool) else "f" if isinstance(value, float) else "i"
            lines.append(f"const {key} = {format_attribute(value)}{ending};")
    return "".join(f"{line}\n" for line in lines)


def _speaks_of(text: str, name: str) -> bool:
    is_used = re.search(rf"\b{name}\b", text) is not None
    return is_used and not re.search(rf"\b(const|let|var|override|fn)\s+{name}\b", text)
