"""Bulk API 2.0 over HTTP: ingest jobs and query jobs."""

from __future__ import annotations

import re
from typing import Any, Final

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_core import Call, Reply, empty_reply, json_reply, parse_json, stream_reply
from forcelift.twin.http_errors import HttpError, unsupported_media_type
from forcelift.twin.http_multipart import split_multipart
from forcelift.twin.jobs import LIST_PAGE
from forcelift.twin.org import TwinOrg
from forcelift.twin.query_jobs import QueryJobs
from forcelift.twin.users import User

LOCATOR: Final = re.compile(r"[0-9A-Za-z]{18}-[0-9]{1,9}")
RESULT_PAGES_SINCE: Final = 58.0
MULTIPART_BYTES_MAX: Final = 1_000_000  # 100,000 characters of data, which may be four bytes each, and the job


def jobs_root(call: Call) -> Reply:
    base = f"/services/data/v{call.version}/jobs"
    return json_reply({"ingest": f"{base}/ingest", "query": f"{base}/query"})


class IngestCalls:
    """Handlers of `/jobs/ingest`."""

    def __init__(self, org: TwinOrg, query_jobs: QueryJobs) -> None:
        self._org = org
        self._query_jobs = query_jobs

    def create(self, call: Call) -> Reply:
        if call.content_type() == "multipart/form-data":
            return self._create_with_data(call)
        body = call.json_object()
        return json_reply(self._org.jobs.create(body, self._user(call), api_version=call.version))

    def upload(self, call: Call) -> Reply:
        """The one PUT of a job; its content is stored unread, whatever it is."""
        kind = call.content_type()
        if kind != "text/csv":
            raise unsupported_media_type(f"Content-Type header specified in HTTP request is not supported: {kind}")
        self._org.jobs.put_content(call.params["job_id"], call.chunks())
        return empty_reply(201)

    def patch(self, call: Call) -> Reply:
        state = wanted_state(call.json_object())
        answer = self._org.jobs.patch(call.params["job_id"], state, self._user(call))
        # The worker may have gone on already; the answer is about the change that was asked for.
        return json_reply({**answer, "state": state})

    def get(self, call: Call) -> Reply:
        return json_reply(self._org.jobs.get(call.params["job_id"]))

    def delete(self, call: Call) -> Reply:
        self._org.jobs.delete(call.params["job_id"])
        return empty_reply()

    def list(self, call: Call) -> Reply:
        """All jobs of all users, query jobs among them: they stand on the last page, as far as it has room."""
        job_type = call.query.get("jobType")
        if call.query.get("isPkChunkingEnabled", "false").lower() == "true":
            return json_reply({"done": True, "records": [], "nextRecordsUrl": None})  # a setting of Bulk API 1.0
        locator = call.query.get("queryLocator")
        if locator is not None and LOCATOR.fullmatch(locator) is None:
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        page = self._org.jobs.list(query_locator=locator, job_type=job_type, api_version=call.version)
        if job_type is None and page["done"]:
            room = LIST_PAGE - len(page["records"])
            page["records"] += self._query_jobs.list(api_version=call.version)["records"][:room]
        return json_reply(page)

    def successful(self, call: Call) -> Reply:
        return self._results(call, "successfulResults")

    def failed(self, call: Call) -> Reply:
        return self._results(call, "failedResults")

    def unprocessed(self, call: Call) -> Reply:
        return self._results(call, "unprocessedrecords")

    def _results(self, call: Call, kind: str) -> Reply:
        return stream_reply(self._org.results(call.params["job_id"], kind))

    def _create_with_data(self, call: Call) -> Reply:
        body = call.body(bytes_max=MULTIPART_BYTES_MAX)
        parts = split_multipart(body, call.headers["content-type"])
        job, content = parts.get("job"), parts.get("content")
        if job is None or content is None:
            raise HttpError(400, "INVALIDJOB", "A multipart request needs the parts `job` and `content`")
        request = parse_json(bytes(job.content))
        if not isinstance(request, dict):
            raise HttpError(400, "JSON_PARSER_ERROR", "The part `job` must be a JSON object")
        answer = self._org.jobs.create_multipart(
            request, bytes(content.content), self._user(call), api_version=call.version
        )
        return json_reply(answer)

    def _user(self, call: Call) -> User:
        user = self._org.user(call.session.user_id)
        if user is None:
            raise HttpError(401, "INVALID_SESSION_ID", "Session expired or invalid")
        return user


class QueryJobCalls:
    """Handlers of `/jobs/query`."""

    def __init__(self, jobs: QueryJobs) -> None:
        self._jobs = jobs

    def create(self, call: Call) -> Reply:
        body = call.json_object()
        return json_reply(self._jobs.create(body, user_id=call.session.user_id, api_version=call.version))

    def get(self, call: Call) -> Reply:
        return json_reply(self._jobs.get(call.params["job_id"]))

    def patch(self, call: Call) -> Reply:
        return json_reply(self._jobs.patch(call.params["job_id"], wanted_state(call.json_object())))

    def delete(self, call: Call) -> Reply:
        self._jobs.delete(call.params["job_id"])
        return empty_reply()

    def list(self, call: Call) -> Reply:
        return json_reply(self._jobs.list(call.query.get("queryLocator"), api_version=call.version))

    def results(self, call: Call) -> Reply:
        page = self._jobs.results(
            call.params["job_id"],
            locator=call.query.get("locator"),
            max_records=max_records_from(call.query.get("maxRecords")),
            api_version=call.version,
        )
        headers = (
            ("sforce-locator", page.locator or "null"),
            ("sforce-numberofrecords", str(page.record_count)),
        )
        return stream_reply(page.content, headers=headers)

    def result_pages(self, call: Call) -> Reply:
        """Urls of pages to read side by side; earlier versions do not know the resource."""
        if float(call.version) < RESULT_PAGES_SINCE:
            raise not_found()
        return json_reply(
            self._jobs.result_pages(call.params["job_id"], locator=call.query.get("locator"), api_version=call.version)
        )


def wanted_state(body: dict[str, Any]) -> str:
    """The state of a PATCH body. Raises ApiError."""
    state = body.get("state")
    if not isinstance(state, str):
        raise ApiError(400, "INVALIDJOB", "InvalidJob : No state provided")
    return state


def max_records_from(text: str | None) -> int | None:
    """Raises ApiError for anything but a whole number from 1."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) < 1:
        raise ApiError(400, "API_ERROR", "maxRecords must be a positive whole number")
    return int(text)
