"""Everything there is to see of a compiled model as one HTML page, which needs nothing else.

What is shown comes from the artefact: totals, entries, kernels with their text and the source
lines they compute, the memory plan. The texts of the passes come with it where they are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from asg.artefact import Artefact, Dispatch, Entry, Kernel, Variant
from asg.plan_view import PlanView
from asg.report_view import entry_rows, figures

_STYLE = """
:root { color-scheme: light dark; --line: #d7dbe0; --soft: #f5f7f9; --text: #1f2328;
  --dim: #656d76; --accent: #0969da; --back: #ffffff; --word: #8250df; --number: #0550ae;
  --note: #6e7781; }
@media (prefers-color-scheme: dark) { :root { --line: #343b44; --soft: #161b22;
  --text: #e6edf3; --dim: #8b949e; --accent: #58a6ff; --back: #0d1117; --word: #d2a8ff;
  --number: #79c0ff; --note: #8b949e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px;
  border-bottom: 1px solid var(--line); padding-bottom: 4px; }
h3 { font-size: 15px; margin: 20px 0 6px; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.dim { color: var(--dim); } nav a { margin-right: 14px; }
.totals { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.totals div { border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px;
  background: var(--soft); min-width: 150px; }
.totals b { display: block; font-size: 20px; } .totals span { color: var(--dim); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--dim); font-weight: 600; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { display: inline-block; height: 8px; background: var(--accent); border-radius: 2px;
  opacity: 0.6; vertical-align: middle; }
.scroll { overflow-x: auto; }
details { border: 1px solid var(--line); border-radius: 8px; margin: 8px 0; padding: 6px 12px; }
details[open] { padding-bottom: 12px; } details:target { border-color: var(--accent); }
summary { cursor: pointer; font-weight: 600; } summary .dim { font-weight: 400; }
pre { background: var(--soft); border-radius: 6px; padding: 12px; overflow-x: auto; margin: 8px 0;
  font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre i { color: var(--note); font-style: normal; } pre b { color: var(--word); font-weight: 500; }
pre u { color: var(--number); text-decoration: none; }
ul.lines { margin: 4px 0; padding-left: 20px; } ul.lines li { font-family: ui-monospace,
  Menlo, Consolas, monospace; font-size: 13px; }
svg { max-width: 100%; height: auto; border-radius: 6px; }
"""

# A link to a kernel opens what it points at.
_SCRIPT = """
function show() {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found && found.tagName === "DETAILS") { found.open = true; found.scrollIntoView(); }
}
addEventListener("hashchange", show);
show();
"""

_WGSL = re.compile(
    r"(?P<note>//[^\n]*)"
    r"|(?P<word>@\w+|\b(?:fn|let|var|const|if|else|for|while|loop|return|struct|switch|case|"
    r"default|break|continue|array|vec[234][fiu]?|f32|i32|u32|bool|storage|workgroup|read_write|"
    r"read|function|private|override|true|false)\b)"
    r"|(?P<number>\b\d[\w.]*)"
)
_GRAPH = re.compile(
    r"(?P<note>#[^\n]*)"
    r"|(?P<word>\b(?:graph|return|update|parameter|state)\b)"
    r"|(?P<number>\b(?:f32|i32|u32|bool)\[[^\]]*\])"
)
_TAGS = {"note": "i", "word": "b", "number": "u"}


def html_report(artefact: Artefact, passes: Mapping[str, Mapping[str, str]], title: str) -> str:
    """Return the page. `passes` has for each entry the graph's text after each pass."""
    sections = [
        ("entries", "Entries", _entries(artefact)),
        ("kernels", "Kernels", _kernels(artefact)),
        ("memory", "Memory", _memory(artefact)),
    ]
    if passes:
        sections.append(("passes", "Passes", _passes(passes)))
    links = " ".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    body = "\n".join(f'<h2 id="{key}">{name}</h2>\n{text}' for key, name, text in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: what ASG made of it</title>\n<style>{_STYLE}</style>\n"
        f"</head>\n<body>\n<h1>{escape(title)}</h1>\n<nav>{links}</nav>\n"
        f"{_totals(artefact.report)}\n{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _totals(report: Mapping[str, Any]) -> str:
    boxes = "".join(
        f"<div><b>{escape(figure.value)}</b><span>{escape(figure.label)}"
        f"{'; ' + escape(figure.remark) if figure.remark else ''}</span></div>"
        for figure in figures(report)
    )
    rows = entry_rows(report)
    parts = [f'<div class="totals">{boxes}</div>']
    if len(rows) > 2:  # a heading, and more than one entry
        parts.append(table([f">{title}" if title != "entry" else title for title in rows[0]],
                           rows[1:]))  # fmt: skip
    return "".join(parts)


def _entries(artefact: Artefact) -> str:
    parts = []
    for name, entry in artefact.entries.items():
        parts.append(f"<h3>{escape(name)}</h3>\n{_signature(artefact, entry)}")
        if name in artefact.sources:
            count = artefact.sources[name].count("\n")
            parts.append(
                f"<details><summary>graph <span class='dim'>{count} lines</span></summary>"
                f"{code(artefact.sources[name], _GRAPH)}</details>"
            )
        parts.append(_steps(artefact, entry))
    return "\n".join(parts)


def _signature(artefact: Artefact, entry: Entry) -> str:
    rows = [("input", slot.name, str(slot.type)) for slot in entry.inputs]
    rows += [("output", slot.name, str(slot.type)) for slot in entry.outputs]
    text = table(("role", "name", "type"), rows)
    if not entry.updates:
        return text
    types = {slot.name: str(slot.type) for slot in artefact.persistent}
    updates = [
        (name, artefact.roles[name], types[name], value) for name, value in entry.updates.items()
    ]
    return (
        f"{text}\n<details><summary>state that a run changes <span class='dim'>{len(updates)}"
        f"</span></summary>{table(('name', 'role', 'type', 'becomes'), updates)}</details>"
    )


def _steps(artefact: Artefact, entry: Entry) -> str:
    rows = []
    for position, step in enumerate(entry.steps):
        what = "copy"
        if isinstance(step, Dispatch):
            what = _link(step.kernel)
        names = escape(", ".join(step.reads)), escape(", ".join(step.writes))
        rows.append(f"<tr><td class='number'>{position}</td><td>{what}</td>"
                    f"<td>{names[0]}</td><td>{names[1]}</td></tr>")  # fmt: skip
    return (
        f"<details><summary>steps <span class='dim'>{len(rows)}</span></summary>"
        "<div class='scroll'><table><tr><th class='number'>step</th><th>kernel</th><th>reads</th>"
        f"<th>writes</th></tr>{''.join(rows)}</table></div></details>"
    )


def _link(kernel: str) -> str:
    name = escape(kernel, quote=True)
    return f'<a href="#kernel-{name}">{name}</a>'


def _kernels(artefact: Artefact) -> str:
    counts: dict[str, int] = dict.fromkeys(artefact.kernels, 0)
    for entry in artefact.entries.values():
        for step in entry.steps:
            if isinstance(step, Dispatch):
                counts[step.kernel] += 1
    most = max((kernel.bytes_moved for kernel in artefact.kernels.values()), default=1) or 1
    rows = "".join(
        f"<tr><td>{_link(name)}</td><td>{escape(kernel.kind)}</td>"
        f"<td class='number'>{counts[name]}</td><td class='number'>{kernel.bytes_moved:,}</td>"
        f"<td><span class='bar' style='width:{120 * kernel.bytes_moved / most:.0f}px'></span></td>"
        f"<td class='number'>{kernel.flops:,}</td>"
        f"<td class='dim'>{escape(kernel.variants[0].schedule)}</td></tr>"
        for name, kernel in artefact.kernels.items()
    )
    head = (
        "<tr><th>kernel</th><th>class</th><th class='number'>dispatches</th>"
        "<th class='number'>bytes</th><th></th><th class='number'>flops</th><th>schedule</th></tr>"
    )
    details = "\n".join(_kernel(kernel) for kernel in artefact.kernels.values())
    return f"<div class='scroll'><table>{head}{rows}</table></div>\n{details}"


def _kernel(kernel: Kernel) -> str:
    name = escape(kernel.name, quote=True)
    lines = "".join(f"<li>{escape(site)}</li>" for site in kernel.sites)
    lines = lines or "<li class='dim'>no source lines are known</li>"
    last = len(kernel.variants) - 1
    variants = "".join(
        _variant(variant, position == last) for position, variant in enumerate(kernel.variants)
    )
    return (
        f'<details id="kernel-{name}"><summary>{name} <span class="dim">{escape(kernel.kind)}; '
        f"{escape(', '.join(kernel.nodes))}</span></summary>"
        f"<ul class='lines'>{lines}</ul>{variants}</details>"
    )


def _variant(variant: Variant, is_last: bool) -> str:
    needs = ", ".join(variant.features)
    if variant.subgroup_size:
        needs += f"{', ' if needs else ''}subgroups of {variant.subgroup_size}"
    title = "portable" if is_last and not needs else f"needs {needs or 'nothing'}"
    groups = " × ".join(map(str, variant.workgroups))
    return (
        f"<p class='dim'>{escape(title)}; {escape(variant.schedule)}; {groups} workgroups</p>"
        f"{code(variant.wgsl, _WGSL)}"
    )


def _memory(artefact: Artefact) -> str:
    plan = artefact.report.get("plan")
    if not plan:
        return "<p class='dim'>The bundle has no memory plan.</p>"
    view = PlanView.from_report(plan)
    buffers = table(
        ("buffer", "role", ">bytes"),
        [(each["name"], each["role"], f"{each['size']:,}") for each in view.buffers],
    )
    pictures = "\n".join(view.to_svg(name) for name in view.entries)
    return (
        f"{buffers}\n{pictures}\n<details><summary>table</summary>"
        f"<pre>{escape(str(view))}</pre></details>"
    )


def _passes(passes: Mapping[str, Mapping[str, str]]) -> str:
    parts = []
    for entry, texts in passes.items():
        parts.append(f"<h3>{escape(entry)}</h3>")
        before: str | None = None
        for name, text in texts.items():
            note = "changed nothing" if text == before else f"{text.count(chr(10))} lines"
            parts.append(
                f"<details><summary>{escape(name)} <span class='dim'>{note}</span></summary>"
                f"{code(text, _GRAPH)}</details>"
            )
            before = text
    return "\n".join(parts)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; columns whose title begins with `>` hold numbers."""
    titles = list(columns)
    marks = [" class='number'" if title.startswith(">") else "" for title in titles]
    head = "".join(
        f"<th{mark}>{escape(title.removeprefix('>'))}</th>"
        for title, mark in zip(titles, marks, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(
            f"<td{mark}>{escape(cell)}</td>" for cell, mark in zip(row, marks, strict=True)
        ) + "</tr>"
        for row in rows
    )  # fmt: skip
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"


def code(text: str, grammar: re.Pattern[str]) -> str:
    """Return code with its comments, words and numbers marked."""
    parts: list[str] = []
    reached = 0
    for match in grammar.finditer(text):
        tag = _TAGS[match.lastgroup or "note"]
        parts.append(escape(text[reached : match.start()]))
        parts.append(f"<{tag}>{escape(match[0])}</{tag}>")
        reached = match.end()
    parts.append(escape(text[reached:]))
    return f"<pre>{''.join(parts)}</pre>"
