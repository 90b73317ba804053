"""The lines of `forcelift status` that say who signed, apart from what else sign-offs need."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from forcelift.account.signed import SignOff


def show_sign_offs(console: Console, found: Sequence[SignOff]) -> None:
    """The line of `status`: who signed, and loudly what is out of date."""
    for one in found:
        words = f"signed off {one.phase} by {one.name} ({one.role}), {one.at:%Y-%m-%d %H:%M} UTC"
        if one.why_stale is None:
            console.print(words)
        else:
            console.print(Text(f"{words}: OUT OF DATE, {one.why_stale}", style="bold red"))
