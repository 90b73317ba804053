"""The newest word on each row of a table that several batches have sent: each row counted once, by its key.

Reads:   ledger files of the batches, streamed by DuckDB; what does not fit into memory is spilled.
Gives:   numbers.

What counts, of the words that the ledgers have on a key:

- The word of a batch is all lines that it has with the key: the one that was sent, and copies that it dropped.
- Words stand in the order in which rows were sent, by job; a row that was never sent stands where its chunk's first job
  does. So a retry or a resume of an early batch comes after a batch that was begun later.
- A word that a rollback took back does not count while another stands: what was loaded before it is what holds now.
  Where all were taken back, the row is rolled back.
- A record that any batch has created, and no rollback has deleted, is created, whichever batch wrote it last.
- Keys are compared as the org compares them, so that one whose case has changed between batches is the same row.
- Rows without a key cannot be told apart: of batches with the same `where`, that count which has the most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from forcelift.ledger.counts import LedgerCounts
from forcelift.ledger.names import RECORD_GONE

if TYPE_CHECKING:
    import pyarrow as pa

_OWN_WORDS: Final = "('FIELD_CUSTOM_VALIDATION_EXCEPTION', 'DUPLICATES_DETECTED')"
_EXAMPLES: Final = 5
_BLANKS: Final = "\t\n\x0b\x0c\r "  # those that rules take off keys before they compare them


class WordFile(Struct, frozen=True, kw_only=True):
    """One ledger file of a table.

    Attributes:
        name: Its name in storage.
        batch: The place of its batch among those of the project.
        place: Where its rows stand that were never sent, among the jobs.
        reading: What its batch read of the table: rows without a key are the same ones under the same name.
        undone: Whether a rollback has taken back its whole chunk, so that its refusals count no more than its records.
        folds: Whether keys that differ in case or outer blanks only are the same row, as the org's field compares them.
    """

    name: str
    batch: int
    place: int
    reading: str
    undone: bool = False
    folds: bool = False


class NewestCounts(Struct, frozen=True, kw_only=True):
    """Rows of a table by the newest word on each. `in_org` are records: created, changed, kept, or refused later on."""

    source: int
    created: int
    updated: int
    failed: int
    rejected: int
    duplicate: int
    unknown: int
    rolled_back: int
    kept: int
    in_org: int


class NewestRefusals(Struct, frozen=True, kw_only=True):
    """Rows refused for one reason: `rows` by their newest word, `mended` that a retry or a later batch loaded since.

    Of `rows`, a person has said that `closed` need nothing more.
    `message` is one of theirs; groups of rules that an org's administrator wrote have one message each.
    """

    outcome: str
    code: str
    fields: str | None
    message: str
    rows: int
    mended: int
    keys: tuple[str, ...]
    closed: int = 0


RESOLVED: Final = ("key", "code", "fields", "message", "closed_in")
"""Columns of rows that are resolved: no ledger tells any more why a row was refused that a retry has mended.

