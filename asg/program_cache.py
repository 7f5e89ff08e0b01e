"""Artefacts of graphs that were compiled before: a second start of a program skips the compiler.

Roof: uses the compiler's artefacts. An artefact is stored as a bundle without the values of
parameters and state, under a key of all that it depends on: the graphs with names, lines and
constants, every option, and the source text of this package. What has no such key (ops of the
user's own, passes of the user's own) is compiled each time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

import asg
from asg.artefact import Artefact
from asg.errors import BundleError
from asg.format import format_graph
from asg.graph import Graph, Literal, Node
from asg.ops import TABLE
from asg.runtime.bundle import pack_bundle, unpack_bundle
from asg.runtime.disk_cache import DiskCache, digest
from asg.types import DType, TensorType

CACHE = DiskCache("programs", 256 << 20)

# Where the package's source lies; in a checkout the folders stand beside each other.
PACKAGES = ("asg", "asg.passes", "asg.codegen", "asg.shaders", "asg.runtime")
_SOURCES = (".py", ".j2", ".wgsl", ".json")
_PLAIN = (bool, int, float, str, DType, TensorType, Literal, np.generic, type(None))


def remembered(
    entries: Mapping[str, Graph], options: Mapping[str, object], lower: Callable[[], Artefact]
) -> Artefact:
    """Return what `lower()` makes of graphs under some options, from the cache if it is there.

    Dumps are written by passes, so `ASG_DUMP` means that everything is compiled.
    """
    if CACHE.folder is None or os.environ.get("ASG_DUMP") or _literal_bytes(entries) > CACHE.limit:
        return lower()
    started = time.perf_counter()
    key = program_key(entries, options)
    found = None if key is None else _read(key, entries)
    if found is not None:
        seconds = time.perf_counter() - started
        report = {**found.report, "compile_s": seconds, "compile_stages": {"cache": seconds}}
        return replace(found, report=report)
    artefact = lower()
    if key is not None:
        begin = _initial_values(entries)
        constants = {name: array for name, array in artefact.values.items() if name not in begin}
        if sum(array.nbytes for array in constants.values()) <= CACHE.limit:
            CACHE.put(key, pack_bundle(artefact, constants))
    return artefact


def _literal_bytes(entries: Mapping[str, Graph]) -> int:
    """Return the size of the constants of graphs, which a stored program would hold."""
    return sum(
        value.array.nbytes
        for graph in entries.values()
        for node in graph.nodes
        for value in node.attrs.values()
        if isinstance(value, Literal)
    )


def program_key(entries: Mapping[str, Graph], options: Mapping[str, object]) -> str | None:
    """Return what names a compilation, or None where the text can't say all that matters."""
    if not all(is_describable(graph) for graph in entries.values()):
        return None
    settings: list[str] = []
    for name, option in sorted(options.items()):
        parts = option if isinstance(option, tuple) else (option,)
        if not all(_is_ours(part) for part in parts):
            return None
        settings.append(f"{name}={option!r}")
    texts = [part for name, graph in entries.items() for part in (name, *_describe(graph))]
    return digest(source_digest(), _versions(), *settings, "graphs", *texts)


def is_describable(graph: Graph) -> bool:
    """Tell whether a graph's text is all there is to it: no op or attribute of the user's own."""
    return all(
        TABLE.get(node.op.name) is node.op and all(map(_is_plain, node.attrs.values()))
        for node in graph.nodes
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _is_ours(option: object) -> bool:
    """Tell whether the text of an option says what it does: a plain value, or code of ours."""
    return _is_plain(option) or type(option).__module__.startswith("asg.")


def _describe(graph: Graph) -> list[str]:
    """Return the texts that make up a graph: itself, its lines, its constants."""
    lines: list[str] = []
    for node in graph.nodes:
        lines.append(f"{_origin(node)}\n")
        for value in node.attrs.values():
            if isinstance(value, Literal):
                lines.append(value.content)
    return [format_graph(graph), "".join(lines)]


def _origin(node: Node) -> str:
    """Return where a node comes from, as the comments of kernels tell it."""
    sites = [site for site in (node.site, *node.also) if site is not None]
    return repr((node.scope, node.note, [(str(site), site.source) for site in sites]))


@cache
def source_digest(packages: tuple[str, ...] = PACKAGES) -> str:
    """Return a hash of the source of some packages, by default of all of ASG's."""
    found = hashlib.sha256(asg.__version__.encode())
    files: dict[Path, str] = {}
    for package in packages:
        for folder in __import__(package, fromlist=["__path__"]).__path__:
            for path in Path(folder).rglob("*"):
                if path.suffix in _SOURCES:
                    files[path] = f"{package}/{path.relative_to(folder).as_posix()}"
    for path, name in sorted(files.items(), key=lambda each: each[1]):
        found.update(f"{name}\n".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _versions() -> str:
    """Name what else takes part in compiling: constants are folded by NumPy."""
    return f"{platform.python_version()} {np.__version__} {platform.machine()}"


def _initial_values(entries: Mapping[str, Graph]) -> dict[str, np.ndarray]:
    return {name: array for graph in entries.values() for name, array in graph.values.items()}


def _read(key: str, entries: Mapping[str, Graph]) -> Artefact | None:
    data = CACHE.get(key)
    if data is None:
        return None
    try:
        artefact = unpack_bundle(data, "a program in the cache")
    except BundleError:
        CACHE.drop(key)
        return None
    return replace(artefact, values={**_initial_values(entries), **artefact.values})
