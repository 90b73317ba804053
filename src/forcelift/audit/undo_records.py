"""What is recorded of images taken before a load, and of rollbacks, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from forcelift.audit.records import Part


class TableImage(Struct, frozen=True, kw_only=True):
    """Whether a table's object held records before the batch touched it; the file that its chunks share, if any."""

    batch_id: str
    table_name: str
    held_records: bool
    decided_at: datetime
    file: str | None = None
    sha256: str | None = None
    rows: int | None = None
    asked_at: datetime | None = None  # just before the query of the file


class BeforeImage(Struct, frozen=True, kw_only=True):
    """The records of a chunk's keys as they stood before its first job; no file where the object held none at all."""

    audit_id: int
    generation: int
    file: str | None
    sha256: str | None
    rows: int
    taken_at: datetime


class Rollback(Struct, frozen=True, kw_only=True):
    """One rollback of a batch or a part of it; `step` is the last of the checklist's nine that is done."""

    rollback_no: int
    batch_id: str
    scope: Mapping[str, Any]
    reason: str
    asked_by: str
    began_at: datetime
    step: int
    ended_at: datetime | None = None
    result: Mapping[str, Any] | None = None


class RollbackChunk(Struct, frozen=True, kw_only=True):
    """What a rollback does to a chunk. `step` is `sealed`, and `settled` once it is written down what became of it."""

    rollback_no: int
    audit_id: int
    decisions_file: str
    decisions_sha256: str
    restores: tuple[Part, ...]
    deletes: tuple[Part, ...]
    step: str = "sealed"
