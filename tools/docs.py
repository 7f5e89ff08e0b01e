"""Write the pages of docs/ that are printed from the code, so that they cannot go stale.

With --check, write nothing and fail where a page differs from what would be written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from asg import functions, nn, ops, optim
from asg.cli import main as command_line
from asg.contract import FUNCTIONS, contracts
from asg.departures import DEPARTURES
from asg.errors import AsgError
from asg.graph import Attrs
from asg.op import NoGradient, Op, Source
from asg.ops import TABLE
from asg.types import DType, TensorType, parse_type

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Written by `make docs`. -->\n"

OPS_HEAD = """\
# Ops

The op table, printed: every primitive that a graph can hold. Everything else is a function or a
module that builds nodes of these.

*operands* are the element types that an op takes; operands of one type are named once, an arrow
points to the type of the result where it is another. A *float* is f32, f16 or bf16; an *integer*
has 8, 16 or 32 bits (i8, u8 …), and *signed* are those with a sign. *kind* says how an op is
lowered: see `asg/op.py`. *gradient* says why there is none where there is none: nothing flows back
through the op, or a gradient is refused.
"""

FUNCTIONS_HEAD = """\
## Functions

What `asg` offers beside the ops, under the names of NumPy and PyTorch. Those that take a tensor
first are methods of tensors too: `x.sum(axis=0)`. A function that bears the name of an op builds
it, but takes what NumPy takes: several axes or none, negative axes, `keepdims`.
"""


def main() -> int:
    """Write or check every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which pages are stale")
    options = parser.parse_args()
    stale = stale_pages()
    for name, text in stale.items():
        if options.check:
            print(f"docs/{name} is stale: run `make docs`")
        else:
            (DOCS / name).write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")
    return 1 if stale and options.check else 0


def stale_pages() -> dict[str, str]:
    """Return the pages that differ from what the code says, with what they should hold."""
    stale: dict[str, str] = {}
    for name, make_page in PAGES.items():
        path, text = DOCS / name, make_page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale[name] = text
    return stale


def ops_page() -> str:
    """Return the op table by family, then the functions and modules made of ops."""
    parts = [NOTE, OPS_HEAD]
    for family, members in groupby(TABLE.values(), family_of):
        rows = [
            (
                f"`{op.name}`",
                operand_types(op),
                type(op.kind).__name__,
                gradient_of(op),
                one_line(op),
            )
            for op in members
        ]
        titles = ("op", "operands", "kind", "gradient", "meaning")
        parts.append(f"## {title_of(family)}\n\n{table(titles, rows)}")
    parts.append(FUNCTIONS_HEAD)
    parts.append(table(("function", "meaning"), function_rows()))
    for name, module in (
        ("asg.nn", nn),
        ("asg.nn.functional", nn.functional),
        ("asg.optim", optim),
    ):
        parts.append(f"## `{name}`\n\n{table(('name', 'meaning'), member_rows(module))}")
    return "\n".join(parts)


def family_of(op: Op) -> ModuleType:
    """Return the module of asg/ops/ in which an op is defined."""
    for module in vars(ops).values():
        if isinstance(module, ModuleType) and op in getattr(module, "OPS", ()):
            return module
    raise LookupError(f"{op.name} is in OPS of no module under asg/ops/")


def title_of(module: ModuleType) -> str:
    """Return a heading: a module's file, and what its docstring opens with."""
    opening = re.match(r"[^:.]*", module.__doc__ or "")
    assert opening is not None
    return f"{opening[0]} (`asg/ops/{module.__name__.rpartition('.')[2]}.py`)"


SORTS = {
    "float": {dtype for dtype in DType if dtype.is_float},
    "integer": {dtype for dtype in DType if dtype.is_integer},
    "signed": {dtype for dtype in DType if dtype.is_integer and dtype.is_signed},
}


def operand_types(op: Op) -> str:
    """Return the element types that an op accepts, by asking its type rule.

    The sample with most element types says which operands share one. Each of these types is
    replaced by every other, and what the rule does not refuse is accepted.
    """
    samples = [(sample, [parse_type(text) for text in sample.types]) for sample in op.samples]
    if not any(types for _, types in samples):
        return "none"
    sample, types = max(samples, key=lambda pair: len({each.dtype for each in pair[1]}))
    attrs = sample.attrs or {}
    groups: list[str] = []
    results: set[DType] = set()
    for dtype in dict.fromkeys(each.dtype for each in types):
        accepted = accepted_types(op, types, attrs, dtype)
        groups.append(names_of(accepted))
        results.update(result for given, result in accepted.items() if given is not result)
    if "dtype" in attrs:
        return f"{'; '.join(groups)} → `dtype`"
    return (
        groups[0] + f" → {names_of(results)}" if results and not groups[1:] else "; ".join(groups)
    )


