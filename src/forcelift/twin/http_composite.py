"""`/composite`: up to 25 calls in one request, later ones naming results of earlier ones as `@{referenceId.field}`.

With `allOrNone` all changes are one transaction. Source: REST API Developer Guide, "Composite".
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.datastructures import Headers, QueryParams

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_core import Call, Handler, Reply, check_version, json_reply
from forcelift.twin.http_perimeter import tidy_path
from forcelift.twin.rest_unit import RollBack, WorkUnits, rolled_back_error

REQUESTS_MAX: Final = 25
QUERIES_MAX: Final = 5  # queries and collections among them
PATHS: Final = re.compile(r"/services/data/v(\d\d\.\d)/(sobjects|query|queryAll|limits|composite/sobjects)(/.*)?$")
COUNTED_PATHS: Final = re.compile(r"/(query|queryAll|composite/sobjects)(/|$)")
REFERENCE: Final = re.compile(r"@\{([A-Za-z0-9_]+)((?:\.[A-Za-z0-9_]+|\[\d+\])+)\}")

Find = Callable[[str, str], tuple[Handler, dict[str, str]] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One subrequest."""

    method: str
    url: str
    name: str
    body: Any


class _Halted(Exception):
    """A subrequest names a result that is not there."""


class Composite:
    """Runs composite requests.

    Args:
        find: The handler of a method and path, with the parameters of the path.
        fault: Turns an exception into an error for the client; the application's own.
        units: Makes the changes of several handlers one transaction.
    """

    def __init__(self, *, find: Find, fault: Callable[..., ApiError], units: WorkUnits) -> None:
        self._find = find
        self._fault = fault
        self._units = units

    def run(self, call: Call) -> Reply:
        body = call.json_object()
        parts = parts_of(body)
        all_or_none = body.get("allOrNone", False)
        if not isinstance(all_or_none, bool):
            raise ApiError(400, "JSON_PARSER_ERROR", "`allOrNone` must be true or false")
        if not all_or_none:
            return json_reply({"compositeResponse": list(self._run_parts(call, parts))})
        answers: list[dict[str, Any]] = []
        try:
            with self._units.all_or_none():
                for answer in self._run_parts(call, parts):
                    answers.append(answer)
                    if answer["httpStatusCode"] >= 400:
                        raise RollBack
        except RollBack:
            answers = [_halted(part) for part in parts[: len(answers) - 1]] + answers[-1:]
            answers += [_halted(part) for part in parts[len(answers) :]]
        return json_reply({"compositeResponse": answers})

    def _run_parts(self, call: Call, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        results: dict[str, Any] = {}
        for part in parts:
            status, answer, headers = self._run_part(call, part, results)
            if status < 300:
                results[part.name] = answer
            yield {"body": answer, "httpHeaders": headers, "httpStatusCode": status, "referenceId": part.name}

    def _run_part(self, call: Call, part: Part, results: Mapping[str, Any]) -> tuple[int, Any, dict[str, str]]:
        try:
            reply = self._answer(call, part, results)
        except _Halted as halted:
            error = ApiError(400, "PROCESSING_HALTED", str(halted))
            return error.http_status, error.body(), {}
        except RollBack as undone:
            return 400, undone.answer, {}
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

    def _answer(self, call: Call, part: Part, results: Mapping[str, Any]) -> Reply:
        body = None if part.body is None else fill(part.body, results)
        return run_inner(call, self._find, part.method, str(fill(part.url, results)), body, PATHS)


def run_inner(call: Call, find: Find, method: str, url: str, body: Any, paths: re.Pattern[str]) -> Reply:
    """Answer one call that came inside another.

    Args:
        call: The call around it; its session counts.
        url: Path and query, as the client wrote them.
        body: JSON value, or None for no body.
        paths: What may be called; its first group is the API version.
    Raises:
        ApiError: 404 for another path, 405 for a method that it does not have, and what the handler raises.
    """
    try:
        parsed = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise not_found() from error
    path = tidy_path(parsed.path)
    matched = paths.match(path)
    if matched is None:
        raise not_found()
    check_version(matched[1])
    found = find(method, path)
    if found is None:
        raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{method}' not allowed.")
    handler, params = found
    pieces = iter([] if body is None else [json.dumps(body).encode()])
    inner = replace(
        call,
        method=method,
        path=path,
        params=params,
        query=QueryParams(parsed.query),
        headers=Headers({"content-type": "application/json"}),
        version=matched[1],
        receive=lambda: next(pieces, None),
    )
    return handler(inner)


def _halted(part: Part) -> dict[str, Any]:
    body = rolled_back_error().body()
    return {"body": body, "httpHeaders": {}, "httpStatusCode": 400, "referenceId": part.name}


def parts_of(body: Mapping[str, Any]) -> list[Part]:
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
        parts.append(Part(method=method.upper(), url=url, name=name, body=entry.get("body")))
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
