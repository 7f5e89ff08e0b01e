"""The results as a picture: bars in SVG, written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from report import TITLES, contestants, in_units, title

WIDTH, LEFT, BAR, GAP = 860, 190, 18, 16
RIGHT = 140  # for the numbers behind the bars
COLOURS = {
    "asg": "#2563eb", "tinygrad": "#d97706", "onnxruntime": "#0d9488", "wonnx": "#be185d",
    "torch": "#7c3aed", "jax": "#65a30d",
}  # fmt: skip
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2937; }
.quiet { fill: #6b7280; } .axis { stroke: #9ca3af; }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb; } .quiet { fill: #9ca3af; }
}"""


def draw(results: Mapping[str, Any]) -> str:
    """Return bars of how fast every contestant is, ASG being 1, with the times behind them."""
    names = contestants(results)
    lines: list[str] = []
    y = 64
    speeds = [
        1.0 / result["ratio"]
        for facts in results["tasks"].values()
        for result in facts["contestants"].values()
        if "ratio" in result
    ]
    # Contestants that are faster by far would squeeze the others; their bars end at the border.
    scale = (WIDTH - LEFT - RIGHT) / min(max([1.0, *speeds]), 4.0)
    for task, facts in results["tasks"].items():
        found = {name: facts["contestants"][name] for name in names if name in facts["contestants"]}
        if "asg" not in found:
            continue
        middle = y + len(found) * BAR / 2 + 4
        lines.append(text(LEFT - 12, middle, title(task), "end"))
        for name, result in found.items():
            speed = 1.0 / result.get("ratio", 1.0)
            lines.append(bar(y, name, speed, scale, result["median_s"]))
            y += BAR
        y += GAP
    body = "\n".join([*legend(names), *lines, axis(56, y - GAP + 8)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">\n'
        f"<title>Speed relative to ASG</title>\n<style>\n{STYLE}\n</style>\n{body}\n</svg>\n"
    )


def bar(y: float, name: str, speed: float, scale: float, seconds: float) -> str:
    width = min(max(1.0, speed * scale), WIDTH - LEFT - RIGHT)
    label = in_units(seconds) + ("" if name == "asg" else f" ({speed:.2g}×)")
    return (
        f'<rect x="{LEFT}" y="{y + 1:g}" width="{width:.1f}" height="{BAR - 2}" rx="2" '
        f'fill="{COLOURS[name]}"/>' + text(LEFT + width + 6, y + BAR - 4, label, kind="quiet")
    )


def legend(names: list[str]) -> list[str]:
    lines = [text(LEFT, 18, "Speed relative to ASG: longer is faster")]
    for position, name in enumerate(names):
        x = LEFT + 130 * position
        lines.append(
            f'<rect x="{x}" y="30" width="12" height="12" rx="2" fill="{COLOURS[name]}"/>'
            + text(x + 18, 41, TITLES[name])
        )
    return lines


def axis(top: float, bottom: float) -> str:
    return f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{top:g}" y2="{bottom:g}"/>'


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:g}" text-anchor="{anchor}"'
    return f"<text {place}{style}>{escape(content)}</text>"
