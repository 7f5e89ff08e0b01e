"""Compiles WGSL with both compilers that must accept it: naga (wgpu) and Tint (browsers).

Both run in child processes: naga can abort the process on a bad program, and Dawn brings
threads of its own. A shader that ends the process is reported and the others go on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINT_SCRIPT = ROOT / "tests" / "tint" / "check.mjs"
NAGA_SCRIPT = Path(__file__).with_name("naga_child.py")
WEBGPU = ROOT / ".tools" / "node_modules" / "webgpu"

# Generous for one batch: a hundred shaders take a second.
SECONDS_PER_BATCH = 120
BATCH = 200

# The exit status of a child that got no device, so that it could check nothing.
SETUP_FAILED = 3

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_SUBGROUPS = re.compile(r"\b(subgroup[A-Z_]\w*|quad[A-Z]\w*|num_subgroups)\b")
_NATIVE = re.compile(r"\b[iu]64\b")
_F16 = re.compile(r"\b(f16|vec[234]h|mat[234]x[234]h)\b|\d[hH]\b")

Verdicts = dict[str, str | None]


_DEFAULT = 16384  # bytes of workgroup memory, unless a device is asked for more
_WORKGROUP = re.compile(r"var<workgroup>\s+\w+\s*:\s*array<(\w+),\s*(\d+)u?>")
_SIZES = {"vec4f": 16, "vec4u": 16, "vec4i": 16}


def is_native(code: str) -> bool:
    """Tell whether a shader uses what only native implementations have (64-bit integers)."""
    return bool(_NATIVE.search(_COMMENT.sub("", code)))


def check_naga(shaders: Mapping[str, str]) -> Verdicts:
    """Each shader's name with None, or with what naga objects to (`PANIC …` when it aborts)."""
    return _check([sys.executable, str(NAGA_SCRIPT)], shaders)


def check_tint(shaders: Mapping[str, str], *, raised: bool = False) -> Verdicts:
    """Each shader's name with None, or with what Tint objects to within WebGPU's default limits.

    With `raised`, on a device that was asked for more workgroup memory.
    """
    node = _node()
    if node is None:
        raise RuntimeError("Node is missing: `make setup-dev` installs it")
    if not WEBGPU.is_dir():
        raise RuntimeError("Tint is missing (npm's webgpu): `make setup-dev` installs it")
    arguments = ["raised"] if raised else []
    return _check([node, str(TINT_SCRIPT), str(WEBGPU), *arguments], shaders)


def _node() -> str | None:
    """The Node of the virtual environment, else the system's."""
    own = Path(sys.executable).with_name("node")
    return str(own) if own.exists() else shutil.which("node")


def _check(command: Sequence[str], shaders: Mapping[str, str]) -> Verdicts:
    cases = [_case(name, code) for name, code in shaders.items()]
    verdicts: Verdicts = {}
    for start in range(0, len(cases), BATCH):
        verdicts |= _check_batch(command, cases[start : start + BATCH])
    return verdicts


def _case(name: str, code: str) -> dict[str, object]:
    """Stored WGSL carries no `enable` line; the header is made here, as a loader would make it."""
    bare = _COMMENT.sub("", code)
    if _F16.search(bare) and "enable f16;" not in bare:
        # On the first line, so that line numbers in messages stay true.
        code = "enable f16; " + code
    return {
        "name": name,
        "code": code,
        "subgroups": bool(_SUBGROUPS.search(bare)),
    }


def needs_raised_limits(code: str) -> bool:
    """Tell whether a shader declares more workgroup memory than every device has: then it belongs
    to a variant that asks for it, beside one that does not."""
    declared = _WORKGROUP.findall(_COMMENT.sub("", code))
    return sum(_SIZES.get(element, 4) * int(count) for element, count in declared) > _DEFAULT


def _check_batch(command: Sequence[str], cases: Sequence[Mapping[str, object]]) -> Verdicts:
    verdicts: Verdicts = {}
    while len(verdicts) < len(cases):
        found, failure = _run_child(command, cases[len(verdicts) :])
        verdicts |= found
        if len(verdicts) < len(cases):
            verdicts[str(cases[len(verdicts)]["name"])] = failure
    return verdicts


def _run_child(
    command: Sequence[str], cases: Sequence[Mapping[str, object]]
) -> tuple[Verdicts, str]:
    """The verdicts until the child ended, and why it has no more."""
    # wgpu and Dawn want the variable; where it points does not matter to them.
    environment = {"XDG_RUNTIME_DIR": tempfile.gettempdir()} | os.environ
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        try:
            status = subprocess.run(
                command,
                input=json.dumps(cases),
                text=True,
                stdout=out,
                stderr=err,
                env=environment,
                timeout=SECONDS_PER_BATCH,
                check=False,
            ).returncode
            failure = f"PANIC (exit status {status})"
        except subprocess.TimeoutExpired:
            status = None
            failure = f"TIMEOUT after {SECONDS_PER_BATCH} s"
        out.seek(0)
        err.seek(0)
        complaints = err.read()
        if status == SETUP_FAILED:
            raise RuntimeError(complaints.strip().splitlines()[-1])
        # A line that its child did not finish is no verdict.
        verdicts = dict(json.loads(line) for line in out if line.endswith("\n"))
    return verdicts, f"{failure}: {_telling_lines(complaints)}"


def _telling_lines(text: str) -> str:
    """The lines that say what happened: those of a Rust panic, or the last ones."""
    lines = text.strip().splitlines()
    for number, line in enumerate(lines):
        if "panicked at" in line:
            return "\n".join(lines[number : number + 2])
    return "\n".join(lines[-5:])
