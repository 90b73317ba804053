"""`/composite`: up to 25 calls in one request, later ones naming results of earlier ones as `@{referenceId.field}`.

Source: REST API Developer Guide, "Composite". `allOrNone` with several changes is not carried out, and is refused.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.datastructures import Headers, QueryParams

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_core import Call, Handler, Reply, check_version, json_reply
from forcelift.twin.http_perimeter import tidy_path

REQUESTS_MAX: Final = 25
QUERIES_MAX: Final = 5  # queries and collections among them
PATHS: Final = re.compile(r"/services/data/v(\d\d\.\d)/(sobjects|query|queryAll|limits|composite/sobjects)(/.*)?$")
COUNTED_PATHS: Final = re.compile(r"/(query|queryAll|composite/sobjects)(/|$)")
REFERENCE: Final = re.compile(r"@\{([A-Za-z0-9_]+)((?:\.[A-Za-z0-9_]+|\[\d+\])+)\}")

Find = Callable[[str, str], tuple[Handler, dict[str, str]] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One subrequest."""

    method: str
    url: str
    name: str
    body: Any

    @property
    def is_change(self) -> bool:
        return self.method in ("POST", "PATCH", "PUT", "DELETE")


class _Halted(Exception):
    """A subrequest names a result that is not there."""


class Composite:
    """Runs composite requests.

    Args:
        find: The handler of a method and path, with the parameters of the path.
        fault: Turns an exception into an error for the client; the application's own.
    """

    def __init__(self, *, find: Find, fault: Callable[..., ApiError]) -> None:
        self._find = find
        self._fault = fault

    def run(self, call: Call) -> Reply:
        body = call.json_object()
        parts = parts_of(body)
        if body.get("allOrNone", False) and sum(part.is_change for part in parts) > 1:
            message = "The twin carries out allOrNone in a composite request only for a single change"
            raise ApiError(501, "FUNCTIONALITY_NOT_ENABLED", message)
        results: dict[str, Any] = {}
        answers = []
        for part in parts:
            status, answer, headers = self._run_part(call, part, results)
            if status < 300:
                results[part.name] = answer
            answers.append({"body": answer, "httpHeaders": headers, "httpStatusCode": status, "referenceId": part.name})
        return json_reply({"compositeResponse": answers})

    def _run_part(self, call: Call, part: _Part, results: Mapping[str, Any]) -> tuple[int, Any, dict[str, str]]:
        try:
            reply = self._answer(call, part, results)
        except _Halted as halted:
            error = ApiError(400, "PROCESSING_HALTED", str(halted))
            return error.http_status, error.body(), {}
        except Exception as raised:  # noqa: BLE001 - each part fails alone; `fault` logs what is unforeseen
            error = self._fault(raised, method=part.method, path=part.url.partition("?")[0])
            return error.http_status, error.body(), {}
        content = reply.content
        if not isinstance(content, bytes):
            raise TypeError(f"{part.method} answers with a stream and cannot be part of a composite request")
        answer = json.loads(content) if content else None
        headers = {}
        if reply.status == 201 and isinstance(answer, dict) and "id" in answer:
            headers["Location"] = f"{part.url.partition('?')[0].rstrip('/')}/{answer['id']}"
        return reply.status, answer, headers

    def _answer(self, call: Call, part: _Part, results: Mapping[str, Any]) -> Reply:
        try:
            url = urllib.parse.urlsplit(str(fill(part.url, results)))
        except ValueError as error:
            raise not_found() from error
        path = tidy_path(url.path)
        matched = PATHS.match(path)
        if matched is None:
            raise not_found()
        check_version(matched[1])
        found = self._find(part.method, path)
        if found is None:
            raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{part.method}' not allowed.")
        handler, params = found
        content = [json.dumps(fill(part.body, results)).encode()] if part.body is not None else []
        pieces = iter(content)
        inner = replace(
            call,
            method=part.method,
            path=path,
            params=params,
            query=QueryParams(url.query),
            headers=Headers({"content-type": "application/json"}),
            version=matched[1],
            receive=lambda: next(pieces, None),
        )
        return handler(inner)


def parts_of(body: Mapping[str, Any]) -> list[_Part]:
    """The subrequests of a body. Raises ApiError for a body that is none, or too many of them."""
    listed = body.get("compositeRequest")
    if not isinstance(listed, list) or not listed:
        raise ApiError(400, "JSON_PARSER_ERROR", "The request body needs `compositeRequest`, a list that is not empty")
    if len(listed) > REQUESTS_MAX:
        message = f"Limit reached. A composite request may hold at most {REQUESTS_MAX} subrequests"
        raise ApiError(400, "LIMIT_EXCEEDED", message)
    parts = []
    for entry in listed:
        if not isinstance(entry, Mapping):
            raise ApiError(400, "JSON_PARSER_ERROR", "Every subrequest must be a JSON object")
        method, url, name = entry.get("method"), entry.get("url"), entry.get("referenceId")
        if not (isinstance(method, str) and isinstance(url, str) and isinstance(name, str)):
            raise ApiError(400, "JSON_PARSER_ERROR", "Every subrequest needs `method`, `url` and `referenceId`")
        parts.append(_Part(method=method.upper(), url=url, name=name, body=entry.get("body")))
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ApiError(400, "INVALID_INPUT", "Every `referenceId` of a composite request must be unique")
    if sum(COUNTED_PATHS.search(part.url.partition("?")[0]) is not None for part in parts) > QUERIES_MAX:
        message = f"Limit reached. A composite request may hold at most {QUERIES_MAX} query or collections subrequests"
        raise ApiError(400, "LIMIT_EXCEEDED", message)
    return parts


def fill(value: Any, results: Mapping[str, Any]) -> Any:
    """A url or body with its `@{...}` replaced. Raises _Halted."""
    if isinstance(value, str):
        whole = REFERENCE.fullmatch(value)
        if whole is not None:
            return look_up(whole, results)
        return REFERENCE.sub(lambda found: str(look_up(found, results)), value)
    if isinstance(value, list):
        return [fill(item, results) for item in value]
    if isinstance(value, Mapping):
        return {key: fill(item, results) for key, item in value.items()}
    return value


def look_up(found: re.Match[str], results: Mapping[str, Any]) -> Any:
    """The value that a reference names, in the answer of an earlier subrequest."""
    name, path = found[1], found[2]
    if name not in results:
        raise _Halted(f"Invalid reference specified. The subrequest {name} has no result to refer to")
    value = results[name]
    for step in re.findall(r"\.([A-Za-z0-9_]+)|\[(\d+)\]", path):
        try:
            value = value[step[0]] if step[0] else value[int(step[1])]
        except (KeyError, IndexError, TypeError) as error:
            raise _Halted(f"Invalid reference specified. No value for {name}{path} found in {name}") from error
    return value
