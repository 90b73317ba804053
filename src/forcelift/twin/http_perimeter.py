"""The outermost layer of the twin: tidies paths, keeps the request log, and carries out armed faults.

Log lines are JSON: time, method, path without query, status (0: the connection ended without an answer), milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from datetime import datetime
from typing import IO, Any, Final

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from forcelift.twin.fault_orders import FaultOrder
from forcelift.twin.http_errors import ConnectionCut
from forcelift.twin.http_faults import Faults

URI_BYTES_MAX: Final = 16_384  # Salesforce: 414 beyond; 431 for URI and headers together
CONTROL_PREFIX: Final = "/__twin__"
SLASHES: Final = re.compile(r"/{2,}")
KNOWN_PREFIXES: Final = ("/services/", "/id/", CONTROL_PREFIX)
RECORD_KEY: Final = re.compile(r"(/sobjects/[^/]+/[^/]+/).+$")

_Sleep = Callable[[float], Awaitable[None]]


class TwinProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also shows the connection to the application, so that a fault can close it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"twin.transport": self.transport}  # type: ignore[dict-item]  # ours, not a standard one


class RequestLog:
    """Appends one JSON line per request. Never query values, tokens or bodies: they hold personal data."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(
        self, *, at: datetime, method: str, path: str, status: int, milliseconds: float, faults: Sequence[str]
    ) -> None:
        line: dict[str, Any] = {"time": at.isoformat(), "method": method, "path": masked_path(path)}
        line |= {"status": status, "ms": round(milliseconds, 1)}
        if faults:
            line["faults"] = list(faults)
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class Perimeter:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        faults: Faults,
        now: Callable[[], datetime],
        log: RequestLog | None,
        end_sessions: Callable[[], int],
    ) -> None:
        self._app = app
        self._end_sessions = end_sessions
        self._faults = faults
        self._now = now
        self._log = log
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.requests += 1
        # Routing works on the raw path: a slash inside an external ID arrives as %2F and must stay one segment.
        raw = scope.get("raw_path") or scope["path"].encode()
        scope["path"] = tidy_path(raw.decode("latin-1"))
        entry = _LogEntry(self._log, self._now, scope)
        try:
            await self._serve(scope, receive, _Answer(send, entry), entry)
        except ConnectionCut:
            await hang_up(scope, receive)
        finally:
            entry.write()

    async def _serve(self, scope: Scope, receive: Receive, send: _Answer, entry: _LogEntry) -> None:
        too_long = check_sizes(scope)
        if too_long is not None:
            await _answer(send, too_long, f"<html><body><h1>{too_long}</h1></body></html>", "text/html", ())
            return
        orders = () if scope["path"].startswith(CONTROL_PREFIX) else self._faults.strike(scope["method"], scope["path"])
        entry.faults = [order.action for order in orders]
        for order in orders:
            if order.action == "delay":
                await asyncio.sleep(order.seconds)
        final = next((order for order in orders if order.action != "delay"), None)
        if final is None:
            await self._app(scope, receive, send)
        else:
            await self._strike(final, scope, receive, send)

    async def _strike(self, order: FaultOrder, scope: Scope, receive: Receive, send: Send) -> None:
        match order.action:
            case "answer":
                await _answer(send, order.status, order.body, order.content_type, order.headers.items())
            case "drop":
                raise ConnectionCut
            case "lose_reply":
                await self._app(scope, receive, _discard)
                raise ConnectionCut
            case "cut_response":
                await self._app(scope, receive, _cutting_send(send, order.after_bytes, scope))
            case "cut_request":
                await self._app(scope, _cutting_receive(receive, order.after_bytes), send)
            case "slow_request":
                await self._app(scope, _slow_receive(receive, order.bytes_per_second), send)
            case "slow_response":
                await self._app(scope, receive, _slow_send(send, order.bytes_per_second))
            case "expire_sessions":
                await anyio.to_thread.run_sync(self._end_sessions)
                await self._app(scope, receive, send)


