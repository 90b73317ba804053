"""The frame of a page: its head, which forbids scripts and requests, and its body."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, *, style: str, body: Iterable[str], language: str = "en") -> str:
    """A page that can be mailed and opened anywhere.

    Args:
        title: Plain text.
        style: CSS.
        body: HTML, its values escaped already; empty parts are left out.
        language: Of its text, as browsers and screen readers want to know it.
    """
    parts = [
        "<!doctype html>",
        f'<html lang="{escape(language)}"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
        *body,
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def with_code(text: str) -> str:
    """Escaped, and what stands between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))
