"""Run a bulk query job: create, wait, read its pages, delete. It reads only, so a lost reply just begins it anew."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import urlencode

import httpx

from forcelift.errors import LostReply, OrgRefused, OrgUnavailable, TargetError, UsageError
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import JobState
from forcelift.salesforce.catalogue import find
from forcelift.salesforce.failures import broken_answer, public_text
from forcelift.salesforce.http import Transport
from forcelift.salesforce.ids import is_id
from forcelift.salesforce.results import split_error
from forcelift.salesforce.shapes import QueryJobShape, parse

log = logging.getLogger(__name__)

PAGE_ROWS = 50_000
WAIT_S_MAX = 6 * 3600.0
"""Longest wait for a query job. Salesforce itself gives up on a query after its own retries, well before that."""

_POLL_S = 1.0
_POLL_TWIN_S = 0.05  # a twin on this machine answers in milliseconds, and its calls cost nothing
_POLL_GROWTH = 1.5
_POLL_S_MAX = 30.0


def run(http: Transport, root: str, soql: str, *, clock: Clock, page_rows: int) -> Iterator[bytes]:
    """Yield the pages of a query, each a whole CSV with its header row. Nothing is sent before the first is asked for.

    Args:
        http: The connection.
        root: Path of the API version.
        soql: The query; no aggregates, and no ORDER BY or LIMIT, which would switch the org's chunking off.
        clock: Time, for the waits between polls.
        page_rows: Most rows of a page.

    Raises:
        OrgRefused: The org refused the query, or its job failed or was aborted by somebody.
        OrgUnavailable: The org did not answer; begin again.
        TargetError: The job did not end in time; it was aborted.
    """
    job_id = _create(http, root, soql)
    path = f"{root}/jobs/query/{job_id}"
    is_ended = False
    try:
        job = _await(http, path, job_id, clock=clock)
        is_ended = True
        if job.state is not JobState.JOB_COMPLETE:
            raise _ended(job)
        yield from _pages(http, path, job_id, page_rows=page_rows)
    finally:
        _clean_up(http, path, job_id, is_ended=is_ended)


def begin(http: Transport, root: str, soql: str) -> str:
    """Create a query job that its caller reads page by page, perhaps in a later process; its id."""
    return _create(http, root, soql)


def finish(http: Transport, root: str, job_id: str, *, clock: Clock) -> int:
    """Wait for a job's end.

    Returns: How many rows it found.
    Raises:
        OrgRefused: The org refused the query, or its job failed or was aborted by somebody.
        OrgNotFound: The job is gone: the org keeps one for 7 days.
    """
    job = _await(http, _path(root, job_id), job_id, clock=clock)
    if job.state is not JobState.JOB_COMPLETE:
        raise _ended(job)
    return job.number_records_processed or 0


def page(http: Transport, root: str, job_id: str, locator: str | None, *, page_rows: int) -> tuple[bytes, str | None]:
    """One page of a complete job, a whole CSV with its header row, and the place of the next one; None after the last.

    Args:
        locator: The place; None for the first page. Any place may be read as often as wanted while the job exists.
    """
    parameters = {"maxRecords": str(page_rows)} | ({"locator": locator} if locator is not None else {})
    what = f"read a page of bulk query job `{job_id}`"
    content, headers = http.get_whole(f"{_path(root, job_id)}/results?{urlencode(parameters)}", what=what)
    return content.replace(b"\0", b""), next_locator(headers, {locator} if locator else set(), what=what)


def drop(http: Transport, root: str, job_id: str) -> None:
    """Free what a complete job holds in the org."""
    _clean_up(http, _path(root, job_id), job_id, is_ended=True)


def next_locator(headers: httpx.Headers, seen: set[str], *, what: str) -> str | None:
    """The place of the next page; None after the last, for which Salesforce writes the word `null`.

    Raises:
        OrgUnavailable: The place was there before: the answers go round in circles.
    """
    locator = str(headers.get("Sforce-Locator", "null")).strip()
    if locator in ("null", ""):
        return None
    if locator in seen:
        raise broken_answer(what=what, reason="its next page is one that came before", changes=False)
    seen.add(locator)
    return locator


def _path(root: str, job_id: str) -> str:
    if not is_id(job_id):
        raise UsageError(f"{job_id[:40]!a} is no id of a bulk job")
    return f"{root}/jobs/query/{job_id}"


def _create(http: Transport, root: str, soql: str) -> str:
    what = "create a bulk query job"
    body = {
        "operation": "query",
        "query": soql,
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }

    def once() -> str:
        try:
            job = parse(QueryJobShape, http.send_json("POST", f"{root}/jobs/query", body, what=what), what=what)
        except LostReply as error:
            # A query job that nobody reads changes nothing and vanishes after seven days.
            raise OrgUnavailable(error.message, state="the request changed no record", hint=error.hint) from error
        if not is_id(job.id):
            raise broken_answer(what=what, reason="the job has no id", changes=False)
        return job.id

    return http.repeat(once)


def _await(http: Transport, path: str, job_id: str, *, clock: Clock) -> QueryJobShape:
    """Poll, ever more slowly, until the job has ended in whatever way."""
    what = f"ask for bulk query job `{job_id}`"
    ends = clock.monotonic() + WAIT_S_MAX
    wait = _POLL_TWIN_S if http.is_twin else _POLL_S
    while True:
        body, _ = http.get_json(path, what=what)
        job = parse(QueryJobShape, body, what=what)
        if job.state.is_terminal:
            return job
        if clock.monotonic() >= ends:
            raise TargetError(
                f"bulk query job `{job_id}` is still {job.state.value} after {WAIT_S_MAX / 3600:.0f} hours",
                state="nothing was changed in the org",
                hint="query smaller slices: lower `chunks.rows`",
            )
        clock.sleep(wait)
        wait = min(_POLL_S_MAX, wait * _POLL_GROWTH)


def _ended(job: QueryJobShape) -> OrgRefused:
    error = split_error(job.error_message or "")
    text = public_text(job.error_message or "") or "without an explanation"
    advice = find(error.code, error.message)
    return OrgRefused(
        f"bulk query job `{job.id}` ended as {job.state.value}: {text}",
        code=error.code if job.error_message else job.state.value.upper(),
        http_status=200,
        state="nothing was changed in the org",
        hint=advice.remedy if advice and job.error_message else "run the same command again",
    )


def _pages(http: Transport, path: str, job_id: str, *, page_rows: int) -> Iterator[bytes]:
    what = f"read a page of bulk query job `{job_id}`"
    parameters = {"maxRecords": str(page_rows)}
    seen: set[str] = set()
    while True:
        page, headers = http.get_whole(f"{path}/results?{urlencode(parameters)}", what=what)
        # Long texts may hold NUL characters, which readers of CSV refuse.
        page = page.replace(b"\0", b"")
        if page.strip():
            yield page
        locator = next_locator(headers, seen, what=what)
        if locator is None:
            return
        parameters["locator"] = locator


def _clean_up(http: Transport, path: str, job_id: str, *, is_ended: bool) -> None:
    """Free what the job holds in the org. It is not worth failing a query whose rows have all come."""
    try:
        if not is_ended:
            http.send_json("PATCH", path, {"state": "Aborted"}, what=f"abort bulk query job `{job_id}`")
        http.send("DELETE", path, what=f"delete bulk query job `{job_id}`")
    except TargetError as error:
        log.warning(
            "bulk query job %s was left in the org, which deletes it after 7 days: %s",
            job_id,
            error.message,
            extra={"action": "query_job_left", "job_id": job_id},
        )
