"""Where the user's code made a node: file, line, function; and the module scope around it."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"

    @property
    def source(self) -> str:
        """Text of the line, or an empty string where the file can't be read."""
        return linecache.getline(self.file, self.line).strip()


_scope: ContextVar[str] = ContextVar("asg_scope", default="")
_inherited: ContextVar[tuple[Site | None] | None] = ContextVar("asg_site", default=None)
_note: ContextVar[str] = ContextVar("asg_note", default="")


def current_site() -> Site | None:
    """Return the innermost frame outside the package (or the site a pass inherits)."""
    inherited = _inherited.get()
    if inherited is not None:
        return inherited[0]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "asg" and not name.startswith("asg."):
            code = frame.f_code
            return Site(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None


def current_scope() -> str:
    """Return the path of the module being traced, such as `blocks.3/attn`."""
    return _scope.get()


def current_note() -> str:
    """Return what the pass that builds nodes now says of them, such as `gradient`."""
    return _note.get()


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Put the nodes built inside under `name`, below the scope in force."""
    outer = _scope.get()
    token = _scope.set(f"{outer}/{name}" if outer and name else outer or name)
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def inherit(site: Site | None, scope_path: str, note: str = "") -> Iterator[None]:
    """Give the nodes built inside the site and scope of the node that they come from."""
    tokens = _inherited.set((site,)), _scope.set(scope_path), _note.set(note)
    try:
        yield
    finally:
        _inherited.reset(tokens[0])
        _scope.reset(tokens[1])
        _note.reset(tokens[2])
