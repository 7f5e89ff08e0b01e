"""Fills the templates of `shaders/`: the only module that imports Jinja."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

import jinja2

from asg.tolerances import Numerics

HELPERS, FAST, ENDING = "helpers/", "helpers/fast/", ".wgsl.j2"
_VECTOR = {"F": "vec4f", "I": "vec4i", "U": "vec4u", "B": "vec4<bool>", "suffix": "_v4"}
_SCALAR = {"F": "f32", "I": "i32", "U": "u32", "B": "bool", "suffix": ""}


@cache
def _environment() -> jinja2.Environment:
    root = resources.files("asg.shaders")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(root)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **holes: object) -> str:
    """Return the template `shaders/<template>` with its holes filled."""
    return _environment().get_template(template).render(**holes)


@cache
def template_digest(prefix: str) -> str:
    """Return a name for the text of the templates whose names begin so."""
    root = resources.files("asg.shaders")
    files = sorted((each for each in root.iterdir() if each.name.startswith(prefix)), key=str)
    texts = [f"{each.name}\0{each.read_text(encoding='utf-8')}\0" for each in files]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:12]


@cache
def _fast() -> frozenset[str]:
    """Return the names of helpers that have a faster, less exact form."""
    names = _environment().list_templates()
    return frozenset(
        name.removeprefix(FAST).removesuffix(ENDING) for name in names if name.startswith(FAST)
    )


@cache
def _helper(name: str, numerics: Numerics) -> tuple[str, tuple[str, ...]]:
    """Return a helper's text and the helpers that it calls itself."""
    stem = name.removesuffix("_v4")
    folder = FAST if numerics == "fast" and stem in _fast() else HELPERS
    text = render(f"{folder}{stem}{ENDING}", **(_VECTOR if name.endswith("_v4") else _SCALAR))
    first, _, rest = text.partition("\n")
    needs: tuple[str, ...] = ()
    if first.startswith("// needs:"):  # the names of helpers that it calls
        parts = first.removeprefix("// needs:").split(",")
        listed = [part.strip() for part in parts if part.strip()]
        ending = "_v4" if name.endswith("_v4") else ""
        needs = tuple(
            part if part in _SCALAR_ONLY else part.removesuffix("_v4") + ending for part in listed
        )
        text = rest
    return text.strip("\n"), needs


_SCALAR_ONLY = ("asg_from_bits",)


def helper_texts(names: list[str], numerics: Numerics = "precise") -> list[str]:
    """Return the texts of helpers and of all that they call, each once, callees first.

    With `fast` those are taken that are less exact and faster, where there are any.
    """
    done: dict[str, str] = {}
    pending = list(reversed(names))
    while pending:
        name = pending[-1]
        text, needs = _helper(name, numerics)
        missing = [need for need in needs if need not in done]
        if name in done or not missing:
            done.setdefault(name, text)
            pending.pop()
        else:
            pending.extend(missing)
    return list(done.values())
