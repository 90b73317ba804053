"""One line cut into shares."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def shares(parts: Sequence[tuple[str, str, int]]) -> str:
    """One line cut into shares: class, word and rows of each. A share of few rows stays visible."""
    total = sum(rows for _, _, rows in parts)
    if not total:
        return ""
    pieces = "".join(
        f'<span class="{kind}" style="flex-grow:{rows / total:.6f}" title="{escape(word)}: {rows:,}"></span>'
        for kind, word, rows in parts
        if rows
    )
    legend = "".join(
        f'<span><i class="{kind}"></i>{escape(word)} <b>{rows:,}</b></span>' for kind, word, rows in parts if rows
    )
    return f'<div class="shares">{pieces}</div><div class="legend">{legend}</div>'
