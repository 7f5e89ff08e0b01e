"""Reads the text form that `format` writes.

    text    = "graph" name "(" [input {"," input} [","]] ")" "{" {node | return | update} "}"
    input   = name ":" ["parameter" | "state"] type
    node    = name {"," name} "=" op "(" [part {"," part}] ")" [":" type {"," type}]
    part    = name | contents | key "=" value
    return  = "return" result {"," result}
    result  = [name "="] name [":" ("i64" | "u64" | "f64")]
    update  = "update" name "=" name

Line breaks do not matter. Types may be left out where the op's rule finds them; where they stand
they must be right. A comment as `format` writes it gives the node its line and scope back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asg.custom.registry import known_ops
from asg.errors import AsgError, DTypeError
from asg.format import LITERAL, RESERVED
from asg.graph import Graph, Literal, Node, Value
from asg.lexer import Reader, Token
from asg.op import Op
from asg.ops.sources import input_
from asg.site import Site
from asg.types import DType, TensorType, check_interface

Array = np.ndarray[Any, Any]

_ROLES = ("parameter", "state")  # an input without one of these words is a plain input
_DTYPES = {dtype.value: dtype for dtype in DType}
_WORDS: dict[str, bool | float | None] = {
    "true": True, "false": False, "none": None, "nan": float("nan"), "inf": float("inf"),
}  # fmt: skip
_COMMENT = re.compile(
    r"(?:-|(?P<places>[^\s,:]+:\d+(?:, [^\s,:]+:\d+)*))"
    r"(?: (?P<scope>[^\s()]+))?(?: \((?P<note>[^()]+)\))?"
)


def parse_graph(
    text: str,
    constants: Mapping[str, Array] | None = None,
    *,
    ops: Mapping[str, Op] | None = None,
    values: Mapping[str, Array] | None = None,
) -> Graph:
    """Return the graph that `text` describes.

    Args:
        constants: contents of the constants that the text names by digest.
        ops: ops by name, beside those of the table and those registered.
        values: what parameters and state start with.

    Raises:
        ParseError: the text is not a graph; the message has the line and what was expected.
    """
    return _Parser(Reader(text), dict(constants or {}), {**known_ops(), **(ops or {})}).graph(
        values
    )


@dataclass(frozen=True)
class _Contents:
    """The elements of a constant before its type is known."""

    elements: list[Any]
    shape: tuple[int, ...]
    token: Token


@dataclass
class _Parser:
    reader: Reader
    constants: Mapping[str, Array]
    ops: Mapping[str, Op]
    defined: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    updates: dict[str, Value] = field(default_factory=dict)
    interfaces: dict[str, str] = field(default_factory=dict)

    def graph(self, values: Mapping[str, Array] | None) -> Graph:
        reader = self.reader
        if not reader.is_word("graph"):
            reader.fail(f"expected 'graph NAME(...) {{', got {reader.next}")
        reader.advance()
        name = reader.name("the graph's name")
        inputs = self.inputs()
        reader.expect("{", "the inputs")
        while not reader.take("}"):
            self.statement()
        if reader.next.kind != "end":
            reader.fail(f"expected nothing after the closing '}}', got {reader.next}")
        return Graph.build(
            self.outputs,
            updates=self.updates,
            name=name,
            values=values,
            inputs=inputs,
            interfaces=self.interfaces,
        )

    def inputs(self) -> list[Node]:
        reader = self.reader
        reader.expect("(", "the graph's name")
        nodes: list[Node] = []
        while not reader.take(")"):
            token = reader.next
            name = reader.name("an input's name or ')'")
            reader.expect(":", f"input {name!r}")
            role = "input"
            if reader.next.kind == "name" and reader.next.text in _ROLES:
                role = reader.advance().text
            type_ = self.type()
            attrs = {"name": name, "role": role, "type": type_}
            nodes.append(Node(input_, (), attrs, (type_,), site=None, scope="", note=""))
            self.define([(name, token)], nodes[-1])
            if not reader.is_mark(")"):
                reader.expect(",", f"the type of input {name!r}")
        return nodes

    def statement(self) -> None:
        reader = self.reader
        if reader.is_word("return"):
            reader.advance()
            self.results()
        elif reader.is_word("update"):
            token = reader.advance()
            name = reader.name("the name of a parameter or state")
            if name not in self.defined or self.defined[name].node.op is not input_:
                reader.fail(f"update of {name!r}, which is no input{self.near(name)}", token)
            reader.expect("=", f"update {name}")
            self.updates[name] = self.operand(reader.next)
        else:
            self.node()

    def results(self) -> None:
        reader = self.reader
        while True:
            token = reader.next
            name = reader.name("the name of a result")
            is_renamed = reader.take("=")
            value = self.operand(reader.next) if is_renamed else self.look_up(name, token)
            if name in self.outputs:
                reader.fail(f"there are two results called {name!r}", token)
            self.outputs[name] = value
            if reader.take(":"):
                self.interface(name, value)
            if not reader.take(","):
                return

    def interface(self, name: str, value: Value) -> None:
        token = self.reader.next
        self.interfaces[name] = self.reader.name("i64, u64 or f64")
        try:
            check_interface(name, value.type.dtype, self.interfaces[name])
        except DTypeError as error:
            self.reader.fail(str(error), token)

    def node(self) -> None:
        reader = self.reader
        first = reader.next
        names = [(reader.name("a node, 'return', 'update' or '}'"), first)]
        while reader.take(","):
            token = reader.next
            names.append((reader.name("the name of another result"), token))
        reader.expect("=", ", ".join(name for name, _ in names))
        start = reader.next
        op = self.op(reader.name("an op"), start)
        inputs, attrs, contents = self.arguments()
        stated = self.types() if reader.take(":") else None
        if contents is not None:
            attrs[LITERAL] = self.literal(contents, stated)
        types = self.infer(op, inputs, attrs, start)
        if stated is not None and stated != types:
            reader.fail(f"the text says {_list(stated)}, but {op.name} gives {_list(types)}", start)
        site, also, scope, note = self.origin(reader.previous.line)
        node = Node(op, tuple(inputs), attrs, types, site, scope, note, also)
        self.define(names, node)

    def op(self, name: str, token: Token) -> Op:
        if name not in self.ops or self.ops[name] is input_:
            near = difflib.get_close_matches(name, self.ops, n=3)
            hint = f"; near it: {', '.join(near)}" if near else ""
            self.reader.fail(
                f"there is no op {name!r}{hint}; asg.register_op makes one of your own known",
                token,
            )
        return self.ops[name]

    def arguments(self) -> tuple[list[Value], dict[str, Any], _Contents | None]:
        reader = self.reader
        inputs: list[Value] = []
        attrs: dict[str, Any] = {}
        contents: _Contents | None = None
        reader.expect("(", "the op")
        while not reader.take(")"):
            token = reader.next
            is_key = token.kind == "name" and reader.tokens[reader.position + 1].text == "="
            if is_key:
                reader.advance()
                reader.advance()
                if token.text in attrs:
                    reader.fail(f"attribute {token.text!r} is given twice", token)
                attrs[token.text] = self.attribute()
            elif token.kind in ("name", "string") and token.text not in RESERVED:
                inputs.append(self.operand(token))
            elif contents is None:
                contents = self.contents()
            else:
                reader.fail(f"expected an attribute such as axis=0, got {token}")
            if not reader.is_mark(")"):
                reader.expect(",", "an argument")
        return inputs, attrs, contents

    def operand(self, token: Token) -> Value:
        return self.look_up(self.reader.name("the name of a value"), token)

    def look_up(self, name: str, token: Token) -> Value:
        if name not in self.defined:
            self.reader.fail(f"no value {name!r} is defined above{self.near(name)}", token)
        return self.defined[name]

    def near(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.defined, n=3)
        return f"; near it: {', '.join(near)}" if near else ""

    def attribute(self) -> Any:
        reader = self.reader
        token = reader.next
        if token.kind == "string":
            return reader.string(reader.advance())
        if token.kind == "digest":
            return Literal(self.constant(reader.advance()))
        if token.kind == "name" and token.text in _DTYPES:
            reader.advance()
            dtype = _DTYPES[token.text]
            return TensorType(self.shape(), dtype) if reader.is_mark("[") else dtype
        if reader.take("["):
            items: list[Any] = []
            while not reader.take("]"):
                items.append(self.attribute())
                if not reader.is_mark("]"):
                    reader.expect(",", "an item")
            return tuple(items)
        return self.scalar()

    def scalar(self) -> Any:
        """Read a number, `true`, `false` or `none`."""
        token = self.reader.next
        if token.kind == "name" and token.text in _WORDS:
            self.reader.advance()
            return _WORDS[token.text]
        if token.kind == "opaque":
            self.reader.fail("this attribute has no text form, so the text can't be read", token)
        if token.kind != "number":
            self.reader.fail(f"expected a value, got {token}")
        self.reader.advance()
        if token.text.startswith("nan:"):
            return np.uint32(int(token.text[4:], 16)).view(np.float32)
        is_integer = re.fullmatch(r"-?\d+", token.text) is not None
        return int(token.text) if is_integer else float(token.text)

    def contents(self) -> _Contents:
        """Read the elements of a constant, flat, with the shape that the brackets show."""
        token = self.reader.next
        if token.kind == "digest":
            array = self.constant(self.reader.advance())
            return _Contents([array], array.shape, token)
        if not self.reader.take("["):
            return _Contents([self.scalar()], (), token)
        parts: list[_Contents] = []
        while not self.reader.take("]"):
            parts.append(self.contents())
            if not self.reader.is_mark("]"):
                self.reader.expect(",", "an element")
        if len({part.shape for part in parts}) > 1:
            self.reader.fail("the rows of a constant differ in length", token)
        inner = parts[0].shape if parts else ()
        elements = [element for part in parts for element in part.elements]
        return _Contents(elements, (len(parts), *inner), token)

    def constant(self, token: Token) -> Array:
        digest = token.text[1:]
        if digest not in self.constants:
            self.reader.fail(
                f"the contents of constant {token.text} are not given; "
                "graphs with big constants are read with load_graph",
                token,
            )
        return self.constants[digest]

    def literal(self, contents: _Contents, stated: tuple[TensorType, ...] | None) -> Literal:
        elements, token = contents.elements, contents.token
        if token.kind == "digest":
            return Literal(elements[0])
        type_ = stated[0] if stated else TensorType(contents.shape, _dtype_of(elements))
        if len(elements) != type_.size or (0 not in type_.shape and contents.shape != type_.shape):
            self.reader.fail(
                f"a constant of type {type_} has {type_.size} elements, got {len(elements)} "
                f"in shape {list(contents.shape)}",
                token,
            )
        try:
            return Literal(_to_array(elements, type_))
        except (OverflowError, TypeError, ValueError):
            self.reader.fail(f"an element does not fit into {type_.dtype}", token)

    def type(self) -> TensorType:
        token = self.reader.next
        if token.kind != "name" or token.text not in _DTYPES:
            known = ", ".join(_DTYPES)
            self.reader.fail(f"expected a type such as f32[2, 3], got {token}; known: {known}")
        self.reader.advance()
        return TensorType(self.shape(), _DTYPES[token.text])

    def types(self) -> tuple[TensorType, ...]:
        found = [self.type()]
        while self.reader.take(","):
            found.append(self.type())
        return tuple(found)

    def shape(self) -> tuple[int, ...]:
        reader = self.reader
        reader.expect("[", "an element type")
        sizes: list[int] = []
        while not reader.take("]"):
            token = reader.advance()
            if token.kind != "number" or not token.text.isdigit():
                reader.fail(f"expected a size, got {token}", token)
            sizes.append(int(token.text))
            if not reader.is_mark("]"):
                reader.expect(",", "a size")
        return tuple(sizes)

    def infer(
        self, op: Op, inputs: Iterable[Value], attrs: Mapping[str, Any], token: Token
    ) -> tuple[TensorType, ...]:
        """Run the op's type rule; whatever it raises is a fault of the text."""
        operands = tuple(value.type for value in inputs)
        try:
            types = op.shape(operands, attrs)
        except AsgError as error:
            message = str(error)
            self.reader.fail(
                message if message.startswith(f"{op.name}:") else f"{op.name}: {message}", token
            )
        except KeyError as error:
            self.reader.fail(f"{op.name} lacks the attribute {error}", token)
        except (IndexError, TypeError, ValueError) as error:
            got = _list(operands) or "no operands"
            self.reader.fail(f"{op.name} can't take {got} with these attributes: {error}", token)
        return types if isinstance(types, tuple) else (types,)

    def define(self, names: list[tuple[str, Token]], node: Node) -> None:
        if len(names) != len(node.types):
            self.reader.fail(
                f"{node.op.name} has {len(node.types)} results, the text names {len(names)}",
                names[0][1],
            )
        for (name, token), value in zip(names, node.values, strict=True):
            if name in self.defined:
                line = self.lines[name]
                self.reader.fail(f"{name!r} is defined twice, first on line {line}", token)
            self.defined[name] = value
            self.lines[name] = token.line

    def origin(self, line: int) -> tuple[Site | None, tuple[Site, ...], str, str]:
        """Return site, further sites, scope and note from the comment at the end of a line."""
        match = _COMMENT.fullmatch(self.reader.comments.get(line, ""))
        if match is None:
            return None, (), "", ""
        sites: list[Site] = []
        for place in (match["places"] or "").split(", "):
            file, _, number = place.rpartition(":")
            sites.extend([Site(file, int(number), "")] if file else [])
        site = sites[0] if sites else None
        return site, tuple(sites[1:]), match["scope"] or "", match["note"] or ""


def _list(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))


def _dtype_of(elements: list[Any]) -> DType:
    """Return the type of contents that state none."""
    if elements and all(isinstance(element, bool) for element in elements):
        return DType.BOOL
    if elements and all(type(element) is int for element in elements):
        return DType.I32
    return DType.F32


def _to_array(elements: list[Any], type_: TensorType) -> Array:
    """Return the elements in their type, with the very bits of a NaN that gives them."""
    for element in elements:
        if isinstance(element, bool) != (type_.dtype is DType.BOOL):
            raise TypeError
        if type_.dtype.is_integer and not isinstance(element, int):
            raise TypeError
        if isinstance(element, np.float32) and type_.dtype is not DType.F32:
            raise TypeError
    array = np.array(elements, dtype=type_.dtype.numpy)
    for position, element in enumerate(elements):
        if isinstance(element, np.float32):
            array.view(np.uint32)[position] = element.view(np.uint32)
    return array.reshape(type_.shape)
