"""What MODEL and BUNDLE on the command line stand for."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np

from asg.artefact import Artefact
from asg.errors import AsgError, GraphError, InputError, UnsupportedError
from asg.graph import Graph
from asg.graph_file import SUFFIX, load_graph

Array = np.ndarray[Any, Any]

ONNX = (
    "{path}: ONNX models can't be imported by this version of ASG\n"
    "  fix: build the model with asg.nn, or save a graph with asg.save_graph"
)
NO_MODEL = (
    "{text!r} is neither a saved graph (NAME.graph), nor FILE.py:OBJECT, nor a bundle "
    "(a folder with manifest.json, or NAME.asg)"
)


@dataclass(frozen=True)
class Loaded:
    """A model: its entries, or the artefact of a bundle."""

    text: str
    entries: Mapping[str, Graph]
    artefact: Artefact | None = None

    @property
    def name(self) -> str:
        """A short name for titles and files."""
        stem = Path(self.text.rpartition(":")[2] or self.text).name
        return stem.removesuffix(".asg").removesuffix(SUFFIX) or "model"


def load_model(text: str) -> Loaded:
    """Return what MODEL names.

    Raises:
        UnsupportedError: it is an ONNX model.
        GraphError: it is a file, but no graph comes of it.
        BundleError: it is a damaged bundle.
    """
    path, _, name = text.rpartition(":")
    if path.endswith(".py"):
        return Loaded(text, _from_module(Path(path), name))
    found = Path(text)
    if found.suffix == ".onnx":
        raise UnsupportedError(ONNX.format(path=text))
    if found.suffix == ".py":
        raise click.UsageError(f"say which object of {text} is the model: {text}:OBJECT")
    if found.suffix == SUFFIX:
        return Loaded(text, {"main": load_graph(found)})
    if found.suffix == ".asg" or (found / "manifest.json").is_file():
        from asg.runtime.bundle import load_bundle

        return Loaded(text, {}, load_bundle(found))
    raise click.UsageError(NO_MODEL.format(text=text))


def _from_module(path: Path, name: str) -> dict[str, Graph]:
    """Run a file and return the graphs that an object of it is, or makes."""
    if not path.is_file():
        raise GraphError(f"{path}: there is no such file")
    module = _run(path)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [each for each, value in vars(module).items() if _is_model(value)]
            listed = ", ".join(names) or "nothing"
            raise GraphError(f"{path} has no {name!r}; what may be a model in it: {listed}")
        found = getattr(found, part)
    if callable(found) and not isinstance(found, (Graph, Mapping)):
        found = _call(path, name, found)
    graphs = {"main": found} if isinstance(found, Graph) else found
    is_right = isinstance(graphs, Mapping) and bool(graphs)
    if not is_right or not all(isinstance(each, Graph) for each in graphs.values()):
        raise GraphError(
            f"{path}:{name} is {type(found).__name__}; a model is a graph, a dict of graphs, or "
            "a function without arguments that returns one"
        )
    return {str(key): graph for key, graph in graphs.items()}


def _is_model(value: object) -> bool:
    if isinstance(value, Graph):
        return True
    return isinstance(value, Mapping) and any(isinstance(each, Graph) for each in value.values())


def _run(path: Path) -> ModuleType:
    """Import a file as Python runs a script: what lies beside it can be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise GraphError(f"{path}: can't be imported")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and the like look their module up; nothing of Python's may be replaced by it.
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _explained(path, "can't be imported", error) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _call(path: Path, name: str, function: Any) -> Any:
    try:
        return function()
    except Exception as error:
        raise _explained(path, f"{name}() failed", error) from error


def _explained(path: Path, what: str, error: Exception) -> AsgError:
    if isinstance(error, AsgError):
        return error
    lines = traceback.extract_tb(error.__traceback__)
    place = f"\n  at {_place(lines[-1].filename)}:{lines[-1].lineno}" if lines else ""
    return GraphError(
        f"{path}: {what}: {type(error).__name__}: {error}{place}\n"
        "  ASG_DEBUG=1 shows the whole traceback"
    )


def _place(file: str) -> str:
    return os.path.relpath(file) if Path(file).is_absolute() else file


def read_inputs(pairs: Iterable[str]) -> dict[str, Array]:
    """Read `x=x.npy` (one array) and `all.npz` (one for each name in it).

    Raises:
        InputError: a file can't be read.
    """
    arrays: dict[str, Array] = {}
    for pair in pairs:
        name, sign, file = pair.partition("=")
        path = Path(file if sign else name)
        if not sign and path.suffix != ".npz":
            raise click.UsageError(f"--input is NAME=FILE.npy or FILE.npz, got {pair!r}")
        try:
            found = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file") from None
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: can't be read as arrays: {error}") from None
        if isinstance(found, np.ndarray):
            if not sign:
                raise InputError(f"{path}: holds one array without a name")
            arrays[name] = found
            continue
        with found:
            if sign:
                raise InputError(f"{path}: holds arrays with names of their own; drop {name}=")
            arrays.update({key: found[key] for key in found.files})
    return arrays
