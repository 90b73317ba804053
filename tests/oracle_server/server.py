"""The Oracle test server: a listener, a database in memory, users, and faults on order.

It speaks Oracle's protocol (TNS, TTC) well enough for the thin mode of python-oracledb as its makers ship it, and it
behaves as Oracle documents, never as a client might wish. Whatever it was not taught it refuses with ORA-03001.
"""

from __future__ import annotations

import socket
import ssl
import threading
from types import TracebackType

from tests.oracle_server.catalog import User
from tests.oracle_server.faults import Faults
from tests.oracle_server.session import Session
from tests.oracle_server.store import Store
from tests.oracle_server.wire import Packets

PROFILES = ("19c", "23ai")


class OracleServer:
    """A server on a port of the loopback interface.

    Args:
        profile: `19c` (protocol 318, field version 12, replies without an end mark) or `23ai` (319, 24, fast logon).
        service: The service name that clients connect to; `sid` likewise.
        sdu: The largest packet that is agreed to.
        port: 0 takes a free one.
        tls: Serve TCPS by it.
    """

    def __init__(
        self,
        profile: str = "23ai",
        *,
        service: str = "KPCPROD",
        sid: str = "KPC",
        sdu: int = 65535,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if profile not in PROFILES:
            raise ValueError(f"no such profile: {profile}")
        self.profile, self.service, self.sid, self.sdu = profile, service, sid, sdu
        self._tls = tls
        self.store = Store()
        self.faults = Faults()
        self.closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def dsn(self) -> str:
        return f"127.0.0.1:{self.port}/{self.service}"

    def add_user(self, name: str, password: str, *granted: str) -> User:
        """A user who may connect; `granted` are further privileges, such as `CREATE TABLE` or `DBA`."""
        user = User(name=name.upper(), password=password, granted={"CREATE SESSION", *granted})
        self.store.catalog.users[user.name] = user
        return user

    def close(self) -> None:
        """End all sessions and the listener. A second call does nothing."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._listener.join()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # The session ended by itself.
        for thread in self._threads:
            thread.join()
        self.store.close()

    def __enter__(self) -> OracleServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self) -> None:
        number = 100
        while not self.closing.is_set():
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number += 1
            with self._lock:
                self._sockets.add(sock)
                self._threads = [one for one in self._threads if one.is_alive()]
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        if self._tls is not None:
            with self._lock:
                self._sockets.discard(sock)
            try:
                sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                return  # The client does not trust the certificate, or speaks no TLS.
            with self._lock:
                self._sockets.add(sock)
        try:
            Session(self, Packets(sock), number).serve()
        finally:
            with self._lock:
                self._sockets.discard(sock)
