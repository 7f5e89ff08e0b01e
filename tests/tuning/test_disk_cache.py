"""Files that only save time: what is asked for is what was stored, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asg.runtime.disk_cache import DiskCache, cache_root, digest

CACHE = DiskCache("things", 10_000)
KEY = digest("a thing")


def only_file(folder: Path) -> Path:
    (found,) = (folder / "things").iterdir()
    return found


def test_gives_what_was_stored() -> None:
    assert CACHE.get(KEY) is None
    assert CACHE.put(KEY, b"content")
    assert CACHE.get(KEY) == b"content"
    assert CACHE.put(KEY, b"")
    assert CACHE.get(KEY) == b""
    assert CACHE.usage().files == 1
    CACHE.drop(KEY)
    assert CACHE.get(KEY) is None


def test_keys_are_told_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") != digest("ab", "")
    assert digest("ab", b"c") == digest(b"ab", "c")


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "folder", "huge"])
def test_damaged_files_are_misses(caches: Path, damage: str) -> None:
    CACHE.put(KEY, b"content")
    path = only_file(caches)
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(data[:-1])
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "foreign":
            path.write_text("somebody else's")
        case "folder":
            path.mkdir()
        case "huge":
            path.write_bytes(data + bytes(20_000))
    assert CACHE.get(KEY) is None
    assert CACHE.put(KEY, b"again") == (damage != "folder")
    assert CACHE.get(KEY) == (None if damage == "folder" else b"again")


def test_stays_below_its_limit_and_forgets_the_oldest() -> None:
    keys = [digest(str(number)) for number in range(20)]
    for number, key in enumerate(keys):
        CACHE.put(key, bytes(1000))
        path = CACHE.folder / f"{key}.entry"  # type: ignore[operator]
        os.utime(path, (number, number))
        CACHE.get(keys[0])  # used all the time, so it stays
        assert CACHE.usage().size <= CACHE.limit
    assert CACHE.get(keys[0]) is not None
    assert CACHE.get(keys[1]) is None
    assert CACHE.get(keys[-1]) is not None
    assert not CACHE.put(digest("large"), bytes(CACHE.limit))


def test_leaves_files_of_others_alone(caches: Path) -> None:
    CACHE.put(KEY, b"content")
    foreign = caches / "things" / "notes.txt"
    foreign.write_bytes(bytes(50_000))
    for number in range(20):
        CACHE.put(digest(str(number)), bytes(1000))
    assert CACHE.clear().files > 0
    assert CACHE.usage().files == 0
    assert foreign.exists()


def test_unfinished_files_go_when_they_are_old(caches: Path) -> None:
    CACHE.put(KEY, b"content")
    old, new = (caches / "things" / f"{KEY}.{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, time.time() - 7200))
    CACHE.put(digest("other"), b"content")
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_can_not_be_written(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches.write_text("a file where the folder should be")
    assert not CACHE.put(KEY, b"content")
    assert CACHE.get(KEY) is None
    assert CACHE.usage().files == 0
    assert CACHE.clear().files == 0


def test_a_full_disk_leaves_nothing(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    assert not CACHE.put(KEY, b"content")
    assert list((caches / "things").iterdir()) == []


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root() == tmp_path / "caches"
    monkeypatch.delenv("ASG_CACHE_DIR")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_root() == tmp_path / "asg"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_root() == Path.home() / ".cache" / "asg"
    monkeypatch.setenv("ASG_CACHE", "0")
    assert cache_root() is None
    assert not CACHE.put(KEY, b"content")
    assert CACHE.get(KEY) is None


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ASG_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_root() is None


_WRITER = """
import sys
from asg.runtime.disk_cache import DiskCache, digest
cache = DiskCache("things", 10_000)
for round in range(150):
    for name in "abcdefghijklmnop":
        key = digest(name)
        cache.put(key, (name * 900).encode())
        found = cache.get(key)
        if found is not None and found != (name * 900).encode():
            sys.exit(f"wrong content for {name}")
"""


def test_several_writers_at_once() -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", _WRITER], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in running:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    # Each may have made room before another one wrote.
    assert CACHE.usage().size <= CACHE.limit + 3 * 1000
