"""The three result files of an ingest job, written from the upload and the outcomes of its rows.

Rows come in an order that the seed decides, and values come back as the org understood them, as in the real API.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import duckdb
import polars as pl

from forcelift.twin import values
from forcelift.twin.columns import Column, bind_columns
from forcelift.twin.errors import ApiError, CsvRefused, not_found
from forcelift.twin.jobs import Job
from forcelift.twin.schema import Schema
from forcelift.twin.store import Store
from forcelift.twin.upload_csv import DELIMITERS, LINE_ENDINGS, Upload, parse_upload
from forcelift.twin.uploads import read_upload

SUCCESSFUL: Final = "successfulResults"
FAILED: Final = "failedResults"
UNPROCESSED: Final = "unprocessedrecords"
_SLICE_ROWS: Final = 50_000


class Results:
    """Writes result files."""

    def __init__(self, store: Store, schema: Schema, *, seed: int, strict: bool = False) -> None:
        self._store = store
        self._schema = schema
        self._seed = seed
        self._strict = strict

    def stream(self, job: Job, kind: str) -> Iterator[bytes]:
        """One result file in pieces.

        Args:
            job: The job.
            kind: `successfulResults`, `failedResults` or `unprocessedrecords`, in any case.
        Raises:
            ApiError: 404 for another kind; 400 for a job that has not ended, if the twin is strict about that.
        """
        wanted = next((name for name in (SUCCESSFUL, FAILED, UNPROCESSED) if name.lower() == kind.lower()), None)
        if wanted is None:
            raise not_found()
        if self._strict and not job.is_terminal:
            raise ApiError(400, "INVALIDJOBSTATE", f"Results are not available while the job is in state {job.state}")
        content = read_upload(self._store, job.upload)
        return self._pieces(job, wanted, content)

    def _pieces(self, job: Job, kind: str, content: bytes) -> Iterator[bytes]:
        separator = DELIMITERS[job.column_delimiter]
        line_end = LINE_ENDINGS[job.line_ending].decode()
        if kind != UNPROCESSED and not self._any(job, kind):
            yield _header_alone(kind, content, separator, line_end)
            return
        try:
            upload = parse_upload(content, delimiter=job.column_delimiter, line_ending=job.line_ending)
        except CsvRefused:
            yield content  # A file that cannot be read has no outcomes: all of it is unprocessed.
            return
        heads = {SUCCESSFUL: ['"sf__Id"', '"sf__Created"'], FAILED: ['"sf__Id"', '"sf__Error"'], UNPROCESSED: []}[kind]
        yield (separator.join([*heads, upload.header_line]) + line_end).encode()
        rows = self._rows(job, kind, upload)
        for start in range(0, rows.height, _SLICE_ROWS):
            text = rows.slice(start, _SLICE_ROWS).write_csv(
                include_header=False, separator=separator, line_terminator=line_end, quote_style="always"
            )
            yield text.encode()

    def _any(self, job: Job, kind: str) -> bool:
        """True if some row of the job belongs into the file."""
        condition = "IS NULL" if kind == SUCCESSFUL else "IS NOT NULL"
        with self._store.read() as cursor:
            query = f"SELECT count(*) FROM meta.ingest_outcome WHERE job = ? AND error {condition}"
            row = cursor.execute(query, [job.number]).fetchone()
        return row is not None and row[0] > 0

    def _rows(self, job: Job, kind: str, upload: Upload) -> pl.DataFrame:
        """The file's rows as text columns, shuffled."""
        cells = upload.cells.with_row_index("row_no")
        with self._store.read() as cursor:
            outcomes = pl.from_arrow(
                cursor.sql(
                    "SELECT CAST(row_no AS UINTEGER) AS row_no, coalesce(id, '') AS id, "
                    "CASE WHEN created THEN 'true' ELSE 'false' END AS created, error FROM "
                    "meta.ingest_outcome WHERE job = ?",
                    params=[job.number],
                ).to_arrow_table()
            )
            assert isinstance(outcomes, pl.DataFrame)  # a table of several columns always is one
            if kind == UNPROCESSED:
                rows = cells.join(outcomes, on="row_no", how="anti").drop("row_no")
                return self._shuffled(job, rows)
            chosen = outcomes.filter(pl.col("error").is_null() == (kind == SUCCESSFUL))
            extra = "created" if kind == SUCCESSFUL else "error"
            # An id is given for saved rows only; failed rows have none, whatever the operation.
            rows = chosen.select("row_no", "id", extra).join(cells, on="row_no", how="inner").drop("row_no")
            return self._shuffled(job, self._echo(cursor, job, upload, rows, extra))

    def _echo(
        self, cursor: duckdb.DuckDBPyConnection, job: Job, upload: Upload, rows: pl.DataFrame, extra: str
    ) -> pl.DataFrame:
        """Rewrite the cells by the types of their fields. A header in the wrong case gets empty values."""
        entry = self._schema.object(job.object)
        assert entry is not None  # jobs are only made for objects of the schema
        columns: Sequence[Column] = bind_columns(
            upload.names, schema=self._schema, entry=entry, operation=job.operation
        )
        written = [_echoed(column) for column in columns]
        if all(expression == column.cell for expression, column in zip(written, columns, strict=True)):
            return rows
        selected = ", ".join(
            f"{expression} AS {column.cell}" for expression, column in zip(written, columns, strict=True)
        )
        cursor.register("twin_cells", rows.to_arrow())
        echoed = pl.from_arrow(cursor.sql(f"SELECT id, {extra}, {selected} FROM twin_cells").to_arrow_table())
        cursor.unregister("twin_cells")
        assert isinstance(echoed, pl.DataFrame)  # a table of several columns always is one
        return echoed

    def _shuffled(self, job: Job, rows: pl.DataFrame) -> pl.DataFrame:
        order = pl.int_range(rows.height, eager=True).shuffle(seed=self._seed * 1_000_003 + job.number)
        return rows[order]


def _echoed(column: Column) -> str:
    if not column.exact:
        return "''"
    return values.echoed(column.key or column.field, column.cell)


def _header_alone(kind: str, content: bytes, separator: str, line_end: str) -> bytes:
    head = content.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].removesuffix(b"\r")
    heads = ['"sf__Id"', '"sf__Created"' if kind == SUCCESSFUL else '"sf__Error"']
    return (separator.join([*heads, head.decode("utf-8", errors="replace")]) + line_end).encode()