class _LogEntry:
    """The log line of one request, written once."""

    def __init__(self, log: RequestLog | None, now: Callable[[], datetime], scope: Scope) -> None:
        self._log = log
        self._now = now
        self._scope = scope
        self._started = time.perf_counter()
        self.status = 0
        self.faults: Sequence[str] = ()

    def write(self) -> None:
        log, self._log = self._log, None
        if log is None:
            return
        elapsed = (time.perf_counter() - self._started) * 1000
        method, path = self._scope["method"], self._scope["path"]
        log.write(
            at=self._now(), method=method, path=path, status=self.status, milliseconds=elapsed, faults=self.faults
        )


class _Answer:
    """The server's `send`. The log line is written before the answer's end, so that who has the answer finds it."""

    def __init__(self, send: Send, entry: _LogEntry) -> None:
        self._send = send
        self._entry = entry

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._entry.status = message["status"]
            # A loader must be able to tell a twin from an org before it sends a token.
            message["headers"] = [*message.get("headers", ()), (b"x-forcelift-twin", b"1")]
        elif not message.get("more_body", False):
            self._entry.write()
        await self._send(message)


def tidy_path(path: str) -> str:
    """Doubled slashes and a trailing one mean nothing: clients send both."""
    return SLASHES.sub("/", path).rstrip("/") or "/"


def masked_path(path: str) -> str:
    """A path without the value of an external ID, and without what is no path of the org at all."""
    if not path.startswith(KNOWN_PREFIXES) and path not in ("/", "/services", "/services/data"):
        return "(unknown)"
    return RECORD_KEY.sub(r"\1*", path)


def check_sizes(scope: Scope) -> int | None:
    """414 for a URI that is too long, 431 if headers and URI together are, else None."""
    uri = len(scope.get("raw_path") or b"") + 1 + len(scope.get("query_string", b""))
    if uri > URI_BYTES_MAX:
        return 414
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return 431 if uri + headers > URI_BYTES_MAX else None


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection without (more of) an answer and wait until the server has noticed."""
    transport = scope.get("extensions", {}).get("twin.transport")
    if transport is None:
        raise RuntimeError("this server cannot close connections; run the twin with `TwinServer`")
    if not transport.is_closing():
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, body: str, content_type: str, headers: Iterable[tuple[str, str]]) -> None:
    content = body.encode()
    lines = [(b"content-type", content_type.encode()), (b"content-length", str(len(content)).encode())]
    lines += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content})


async def _discard(message: MutableMapping[str, Any]) -> None:
    """A `send` whose messages reach nobody."""


def _cutting_send(send: Send, bytes_max: int, scope: Scope) -> Send:
    """Pass `bytes_max` bytes of the answer's body on, as sent over the wire, then close the connection."""
    left = bytes_max

    async def cutting(message: Message) -> None:
        nonlocal left
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")
        if len(body) <= left and message.get("more_body", False):
            left -= len(body)
            await send(message)
            return
        if len(body) < left:
            await send(message)  # the whole answer is shorter than the cut
            return
        await send({"type": "http.response.body", "body": body[:left], "more_body": True})
        transport = scope.get("extensions", {}).get("twin.transport")
        if transport is not None:
            transport.close()  # after what is written has gone out; `abort` would lose it
        raise ConnectionCut

    return cutting


def _cutting_receive(receive: Receive, bytes_max: int) -> Receive:
    """Hand `bytes_max` bytes of the request's body on, then behave as if the client had gone."""
    left = bytes_max

    async def cutting() -> Message:
        nonlocal left
        if left <= 0:
            return {"type": "http.disconnect"}
        message = await receive()
        body = message.get("body", b"")
        if len(body) > left:
            message = {**message, "body": body[:left], "more_body": True}
        left -= len(body)
        return message

    return cutting


def _slow_receive(receive: Receive, bytes_per_second: int, sleep: _Sleep = asyncio.sleep) -> Receive:
    """Take the request's body no faster than that; what the client sends meanwhile waits in the network."""

    async def slow() -> Message:
        message = await receive()
        await sleep(len(message.get("body", b"")) / bytes_per_second)
        return message

    return slow


def _slow_send(send: Send, bytes_per_second: int, sleep: _Sleep = asyncio.sleep) -> Send:
    """Send the answer's body no faster than that."""

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.body":
            await sleep(len(message.get("body", b"")) / bytes_per_second)
        await send(message)

    return slow
