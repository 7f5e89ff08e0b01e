"""What MODEL and BUNDLE on the command line stand for."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np

from asg.artefact import Artefact
from asg.errors import AsgError, GraphError, InputError
from asg.graph import Graph
from asg.graph_file import SUFFIX, load_graph
from asg.open_graph import OpenGraph
from asg.precision import as_policy

if TYPE_CHECKING:
    from asg.passes.pipeline import Pass

Array = np.ndarray[Any, Any]

NO_MODEL = (
    "{text!r} is neither an ONNX model (NAME.onnx), nor a saved graph (NAME.graph), nor "
    "FILE.py:OBJECT, nor a bundle (a folder with manifest.json, or NAME.asg)"
)


@dataclass(frozen=True)
class Preparation:
    """How a model is read, and what is done to it before it is compiled."""

    precision: str | None = None
    freeze: bool = False
    float64: Literal["error", "narrow"] = "error"

    @property
    def asked(self) -> list[str]:
        """The options that were given."""
        given = {
            "--precision": self.precision is not None,
            "--freeze": self.freeze,
            "--float64": self.float64 != "error",
        }
        return [name for name, is_given in given.items() if is_given]


AS_IT_IS = Preparation()


@dataclass(frozen=True)
class Loaded:
    """A model: its entries, or the artefact of a bundle.

    `statics` are inputs whose values went into the graphs; `precision` is what it is to be
    compiled in.
    """

    text: str
    entries: Mapping[str, Graph]
    artefact: Artefact | None = None
    statics: tuple[str, ...] = ()
    precision: str | None = None

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The pipeline for it."""
        from asg.compiler import PIPELINE, with_precision

        policy = as_policy(self.precision)
        return PIPELINE if policy is None else with_precision(PIPELINE, policy)

    @property
    def name(self) -> str:
        """A short name for titles and files."""
        stem = Path(self.text.rpartition(":")[2] or self.text).name
        return stem.removesuffix(".asg").removesuffix(".onnx").removesuffix(SUFFIX) or "model"

    def inputs(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the arrays that the graphs still take."""
        return {name: each for name, each in arrays.items() if name not in self.statics}


def load_model(
    text: str,
    dims: Mapping[str, int] | None = None,
    arrays: Mapping[str, Array] | None = None,
    preparation: Preparation = AS_IT_IS,
) -> Loaded:
    """Return what MODEL names, with open sizes bound by `dims` and by the arrays of inputs, and
    prepared as is asked.

    Raises:
        UnsupportedError: an ONNX model holds what can't be compiled; all of it is listed.
        GraphError: it is a file, but no graph comes of it; or a size stays open.
        BundleError: it is a damaged bundle.
    """
    is_onnx = Path(text).suffix == ".onnx"
    if preparation.float64 != "error" and not is_onnx:
        raise GraphError(f"{text} is no ONNX model, and --float64 is for these")
    loaded = _read(text, dims, arrays, preparation.float64)
    if not preparation.asked:
        return loaded
    if loaded.artefact is not None:
        asked = ", ".join(preparation.asked)
        raise GraphError(
            f"{text} is a bundle already: {asked} would come too late\n"
            f"  fix: asg compile with {asked} the model that it came from"
        )
    return _prepared(loaded, preparation)


def _prepared(loaded: Loaded, preparation: Preparation) -> Loaded:
    """Return a model with its parameters as they shall be, and the precision noted."""
    from asg.passes.freeze import freeze
    from asg.passes.mixed_precision import narrow_parameters

    entries = loaded.entries
    if preparation.freeze:
        entries = freeze(entries)
    policy = as_policy(preparation.precision)
    if policy is not None:
        entries = narrow_parameters(entries, policy)
    return replace(loaded, entries=entries, precision=preparation.precision)


def _read(
    text: str,
    dims: Mapping[str, int] | None,
    arrays: Mapping[str, Array] | None,
    float64: Literal["error", "narrow"],
) -> Loaded:
    path, _, name = text.rpartition(":")
    if path.endswith(".py"):
        return _bound(text, _from_module(Path(path), name), dims or {}, arrays or {})
    found = Path(text)
    if found.suffix == ".onnx":
        from asg import onnx

        return _bound(text, {"main": onnx.load(found, float64=float64)}, dims or {}, arrays or {})
    if dims:
        raise GraphError(f"{text} has no open dimensions, but --dim names {', '.join(dims)}")
    if found.suffix == ".py":
        raise click.UsageError(f"say which object of {text} is the model: {text}:OBJECT")
    if found.suffix == SUFFIX:
        return Loaded(text, {"main": load_graph(found)})
    if found.suffix == ".asg" or (found / "manifest.json").is_file():
        from asg.runtime.bundle import load_bundle

        return Loaded(text, {}, load_bundle(found))
    raise click.UsageError(NO_MODEL.format(text=text))


def _bound(
    text: str,
    entries: Mapping[str, Graph | OpenGraph],
    dims: Mapping[str, int],
    arrays: Mapping[str, Array],
) -> Loaded:
    """Give open graphs their sizes and the values of static inputs."""
    opened = [each for each in entries.values() if isinstance(each, OpenGraph)]
    known = {name for graph in opened for name in graph.known_sizes}
    for name in (name for name in dims if name not in known):
        listed = ", ".join(dict.fromkeys(size for graph in opened for size in graph.dims))
        raise GraphError(f"{text} has no open dimension {name!r}; open: {listed or 'none'}")
    graphs = {
        key: each if isinstance(each, Graph) else _bind(text, each, dims, arrays)
        for key, each in entries.items()
    }
    return Loaded(text, graphs, statics=tuple(name for each in opened for name in each.statics))


def _bind(
    text: str, graph: OpenGraph, dims: Mapping[str, int], arrays: Mapping[str, Array]
) -> Graph:
    missing = [name for name in graph.statics if name not in arrays]
    if missing:
        raise GraphError(
            f"{text}: the values of {', '.join(missing)} decide shapes\n"
            f"  fix: --static {missing[0]}=FILE.npy; where arrays are given, --input"
        )
    sizes = {name: size for name, size in dims.items() if name in graph.known_sizes}
    names = [each.name for each in graph.inputs]
    shapes = {name: each.shape for name, each in arrays.items() if name in names}
    for each in graph.inputs:
        if each.name in shapes:
            graph.match(each, shapes[each.name], sizes)
    left = [name for name in graph.dims if name not in graph.complete(sizes)]
    if left:
        raise GraphError(
            f"{text}: sizes are open: {', '.join(left)}\n  fix: --dim {left[0]}=SIZE for each"
        )
    statics = {name: arrays[name] for name in graph.statics}
    return graph.recipe(graph.binding(shapes, statics, sizes))


def _from_module(path: Path, name: str) -> dict[str, Graph | OpenGraph]:
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
    if callable(found) and not isinstance(found, (Graph, OpenGraph, Mapping)):
        found = _call(path, name, found)
    graphs = {"main": found} if isinstance(found, (Graph, OpenGraph)) else found
    is_right = isinstance(graphs, Mapping) and bool(graphs)
    if not is_right or not all(isinstance(each, (Graph, OpenGraph)) for each in graphs.values()):
        raise GraphError(
            f"{path}:{name} is {type(found).__name__}; a model is a graph, a dict of graphs, or "
            "a function without arguments that returns one"
        )
    return {str(key): graph for key, graph in graphs.items()}


def _is_model(value: object) -> bool:
    if isinstance(value, (Graph, OpenGraph)):
        return True
    return isinstance(value, Mapping) and any(map(_is_model, value.values()))


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
