"""Names of people as they type them: cleaned for keeping, and folded for telling whether two may be the same."""

from __future__ import annotations

import unicodedata
from typing import Final

from forcelift.errors import UsageError

NAME_BYTES_MAX: Final = 255


def clean_name(text: str, *, who: str, option: str = "--name") -> str:
    """A name as it is kept: composed, with single blanks.

    Args:
        who: Whose name it is, for the error, such as `who signs`.
        option: Where it is said.
    Raises:
        UsageError: Nothing of it is a letter or digit, it is longer than its column, or it holds control characters or
            such as turn the direction of writing.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not folded(name):
        raise UsageError(f"{who} has a name", state="nothing was changed", hint=f"say it by `{option}`")
    if not name.isprintable() and any(unicodedata.category(one) == "Cc" or one in _TURNING for one in name):
        raise UsageError(
            f"the name of {who} holds characters that do not print", state="nothing was changed", hint="type it anew"
        )
    if len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX:
        raise UsageError(
            f"the name of {who} is longer than {NAME_BYTES_MAX} bytes",
            state="nothing was changed",
            hint="shorten it; a note takes more",
        )
    return name


def folded(name: str) -> str:
    """Letters and digits alone, in one case and width: equal for `A. Person`, `a.person` and full-width letters."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(one for one in plain if unicodedata.category(one)[0] in "LNM")


# Marks that make a text show in another order than it is kept.
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
