"""Texts that fit their columns: cut by bytes at a character boundary, and names shortened without collisions.

A Thai letter has three bytes in UTF-8 and Oracle's VARCHAR2 counts bytes, so all sizes here are bytes.
"""

from __future__ import annotations

import hashlib
import re

from forcelift.audit.tables import BATCH_ID_BYTES, TABLE_NAME_BYTES

_NAME_HASH = 24
NULL_KEY = "(null key) row "
"""How RECORD_ID of a row without a key begins; the number of the row follows."""


def fit_text(text: str | None, size_bytes: int) -> str | None:
    """The longest start of `text` that has at most so many bytes in UTF-8."""
    if text is None:
        return None
    # A lone surrogate cannot be stored; the replacement mark stands for it.
    data = text.encode("utf-8", "replace")
    return data[:size_bytes].decode("utf-8", "ignore")


def short_name(name: str, size_bytes: int) -> str:
    """`name` if it fits, else its start and a hash of the whole.

    A name that looks like a shortened one is hashed too, so that no two names ever share a short form.
    """
    if len(name.encode()) <= size_bytes and not re.search(rf"~[0-9a-f]{{{_NAME_HASH}}}\Z", name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_NAME_HASH]
    return f"{fit_text(name, size_bytes - _NAME_HASH - 1)}~{digest}"


def short_batch_id(batch_id: str) -> str:
    """What stands in BATCH_ID: at most 50 bytes."""
    return short_name(batch_id, BATCH_ID_BYTES)


def short_table_name(table_name: str) -> str:
    """What stands in TABLE_NAME: at most 100 bytes."""
    return short_name(table_name, TABLE_NAME_BYTES)


def key_of(record_id: str) -> str | None:
    """The key that a RECORD_ID stands for which is not shortened; None for a row without a key."""
    return None if record_id.startswith(NULL_KEY) else record_id
