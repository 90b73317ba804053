"""Send the content of an ingest job: streamed, of announced length, plain or compressed."""

from __future__ import annotations

import importlib
import json
import secrets
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import IO, Any

from forcelift.errors import StorageError
from forcelift.salesforce.http import Transport

_deflater: ModuleType
try:
    _deflater = importlib.import_module("isal.isal_zlib")
except ImportError:  # isal has no wheel for every platform; zlib needs 3.7 times the CPU
    _deflater = zlib

Content = Callable[[], Iterable[bytes]]

PIECE_BYTES = 1_000_000
"""Size of the pieces handed to the HTTP client; a whole body at once would cost four times the CPU, and its memory."""

GZIP_REFUSALS = frozenset({400, 411, 415})
"""Statuses by which an org may say that it does not take a compressed upload."""

_CONTENT_PART = 'name="content"; filename="content"'
_GZIP = 16 + zlib.MAX_WBITS


def send_plain(http: Transport, path: str, *, content: Content, size: int, what: str) -> None:
    """PUT the content as it is."""
    headers = {"Content-Type": "text/csv", "Content-Length": str(size)}
    http.send("PUT", path, what=what, headers=headers, content=lambda: _checked(content, size=size, what=what))


def send_gzip(http: Transport, path: str, *, content: Content, size: int, what: str) -> None:
    """PUT the content compressed. It is compressed to an unnamed temporary file first, since the length goes ahead."""
    with tempfile.TemporaryFile() as file:
        squeezer: Any = _deflater.compressobj(1, zlib.DEFLATED, _GZIP)
        for piece in _checked(content, size=size, what=what):
            file.write(squeezer.compress(piece))
        file.write(squeezer.flush())
        headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip", "Content-Length": str(file.tell())}
        http.send("PUT", path, what=what, headers=headers, content=lambda: _from_start(file))


def send_with_job(http: Transport, path: str, *, job: Mapping[str, str], content: Content, size: int, what: str) -> Any:
    """POST a job and its content as one form; returns the parsed answer. All of it is in memory before it is sent."""
    data = b"".join(_checked(content, size=size, what=what))
    boundary = f"forcelift-{secrets.token_hex(16)}"
    parts = (('name="job"', "application/json", json.dumps(job).encode()), (_CONTENT_PART, "text/csv", data))
    body = [
        f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode()
        + part
        + b"\r\n"
        for name, kind, part in parts
    ]
    body.append(f"--{boundary}--\r\n".encode())
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return http.send_for_json("POST", path, what=what, headers=headers, content=lambda: body)


def _from_start(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece


def _checked(content: Content, *, size: int, what: str) -> Iterator[bytes]:
    """The content in larger pieces, broken off before a byte too many and refused if one is missing."""
    sent = 0
    waiting = bytearray()
    for part in content():
        if not waiting and len(part) >= PIECE_BYTES:  # as it should be: nothing is copied
            sent += len(part)
            if sent > size:
                raise _wrong_size(what, size)
            yield part
            continue
        waiting += part
        if len(waiting) >= PIECE_BYTES:
            sent += len(waiting)
            if sent > size:
                raise _wrong_size(what, size)
            yield bytes(waiting)
            waiting.clear()
    if sent + len(waiting) != size:
        raise _wrong_size(what, size)
    if waiting:
        yield bytes(waiting)


def _wrong_size(what: str, size: int) -> StorageError:
    return StorageError(
        f"could not {what}: the content is not of the {size:,} bytes that were announced",
        state="the upload was broken off; the job holds nothing and must be aborted",
        hint="the staged file was changed or damaged: see `forcelift doctor`",
    )