def accepted_types(
    op: Op, types: Sequence[TensorType], attrs: Attrs, replaced: DType
) -> dict[DType, DType]:
    """Return what an op takes in the place of an element type, with that of the result."""
    found: dict[DType, DType] = {}
    for dtype in DType:
        tried = [replace(each, dtype=dtype) if each.dtype is replaced else each for each in types]
        try:
            result = op.shape(tuple(tried), attrs)
        except AsgError:
            continue
        found[dtype] = (result[0] if isinstance(result, tuple) else result).dtype
    return found


def names_of(dtypes: Collection[DType]) -> str:
    """Return the names of element types, `any` for all of them, and of sorts of them."""
    if len(dtypes) == len(DType):
        return "any"
    names: list[str] = []
    rest = set(dtypes)
    for name, members in SORTS.items():
        if rest.issuperset(members):
            names.append(name)
            rest -= members
    return " ".join([*names, *(str(dtype) for dtype in DType if dtype in rest)])


def gradient_of(op: Op) -> str:
    """Return `yes`, or why an op has no gradient."""
    if isinstance(op.kind, Source):
        return ""
    if not isinstance(op.grad, NoGradient):
        return "yes"
    return f"none: {op.grad.reason}" if op.grad.is_zero else f"refused: {op.grad.reason}"


def one_line(documented: object) -> str:
    """Return the first paragraph of a docstring, fit for a table."""
    text = documented.doc if isinstance(documented, Op) else documented.__doc__ or ""
    return text.strip().split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def function_rows() -> Iterator[tuple[str, str]]:
    """Yield the functions of `asg` that are no ops, and those that are under another name."""
    for name in functions.__all__:
        function = getattr(functions, name)
        if not isinstance(function, Op):
            yield f"`{name}`", one_line(function)
        elif function.name != name:
            yield f"`{name}`", f"The op `{function.name}`."


