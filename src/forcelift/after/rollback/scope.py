"""What a rollback is asked for, and the words for what it decides. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from forcelift.audit.records import Chunk
from forcelift.errors import UsageError
from forcelift.ledger import RECORD_GONE
from forcelift.storage import segment

_WAVE: Final = re.compile(r"\.delete\.w(\d{3})\.[^/]*$")

DELETE: Final = "delete"
RESTORE: Final = "restore"
KEEP: Final = "keep"
LEAVE: Final = "leave"
"""Actions. `keep` is told with a reason; `leave` was not asked for, or there is nothing to undo."""

REASONS: Final[Mapping[str, str]] = {
    "CHANGED_FIELDS": "a field that the batch wrote holds another value now",
    "CHANGED_LATER": "the record was changed after the batch had settled it",
    "CHILDREN_OF_OTHERS": "records that this rollback does not delete hang on it",
    "NO_IMAGE": "no before-image tells what it was",
    RECORD_GONE: "the record to be restored is not in the org any more",
    "NOT_DELETED": "the org still shows the record after its deletion was sent",
    "NOT_RESTORED": "the org does not show the earlier values after they were sent",
}
"""Why a record is kept. Others are the org's own codes, where it refused."""


class Scope(Struct, frozen=True, kw_only=True):
    """What is to be undone of a batch.

    Attributes:
        tables: Only these tables; all if empty.
        chunks: Only chunks with these numbers, of the one table named; all if empty.
        hard: Delete for good, past the recycle bin.
        since: Only created records whose `created_field` is not before; changed records are left as they are.
        created_field: The field that `since` is compared with, by table.
        all_records: With `since`: also records that this migration did not make, and those changed since.
    """

    tables: tuple[str, ...] = ()
    chunks: tuple[int, ...] = ()
    hard: bool = False
    since: datetime | None = None
    created_field: Mapping[str, str] | None = None
    all_records: bool = False

    @property
    def operation(self) -> str:
        return "hardDelete" if self.hard else "delete"

    def takes(self, table: str, chunk_no: int) -> bool:
        return (not self.tables or table in self.tables) and (not self.chunks or chunk_no in self.chunks)

    def check_known(self, batch_id: str, chunks: Iterable[Chunk]) -> None:
        """A name that is mistyped must not look like a rollback that had nothing to do.

        Raises:
            UsageError: The batch has no such table, or the table no such chunk.
        """
        numbers: dict[str, set[int]] = {}
        for chunk in chunks:
            numbers.setdefault(chunk.table_name, set()).add(chunk.chunk_no)
        for table in self.tables:
            if table not in numbers:
                raise UsageError(
                    f"batch `{batch_id}` has loaded no chunk of a table `{table}`",
                    state="nothing was changed",
                    hint=f"its tables are {', '.join(sorted(numbers)) or 'none'}",
                )
            if missing := sorted(set(self.chunks) - numbers[table]):
                raise UsageError(
                    f"table `{table}` of batch `{batch_id}` has no chunk {missing[0]}",
                    state="nothing was changed",
                    hint=f"its chunks are {min(numbers[table])} to {max(numbers[table])}",
                )

    def document(self) -> dict[str, Any]:
        """As the audit database keeps it."""
        return {
            "tables": list(self.tables),
            "chunks": list(self.chunks),
            "hard": self.hard,
            "since": self.since.isoformat() if self.since else None,
            "created_field": dict(self.created_field) if self.created_field else None,
            "all_records": self.all_records,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Scope:
        since = document.get("since")
        return cls(
            tables=tuple(document["tables"]),
            chunks=tuple(document["chunks"]),
            hard=bool(document["hard"]),
            since=datetime.fromisoformat(since) if since else None,
            created_field=document.get("created_field"),
            all_records=bool(document.get("all_records")),
        )


def rollback_folder(batch_id: str, rollback_no: int | None) -> str:
    """Where a rollback's sealed files lie in storage; None is for previews, each with a folder of its own below."""
    name = "preview" if rollback_no is None else f"r{rollback_no:04d}"
    return f"rollback/{segment(batch_id)}/{name}"


def wave_mark(wave: int | None) -> str:
    """What stands in the names of files that are sent in one wave of deletions; nothing for restores."""
    return "" if wave is None else f".w{wave:03d}"


def wave_of_file(file: str) -> int | None:
    """The wave in which a file is sent, by its name."""
    found = _WAVE.search(file)
    return int(found[1]) if found is not None else None


class UndoNames(Struct, frozen=True, kw_only=True):
    """Where the files of one chunk lie. Names are fixed, so that a repeated step replaces and never adds."""

    folder: str
    table: str
    chunk_no: int

    @property
    def _stem(self) -> str:
        return f"{self.folder}/{segment(self.table)}/c{self.chunk_no:06d}"

    @property
    def looked(self) -> str:
        return f"{self._stem}.looked.parquet"

    @property
    def decisions(self) -> str:
        return f"{self._stem}.decisions.parquet"

    @property
    def outcomes(self) -> str:
        return f"{self._stem}.outcomes.parquet"

    @property
    def state(self) -> str:
        return f"{self._stem}.state.parquet"

    @property
    def stamps(self) -> str:
        return f"{self._stem}.stamps.parquet"

    @property
    def all_records(self) -> str:
        return f"{self._stem}.all.parquet"

    def part(self, action: str, number: int, attempt: int = 1, *, wave: int | None = None) -> str:
        again = "" if attempt == 1 else f".attempt{attempt}"
        return f"{self._stem}.{action}{wave_mark(wave)}{again}.{number:02d}.csv"
