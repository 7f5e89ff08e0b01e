"""Checkpoints on disk: a folder each, written whole or not at all.

`step-00000400/` holds `state.safetensors` (parameters, optimizer state, random key) and
`checkpoint.json` (format version, position in the data, digest of the other file).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from asg.errors import CheckpointError
from asg.tensor_file import load, save

VERSION = 1
ARRAYS, POSITION = "state.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Progress:
    """How far training has come: updates made, and where in the data the next one reads."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


def write_checkpoint(
    folder: Path, progress: Progress, state: Mapping[str, np.ndarray[Any, Any]], keep: int
) -> Path:
    """Write a checkpoint into `folder`, then delete all but the newest `keep`."""
    final = folder / f"step-{progress.step:08}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    content = save(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.items()}
    )
    about = {"version": VERSION, "sha256": hashlib.sha256(content).hexdigest()}
    _write(partial / ARRAYS, content)
    _write(partial / POSITION, json.dumps(about | asdict(progress), indent=2).encode())
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in `folder`, the newest last."""
    return sorted(path for path in folder.glob("step-*") if (path / POSITION).is_file())


def read_checkpoint(path: Path) -> tuple[Progress, dict[str, np.ndarray[Any, Any]]]:
    """Return what `write_checkpoint` wrote.

    Raises:
        CheckpointError: it is damaged, or from a newer version.
    """
    try:
        about = json.loads((path / POSITION).read_text())
        version, digest = int(about["version"]), str(about["sha256"])
        content = (path / ARRAYS).read_bytes()
        progress = Progress(int(about["step"]), int(about["epoch"]), int(about["batch"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} can't be read: {error}") from error
    if version > VERSION:
        raise CheckpointError(f"checkpoint {path} has version {version}, known is {VERSION}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"checkpoint {path} is damaged: the digest of {ARRAYS} differs")
    try:
        return progress, load(content)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
