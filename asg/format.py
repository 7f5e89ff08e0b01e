"""A graph as text: what people read, diff and keep as golden files, and what `parse` reads.

    graph step(x: f32[2, 3], w: parameter f32[3, 4]) {
      y = matmul(x, w)                          : f32[2, 4]   # train.py:21 mlp/fc1
      add_1 = add(w, w)                         : f32[3, 4]   # train.py:22
      return y
      update w = add_1
    }

One line makes one node: results, op, operands, attributes by name, result types; then, as a
comment, the user's line, the module scope and what the pass that made the node says of it.
Names that are not dotted identifiers, and words that mean something here, are quoted. Small
constants are written out exactly; big ones by digest, their contents being kept elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from asg.types import DType, TensorType, is_floating

if TYPE_CHECKING:
    from asg.graph import Graph, Literal, Node, Value

PLAIN_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
RESERVED = ("return", "update", "true", "false", "none", "inf", "nan")
LITERAL = "value"  # the attribute that is written without its name, as contents
INLINE = 16  # elements of the biggest constant that is written out
CANONICAL_NAN = 0x7FC00000  # the bits of what `nan` reads as

_WIDTH = 100
# Fixed columns: a longer line elsewhere must not change this one, or diffs grow noisy.
_TYPE_COLUMN = 48
_COMMENT_COLUMN = 64


def format_graph(graph: Graph, *, sites: bool = True, inline: int = INLINE) -> str:
    """Return the text form of `graph`.

    Constants of more than `inline` elements are written by digest. Without `sites` there are no
    comments, which is what a golden file wants.
    """
    names = {value: quote(name) for value, name in graph.names.items()}
    lines = [_header(graph)]
    inputs = set(graph.inputs)
    for node in graph.nodes:
        if node not in inputs:
            lines.append(_line(node, names, sites, inline))
    if graph.outputs:
        results = [
            _result(name, names[value], graph.interfaces.get(name))
            for name, value in graph.outputs.items()
        ]
        lines.append(f"  return {', '.join(results)}")
    for name, value in graph.updates.items():
        lines.append(f"  update {quote(name)} = {names[value]}")
    return "\n".join([*lines, "}"]) + "\n"


def format_node(node: Node, names: Mapping[Value, str] | None = None) -> str:
    """Return the line of one node, for messages: `y = matmul(x, w)  : f32[2, 4]`."""
    if node.is_input:
        return _input(node)
    known = {value: quote(name) for value, name in (names or {}).items()}
    return re.sub(r"  +", "  ", _line(node, known, False, INLINE).strip())


def quote(name: str) -> str:
    """Return a name as it stands in text."""
    is_plain = PLAIN_NAME.fullmatch(name) and name not in RESERVED
    return name if is_plain else json.dumps(name)


def format_attribute(value: object) -> str:
    """Return an attribute's value as text; lists stand for tuples."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _format_float(float(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(format_attribute, value))}]"
    if isinstance(value, (DType, TensorType)):
        return str(value)
    return _opaque(value)


def format_contents(array: np.ndarray[Any, Any]) -> str:
    """Return the elements of a constant, nested like its shape, to be read back exactly."""
    if array.ndim:
        return f"[{', '.join(format_contents(row) for row in array)}]"
    if array.dtype == np.float32:
        return _format_f32(np.float32(array[()]))
    if is_floating(array):
        return _format_float(float(array[()]))
    return format_attribute(array[()])


def format_comment(node: Node) -> str:
    """Return where a node comes from: `train.py:21 mlp/fc1 (gradient)`."""
    places = [str(site) for site in (node.site, *node.also) if site is not None]
    place = ", ".join(dict.fromkeys(places))
    note = f"({node.note})" if node.note else ""
    if not (place or node.scope or note):
        return ""
    return " ".join(part for part in (place or "-", node.scope, note) if part)


def _header(graph: Graph) -> str:
    inputs = [_input(node) for node in graph.inputs]
    line = f"graph {quote(graph.name)}({', '.join(inputs)}) {{"
    if len(line) <= _WIDTH:
        return line
    listed = "".join(f"    {text},\n" for text in inputs)
    return f"graph {quote(graph.name)}(\n{listed}) {{"


def _input(node: Node) -> str:
    role = "" if node.attrs["role"] == "input" else f"{node.attrs['role']} "
    return f"{quote(node.attrs['name'])}: {role}{node.type}"


def _line(node: Node, names: Mapping[Value, str], sites: bool, inline: int) -> str:
    results = ", ".join(_name(value, names) for value in node.values)
    arguments = [_name(value, names) for value in node.inputs]
    for key, attribute in node.attrs.items():
        if key == LITERAL and _is_literal(attribute):
            arguments.append(_literal(attribute, inline))
        else:
            arguments.append(f"{key}={format_attribute(attribute)}")
    line = f"  {results} = {node.op.name}({', '.join(arguments)})"
    line = f"{line:<{_TYPE_COLUMN - 2}}  : {', '.join(map(str, node.types))}"
    comment = format_comment(node) if sites else ""
    return f"{line:<{_COMMENT_COLUMN - 2}}  # {comment}" if comment else line


def _name(value: Value, names: Mapping[Value, str]) -> str:
    if value in names:
        return names[value]
    suffix = f".{value.index}" if len(value.node.types) > 1 else ""
    return f"{value.node.op.name}{suffix}"


def _result(name: str, value: str, interface: str | None) -> str:
    text = value if quote(name) == value else f"{quote(name)}={value}"
    return f"{text}: {interface}" if interface else text


def _is_literal(value: object) -> bool:
    return hasattr(value, "digest") and hasattr(value, "array")


def _literal(literal: Literal, inline: int) -> str:
    if literal.array.size > inline:
        return f"#{literal.digest}"
    return format_contents(literal.array)


def _opaque(value: object) -> str:
    """Return a stand-in that the parser refuses: the value has no text form."""
    if _is_literal(value):
        return repr(value)
    return f"<{json.dumps(repr(value))}>"


def _format_float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(value)


def _format_f32(value: np.float32) -> str:
    """Return the fewest digits that read back as the same 32 bits."""
    if np.isnan(value):
        bits = int(value.view(np.uint32))
        return "nan" if bits == CANONICAL_NAN else f"nan:{bits:08x}"
    if np.isinf(value):
        return _format_float(float(value))
    digits = str(value)  # the shortest text that names this float32 and no other
    # Readers go through float64; where that rounds twice and misses, write float64's own digits.
    return digits if np.float32(float(digits)) == value else repr(float(value))
