"""Everything that a validation touches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import Struct

from forcelift.audit import AuditStore
from forcelift.audit.records import Batch, Chunk
from forcelift.jobs.work import TableWork
from forcelift.ledger import Ledger
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import FieldDescribe, Org
from forcelift.protocols.source import Source
from forcelift.rules import DuplicateDecisions, ParentKeys
from forcelift.storage import Storage

VARIANCE_PERCENT = Decimal("0.01")
SAMPLE_ROWS = 100
EXAMPLES_MAX = 10


class ValidateSettings(Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        variance_percent: A sum or an average may differ by less than so many percent.
        sample_rows, seed: How many keys level 3 takes, and which.
        named_max: Of how many records level 5 names each field; all are counted.
    """

    levels: tuple[int, ...] = (1, 2, 3, 4)
    tables: tuple[str, ...] = ()
    variance_percent: Decimal = VARIANCE_PERCENT
    sample_rows: int = SAMPLE_ROWS
    seed: int = 0
    named_max: int = 1000


class ValidateWorld(Struct, frozen=True, kw_only=True):
    """The batch that is looked at, both sides of it, and what is remembered.

    Attributes:
        merged: Gives what becomes of a table's repeated keys, by (table, all its chunks); None if none repeats.
        parents: Gives the keys of a lookup's parents by (parent object, key field, parent table).
        scratch: A folder on a disk with room, for what does not fit into memory.
        tell: Says a sentence to the person who waits.
        scans: What was read of the org for other batches of the same validation; None for a batch alone.
        read_again: Tables that a later batch has read as a whole: what the source has now is that batch's to compare.
    """

    batch: Batch
    source: Source
    org: Org
    audit: AuditStore
    storage: Storage
    ledger: Ledger
    clock: Clock
    works: Mapping[str, TableWork]
    parent_keys: Mapping[tuple[str, str], FieldDescribe]
    parents: Callable[[str, str, str | None], ParentKeys]
    merged: Callable[[str, Sequence[Chunk]], DuplicateDecisions | None]
    scratch: Path
    memory_mb: int
    batch_rows: int
    settings: ValidateSettings
    tell: Callable[[str], None]
    scans: SharedScans | None = None
    read_again: frozenset[str] = frozenset()


class SharedScans:
    """Readings of objects that several batches of a table are compared with, each made once and then removed."""

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[Any, Callable[[], None]]] = {}

    def find(self, key: Hashable) -> Any:
        """What was kept under that key; None if nothing."""
        return self._found.get(key, (None, None))[0]

    def keep(self, key: Hashable, scan: Any, remove: Callable[[], None]) -> None:
        """Keep a reading, and how it is removed."""
        self._found[key] = scan, remove

    def remove(self) -> None:
        """Remove what was kept."""
        for _, remove in self._found.values():
            remove()
        self._found.clear()
