"""The frame of every HTTP call to the twin: who may call, which handler answers, how errors look.

A handler is a plain function from `Call` to `Reply` and runs in a worker thread, so DuckDB never blocks the event loop.
Bodies are read and written as streams: an upload reaches the org, and a result file reaches the client, piece by piece.
"""

from __future__ import annotations

import json
import logging
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Protocol

import anyio.from_thread
from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_errors import (
    ClientGone,
    ConnectionCut,
    HttpError,
    method_not_allowed,
    unsupported_media_type,
)
from forcelift.twin.http_workers import Workers

log = logging.getLogger(__name__)

JSON_BODY_MAX: Final = 50_000_000  # bytes after inflation; far above what 200 records or one query need
PIECE_BYTES: Final = 262_144  # of inflated or compressed stream handled at once
GZIP_FROM_BYTES: Final = 1024  # smaller answers grow when compressed
JSON_TYPE: Final = ("content-type", "application/json;charset=UTF-8")
LIVE_VERSIONS: Final = tuple(f"{number}.0" for number in range(31, 68))
RETIRED_VERSIONS: Final = tuple(f"{number}.0" for number in range(21, 31))


class Session(Protocol):
    """Who is calling."""

    @property
    def user_id(self) -> str: ...

    @property
    def username(self) -> str: ...


class Gatekeeper(Protocol):
    """Knows sessions, counts API requests, and has the threads on which handlers run."""

    @property
    def workers(self) -> Workers: ...

    def admit(self, authorization: str | None) -> Session:
        """The session of an `Authorization` header. Raises HttpError 401 without one, 403 when requests are used up."""
        ...

    def usage_header(self) -> str:
        """The value of `Sforce-Limit-Info`."""
        ...

    def fault(self, error: BaseException, *, method: str, path: str) -> ApiError:
        """Turn any exception of a handler into an error for the client; an unforeseen one is logged and kept."""
        ...


