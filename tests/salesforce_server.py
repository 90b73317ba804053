"""A local HTTP server for tests of the Salesforce adapter: answers by script, also wrongly, and records requests."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ORG_ID = "00D000000000001EAA"
USER_ID = "005000000000001AAA"
ROOT = "/services/data/v66.0"
VERSIONS = [{"label": "Spring", "url": f"/services/data/v{number}.0", "version": f"{number}.0"} for number in (65, 66)]


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Reply:
    """What to answer. `hang_up` closes the connection without a word; `cut_at` sends only so many bytes of the body."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    cut_at: int | None = None
    announce: bool = True
    chunked: bool = False


Script = Callable[[Asked], Reply]


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    """An error as REST answers it."""
    return Reply(
        status, [{"message": message, "errorCode": code}], {k.replace("_", "-"): v for k, v in headers.items()}
    )


def expired() -> Reply:
    return error(401, "INVALID_SESSION_ID", "Session expired or invalid")


class OrgServer(ThreadingHTTPServer):
    """Routes by method and path. A list is used up, its last reply stays; a function decides by itself."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.routes: dict[tuple[str, str], list[Reply] | Script] = {}
        self.lock = threading.Lock()
        self.on("GET", "/services/data", Reply(body=VERSIONS))
        identity = {"user_id": USER_ID, "organization_id": ORG_ID, "preferred_username": "etl@example.com"}
        self.on("GET", "/services/oauth2/userinfo", Reply(body=identity))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests; any other fault of a handler is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def on(self, method: str, path: str, *replies: Reply | Script) -> None:
        first = replies[0]
        self.routes[method, path] = first if callable(first) else [r for r in replies if isinstance(r, Reply)]

    def of(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

    def reply_to(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            route = self.routes.get((asked.method, asked.path))
            if isinstance(route, list):
                return route.pop(0) if len(route) > 1 else route[0]
        if route is None:
            return error(404, "NOT_FOUND", "The requested resource does not exist")
        return route(asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two would wait for each other
    disable_nagle_algorithm = True
    server: OrgServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_one(self) -> None:
        path, _, query = self.path.partition("?")
        size = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.reply_to(Asked(self.command, path, query, headers, self.rfile.read(size)))
        if reply.hang_up:
            self.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if "Content-Type" not in reply.headers:
            self.send_header("Content-Type", "text/csv" if isinstance(reply.body, bytes) else "application/json")
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.announce and reply.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body if reply.cut_at is None else body[: reply.cut_at]
        if reply.chunked:
            for start in range(0, len(sent), 1000):
                piece = sent[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if reply.cut_at is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)
        if reply.cut_at is not None or not reply.announce:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815 - names that http.server looks up


@contextmanager
def running() -> Iterator[OrgServer]:
    """A server on a free port of loopback, for as long as the block lasts."""
    server = OrgServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TestClock:
    """A clock that only sleeping moves."""

    __test__ = False

    def __init__(self) -> None:
        self.start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def job_json(job_id: str = "750000000000001AAA", **more: Any) -> dict[str, Any]:
    """An ingest job as a create call answers it."""
    return {
        "id": job_id,
        "operation": "upsert",
        "object": "Account",
        "createdById": USER_ID,
        "createdDate": "2026-01-02T21:33:43.000+0000",
        "systemModstamp": "2026-01-02T21:33:43.000+0000",
        "state": "Open",
        "externalIdFieldName": "Legacy_Id__c",
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": 66.0,
        "contentUrl": f"services/data/v66.0/jobs/ingest/{job_id}/batches",
        "lineEnding": "LF",
        "columnDelimiter": "COMMA",
        **more,
    }
