"""What a place offers that keeps copies of its own tables: a copy within a condition, its rows counted, and its end.

The one thing of a source that writes. A copy is made whole or not at all, and never over something that is there.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Room(Struct, frozen=True, kw_only=True):
    """Whether a copy fits, in bytes.

    Attributes:
        needed: What it takes at most; None if nobody can tell.
        free: What is free where it goes; None if the place does not show it.
        where: What the free bytes are of, in words.
        needed_by_all: What copies of all tables of the place take together at most, where that is known.
    """

    needed: int | None
    free: int | None
    where: str
    needed_by_all: int | None = None


class Copied(Struct, frozen=True, kw_only=True):
    """A copy that was made.

    Attributes:
        rows: In the copy, counted.
        source_rows: In the table within the condition, counted apart, in the same state where there is one.
        is_one_state: Whether both were counted in one state; else the table was counted before, and might have changed.
        checksum: Of a copy of files, 64 hexadecimal digits.
    """

    rows: int
    source_rows: int
    is_one_state: bool
    checksum: str | None = None


class Backups(Protocol):
    """A place whose tables can be copied inside it.

    Raises (all methods): `SourceUnavailable` when it does not answer, `SourceError` when it refuses.
    """

    kind: str
    has_flashback: bool
    keeps_where: bool  # False: copies are whole tables, whatever the condition

    def name_for(self, table: str, suffix: str) -> str:
        """The copy's name: the table's with the suffix, in the same schema. Raises `SourceError` if it is too long."""
        ...

    def exists(self, name: str) -> bool: ...

    def room(self, table: str) -> Room: ...

    def copy(self, table: str, *, name: str, where: str | None, as_of: str | None) -> Copied:
        """Copy a table's rows. What does not match is taken away again and raises `SourceError`.

        Args:
            as_of: With `has_flashback`: an SCN, or a time in ISO 8601, at which the table is read.
        """
        ...

    def count(self, name: str) -> int:
        """Rows of a copy."""
        ...

    def drop(self, name: str) -> None: ...

    def close(self) -> None: ...
