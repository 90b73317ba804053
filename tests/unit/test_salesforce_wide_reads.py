"""Reading answers in large pieces: nothing is lost, over TLS neither, and a cut answer still shows as cut."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from forcelift.salesforce.client import HttpSettings, make_client
from forcelift.salesforce.wide_reads import PIECE_BYTES
from forcelift.twin.tls import own_certificate

BODY = random.Random(7).randbytes(3_000_017)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@contextlib.contextmanager
def serving(pieces: list[bytes], *, tls: Path | None) -> Iterator[tuple[httpx.Client, str]]:
    """A server that answers each request with these pieces and then hangs up, and a client for it."""
    context = None
    if tls is not None:
        pair = own_certificate(tls)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert_file, pair.key_file)

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as plain:
            connection = context.wrap_socket(plain, server_side=True) if context else plain
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        ca_file = str(pair.cert_file) if tls is not None else None
        with make_client(httpx.URL(url), settings=HttpSettings(), ca_file=ca_file, wire=None) as client:
            yield client, url
    thread.join(10)


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "tls" else None


def test_a_body_comes_whole_in_large_pieces(tls: Path | None) -> None:
    with serving([HEAD + BODY[:5], BODY[5:70_000], BODY[70_000:]], tls=tls) as (client, url):
        with client.stream("GET", url) as response:
            pieces = list(response.iter_raw())
        assert response.extensions["network_stream"].get_extra_info("socket") is not None
    assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(BODY).digest()
    assert max(map(len, pieces)) > 65_536, "httpcore's own reads are no larger"
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES


def test_a_body_that_is_cut_shows_as_cut(tls: Path | None) -> None:
    pieces = [HEAD + BODY[:2_000_000]]
    with (
        serving(pieces, tls=tls) as (client, url),
        client.stream("GET", url) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        list(response.iter_raw())
