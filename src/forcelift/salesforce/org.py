"""The Salesforce adapter: an org over REST and Bulk API 2.0, as `forcelift.protocols.org.Org` wants it.

Reads:   describe, limits, queries, jobs and their result files.
Writes:  ingest jobs and bulk query jobs, nothing else.
Re-run:  every read can be repeated; what became of a change whose reply was lost, the caller finds out by asking.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx

from forcelift.errors import OrgRefused, TargetError, UsageError
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import FieldDescribe, IngestJob, JobRequest, Limits, ObjectDescribe, ResultKind
from forcelift.salesforce import bulk_query, soql, upload
from forcelift.salesforce.auth import AuthSettings
from forcelift.salesforce.client import HttpSettings
from forcelift.salesforce.download import read_pieces
from forcelift.salesforce.failures import broken_answer
from forcelift.salesforce.grouped import TOO_MANY_CODE, grouped_records, is_grouped, parse_grouped
from forcelift.salesforce.hosts import base_url
from forcelift.salesforce.http import Transport
from forcelift.salesforce.ids import id18, is_id
from forcelift.salesforce.shapes import (
    DescribeShape,
    JobShape,
    JobsPage,
    ObjectsShape,
    QueryPage,
    UserInfo,
    parse,
    to_limits,
)

log = logging.getLogger(__name__)

API_VERSION = "66.0"
_QUERY_PAGE_ROWS = 2000  # the largest page that a REST query gives
_NUMBER_TYPES = frozenset({"double", "currency", "percent", "int", "long"})


class SalesforceOrg:
    """A signed-in org. Implements `forcelift.protocols.org.Org`; made by `connect`."""

    def __init__(
        self,
        transport: Transport,
        *,
        api_version: str,
        clock: Clock,
        gzip_uploads: bool = False,
        bulk_page_rows: int = bulk_query.PAGE_ROWS,
    ) -> None:
        self._http = transport
        self._clock = clock
        self._gzip_uploads = gzip_uploads
        self._bulk_page_rows = bulk_page_rows
        self._root = f"/services/data/v{api_version}"
        self.api_version = api_version
        self.url = str(transport.base).rstrip("/")
        self.is_twin = transport.is_twin
        self.org_id, self.user_id, self.user_name = self._who_am_i()

    @property
    def transport(self) -> Transport:
        """The connection, for the adapter's modules about the org's setup."""
        return self._http

    @property
    def root(self) -> str:
        """The path that all calls of this API version begin with."""
        return self._root

    @property
    def api_calls(self) -> int:
        """HTTP requests sent by this object so far, sign-in and repeats included."""
        return self._http.calls

    @property
    def api_requests_left(self) -> int | None:
        """Daily API requests left by the last `Sforce-Limit-Info`; None before the first one."""
        return self._http.requests_left

    def describe(self, object_name: str) -> ObjectDescribe:
        """The object's fields, as far as the signed-in user may see them."""
        what = f"describe `{soql.identifier(object_name)}`"
        body, _ = self._http.get_json(f"{self._root}/sobjects/{object_name}/describe", what=what)
        return parse(DescribeShape, body, what=what).to_describe()

    def read(self, path: str, *, what: str) -> Any:
        """The JSON of a GET below the API version, such as `/tooling/sobjects`, as the org gives it."""
        body, _ = self._http.get_json(f"{self._root}{path}", what=what)
        return body

    def objects(self) -> list[str]:
        """API names of all objects that the user may see."""
        what = "list the org's objects"
        body, _ = self._http.get_json(f"{self._root}/sobjects", what=what)
        return [item.name for item in parse(ObjectsShape, body, what=what).sobjects]

    def limits(self) -> Limits:
        """What the org has left of its limits; storage lags behind."""
        what = "read the org's limits"
        body, _ = self._http.get_json(f"{self._root}/limits", what=what)
        return to_limits(body, what=what)

    def query(self, soql: str) -> Iterator[dict[str, Any]]:
        """Records of a REST query, page by page. Parents are nested dicts, child rows lists of dicts.

        Groups beyond the 2,000 of an answer are asked for by their keys.

        Raises:
            UsageError: There are more groups, and they have no such order.
        """
        try:
            yield from self._pages(soql)
        except OrgRefused as error:
            if error.code != TOO_MANY_CODE or not is_grouped(soql):
                raise
            yield from grouped_records(parse_grouped(soql, self.describe), self._pages)

    def _pages(self, soql: str) -> Iterator[dict[str, Any]]:
        path: str | None = self._query_path(soql)
        while path is not None:
            page = self._query_page(path)
            for record in page.records:
                yield self._plain(record)
            path = self._next_query_path(page)

    def count(self, soql: str) -> int:
        """`totalSize` of a `SELECT COUNT() FROM ...`."""
        return self._query_page(self._query_path(soql)).total_size

    def find(self, object_name: str, key: FieldDescribe, values: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Records whose key field has one of these values, as pairs of Id and key; several queries if need be."""
        is_number = key.type in _NUMBER_TYPES
        wanted = (Decimal(value) if is_number else value for value in values)
        for query in soql.select_in(object_name, list(dict.fromkeys(["Id", key.name])), field=key.name, values=wanted):
            for record in self.query(query):
                yield str(record["Id"]), str(record[key.name])

    def create_job(self, request: JobRequest) -> IngestJob:
        """Create an ingest job; it stays open, and costs nothing, until it is closed."""
        what = f"create a job ({request.operation} `{request.object}`)"
        answer = self._http.send_json("POST", f"{self._root}/jobs/ingest", _job_body(request), what=what)
        return parse(JobShape, answer, what=what, changes=True).to_job()

    def create_loaded(self, request: JobRequest, *, content: Callable[[], Iterable[bytes]], size: int) -> IngestJob:
        """Create an ingest job with its CSV of `size` bytes; it is closed, so the org works on it at once.

        Source: "Upload Job Data with a Multipart Request": at most 100,000 characters of data.

        Raises:
            StorageError: `content()` gave more or fewer bytes than announced. Nothing was sent.
        """
        what = f"create a job with its data ({request.operation} `{request.object}`)"
        answer = upload.send_with_job(
            self._http, f"{self._root}/jobs/ingest", job=_job_body(request), content=content, size=size, what=what
        )
        return parse(JobShape, answer, what=what, changes=True).to_job()

    def upload(self, job_id: str, *, content: Callable[[], Iterable[bytes]], size: int) -> None:
        """The one PUT of a job: a CSV of `size` bytes. After a lost reply it must not be sent a second time.

        Raises:
            StorageError: `content()` gave more or fewer bytes than announced. The job must be aborted.
        """
        path = f"{self._job_path(job_id)}/batches"
        what = f"upload to job `{job_id}`"
        if self._gzip_uploads:
            try:
                return upload.send_gzip(self._http, path, content=content, size=size, what=what)
            except OrgRefused as error:
                # No document promises that this call takes compressed bodies; a refusal proves that none was stored.
                if error.http_status not in upload.GZIP_REFUSALS:
                    raise
                self._gzip_uploads = False
                log.warning(
                    "the org does not take compressed uploads (HTTP %d): sending plain ones from now on",
                    error.http_status,
                    extra={"action": "gzip_uploads_off"},
                )
        upload.send_plain(self._http, path, content=content, size=size, what=what)

    def close_job(self, job_id: str) -> IngestJob:
        """Say that the upload is complete: the org begins to work on the job."""
        return self._set_state(job_id, "UploadComplete", what=f"close job `{job_id}`")

    def abort_job(self, job_id: str) -> IngestJob:
        """Abort a job. Salesforce batches that run already still commit."""
        return self._set_state(job_id, "Aborted", what=f"abort job `{job_id}`")

    def delete_job(self, job_id: str) -> None:
        """Delete a finished job with its data and results."""
        self._http.send("DELETE", self._job_path(job_id), what=f"delete job `{job_id}`")

    def get_job(self, job_id: str) -> IngestJob:
        """The job as the org shows it now."""
        what = f"ask for job `{job_id}`"
        body, _ = self._http.get_json(self._job_path(job_id), what=what)
        return parse(JobShape, body, what=what).to_job()

    def list_jobs(self) -> list[IngestJob]:
        """All ingest jobs of Bulk API 2.0 that the org still knows, of all users."""
        what = "list the org's bulk jobs"
        jobs: list[IngestJob] = []
        seen: set[str] = set()
        query = {"jobType": "V2Ingest"}
        while True:
            body, _ = self._http.get_json(f"{self._root}/jobs/ingest?{urlencode(query)}", what=what)
            page = parse(JobsPage, body, what=what)
            ours = (record for record in page.records if record.get("jobType", "V2Ingest") == "V2Ingest")
            jobs += [parse(JobShape, record, what=what).to_job() for record in ours]
            if page.done:
                return jobs
            query = _next_list_query(page.next_records_url, seen, what=what)

    def results(self, job_id: str, kind: ResultKind) -> Iterator[bytes]:
        """One result file as CSV, streamed and inflated. An empty answer gives no bytes.

        Raises:
            OrgUnavailable: The download was cut; what came is worthless and the file must be asked for again.
        """
        what = f"download {kind.value} of job `{job_id}`"
        path = f"{self._job_path(job_id)}/{kind.value}/"
        locator: str | None = None
        seen: set[str] = set()
        while True:
            response = self._http.open_stream(
                f"{path}?{urlencode({'locator': locator})}" if locator else path, what=what
            )
            try:
                pieces = read_pieces(response, what=what)
                # Results are not known to come in pages; if they do, each further page repeats the header row.
                yield from pieces if locator is None else _without_first_line(pieces)
            finally:
                response.close()
            locator = bulk_query.next_locator(response.headers, seen, what=what)
            if locator is None:
                return

    def bulk_query(self, soql: str) -> Iterator[bytes]:
        """Run a bulk query job and yield its pages, each a whole CSV with its header row; none for an empty answer."""
        return bulk_query.run(self._http, self._root, soql, clock=self._clock, page_rows=self._bulk_page_rows)

    def begin_query(self, soql: str) -> str:
        """Create a bulk query job to be read page by page, also by a later process. Returns its id."""
        return bulk_query.begin(self._http, self._root, soql)

    def finish_query(self, job_id: str) -> int:
        """Wait for a query job. Returns the rows it found; `OrgNotFound` once the org has forgotten it (7 days)."""
        return bulk_query.finish(self._http, self._root, job_id, clock=self._clock)

    def query_page(self, job_id: str, locator: str | None, *, rows: int) -> tuple[bytes, str | None]:
        """One page of a complete query job, a whole CSV, and the place of the next; None after the last."""
        return bulk_query.page(self._http, self._root, job_id, locator, page_rows=rows)

    def drop_query(self, job_id: str) -> None:
        """Free what a complete query job holds in the org."""
        bulk_query.drop(self._http, self._root, job_id)

    def close(self) -> None:
        """Close the connections. The session stays valid at the org until it expires."""
        self._http.close()

    def _set_state(self, job_id: str, state: str, *, what: str) -> IngestJob:
        answer = self._http.send_json("PATCH", self._job_path(job_id), {"state": state}, what=what)
        return parse(JobShape, answer, what=what, changes=True).to_job()

    def _job_path(self, job_id: str) -> str:
        if not is_id(job_id):
            raise UsageError(f"{job_id[:40]!a} is no id of a bulk job")
        return f"{self._root}/jobs/ingest/{job_id}"

    def _query_path(self, text: str) -> str:
        if soql.encoded_length(text) > soql.URL_BYTES_MAX:
            raise UsageError(
                f"a query is too long to be asked ({len(text):,} characters)",
                hint="shorten it, or read the object by a bulk query",
            )
        return f"{self._root}/query?q={quote(text, safe='')}"

    def _query_page(self, path: str) -> QueryPage:
        what = "query the org"
        headers = {"Sforce-Query-Options": f"batchSize={_QUERY_PAGE_ROWS}"}
        body, _ = self._http.get_json(path, what=what, headers=headers)
        return parse(QueryPage, body, what=what)

    def _next_query_path(self, page: QueryPage) -> str | None:
        """The path of the next page, built from its locator alone: no address out of an answer is used."""
        if page.done:
            return None
        locator = urlsplit(page.next_records_url or "").path.rstrip("/").rpartition("/")[2]
        if not locator.replace("-", "").isalnum() or not locator.isascii():
            raise broken_answer(what="query the org", reason="it names no next page", changes=False)
        return f"{self._root}/query/{locator}"

    def _plain(self, record: dict[str, Any]) -> dict[str, Any]:
        return {name: self._plain_value(value) for name, value in record.items() if name != "attributes"}

    def _plain_value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "attributes" in value or not {"records", "done"} <= value.keys():
            return self._plain(value)
        children: list[dict[str, Any]] = []
        page = parse(QueryPage, value, what="query the org")
        while True:
            children += [self._plain(record) for record in page.records]
            path = self._next_query_path(page)
            if path is None:
                return children
            page = self._query_page(path)

    def _who_am_i(self) -> tuple[str, str, str]:
        """Org id, user id and user name. Without the scope `openid`, `userinfo` refuses: there is a second way."""
        what = "ask who is signed in"
        try:
            body, _ = self._http.get_json("/services/oauth2/userinfo", what=what)
        except OrgRefused as error:
            log.info(
                "userinfo was refused (%s): asking by another way", error.code, extra={"action": "userinfo_refused"}
            )
        else:
            info = parse(UserInfo, body, what=what)
            return id18(info.organization_id), id18(info.user_id), info.preferred_username
        body, _ = self._http.get_json(f"{self._root}/", what=what)
        identity = body.get("identity") if isinstance(body, dict) else None
        org_id, _, user_id = (
            urlsplit(str(identity or self._http.token.identity_url or "")).path.rpartition("/id/")[2].partition("/")
        )
        if not (is_id(org_id) and is_id(user_id)):
            raise TargetError(
                "the org does not tell who is signed in",
                state="nothing was written to the org",
                hint="give the connected app the scope `openid` or `id`",
            )
        names = [
            row.get("Username") for row in self.query(f"SELECT Username FROM User WHERE Id = {soql.quoted(user_id)}")
        ]
        return id18(org_id), id18(user_id), str(names[0]) if names else user_id


def connect(
    url: str,
    *,
    auth: AuthSettings,
    api_version: str = API_VERSION,
    ca_file: str | None = None,
    expect_twin: bool | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    http: HttpSettings | None = None,
    gzip_uploads: bool = False,
    bulk_page_rows: int = bulk_query.PAGE_ROWS,
    wire: httpx.BaseTransport | None = None,
) -> SalesforceOrg:
    """Sign in to an org.

    Args:
        url: The org's My Domain, `https://login.salesforce.com`, `https://test.salesforce.com`, or a twin on loopback.
        auth: How to sign in.
        api_version: Such as `66.0`; the org must offer it.
        ca_file: A PEM file of certificate authorities to trust beside the usual ones.
        expect_twin: True if the host must be a twin, False if it must not be one. Checked before anything secret is
            sent. None takes either.
        clock: Time, for waits and for signed requests; the machine's by default.
        rng: Randomness of the waits.
        http: Times and limits of the transport.
        gzip_uploads: Compress the bodies of uploads; switched off by itself if the org refuses one.
        bulk_page_rows: Rows of a page of a bulk query; a page is held in memory.
        wire: The transport below httpx, for tests.

    Raises:
        SignInFailed: The org refused the credentials.
        UsageError: The URL or the settings cannot be used.
        TargetError: The host is no org, is (or is not) a twin, or lacks the API version.
        OrgUnavailable: The org did not answer.
    """
    clock = clock or SystemClock()
    transport = Transport(
        url=base_url(url),
        auth=auth,
        clock=clock,
        rng=rng or random.Random(),  # noqa: S311 - spreads waits, guards nothing
        expect_twin=expect_twin,
        ca_file=ca_file,
        settings=http,
        wire=wire,
    )
    try:
        _check_version(transport.open(), api_version)
        return SalesforceOrg(
            transport, api_version=api_version, clock=clock, gzip_uploads=gzip_uploads, bulk_page_rows=bulk_page_rows
        )
    except BaseException:
        transport.close()
        raise


def _job_body(request: JobRequest) -> dict[str, str]:
    body = {
        "object": request.object,
        "operation": request.operation,
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }
    if request.external_id_field is not None:
        body["externalIdFieldName"] = request.external_id_field
    return body


def _check_version(offered: list[str], wanted: str) -> None:
    if wanted not in offered:
        raise TargetError(
            f"the org does not offer API version {wanted}; it offers {offered[0]} to {offered[-1]}",
            state="nothing was read from the org and nothing was written to it",
            hint=f'set `target.api_version` to "{offered[-1]}"',
        )


def _next_list_query(next_url: str | None, seen: set[str], *, what: str) -> dict[str, str]:
    """The parameters of the next page of the job list, out of the answer's URL, whose host and path are not used."""
    given = parse_qs(urlsplit(next_url or "").query)
    locator = given.get("queryLocator", [""])[0]
    if not locator or locator in seen:
        raise broken_answer(what=what, reason="it names no next page", changes=False)
    seen.add(locator)
    names = ("jobType", "isPkChunkingEnabled", "queryLocator")
    return {name: given[name][0] for name in names if name in given}


def _without_first_line(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Drop the header row, which holds API names and therefore no line break of its own."""
    is_header = True
    for piece in pieces:
        if is_header:
            _, found, rest = piece.partition(b"\n")
            is_header = not found
            if rest:
                yield rest
        else:
            yield piece
