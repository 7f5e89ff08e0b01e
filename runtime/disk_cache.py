"""Files that only save time: bounded, shared by processes, and never trusted.

A cache may be deleted, damaged, filled by others or impossible to write: whoever uses one computes
what it does not give. Every file begins with a hash of the rest, is written beside its place and
moved there, and goes when the folder outgrows its limit, the least recently used first.

`ASG_CACHE_DIR` names the folder; by default it lies where the system keeps caches. `ASG_CACHE=0`
turns all caches off.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_HEAD = b"asg cache 1\n"
_HASH_BYTES = 32
_ENTRY = re.compile(r"[0-9a-f]{64}\.entry")
_PART = re.compile(r"[0-9a-f]{64}\..*\.part")
_PART_SECONDS = 3600.0  # an unfinished file this old has no writer any more
_KEPT = 0.8  # of the limit, when files have to go


@dataclass(frozen=True)
class Usage:
    """What a cache holds."""

    files: int
    size: int


@dataclass(frozen=True)
class DiskCache:
    """One kind of files, in a folder of its own; `limit` in bytes."""

    name: str
    limit: int

    @property
    def folder(self) -> Path | None:
        """Where the files lie, or None where there are to be none."""
        root = cache_root()
        return None if root is None else root / self.name

    def get(self, key: str) -> bytes | None:
        """Return what was stored under a key that `digest` made, if it is there and whole."""
        path = self._path(key)
        if path is None:
            return None
        try:
            if path.stat().st_size > self.limit:
                return None
            data = path.read_bytes()
        except OSError:
            return None
        start = len(_HEAD) + _HASH_BYTES
        content = data[start:]
        if data[:start] != _HEAD + hashlib.sha256(content).digest():
            self.drop(key)
            return None
        with suppress(OSError):  # the time of the last use decides what goes first
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> bool:
        """Store something; whether that was possible."""
        path = self._path(key)
        size = len(_HEAD) + _HASH_BYTES + len(content)
        if path is None or size > self.limit:
            return False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(path.parent, size)
            _write(path, _HEAD + hashlib.sha256(content).digest() + content)
        except OSError:
            return False
        return True

    def drop(self, key: str) -> None:
        """Forget what is stored under a key."""
        path = self._path(key)
        if path is not None:
            with suppress(OSError):
                path.unlink()

    def usage(self) -> Usage:
        """Count files and bytes."""
        files = _entries(self.folder)
        return Usage(len(files), sum(size for _, size, _ in files))

    def clear(self) -> Usage:
        """Delete every file of this cache, and no other; return what there was."""
        removed, size = 0, 0
        for _, bytes_, path in _entries(self.folder):
            with suppress(OSError):
                path.unlink()
                removed, size = removed + 1, size + bytes_
        return Usage(removed, size)

    def _path(self, key: str) -> Path | None:
        folder = self.folder
        return None if folder is None else folder / f"{key}.entry"

    def _make_room(self, folder: Path, size: int) -> None:
        """Delete what was not used for longest until `size` more bytes fit."""
        files = sorted(_entries(folder))
        held = sum(bytes_ for _, bytes_, _ in files)
        if held + size <= self.limit:
            return
        for _, bytes_, path in files:
            if held + size <= _KEPT * self.limit:
                return
            with suppress(OSError):  # another process was faster
                path.unlink()
            held -= bytes_


def digest(*parts: str | bytes) -> str:
    """Return a key: equal parts, equal key."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(f"{len(data)}:".encode())
        found.update(data)
    return found.hexdigest()


def cache_root() -> Path | None:
    """Return the folder of all caches, or None where they are off or there is no home."""
    if os.environ.get("ASG_CACHE", "1").lower() in ("0", "off", "false", "no"):
        return None
    named = os.environ.get("ASG_CACHE_DIR")
    if named:
        return Path(named)
    try:
        return _system_root() / "asg"
    except RuntimeError:  # the user has no home
        return None


def _system_root() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if Path(named).is_absolute() else Path.home() / ".cache"


def _entries(folder: Path | None) -> list[tuple[float, int, Path]]:
    """Return time of last use, size and path of our files; old unfinished ones are deleted."""
    found: list[tuple[float, int, Path]] = []
    if folder is None:
        return found
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                is_part = _PART.fullmatch(entry.name) is not None
                if not is_part and not _ENTRY.fullmatch(entry.name):
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if not is_part:
                        found.append((status.st_mtime, status.st_size, Path(entry.path)))
                    elif status.st_mtime < time.time() - _PART_SECONDS:
                        Path(entry.path).unlink()
    except OSError:
        return found
    return found


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place whole; of several writers one stays."""
    handle, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
