"""`/composite/batch`: up to 25 calls in one request, each on its own.

Source: REST API Developer Guide, "Batch": results are in the order of the calls; with `haltOnError` those after a
failure are not carried out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from forcelift.twin.errors import ApiError
from forcelift.twin.http_composite import Find, run_inner
from forcelift.twin.http_core import Call, Reply, json_reply

CALLS_MAX: Final = 25
PATHS: Final = re.compile(r"/services/data/v(\d\d\.\d)/(sobjects|query|queryAll|limits)(/.*)?$")
RELATIVE: Final = re.compile(r"/*v\d\d\.\d/")
HALTED: Final = {
    "statusCode": 412,
    "result": [{"errorCode": "BATCH_PROCESSING_HALTED", "message": "Batch processing halted per request"}],
}


class Batch:
    """Runs batch requests.

    Args:
        find: The handler of a method and path, with the parameters of the path.
        fault: Turns an exception into an error for the client; the application's own.
    """

    def __init__(self, *, find: Find, fault: Callable[..., ApiError]) -> None:
        self._find = find
        self._fault = fault

    def run(self, call: Call) -> Reply:
        body = call.json_object()
        halt = body.get("haltOnError", False)
        if not isinstance(halt, bool):
            raise ApiError(400, "JSON_PARSER_ERROR", "`haltOnError` must be true or false")
        results: list[Mapping[str, Any]] = []
        failed = False
        for request in requests_of(body):
            if failed and halt:
                results.append(HALTED)
                continue
            status, answer = self._run_one(call, *request)
            failed = failed or status >= 400
            results.append({"statusCode": status, "result": answer})
        return json_reply({"hasErrors": failed, "results": results})

    def _run_one(self, call: Call, method: str, url: str, value: Any) -> tuple[int, Any]:
        try:
            reply = run_inner(call, self._find, method, url, value, PATHS)
        except Exception as raised:  # noqa: BLE001 - each call fails alone; `fault` logs what is unforeseen
            error = self._fault(raised, method=method, path=url.partition("?")[0])
            return error.http_status, error.body()
        if not isinstance(reply.content, bytes):
            raise TypeError(f"{method} answers with a stream and cannot be part of a batch")
        return reply.status, json.loads(reply.content) if reply.content else None


def requests_of(body: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Method, path and body of each call. Raises ApiError for a body that is none, or too many of them."""
    listed = body.get("batchRequests")
    if not isinstance(listed, list) or not listed:
        raise ApiError(400, "JSON_PARSER_ERROR", "The request body needs `batchRequests`, a list that is not empty")
    if len(listed) > CALLS_MAX:
        message = f"Limit reached. A batch request may hold at most {CALLS_MAX} subrequests"
        raise ApiError(400, "LIMIT_EXCEEDED", message)
    requests = []
    for entry in listed:
        method, url = (entry.get("method"), entry.get("url")) if isinstance(entry, Mapping) else (None, None)
        if not (isinstance(method, str) and isinstance(url, str)):
            raise ApiError(400, "JSON_PARSER_ERROR", "Every subrequest needs `method` and `url`")
        # Urls of a batch begin with the version: `v66.0/limits`.
        path = f"/services/data/{url.lstrip('/')}" if RELATIVE.match(url) else url
        requests.append((method.upper(), path, entry.get("richInput")))
    return requests
