"""Plots as SVG inside a page: no script, no file beside it; colours come from the page's style."""

from __future__ import annotations

from html import escape
from typing import Final

from forcelift.before.profile.records import Histogram

_WIDTH: Final = 300.0
_HEIGHT: Final = 72.0
_GAP: Final = 2.0
_BAR_WIDEST: Final = 26.0
_BAR_LEAST: Final = 1.5  # a bar of a single row among millions can still be seen


def bars(histogram: Histogram, *, label: str, limit: int | None = None) -> str:
    """A histogram as bars.

    Args:
        label: What is shown, for who cannot see it.
        limit: The longest text that the field takes; bars beyond it are marked.
    """
    shown = histogram.bars
    most = max(bar.rows for bar in shown) or 1
    step = min(_BAR_WIDEST, _WIDTH / len(shown))
    parts = []
    for place, bar in enumerate(shown):
        if not bar.rows:
            continue
        height = max(_BAR_LEAST, bar.rows / most * _HEIGHT)
        is_over = limit is not None and bar.high.isdigit() and int(bar.high) > limit
        name = bar.low if bar.low == bar.high else f"{bar.low} – {bar.high}"
        parts.append(
            f'<rect class="{"over" if is_over else "bar"}" x="{place * step:.2f}" y="{_HEIGHT - height:.2f}"'
            f' width="{max(1.0, step - _GAP):.2f}" height="{height:.2f}" rx="1.5">'
            f"<title>{escape(name)}: {bar.rows:,}</title></rect>"
        )
    low, high = shown[0].low, shown[-1].high
    used = f"width:{len(shown) * step / _WIDTH:.1%}"
    edges = f"<span>{escape(low)}</span><span>{escape(high)}</span>" if low != high else f"<span>{escape(low)}</span>"
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(label)}"'
        f' preserveAspectRatio="none">{"".join(parts)}'
        f'<line class="axis" x1="0" y1="{_HEIGHT}" x2="{_WIDTH:.0f}" y2="{_HEIGHT}"/></svg>'
        f'<div class="edges" style="{used}">{edges}</div>'
    )
