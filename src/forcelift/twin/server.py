"""Run a twin: in this process, on a thread of its own, on a port of this machine.

`TwinServer` is what tests, `twin:` targets and `forcelift twin serve` use.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import IO, Any, Final, Self

import uvicorn

from forcelift.twin.app import TwinApp
from forcelift.twin.auth import ConnectedApp, PasswordPolicy
from forcelift.twin.errors import TwinError
from forcelift.twin.http_perimeter import RequestLog, TwinProtocol
from forcelift.twin.org import TwinOrg
from forcelift.twin.sessions import SESSION_LIFETIME
from forcelift.twin.tls import Certificate

START_TIMEOUT_S: Final = 30.0
STOP_GRACE_S: Final = 2
IDLE_CONNECTION_S: Final = 75  # longer than clients keep a connection in their pools, so that they close it, not we


class ServerFailed(TwinError):
    """The twin could not be put on its port."""


class TwinServer:
    """An org on a port. Use as a context manager, or call `start` and `stop`.

    Args:
        org: Stays the caller's: it is not closed by `stop`.
        port: 0 takes a free one.
        apps: Connected apps that may sign in; without any, one with a random secret is made and kept in the org's file.
        session_lifetime: Of a session that is not used.
        seed: Of the faults that strike with a probability.
        log_file: Where the request log goes; None for no log.
        username: Whose access token `access_token` is; the org's first active user if left out.
        policy: Sign-in by password and the SOAP login; both off if left out.
        tls: Serve HTTPS with this certificate; plain HTTP if left out.
        work: Run the org's worker while the server runs. Without it jobs wait for `org.run_until_idle()`.
    """

    def __init__(
        self,
        org: TwinOrg,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        apps: Sequence[ConnectedApp] = (),
        session_lifetime: timedelta = SESSION_LIFETIME,
        seed: int = 0,
        log_file: IO[str] | None = None,
        username: str | None = None,
        policy: PasswordPolicy | None = None,
        tls: Certificate | None = None,
        work: bool = True,
    ) -> None:
        self.org = org
        self._work = work
        self._tls = tls
        if tls is not None:
            tls.check()
        self._address = (host, port)
        log = None if log_file is None else RequestLog(log_file)
        self.app = TwinApp(org, apps=apps, session_lifetime=session_lifetime, seed=seed, log=log, policy=policy)
        self.username = username or self.app.default_username
        self.access_token = self.app.sign_in.open_session(self.username)
        self.url = ""
        self.port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._failure: BaseException | None = None
        self._stopped = False

    @property
    def control_token(self) -> str:
        """What the endpoints under `/__twin__` ask for."""
        return self.app.control_token

    @property
    def internal_errors(self) -> list[str]:
        """Faults of the twin itself that clients saw as 500 UNKNOWN_EXCEPTION: a test run should have none."""
        return list(self.app.internal_errors)

    def start(self) -> Self:
        """Bind the port and serve. Raises ServerFailed if the port cannot be had."""
        if self._thread is not None or self._stopped:
            raise ServerFailed("a server can be started once; make another one for the same org")
        host, port = self._address
        try:
            self._socket = listen(host, port)
        except OSError as error:
            raise ServerFailed(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
        self.port = self._socket.getsockname()[1]
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = uvicorn.Config(
            self.app.asgi,
            http=TwinProtocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_CONNECTION_S,
            timeout_graceful_shutdown=STOP_GRACE_S,
            ssl_certfile=None if self._tls is None else str(self._tls.cert_file),
            ssl_keyfile=None if self._tls is None else str(self._tls.key_file),
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name=f"twin-{self.port}", daemon=True)
        self._thread.start()
        if not self._server.ready.wait(START_TIMEOUT_S) or self._failure is not None:
            failure, self._failure = self._failure, None
            self.stop()
            raise ServerFailed(f"the twin did not start on {host} port {port}") from failure
        if self._work:
            self.org.start()
        return self

    def stop(self) -> None:
        """Stop serving; requests in flight get a few seconds. A second call does nothing.

        Raises:
            ServerFailed: It had ended by itself before; all is closed nevertheless.
        """
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._server, self._thread, self._socket = None, None, None
        if not self._stopped:
            self._stopped = True
            try:
                if self._work:
                    self.org.stop()
            finally:
                self.app.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise ServerFailed(f"the twin on port {self.port} ended before it was stopped") from failure

    def describe(self) -> dict[str, Any]:
        """What a client needs to know, as printed by `forcelift twin serve`; it holds secrets."""
        return {
            "url": self.url,
            "access_token": self.access_token,
            "org_id": self.org.org_id,
            "username": self.username,
            "client_ids": [app.client_id for app in self.app.sign_in.apps.values()],
            "connected_app": self.app.made_app_json(),
            "control_token": self.control_token,
            "certificate": None if self._tls is None else str(self._tls.cert_file.resolve()),
            "pid": os.getpid(),
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        assert self._server is not None
        assert self._socket is not None
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # noqa: BLE001 - a thread has no caller: `start` or `stop` raises it there
            self._failure = error
        finally:
            self._server.ready.set()


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # A client in the middle of an upload would keep its worker thread, and so the process, waiting for ever.
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle's delay off; without, every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