class Access(Enum):
    """Who may call an endpoint."""

    OPEN = "open"  # no session: versions, sign-in
    SESSION = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as a handler sees it. `version` is `66.0`; empty outside `/services/data/vNN.0`."""

    method: str
    path: str
    params: Mapping[str, str]
    query: QueryParams
    headers: Headers
    client: str
    """Address of the other end of the connection."""
    host_url: str
    """Scheme and host as the client wrote them."""
    version: str = ""
    caller: Session | None = None
    receive: Callable[[], bytes | None] = field(repr=False)

    @property
    def session(self) -> Session:
        if self.caller is None:
            raise RuntimeError(f"`{self.path}` needs a session but was declared open")
        return self.caller

    def chunks(self) -> Iterator[bytes]:
        """The body as a stream, inflated if it came as gzip or deflate.

        Raises:
            HttpError: 400 for a damaged stream, 415 for another encoding.
            ClientGone: The client went away in the middle.
        """
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        plain = iter(self.receive, None)
        if encoding in ("", "identity"):
            return plain
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise unsupported_media_type(f"Content-Encoding not supported: {encoding}")
        return inflate(plain, gzip=encoding != "deflate")

    def body(self, *, bytes_max: int = JSON_BODY_MAX) -> bytes:
        """The whole body. Raises HttpError 413 beyond `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        for part in self.chunks():
            size += len(part)
            if size > bytes_max:
                raise HttpError(413, "REQUEST_ENTITY_TOO_LARGE", f"The request body exceeds {bytes_max} bytes")
            parts.append(part)
        return b"".join(parts)

    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON. Raises HttpError 415 for another content type, 400 JSON_PARSER_ERROR for bad JSON."""
        kind = self.content_type()
        if kind != "application/json":
            raise unsupported_media_type(
                f"Content-Type header specified in HTTP request is not supported: {kind or '(none)'}"
            )
        return parse_json(self.body())

    def json_object(self) -> dict[str, Any]:
        value = self.json()
        if not isinstance(value, dict):
            raise HttpError(400, "JSON_PARSER_ERROR", "Cannot deserialize the request body: a JSON object is expected")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer. `content` is bytes, or a stream whose first piece has already been made (see `stream_reply`)."""

    status: int = 200
    content: bytes | Iterator[bytes] = b""
    headers: tuple[tuple[str, str], ...] = ()


def parse_json(content: bytes) -> Any:
    """A JSON text. Raises HttpError 400 JSON_PARSER_ERROR, never naming its values."""
    try:
        value = json.loads(content, parse_constant=_no_constant)
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text that could be stored
    except UnicodeDecodeError as error:
        raise HttpError(400, "JSON_PARSER_ERROR", f"Invalid UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise HttpError(400, "JSON_PARSER_ERROR", "Incomplete surrogate pair in character escape sequence") from error
    except json.JSONDecodeError as error:
        place = f"[line:{error.lineno}, column:{error.colno}]"
        raise HttpError(400, "JSON_PARSER_ERROR", f"{error.msg} at {place}") from error
    except RecursionError as error:
        raise HttpError(400, "JSON_PARSER_ERROR", "The JSON is nested too deeply") from error
    except ValueError as error:
        # NaN and Infinity are not JSON; integers of thousands of digits are beyond Python's limit.
        raise HttpError(400, "JSON_PARSER_ERROR", "A number in the request body cannot be read") from error
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def json_reply(value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Reply(status=status, content=text.encode(), headers=(JSON_TYPE, *headers))


def prettied(reply: Reply) -> Reply:
    """The same answer with its JSON indented, as `X-PrettyPrint: 1` asks for."""
    if not isinstance(reply.content, bytes) or JSON_TYPE not in reply.headers:
        return reply
    text = json.dumps(json.loads(reply.content), ensure_ascii=False, indent=2)
    return replace(reply, content=text.encode())


def empty_reply(status: int = 204) -> Reply:
    return Reply(status=status)


def stream_reply(pieces: Iterator[bytes], *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A CSV download. Makes the first piece now, so that an error still gets a status of its own."""
    first = next(pieces, b"")
    return Reply(content=_chained(first, pieces), headers=(("content-type", "text/csv"), *headers))


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def inflate(pieces: Iterator[bytes], *, gzip: bool) -> Iterator[bytes]:
    """Decompress a stream (gzip with any number of members, or zlib), a bounded piece at a time."""
    wbits = 31 if gzip else 15
    engine = zlib.decompressobj(wbits)
    fed = False
    try:
        for piece in pieces:
            rest = piece
            while rest:
                if engine.eof:
                    engine = zlib.decompressobj(wbits)
                fed = True
                out = engine.decompress(rest, PIECE_BYTES)
                if out:
                    yield out
                rest = engine.unused_data if engine.eof else engine.unconsumed_tail
    except zlib.error as error:
        raise HttpError(400, "BAD_REQUEST", "The compressed request body is damaged") from error
    if fed and not engine.eof:
        raise HttpError(400, "BAD_REQUEST", "The compressed request body ends too early")


def deflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Compress a stream as gzip, level 1: the twin's time is better spent on rows."""
    engine = zlib.compressobj(1, zlib.DEFLATED, 31)
    for piece in pieces:
        out = engine.compress(piece)
        if out:
            yield out
    yield engine.flush()


Handler = Callable[[Call], Reply]


class Endpoint:
    """The ASGI application of one path: picks the handler of the method and runs it in a worker thread."""

    def __init__(self, gate: Gatekeeper, handlers: Mapping[str, Handler], *, access: Access = Access.SESSION) -> None:
        self.gate = gate
        self.handlers = dict(handlers)
        self.access = access
        if "GET" in self.handlers:
            self.handlers.setdefault("HEAD", self.handlers["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = _call_from(scope, receive)
        reply = await self.gate.workers.run(self.answer, call)
        try:
            await send_reply(reply, call.headers, scope, send, workers=self.gate.workers)
        except ConnectionCut:
            raise
        except Exception as error:
            # Too late for a status: the client must see that the answer is not whole.
            self.gate.fault(error, method=call.method, path=call.path)
            raise ConnectionCut from error

    def answer(self, call: Call) -> Reply:
        """Run the handler. Every exception becomes an answer in Salesforce's form."""
        try:
            reply = self._handle(call)
        except ClientGone as gone:
            raise ConnectionCut from gone
        except Exception as error:  # noqa: BLE001 - the one place where a fault becomes an answer; `fault` logs it
            fault = self.gate.fault(error, method=call.method, path=call.path)
            headers = fault.headers if isinstance(fault, HttpError) else ()
            reply = json_reply(fault.body(), status=fault.http_status, headers=headers)
        if call.headers.get("x-prettyprint", "0") not in ("0", ""):
            reply = prettied(reply)
        if self.access is Access.OPEN:
            return reply
        info = ("sforce-limit-info", self.gate.usage_header())
        return replace(reply, headers=(*reply.headers, info))

    def _handle(self, call: Call) -> Reply:
        if call.version:
            check_version(call.version)
        if self.access is Access.SESSION:
            session = self.gate.admit(call.headers.get("authorization"))
            call = replace(call, caller=session)
        # Clients that cannot send PATCH write it into the query of a POST.
        method = call.query.get("_HttpMethod", call.method).upper() if call.method == "POST" else call.method
        handler = self.handlers.get(method) or self.handlers.get("*")
        if handler is None:
            raise method_not_allowed(method, sorted(self.handlers))
        return handler(call)


def check_version(version: str) -> None:
    """Raises HttpError: 410 for a retired version, 404 for one that never was."""
    if version in RETIRED_VERSIONS:
        raise HttpError(410, "GONE", f"API version {version} is retired. Use version 31.0 or later.")
    if version not in LIVE_VERSIONS:
        raise not_found()


def _call_from(scope: Scope, receive: Receive) -> Call:
    """Make the handler's view of a request. Routing worked on the raw path, so parameters are decoded here."""
    ended = False

    async def next_piece() -> bytes | None:
        nonlocal ended
        while not ended:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            ended = not message.get("more_body", False)
            if message.get("body"):
                return bytes(message["body"])
        return None

    headers = Headers(scope=scope)
    params = {name: urllib.parse.unquote(value) for name, value in scope.get("path_params", {}).items()}
    host = headers.get("host") or "{}:{}".format(*(scope.get("server") or ("127.0.0.1", 80)))
    return Call(
        method=scope["method"],
        path=scope["path"],
        params=params,
        query=QueryParams(scope.get("query_string", b"")),
        headers=headers,
        client=(scope.get("client") or ("", 0))[0],
        host_url=f"{scope.get('scheme', 'http')}://{host}",
        version=params.get("version", ""),
        receive=lambda: anyio.from_thread.run(next_piece),
    )


async def send_reply(reply: Reply, headers: Headers, scope: Scope, send: Send, *, workers: Workers) -> None:
    """Write an answer, compressed if the client takes gzip."""
    gzip = accepts_gzip(headers.get("accept-encoding", ""))
    lines = list(reply.headers)
    content = reply.content
    if isinstance(content, bytes):
        if gzip and len(content) >= GZIP_FROM_BYTES:
            lines.append(("content-encoding", "gzip"))
            content = b"".join(deflate(iter((content,))))
        if reply.status not in (204, 304):
            lines.append(("content-length", str(len(content))))
        await send({"type": "http.response.start", "status": reply.status, "headers": _encoded(lines)})
        await send({"type": "http.response.body", "body": content})
        return
    if gzip:
        lines.append(("content-encoding", "gzip"))
    await send({"type": "http.response.start", "status": reply.status, "headers": _encoded(lines)})
    await _send_stream(deflate(content) if gzip else content, content, scope, send, workers)


async def _send_stream(
    pieces: Iterator[bytes], origin: Iterator[bytes], scope: Scope, send: Send, workers: Workers
) -> None:
    transport = scope.get("extensions", {}).get("twin.transport")
    try:
        while (piece := await workers.run(next, pieces, None)) is not None:
            if transport is not None and transport.is_closing():
                raise ConnectionCut  # the reader went away: do not make the rest of the file
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        close = getattr(origin, "close", None)
        if close is not None:
            await workers.run(close)


def accepts_gzip(accept_encoding: str) -> bool:
    """True if the header names gzip with a weight above zero."""
    for item in accept_encoding.split(","):
        name, _, weight = item.strip().lower().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _encoded(lines: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
