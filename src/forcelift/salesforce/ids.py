"""Salesforce's record ids: 15 characters that differ by case, or 18 with a checksum of the case. Pure."""

from __future__ import annotations

import re

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")


def is_id(text: str) -> bool:
    """True if the text has the form of an id."""
    return _ID.fullmatch(text) is not None


def id18(record_id: str) -> str:
    """The 18-character form. Each added character tells which of five characters are capital letters."""
    head = record_id[:15]
    groups = (head[start : start + 5] for start in (0, 5, 10))
    return head + "".join(
        _ALPHABET[sum(1 << bit for bit, letter in enumerate(group) if "A" <= letter <= "Z")] for group in groups
    )
