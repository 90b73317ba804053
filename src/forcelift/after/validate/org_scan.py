"""Read a whole object once, by a bulk query, into sealed files: an Id, some fields and, if wanted, a hash a record.

Reads:   a bulk query of the object, page by page.
Writes:  `validate/<batch>/<table>/p000001.parquet` and `scan.json`, which names the job, the next page and the files.
Re-run:  goes on with the next page of the same job while the org keeps it (7 days); otherwise it begins again.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from msgspec import Struct, field, to_builtins
from msgspec.structs import replace

from forcelift.after.validate.org_rows import OrgShape
from forcelift.errors import OrgNotFound
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import Org
from forcelift.storage import Storage, segment

PAGE_ROWS = 50_000
PART_PAGES = 8
"""Pages of one file: what is lost at most when the process dies."""

_PAGE_ROWS_MIN = 2_000
_PAGES_IN_BUDGET = 32
"""A page's CSV takes at most this part of the budget; its texts, their canonical forms and what is hashed take as much
again, several times over, for each of the pages in memory."""

_AGE_MAX = timedelta(days=6)  # the org keeps results for 7 days
_WORKERS = 2


class ScanPart(Struct, frozen=True, kw_only=True):
    """One sealed file."""

    file: str
    sha256: str
    rows: int


class Scan(Struct, frozen=True, kw_only=True):
    """How far a reading of an object has come.

    Attributes:
        form: What tells whether a reading that was begun before is of the same query and keeps the same fields.
        locator: The next page; None before the first and after the last.
        asked_at: When the query was begun: the org's records as of some moment after it.
    """

    form: str
    job_id: str
    asked_at: datetime
    locator: str | None = None
    is_complete: bool = False
    parts: tuple[ScanPart, ...] = field(default=())

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def files(self) -> list[str]:
        return [part.file for part in self.parts]

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = to_builtins(self, builtin_types=(datetime,))
        return document | {"asked_at": self.asked_at.isoformat()}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Scan:
        parts = tuple(ScanPart(**part) for part in document["parts"])
        return cls(**document | {"parts": parts, "asked_at": datetime.fromisoformat(document["asked_at"])})


def page_rows_for(memory_mb: int, *, rows: int, csv_bytes: int) -> int:
    """Rows of a page: the 50,000 that clients ask for, fewer where rows are wide or memory is small.

    Args:
        rows, csv_bytes: Rows that were sent, and the bytes of their upload files, from which a row's size is known.
    """
    row_bytes = csv_bytes / rows if rows and csv_bytes else 500
    fits = int(memory_mb * (1 << 20) / _PAGES_IN_BUDGET / row_bytes)
    return max(_PAGE_ROWS_MIN, min(PAGE_ROWS, fits))


class OrgScan:
    """One table's object, read once for all levels that ask for it.

    Args:
        shape: What is asked for.
        keep: Fields whose canonical texts are kept beside Id, time of creation and key.
        hashed: Whether all fields that the plan fills are asked for and a row hash is kept, as level 5 needs. If not,
            the org is asked for `keep` alone.
        ledgers: The ledger files that the records are compared with. A reading that was begun under others is of an
            org from before a reload, a retry or a rollback, and is not gone on with.
        page_rows: Rows of a page, of which three are in memory at most.
    """

    def __init__(
        self,
        *,
        org: Org,
        storage: Storage,
        clock: Clock,
        batch_id: str,
        shape: OrgShape,
        keep: Sequence[str],
        hashed: bool = True,
        ledgers: Sequence[str] = (),
        page_rows: int = PAGE_ROWS,
    ) -> None:
        self._page_rows, self._ledgers = page_rows, sorted(ledgers)
        self._org, self._storage, self._clock, self._hashed = org, storage, clock, hashed
        self._shape = shape if hashed else shape.narrowed(keep)
        self._keep = [name for name in dict.fromkeys(keep) if name != shape.key_field]
        self._folder = f"validate/{segment(batch_id)}/{segment(shape.work.plan.table)}"

    def read(self) -> Scan:
        """Read to the end, from where an earlier process came to.

        Raises:
            OrgUnavailable, OrgRefused: The org does not give it; what was read stays for the next time.
        """
        scan = self._earlier()
        if scan is not None:
            try:
                return self._go_on(scan)
            except OrgNotFound:
                # The job is gone, and with it the one state of the org that all pages show.
                pass
        self.remove()
        job_id = self._org.begin_query(self.query)
        scan = Scan(form=self._form, job_id=job_id, asked_at=self._clock.now())
        self._save(scan)
        return self._go_on(scan)

    def remove(self) -> None:
        """Remove all files of the reading."""
        self._storage.delete_tree(self._folder)

    @property
    def query(self) -> str:
        """What the org is asked, in SOQL."""
        return self._shape.soql()

    @property
    def _form(self) -> str:
        text = json.dumps([self.query, self._hashed, self._keep, self._page_rows, self._ledgers])
        return hashlib.sha256(text.encode()).hexdigest()

    def _earlier(self) -> Scan | None:
        name = f"{self._folder}/scan.json"
        if not self._storage.exists(name):
            return None
        with self._storage.open(name) as file:
            scan = Scan.from_document(json.load(file))
        if scan.form != self._form or self._clock.now() - scan.asked_at > _AGE_MAX:
            self._org.drop_query(scan.job_id)
            return None
        for part in scan.parts:
            self._storage.verify(part.file, part.sha256)
        return scan

    def _save(self, scan: Scan) -> None:
        with self._storage.write(f"{self._folder}/scan.json") as file:
            file.write(json.dumps(scan.document()).encode())
            file.commit()

    def _go_on(self, scan: Scan) -> Scan:
        if scan.is_complete:
            return scan
        self._org.finish_query(scan.job_id)
        frames: list[pl.DataFrame] = []
        for rows, locator in self._pages(scan):
            frames.append(rows)
            if locator is None or len(frames) >= PART_PAGES:
                scan = replace(
                    scan,
                    parts=(*scan.parts, self._seal(frames, len(scan.parts) + 1)),
                    locator=locator,
                    is_complete=locator is None,
                )
                self._save(scan)
                frames = []
        self._org.drop_query(scan.job_id)
        return scan

    def _pages(self, scan: Scan) -> Iterator[tuple[pl.DataFrame, str | None]]:
        """Pages in their order, each with the place of the next: one is fetched while two are worked on."""
        ahead: deque[tuple[Future[pl.DataFrame], str | None]] = deque()
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="validate") as pool:
            locator = scan.locator
            is_first = True
            while is_first or locator is not None:
                is_first = False
                content, locator = self._org.query_page(scan.job_id, locator, rows=self._page_rows)
                ahead.append((pool.submit(self._rows, content), locator))
                if len(ahead) > _WORKERS:
                    done, after = ahead.popleft()
                    yield done.result(), after
            while ahead:
                done, after = ahead.popleft()
                yield done.result(), after

    def _rows(self, content: bytes) -> pl.DataFrame:
        key = self._shape.key_field
        rows = self._shape.page_rows(content) if content.strip() else self._no_rows()
        kept = rows.select(
            "id", "made", pl.col(key).alias("key"), *(pl.col(name).alias(f"f:{name}") for name in self._keep)
        )
        return kept.with_columns(self._shape.hashes(rows)) if self._hashed else kept

    def _no_rows(self) -> pl.DataFrame:
        texts = {column.name: pl.String() for column in self._shape.columns}
        return pl.DataFrame(schema={"id": pl.String(), "made": pl.Int64(), **texts})

    def _seal(self, frames: Sequence[pl.DataFrame], number: int) -> ScanPart:
        rows = pl.concat(frames)
        with self._storage.write(f"{self._folder}/p{number:06d}.parquet") as file:
            rows.write_parquet(file.path, compression="lz4")
            sealed = file.commit()
        return ScanPart(file=sealed.name, sha256=sealed.sha256, rows=rows.height)
