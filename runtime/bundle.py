"""Bundles: an artefact as a folder or as one `.asg` zip.

    manifest.json           what the artefact says, and the hash of every other file
    kernels/NAME.wgsl       text of a kernel's portable variant, NAME.0.wgsl … of those before it
    weights.safetensors     parameters, state and constants
    graph/ENTRY.asg         the graph each entry was made from, for people

The same artefact gives the same bytes. A bundle appears whole or not at all, and takes the place
of nothing but a bundle. `docs/bundle.schema.json` is the schema of the manifest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors

from asg import tensor_file
from asg.artefact import FORMAT_VERSION, Artefact
from asg.errors import BundleError
from asg.runtime.fields import Field, parse_json
from asg.runtime.manifest import decode, encode

FORMAT = "asg-bundle"
OLDEST_VERSION = 1  # what this version of ASG still reads

_MANIFEST = "manifest.json"
_WEIGHTS = "weights.safetensors"
_MANIFEST_BYTES = 256 << 20
_TEXT_BYTES = 16 << 20
_WEIGHTS_BYTES = 1 << 36
_FILES = 100_000
_FILE_NAME = re.compile(
    r"(kernels/[\w.-]{1,200}\.wgsl|graph/[\w.-]{1,200}\.asg|weights\.safetensors)", re.ASCII
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
# Different in each compilation, so no part of what is saved.
_UNSAVED_REPORT = ("compile_s", "compile_stages")


def save_bundle(
    artefact: Artefact, values: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> None:
    """Write an artefact with the `values` of its parameters, state and constants.

    A path that ends in `.asg` becomes a zip, any other a folder.

    Raises:
        BundleError: something that is no bundle is there already, or it can't be written.
    """
    target = Path(path)
    _refuse_overwriting(target)
    files = _files(artefact, values)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".asg":
            _write_zip(files, target)
        else:
            _write_folder(files, target)
    except OSError as error:
        raise BundleError(f"{target}: can't be written: {error}") from error


def load_bundle(path: str | os.PathLike[str]) -> Artefact:
    """Read and check a bundle.

    Raises:
        BundleError: it is damaged, truncated, tampered with, or from a newer version.
    """
    source = Path(path)
    with _reading(source):
        if source.is_dir():
            return _load(_Folder(source))
        with zipfile.ZipFile(source) as archive:
            return _load(_Zip(source, archive))


def pack_bundle(artefact: Artefact, values: Mapping[str, np.ndarray]) -> bytes:
    """Return a bundle as a zip in memory, in which kernels and all else keep their order."""
    stream = io.BytesIO()
    _fill_zip(_files(artefact, values, is_sorted=False), stream)
    return stream.getvalue()


def unpack_bundle(data: bytes, name: str) -> Artefact:
    """Read and check a bundle that is in memory; `name` is what errors call it.

    Raises:
        BundleError: it is damaged, truncated, tampered with, or from a newer version.
    """
    source = Path(name)
    with _reading(source), zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _load(_Zip(source, archive))


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Make every error of reading one of ours."""
    try:
        yield
    except FileNotFoundError:
        raise BundleError(f"{source}: there is no such file or folder") from None
    except zipfile.BadZipFile as error:
        raise BundleError(f"{source}: not a bundle, or damaged: {error}") from None
    except (OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{source}: can't be read: {error}") from error


# -- writing ----------------------------------------------------------------------------------


def _files(
    artefact: Artefact, values: Mapping[str, np.ndarray], *, is_sorted: bool = True
) -> dict[str, bytes]:
    """Return the contents of every file by name, the manifest first."""
    files: dict[str, bytes] = {}
    texts: dict[tuple[str, int], str] = {}
    stems = _file_stems(artefact.kernels)
    for name, kernel in artefact.kernels.items():
        last = len(kernel.variants) - 1
        for position, variant in enumerate(kernel.variants):
            ending = "" if position == last else f".{position}"
            file = f"kernels/{stems[name]}{ending}.wgsl"
            texts[name, position] = file
            files[file] = variant.wgsl.encode()
    sources = {}
    stems = _file_stems(artefact.sources)
    for name, text in artefact.sources.items():
        sources[name] = f"graph/{stems[name]}.asg"
        files[sources[name]] = text.encode()
    arrays = {name: np.asarray(array, order="C") for name, array in values.items()}
    files[_WEIGHTS] = tensor_file.save(arrays)
    manifest = encode(artefact, texts) | {
        "format": FORMAT,
        "version": artefact.version,
        "sources": sources,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
        },
    }
    report = manifest["report"]
    manifest["report"] = {key: report[key] for key in report if key not in _UNSAVED_REPORT}
    manifest["sha256"] = manifest_hash(manifest)
    head = json.dumps(manifest, indent=1, sort_keys=is_sorted, ensure_ascii=False, allow_nan=False)
    return {_MANIFEST: f"{head}\n".encode(), **dict(sorted(files.items()))}


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Return the hash of all fields of a manifest but that of the hash itself."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _file_stems(names: Mapping[str, object]) -> dict[str, str]:
    """Return a plain and unique file name for each name, regardless of upper and lower case."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100] or "_"
        count = 1
        while stem.lower() in taken:
            count += 1
            stem = f"{plain}-{count}"
        taken.add(stem.lower())
        stems[name] = stem
    return stems


def _refuse_overwriting(target: Path) -> None:
    """Let a bundle or an empty folder be replaced, and nothing else."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and target.suffix != ".asg":
        manifest = target / _MANIFEST
        if not any(target.iterdir()) or (manifest.is_file() and _is_manifest(manifest)):
            return
    if target.is_file() and target.suffix == ".asg" and _is_zip(target):
        return
    raise BundleError(f"{target}: is there already and is no bundle; it is left as it is")


