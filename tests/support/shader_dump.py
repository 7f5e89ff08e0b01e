"""Keeps every shader that the tests make, so that both compilers can judge them all at the end.

The folder is named by ASG_WGSL_DUMP; without it nothing is kept. A file is named by its content:
the same shader, made by twenty tests in four processes, is one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from importlib.util import find_spec
from pathlib import Path


def dump_folder() -> Path | None:
    """Where shaders are kept, if they are."""
    name = os.environ.get("ASG_WGSL_DUMP")
    return Path(name) if name else None


def keep(label: str, code: str) -> None:
    """Put one shader into the folder."""
    folder = dump_folder()
    if folder is None:
        return
    path = folder / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may be writing the same file: each writes its own, and one stays.
        part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        part.write_text(json.dumps({"label": label, "code": code}))
        part.replace(path)


def kept(folder: Path) -> dict[str, str]:
    """The shaders in the folder, by label and content name."""
    shaders: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        entry = json.loads(path.read_text())
        shaders[f"{entry['label']} ({path.stem})"] = entry["code"]
    return shaders


def watch_runtime() -> None:
    """Keep every shader of which the runtime makes a pipeline."""
    if dump_folder() is None or find_spec("asg.runtime.wgpu_device") is None:
        return
    from asg.runtime import wgpu_device

    assert hasattr(wgpu_device, "on_shader"), "asg.runtime.wgpu_device has no on_shader hook"
    wgpu_device.on_shader = keep
