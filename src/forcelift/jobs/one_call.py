"""Jobs that are created together with their data, in one call instead of three.

Source: Bulk API 2.0 takes up to 100,000 characters so ("Upload Job Data with a Multipart Request"); the job is then
closed, and the org works on it at once. If the reply is lost, the job can be neither told from others by how it looks
nor taken back. So only jobs are created so that may be sent twice without harm, and a job whose reply was lost is known
by its answers: they hold the rows that we sent, all of them and no others, value by value.

Reads:   the org's jobs and their results, a sealed file.
Writes:  nothing.
Re-run:  it asks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl

from forcelift.audit.records import Job, JobKind, Part
from forcelift.errors import OrgLimitReached, OrgRefused
from forcelift.jobs.csv_blocks import header_of, whole_rows
from forcelift.jobs.parts import read_part
from forcelift.protocols.org import FieldDescribe, IngestJob, JobState, Org, ResultKind
from forcelift.rules import canonical_from_org
from forcelift.storage import Storage

BYTES_MAX: Final = 100_000
"""Of a file that goes with its job. The limit is in characters, of which none takes less than a byte."""

REFUSED_FORM: Final = frozenset({400, 405, 411, 413, 415, 501})
"""Statuses by which an org may say that it does not take jobs in this form."""

_KINDS: Final = frozenset({JobKind.LOAD, JobKind.RESEND, JobKind.RETRY, JobKind.LINK})
_ADDED: Final = frozenset({"sf__Id", "sf__Created", "sf__Error"})
_NULLS: Final = ["#N/A", ""]


def fits_one_call(job: Job) -> bool:
    """Whether a job is small enough, and harmless if it were carried out twice: an upsert by key of the same values."""
    return job.operation == "upsert" and job.kind in _KINDS and job.part.bytes <= BYTES_MAX


def holds_our_rows(org: Org, seen: IngestJob, part: Part, *, storage: Storage, key: str) -> bool:
    """Whether a job that has ended was given the rows of a sealed file: the same columns, keys and values.

    Values come back in other texts, so they are compared as their fields hold them. A job whose answers cannot be read
    is not ours.

    Args:
        key: The column that tells rows apart.
    """
    try:
        counted = org.get_job(seen.id)
        if counted.state is JobState.JOB_COMPLETE and counted.records_processed not in (None, part.rows):
            return False
        sent = read_part(storage, part).collect()
        told: list[pl.DataFrame] = []
        for frame in _told(org, seen, sent.columns):
            told.append(frame)
            if frame.width != sent.width or sum(one.height for one in told) > sent.height:
                return False
    except OrgLimitReached:
        raise
    except OrgRefused:
        return False
    if sum(frame.height for frame in told) != sent.height:
        return False
    fields = org.describe(seen.object).fields
    return _canonical(pl.concat(told), fields, key).equals(_canonical(sent, fields, key))


def _told(org: Org, seen: IngestJob, columns: list[str]) -> Iterator[pl.DataFrame]:
    """The rows in a job's results as text, block by block; a frame without columns where it has others than these."""
    for kind in (ResultKind.SUCCESSFUL, ResultKind.FAILED, ResultKind.UNPROCESSED):
        for block in whole_rows(org.results(seen.id, kind)):
            frame = pl.read_csv(block, infer_schema=False, null_values=_NULLS, raise_if_empty=False)
            if frame.height:
                is_same = set(header_of(block)) - _ADDED == set(columns)
                yield frame.select(columns) if is_same else pl.DataFrame()


def _canonical(rows: pl.DataFrame, fields: Mapping[str, FieldDescribe], key: str) -> pl.DataFrame:
    columns = []
    for name in rows.columns:
        field = fields.get(name)  # a lookup by its parent's key is none
        values = _plain(rows[name]) if field is None else canonical_from_org(field, rows[name])
        columns.append(values.alias(name))
    return pl.DataFrame(columns).sort(key)


def _plain(values: pl.Series) -> pl.Series:
    """Of a parent's key, whose type is not asked for: a number may come back in another form."""
    text = values.str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    return pl.select(pl.coalesce(number.cast(pl.String), text.replace("", None))).to_series()