def member_rows(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the classes and functions that a module exports, or else defines."""
    exported = getattr(module, "__all__", None)
    for name, member in vars(module).items():
        is_own = getattr(member, "__module__", None) == module.__name__ and name[0] != "_"
        if callable(member) and (name in exported if exported is not None else is_own):
            yield f"`{name}`", one_line(member)


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def command_page() -> str:
    """Return the help of every command, as the command line prints it."""
    parts = [f"{NOTE}\n# Command line\n"]
    for title, text in help_texts(command_line, "asg"):
        parts.append(f"## {title}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def help_texts(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each command's name and help, the outer ones first, with the settings that apply."""
    settings = {"max_content_width": 90, "terminal_width": 90, **command.context_settings}
    context = click.Context(command, parent, info_name=name, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from help_texts(found, inner, context)


RESULTS = DOCS.parent / "benchmarks" / "results" / "onnx_backend.json"
EXPORTED = DOCS.parent / "tests" / "onnx" / "kernels.json"
OUTCOMES = ("wrong", "refused", "failed", "crashed")

ONNX_HEAD = """\
# ONNX

`asg.onnx.load` takes models of opset 7 and newer; `asg.onnx.check` and `asg compile` list every
node that can't be compiled before anything runs. This page counts the node tests of the `onnx`
package: those about numbers (no strings, sequences or optionals as inputs or results, no floats or
integers below 8 bits, no complex numbers, no random operators, no branches or loops that inputs
decide). A test is passed where all results have the right types and shapes, and values within the
suite's own tolerances; tests of float64 are computed in f32.
`python benchmarks/onnx_backend.py --write` runs them, each by itself, on the software driver.

Steps of softmax and attention in 16-bit types are rounded where ONNX's definitions have them; sums
of bf16 are rounded for every eight neighbours. The inverse transform of the DFT tests is the one of
NumPy in f32, with the rounding errors that its zeros have.

*wrong*: an answer that is not the right one. *refused*: an error before anything ran, by those that
have one of their own. *failed*: any other error. *crashed*: the process died, or took too long.
"""


RECOGNISED_HEAD = """\
## Kernels of exported models

Exporters spell out attention, norms and activations in small ops; `Recognise` puts them together
([architecture.md](architecture.md#recognition-is-exact-or-leaves-things-alone)). Kernels of small
models as PyTorch exports them (tests/onnx/models), with a loss, and of their gradients by all
parameters, for graphics cards: left as they are, and recognised. Fusion makes one kernel of the
parts of a norm, a softmax or a gelu in any case, so what is saved is attention's, and gradients'.
`gpt2_block` and `gpt2_block_script` are one block, by PyTorch's newer and its older exporter:
without the loss it takes 7 kernels, as `asg.nn.TransformerBlock` does.
"""


def onnx_page() -> str:
    """Return the page."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    ops: Mapping[str, str] = found["ops"]
    contestants: Mapping[str, Any] = found["contestants"]
    parts = [NOTE, ONNX_HEAD, *_contestants(contestants, len(ops))]
    if "asg" in contestants:
        faults = contestants["asg"]["faults"]
        parts += [*_faults(faults), *_by_op(ops, faults)]
    parts += ["", *_exported(json.loads(EXPORTED.read_text(encoding="utf-8")))]
    return "\n".join(parts) + "\n"


def _exported(record: Mapping[str, Any]) -> list[str]:
    lines = [RECOGNISED_HEAD, "| model | forward | now | gradient | now | recognised |"]
    lines.append("| --- | --: | --: | --: | --: | --- |")
    for name, each in record.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in each["recognised"].items())
        numbers = " | ".join(str(count) for count in (*each["forward"], *each["gradient"]))
        lines.append(f"| {name} | {numbers} | {kinds} |")
    return lines


def _contestants(contestants: Mapping[str, Any], total: int) -> list[str]:
    lines = [f"## {total} tests", "", f"| | version | passed | {' | '.join(OUTCOMES)} | % |"]
    lines.append("| --- | --- | --: | --: | --: | --: | --: | --: |")
    for name, each in contestants.items():
        counts = Counter(fault["result"] for fault in each["faults"].values())
        passed = total - len(each["faults"])
        numbers = " | ".join(str(counts[kind]) for kind in OUTCOMES)
        share = 100 * passed / total
        lines.append(f"| {name} | {each['version']} | {passed} | {numbers} | {share:.1f} |")
    return [*lines, ""]


def _faults(faults: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = ["## What does not pass", "", "| test | result | why |", "| --- | --- | --- |"]
    for name, fault in sorted(faults.items()):
        why = fault["why"].replace("|", "\\|")
        lines.append(f"| {name} | {fault['result']} | {why} |")
    return [*lines, ""]


def _by_op(ops: Mapping[str, str], faults: Mapping[str, Any]) -> list[str]:
    totals, passed = Counter(ops.values()), Counter(op for n, op in ops.items() if n not in faults)
    lines = ["## By operator", "", "*(spelt out)*: tests of one operator as a model of others.", ""]
    lines += ["| operator | tests | passed |", "| --- | --: | --: |"]
    lines += [f"| {op} | {totals[op]} | {passed[op]} |" for op in sorted(totals)]
    return lines


GRADIENTS_HEAD = """\
# Gradients

`asg.grad` differentiates graphs; which op has a rule says [ops.md](ops.md). Every rule is tested
against central differences in float64, and every differentiable op and public function against the
gradients and second derivatives that PyTorch computes in float64 (`tests/references/gradients.npz`,
made by `make_torch_gradients.py` beside it): a new op without a case fails the tests. Numbers agree
to 1e-11 in the interpreter, but for what constants of f32 are off by, and on devices to what
rounding explains.

Where a function has a corner, its gradient there is PyTorch's: `abs`, `relu`, `sign` and `l1_loss`
have 0 at 0; `maximum` and `minimum` give each of two equals half, `max` and `min` share among all
equals; pooling, `cummax`, `sort` and `topk` give all to the element that they chose; `clip` has 1
on its bounds; the standard deviation of equal numbers has 0; `pow` has 0 at the power 0. What
`where` does not take still multiplies its slope by 0, and so is NaN where that slope is infinite.
"""


def gradients_page() -> str:
    """Return what gradients are tested against, and where they depart from PyTorch's."""
    titles = ("function", "where", "PyTorch", "ASG", "why")
    rows = [
        (", ".join(f"`{name}`" for name in each.functions), each.where, each.pytorch, each.here,
         each.reason)
        for each in DEPARTURES
    ]  # fmt: skip
    return f"{NOTE}\n{GRADIENTS_HEAD}\n## Departures from PyTorch\n\n{table(titles, rows)}"


CONTRACT_BEGIN = "<!-- Printed from asg/contract.py. -->\n"
CONTRACT_END = "<!-- End of what is printed. -->\n"


def numerics_page() -> str:
    """Return the page with the promises of all ops between its marks."""
    text = (DOCS / "numerics.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(CONTRACT_BEGIN)
    _, _, after = rest.partition(CONTRACT_END)
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for name, each in contracts().items():
        key = (each.bound.text, each.special, each.integers)
        grouped.setdefault(key, []).append(f"`{name}`")
    rows = [(", ".join(names), *map(escaped, key)) for key, names in grouped.items()]
    titles = ("op", "largest error", "NaN and infinities", "integers that do not fit")
    made = [(f"`{name}`", escaped(each.text)) for name, each in FUNCTIONS.items()]
    tables = f"{table(titles, rows)}\n{table(('function', 'largest error'), made)}"
    return f"{before}{CONTRACT_BEGIN}\n{tables}\n{CONTRACT_END}{after}"


def escaped(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "ops.md": ops_page,
    "commands.md": command_page,
    "onnx.md": onnx_page,
    "gradients.md": gradients_page,
    "numerics.md": numerics_page,
}


if __name__ == "__main__":
    sys.exit(main())