def _is_manifest(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_bytes()).get("format") == FORMAT)
    except (ValueError, AttributeError, OSError):
        return False


def _is_zip(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _MANIFEST in archive.namelist()


def _write_zip(files: Mapping[str, bytes], target: Path) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            _fill_zip(files, stream)
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _fill_zip(files: Mapping[str, bytes], stream: IO[bytes]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for file, data in files.items():
            info = zipfile.ZipInfo(file, _EPOCH)
            info.create_system = 3  # or the bytes would depend on the system
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def _write_folder(files: Mapping[str, bytes], target: Path) -> None:
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        fresh = part / "new"
        for file, data in files.items():
            (fresh / file).parent.mkdir(parents=True, exist_ok=True)
            (fresh / file).write_bytes(data)
        if target.exists():
            # A folder can't be renamed onto one that holds something.
            target.rename(part / "old")
        try:
            fresh.rename(target)
        except OSError:
            if (part / "old").exists():
                (part / "old").rename(target)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


# -- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    """Files of a bundle in a folder."""

    path: Path

    def read(self, name: str, most: int) -> bytes:
        """Return the contents of a file that has at most so many bytes."""
        file = self.path / name
        if not file.is_file():
            raise BundleError(f"{self.path}: {name} is missing")
        size = file.stat().st_size
        if size > most:
            raise BundleError(f"{self.path}: {name} has {size} bytes; at most {most} are expected")
        return file.read_bytes()

    def check_names(self, known: Mapping[str, object]) -> None:
        """Other files in a folder do no harm."""


@dataclass(frozen=True)
class _Zip:
    """Files of a bundle in a zip."""

    path: Path
    archive: zipfile.ZipFile

    def read(self, name: str, most: int) -> bytes:
        """Return the contents of a file that has at most so many bytes."""
        try:
            info = self.archive.getinfo(name)
        except KeyError:
            raise BundleError(f"{self.path}: {name} is missing") from None
        with self.archive.open(info) as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise BundleError(f"{self.path}: {name} has more than the expected {most} bytes")
        return data

    def check_names(self, known: Mapping[str, object]) -> None:
        """Refuse a zip that holds a file twice, or one that the manifest does not name."""
        names = self.archive.namelist()
        for name in names:
            if name != _MANIFEST and name not in known:
                raise BundleError(f"{self.path}: {name!r} is not named in {_MANIFEST}")
        if len(set(names)) != len(names):
            raise BundleError(f"{self.path}: a file is there twice")


def _load(source: _Folder | _Zip) -> Artefact:
    where = f"{source.path}: {_MANIFEST}"
    root = parse_json(source.read(_MANIFEST, _MANIFEST_BYTES), where)
    _check_head(root)
    root.only("format", "version", "sha256", "name", "buffers", "persistent", "kernels", "entries",
              "sources", "files", "report")  # fmt: skip
    sizes = {name: _listed(name, each) for name, each in root["files"].entries(_FILES)}
    source.check_names(sizes)

    def content(name: str) -> bytes:
        if name not in sizes:
            raise root.error(f"{name!r} is not among the files")
        size, digest = sizes[name]
        data = source.read(name, size)
        if len(data) < size:
            raise BundleError(f"{source.path}: {name} is truncated: {len(data)} of {size} bytes")
        if hashlib.sha256(data).hexdigest() != digest:
            raise BundleError(f"{source.path}: {name} is damaged: its hash is not the recorded one")
        return data

    def text(name: str) -> str:
        try:
            return content(name).decode()
        except UnicodeDecodeError:
            raise BundleError(f"{source.path}: {name} is not text") from None

    try:
        values = tensor_file.load(content(_WEIGHTS))
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{source.path}: {_WEIGHTS} can't be read: {error}") from None
    sources = {name: text(each.text()) for name, each in root["sources"].entries(_FILES)}
    return decode(root, text, values, sources)


def _check_head(root: Field) -> None:
    """Refuse what is no bundle, is from a newer version, or was changed."""
    if root.mapping().get("format") != FORMAT:
        raise root.error(f"is no manifest of a bundle: format is not {FORMAT!r}")
    version = root["version"].integer(0, 1 << 31)
    if version > FORMAT_VERSION:
        raise root.error(
            f"the bundle has format version {version}, and this version of ASG reads up to "
            f"{FORMAT_VERSION}\n  fix: install a newer ASG, or save the bundle with this one"
        )
    if version < OLDEST_VERSION:
        raise root.error(
            f"the bundle has format version {version}; the oldest that is still read is "
            f"{OLDEST_VERSION}\n  fix: compile the model again"
        )
    if root["sha256"].text() != manifest_hash(root.mapping()):
        raise root.error("was changed or is damaged: its hash is not the recorded one")


def _listed(name: str, field: Field) -> tuple[int, str]:
    """Return size and hash of a file that the manifest names."""
    if not _FILE_NAME.fullmatch(name):
        raise field.error("is no file name that a bundle can have")
    field.only("sha256", "size")
    most = _WEIGHTS_BYTES if name == _WEIGHTS else _TEXT_BYTES
    digest = field["sha256"].text()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise field["sha256"].error("is no SHA-256")
    return field["size"].integer(0, most), digest
