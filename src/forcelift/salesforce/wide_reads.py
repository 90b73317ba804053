"""Read answers from the network in large pieces.

httpcore reads at most 64 KB at once, and a TLS connection gives one record, 16 KB, for each read. Each piece goes
through the layers of HTTP one by one, at a cost that does not depend on its size; result files of gigabytes have many.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore
import httpx

PIECE_BYTES: Final = 1 << 18
_STREAMING_BYTES: Final = 1 << 14  # a piece that is smaller is an answer's head, or its end: nothing is waited for


def read_widely(client: httpx.Client) -> None:
    """Let all connections that this client opens from now on read in large pieces."""
    transports = [client._transport, *client._mounts.values()]
    for transport in transports:
        # httpx hands no network backend on, so the pool below it is given one; a wire of tests has no pool.
        if isinstance(transport, httpx.HTTPTransport):
            pool = transport._pool
            pool._network_backend = _WideBackend(pool._network_backend)


class _WideBackend(httpcore.NetworkBackend):
    """Opens connections as another backend does."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _WideStream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        return _WideStream(self._inner.connect_unix_socket(path, timeout, socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _WideStream(httpcore.NetworkStream):
    """A connection; only what `read` gives differs from the one below."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._is_tls = isinstance(inner.get_extra_info("socket"), ssl.SSLSocket)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        first = self._inner.read(max(max_bytes, PIECE_BYTES), timeout)
        if not self._is_tls or len(first) < _STREAMING_BYTES:
            return first
        pieces, size = [first], len(first)
        while size < PIECE_BYTES and self._has_more():
            try:
                piece = self._inner.read(PIECE_BYTES, timeout)
            except httpcore.NetworkError:
                break  # what came before the connection broke counts; the next read tells of the break
            if not piece:
                break  # the end, which the next read finds again
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _has_more(self) -> bool:
        """Whether more lies here already. A record that has only begun to arrive is waited for, as it surely comes."""
        connection = self._inner.get_extra_info("socket")
        return connection.pending() > 0 or bool(self._inner.get_extra_info("is_readable"))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _WideStream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
