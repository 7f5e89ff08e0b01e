"""Words of the text form, and a reader that says where and what it expected instead."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from asg.errors import ParseError

_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\r\n]+ )
    | (?P<digest>  \#[0-9a-f]{16}(?![0-9a-f]) )
    | (?P<comment> \#[^\n]* )
    | (?P<opaque>  <"(?:[^"\\\n]|\\.)*"> )
    | (?P<string>  "(?:[^"\\\n]|\\.)*" )
    | (?P<number>  -?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|inf\b) | nan:[0-9a-f]{8} )
    | (?P<name>    [A-Za-z_]\w*(?:\.\w+)* )
    | (?P<mark>    [(){}\[\],:=] )
    | (?P<wrong>   . )
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word with its place; `kind` is a group of the pattern above, or `end`."""

    kind: str
    text: str
    line: int
    column: int

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else f"'{self.text}'"


class Reader:
    """Goes through the words of a text; every failure names the line and shows it."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.comments: dict[int, str] = {}
        self.tokens: list[Token] = []
        self.position = 0
        self._split(text)

    def _split(self, text: str) -> None:
        line, start = 1, 0
        for match in _TOKEN.finditer(text):
            kind, word = match.lastgroup or "wrong", match.group()
            if kind == "space":
                count = word.count("\n")
                if count:
                    line += count
                    start = match.start() + word.rindex("\n") + 1
            elif kind == "comment":
                self.comments[line] = word[1:].strip()
            else:
                token = Token(kind, word, line, match.start() - start)
                if kind == "wrong":
                    self.fail(f"a graph has no {word!r} here", token)
                self.tokens.append(token)
        self.tokens.append(Token("end", "", line, len(text) - start))

    @property
    def next(self) -> Token:
        """The word that comes next."""
        return self.tokens[self.position]

    @property
    def previous(self) -> Token:
        """The word read last."""
        return self.tokens[self.position - 1]

    def advance(self) -> Token:
        """Read one word, whatever it is."""
        token = self.next
        self.position += token.kind != "end"
        return token

    def is_mark(self, text: str) -> bool:
        """Tell whether this mark comes next."""
        return self.next.kind == "mark" and self.next.text == text

    def is_word(self, text: str) -> bool:
        """Tell whether this word comes next, unquoted."""
        return self.next.kind == "name" and self.next.text == text

    def take(self, mark: str) -> bool:
        """Read `mark` if it comes next."""
        found = self.is_mark(mark)
        self.position += found
        return found

    def expect(self, mark: str, after: str) -> None:
        """Read `mark`, or fail: it has to follow `after`."""
        if not self.take(mark):
            self.fail(f"expected '{mark}' after {after}, got {self.next}")

    def name(self, what: str) -> str:
        """Read a name, plain or quoted."""
        token = self.next
        if token.kind not in ("name", "string"):
            self.fail(f"expected {what}, got {token}")
        self.position += 1
        return token.text if token.kind == "name" else self.string(token)

    def string(self, token: Token) -> str:
        """Return what a quoted word stands for."""
        try:
            text: str = json.loads(token.text)
        except ValueError:
            self.fail(f"{token.text} is not a string; escapes are those of JSON", token)
        return text

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        """Raise `ParseError` with the line of `token` (the next word by default)."""
        token = token or self.next
        shown = self.lines[token.line - 1]
        raise ParseError(f"line {token.line}: {message}\n  {shown}\n  {' ' * token.column}^")
