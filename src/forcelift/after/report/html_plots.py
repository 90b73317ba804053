"""The report's plots: shapes as SVG that stretch with the page, and their words as text beside them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH: Final = 600.0
_HEIGHT: Final = 180.0
_LEAST: Final = 0.6  # percent of a bar's width: one row among millions can still be seen


def ticks(most: float, count: int = 4) -> list[float]:
    """Round figures from 0 to the first at or above `most`."""
    if most <= 0:
        return [0.0, 1.0]
    size = 10.0 ** (len(str(int(most / count))) - 1) if most / count >= 1 else 1.0
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10, 20) if size * factor * count >= most)
    found = [0.0]
    while found[-1] < most:
        found.append(found[-1] + step)
    return found


def short(number: float) -> str:
    """A figure on an axis: `0`, `750`, `1.5 k`, `20 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g} {unit}"
    return f"{number:g}"


def area(
    values: Sequence[float],
    *,
    label: str,
    kind: str,
    edges: Sequence[str],
    rises: bool = False,
    line: tuple[float, str] | None = None,
) -> str:
    """Values of bins of equal length, from left to right.

    Args:
        label: What is shown, for who cannot see it.
        kind: The class of the shape, for its colour.
        edges: Words under the plot, evenly spread.
        rises: Whether a value is what was reached at the end of its bin: then a line that begins at nothing.
        line: A value that is marked across the plot, and its word.
    """
    marks = ticks(max([*values, line[0] if line is not None else 0.0]))
    most = marks[-1]
    step = _WIDTH / len(values)

    def y(value: float) -> float:
        return _HEIGHT - value / most * _HEIGHT

    if rises:
        points = [(0.0, y(0)), *(((place + 1) * step, y(value)) for place, value in enumerate(values))]
    else:
        points = [
            point
            for place, value in enumerate(values)
            for point in ((place * step, y(value)), ((place + 1) * step, y(value)))
        ]
    path = "L".join(f"{x:.1f} {height:.1f}" for x, height in points)
    grid = "".join(f'<line class="grid" x1="0" x2="{_WIDTH:g}" y1="{y(one):.1f}" y2="{y(one):.1f}"/>' for one in marks)
    mark = name = ""
    if line is not None:
        mark = f'<line class="mark" x1="0" x2="{_WIDTH:g}" y1="{y(line[0]):.1f}" y2="{y(line[0]):.1f}"/>'
        name = f'<span class="named" style="bottom:{line[0] / most:.2%}">{escape(line[1])}</span>'
    scale = "".join(f'<span style="bottom:{one / most:.2%}">{short(one)}</span>' for one in marks)
    return (
        f'<div class="plot" role="img" aria-label="{escape(label)}"><div class="scale" aria-hidden="true">{scale}</div>'
        f'<div class="field" aria-hidden="true"><svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none">'
        f'{grid}<path class="fill {kind}" d="M0 {_HEIGHT:g}L{path}L{_WIDTH:g} {_HEIGHT:g}Z"/>'
        f'<path class="stroke {kind}" d="M{path}"/>{mark}</svg>{name}</div>'
        f'<div class="edges" aria-hidden="true">{"".join(f"<span>{escape(one)}</span>" for one in edges)}</div></div>'
    )


def widths(amounts: Sequence[float], whole: float) -> list[float]:
    """Each part's width in percent of a bar. The smallest part can be seen, and all together never exceed the bar."""
    found = [max(_LEAST, amount / whole * 100) if amount > 0 and whole > 0 else 0.0 for amount in amounts]
    excess = sum(found) - 100
    if excess > 0:
        found[found.index(max(found))] -= excess
    return found


def stacked(parts: Sequence[tuple[str, float, str]], *, whole: float, label: str, thin: bool = False) -> str:
    """One bar of parts: class, amount and title of each; what is left of `whole` stays empty."""
    shapes, at = [], 0.0
    for (kind, _, title), width in zip(parts, widths([amount for _, amount, _ in parts], whole), strict=True):
        if width:
            shapes.append(
                f'<rect class="{kind}" x="{at:.3f}" y="0" width="{width:.3f}" height="10">'
                f"<title>{escape(title)}</title></rect>"
            )
            at += width
    return (
        f'<svg class="stacked{" thin" if thin else ""}" viewBox="0 0 100 10" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}"><rect class="rest" x="0" y="0" width="100" height="10"/>{"".join(shapes)}</svg>'
    )


def mark(kind: str) -> str:
    """A sign beside a word that says the same: a tick, a cross, an exclamation mark, or a ring."""
    shapes = {
        "good": '<path d="M4.5 8.3l2.4 2.4 4.6-5"/>',
        "bad": '<path d="M5.3 5.3l5.4 5.4M10.7 5.3l-5.4 5.4"/>',
        "warn": '<path d="M8 4.2v4.6M8 11.4v.2"/>',
        "told": '<path d="M8 5v3.2l2 1.4"/>',
    }
    return (
        f'<svg class="sign {kind}" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="7.5"/>'
        f"{shapes[kind]}</svg>"
    )