`closed_in` is the place of the batch in which a person has closed the row, null where a retry did. A row without a key
has another text instead.
"""

# Each line with its batch and its place: that of the job that sent it, or of its chunk.
_LINES: Final = """
    file AS (
        SELECT unnest($paths::VARCHAR[]) AS filename, unnest($batches::BIGINT[]) AS batch,
            unnest($places::BIGINT[]) AS place, unnest($readings::VARCHAR[]) AS reading,
            unnest($undone::BOOLEAN[]) AS undone, unnest($folds::BOOLEAN[]) AS folds
    ),
    job AS (SELECT unnest($jobs::BIGINT[]) AS job, unnest($job_places::BIGINT[]) AS place),
    line AS (
        SELECT CASE WHEN f.folds THEN lower(trim(l.key, $blanks)) ELSE l.key END AS key, l.key AS written,
            l.id, l.outcome, l.code, l.fields, l.message, l.created, f.batch, f.reading, f.undone,
            coalesce(j.place, f.place) AS place
        FROM read_parquet($files, filename = true) AS l JOIN file AS f USING (filename) LEFT JOIN job AS j USING (job)
    )"""

# The word of each batch on each key. `standing` is where it stands, null if nothing but copies is left of it.
_WORDS_OF: Final = f"""
    word AS (
        SELECT key, batch,
            count(*) FILTER (outcome = 'created') AS created,
            count(*) FILTER (outcome = 'updated') AS updated,
            count(*) FILTER (outcome = 'failed') AS failed,
            count(*) FILTER (outcome = 'rejected') AS rejected,
            count(*) FILTER (outcome = 'duplicate') AS duplicate,
            count(*) FILTER (outcome = 'unknown') AS unknown,
            count(*) FILTER (outcome = 'rolled_back') AS rolled_back,
            count(*) FILTER (outcome = 'kept') AS kept,
            count(*) AS rows,
            max(place) FILTER (outcome NOT IN ('duplicate', 'rolled_back') AND NOT undone) AS standing,
            max(place) AS place,
            bool_or(outcome = 'rolled_back' OR undone) AS is_undone,
            bool_or(created AND id IS NOT NULL AND outcome <> 'rolled_back') AS has_made,
            bool_or(outcome IN ('created', 'updated') OR (outcome = 'failed' AND id IS NOT NULL)
                OR (outcome = 'kept' AND code IS DISTINCT FROM '{RECORD_GONE}')) AS stands,
            bool_or(outcome = 'kept' AND code = '{RECORD_GONE}') AS is_gone
        FROM {{lines}} GROUP BY key, batch
    )"""
_WORDS: Final = _WORDS_OF.format(lines="line WHERE key IS NOT NULL")

# What stands comes before what was taken back, and that before copies alone; then the later place, the later batch.
_NEWEST: Final = """
    newest AS (
        SELECT key, bool_or(has_made) AS has_made, bool_or(stands) AS stands,
            arg_max(
                struct_pack(batch, rows, created, updated, failed, rejected, duplicate, unknown, rolled_back, kept,
                    is_gone),
                CASE WHEN standing IS NOT NULL THEN 2 WHEN is_undone THEN 1 ELSE 0 END::BIGINT * 1000000000000000000
                    + coalesce(standing, place) * 1000000 + batch
            ) AS word
        FROM word GROUP BY key
    )"""

_SUMS: Final = """
    SELECT sum(word.rows),
        sum(word.created + word.updated) FILTER (has_made),
        sum(word.created + word.updated) FILTER (NOT has_made),
        sum(word.failed), sum(word.rejected), sum(word.duplicate), sum(word.unknown), sum(word.rolled_back),
        sum(word.kept), count(*) FILTER (stands AND NOT word.is_gone)
    FROM newest"""

_KEYLESS: Final = """
    SELECT outcome, sum(most) FROM (
        SELECT reading, outcome, max(rows) AS most FROM (
            SELECT reading, batch, outcome, count(*) AS rows FROM line WHERE key IS NULL GROUP BY ALL
        ) GROUP BY ALL
    ) GROUP BY outcome"""

_REFUSED: Final = f"""
    refused AS (
        SELECT key, written, batch, reading, undone, outcome, coalesce(code, '') AS code, fields, message,
            CASE WHEN code IN {_OWN_WORDS} THEN message END AS own_words, NULL::BIGINT AS closed_in
        FROM line WHERE outcome IN ('failed', 'rejected')
        UNION ALL
        SELECT CASE WHEN $folded THEN lower(trim(key, $blanks)) ELSE key END, key, NULL, '', false,
            CASE WHEN code LIKE 'REJECTED\\_%' ESCAPE '\\' THEN 'rejected' ELSE 'failed' END, code, fields, message,
            CASE WHEN code IN {_OWN_WORDS} THEN message END, closed_in
        FROM resolved
    )"""
_WORDS_OF_REFUSED: Final = _WORDS_OF.format(lines="line SEMI JOIN refused USING (key)")

# Of rows without a key those of the batch that has the most: as in the counts.
_REASONS: Final = f"""
    , keyless AS (
        SELECT outcome, code, fields, own_words, min(message) AS message, count(*) AS rows, batch, reading
        FROM refused WHERE key IS NULL AND batch IS NOT NULL GROUP BY ALL
    ),
    told AS (
        SELECT r.outcome, r.code, r.fields, r.own_words, min(r.message) AS message,
            count(*) FILTER (r.batch = n.word.batch) AS now,
            count(DISTINCT r.key) FILTER (NOT r.undone AND n.word.failed + n.word.rejected = 0
                AND n.word.created + n.word.updated + n.word.kept > 0) AS mended,
            count(DISTINCT r.key) FILTER (r.closed_in = n.word.batch AND n.word.failed + n.word.rejected > 0) AS closed,
            coalesce(
                list_sort(list(DISTINCT r.written) FILTER (r.batch = n.word.batch)), list_sort(list(DISTINCT r.written))
            )[1:{_EXAMPLES}] AS keys
        FROM refused AS r JOIN newest AS n USING (key) GROUP BY ALL
        UNION ALL
        SELECT outcome, code, fields, own_words, min(message), max(rows), 0, 0, NULL FROM keyless
        GROUP BY outcome, code, fields, own_words, reading
        UNION ALL
        SELECT outcome, code, fields, own_words, min(message), 0, 0, count(*), NULL
        FROM refused ANTI JOIN newest USING (key) WHERE closed_in IS NOT NULL GROUP BY ALL
    )
    SELECT outcome, code, fields, min(message), sum(now), sum(mended), first(keys), least(sum(now), sum(closed))
    FROM told WHERE now + mended + closed > 0
    GROUP BY outcome, code, fields, own_words ORDER BY 5 DESC, 6 DESC, 1, 2, 3, 4"""


def count_newest(ledger: LedgerCounts, files: Sequence[WordFile], jobs: Sequence[tuple[int, int]]) -> NewestCounts:
    """Count a table's rows by the newest word on each.

    Args:
        files: The ledger files that count, of all batches.
        jobs: Of the jobs of all batches (number, place in the order in which they were intended).
    Raises:
        StorageError: A file is missing.
    """
    if not files:
        return NewestCounts(**dict.fromkeys(NewestCounts.__struct_fields__, 0))
    parameters = _parameters(ledger, files, jobs)
    names = ("source", "created", "updated", "failed", "rejected", "duplicate", "unknown", "rolled_back", "kept")
    (keyed,) = ledger.ask(f"WITH {_LINES}, {_WORDS}, {_NEWEST} {_SUMS}", [file.name for file in files], **parameters)
    found = dict(zip((*names, "in_org"), (int(one or 0) for one in keyed), strict=True))
    for outcome, rows in ledger.ask(f"WITH {_LINES} {_KEYLESS}", [file.name for file in files], **parameters):
        found[outcome] += int(rows)
        found["source"] += int(rows)
    return NewestCounts(**found)


def newest_refusals(
    ledger: LedgerCounts,
    files: Sequence[WordFile],
    jobs: Sequence[tuple[int, int]],
    resolved: pa.RecordBatchReader | None = None,
) -> list[NewestRefusals]:
    """Rows that any batch has refused, by reason, the most first.

    Args:
        files, jobs: As in `count_newest`.
        resolved: Refused rows of these batches that are resolved; see `RESOLVED`.
    """
    import pyarrow as pa  # a table that one batch alone has sent is counted without it

    if not files:
        return []
    if resolved is None:
        resolved = pa.RecordBatchReader.from_batches(resolved_schema(), [])
    parameters = _parameters(ledger, files, jobs) | {"folded": any(file.folds for file in files)}
    query = f"WITH {_LINES}, {_REFUSED}, {_WORDS_OF_REFUSED}, {_NEWEST} {_REASONS}"
    rows = ledger.ask(query, [file.name for file in files], beside={"resolved": resolved}, **parameters)
    return [
        NewestRefusals(
            outcome=outcome,
            code=code,
            fields=fields,
            message=message or "",
            rows=int(now),
            mended=int(mended),
            keys=tuple(one for one in keys or () if one is not None),
            closed=int(closed),
        )
        for outcome, code, fields, message, now, mended, keys, closed in rows
        if now + mended
    ]


def resolved_schema() -> pa.Schema:
    """The types of `RESOLVED`."""
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name == "closed_in" else pa.string()) for name in RESOLVED])


def _parameters(ledger: LedgerCounts, files: Sequence[WordFile], jobs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {
        "paths": [str(path) for path in ledger.paths([file.name for file in files])],
        "batches": [file.batch for file in files],
        "places": [file.place for file in files],
        "readings": [file.reading for file in files],
        "undone": [file.undone for file in files],
        "folds": [file.folds for file in files],
        "blanks": _BLANKS,
        "jobs": [job for job, _ in jobs],
        "job_places": [place for _, place in jobs],
    }
