"""A kernel's text on its way to the driver: its key, its prelude, and where it can be read."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_COMMENT_LINE = re.compile(r"^\s*//.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Shader:
    """WGSL text (entry point `main`, bind group 0) with the access of each binding."""

    label: str
    wgsl: str
    accesses: tuple[str, ...]
    features: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    is_by_hand: bool = False

    @cached_property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What makes two shaders one pipeline; whole-line comments do not count."""
        return _COMMENT_LINE.sub("", self.full_text), self.accesses

    @cached_property
    def full_text(self) -> str:
        """The text with the lines that wgpu wants before it.

        `enable f16;` is needed by wgpu and browsers alike. `enable subgroups;` is refused by
        wgpu and needed by browsers, so a comment names the features instead.
        """
        if not self.features:
            return self.wgsl
        enable = "enable f16;\n" if "shader-f16" in self.features else ""
        return f"// features: {', '.join(self.features)}\n{enable}{self.wgsl}"

    @property
    def file_name(self) -> str:
        """Name of the file that a dump of it goes to."""
        return f"{hashlib.sha256(self.full_text.encode()).hexdigest()[:16]}.wgsl"


def dump_shader(shader: Shader) -> None:
    """Write the shader to the folder that ASG_WGSL_DUMP names, once."""
    folder = os.environ.get("ASG_WGSL_DUMP")
    if folder and not (Path(folder) / shader.file_name).exists():
        _write(Path(folder), shader)


def keep_refused(shader: Shader) -> Path:
    """Write a shader that was refused where the user can read it."""
    folder = os.environ.get("ASG_WGSL_DUMP")
    return _write(Path(folder) if folder else Path(tempfile.mkdtemp(prefix="asg-refused-")), shader)


def _write(folder: Path, shader: Shader) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / shader.file_name
    # Another process may be writing the same file: each writes its own, and one stays.
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    part.write_text(f"// {shader.label}\n{shader.full_text}", encoding="utf-8")
    part.replace(path)
    return path
