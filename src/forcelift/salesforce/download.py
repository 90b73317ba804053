"""Read an answer's body as a stream, inflated, and make sure that nothing of it is missing.

A body counts as whole when its length was announced and met, or its chunked encoding was ended, and, if it is
compressed, when the trailer of its last gzip member fits. Anything else raises, so that the caller downloads again.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import httpx

from forcelift.errors import OrgUnavailable
from forcelift.salesforce.failures import broken_answer, from_exception

_inflater: ModuleType
try:
    _inflater = importlib.import_module("isal.isal_zlib")
except ImportError:  # isal has no wheel for every platform; zlib does the same work at less than half the speed
    _inflater = zlib

_INFLATE_BYTES = 1 << 16
_GZIP = 16 + zlib.MAX_WBITS  # expect gzip's header and check its trailer


def read_pieces(response: httpx.Response, *, what: str) -> Iterator[bytes]:
    """Yield the body of a streamed answer, inflated. Pieces are never empty; memory does not grow with the body.

    Raises:
        OrgUnavailable: The body was cut, damaged, or of a length that nobody announced. What was yielded is worthless.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise broken_answer(what=what, reason=f"its encoding `{encoding[:40]}` was not asked for", changes=False)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise broken_answer(what=what, reason="it is a web page", changes=False)
    if response.status_code == httpx.codes.NO_CONTENT:
        return
    _refuse_unbounded(response, what=what)
    raw = _raw_pieces(response, what=what)
    is_empty = response.headers.get("Content-Length") == "0"
    yield from _inflate(raw, what=what) if encoding.endswith("gzip") and not is_empty else raw


def _raw_pieces(response: httpx.Response, *, what: str) -> Iterator[bytes]:
    received = 0
    try:
        for piece in response.iter_raw():
            received += len(piece)
            if piece:
                yield piece
    except httpx.RequestError as error:
        raise from_exception(error, what=what, host=response.url.host, changes=False) from error
    announced = response.headers.get("Content-Length")
    if announced is not None and "Transfer-Encoding" not in response.headers and int(announced) != received:
        raise broken_answer(what=what, reason=f"{received:,} of {int(announced):,} bytes came", changes=False)


def _refuse_unbounded(response: httpx.Response, *, what: str) -> None:
    """A body that ends when the connection does cannot be told from one that was cut."""
    if "Content-Length" not in response.headers and "chunked" not in response.headers.get("Transfer-Encoding", ""):
        raise OrgUnavailable(
            f"could not {what}: the answer does not say how long it is, and a cut one would look whole",
            state="the request changed nothing in the org",
            hint="a proxy in between strips the length; let Forcelift reach the org without it",
        )


def _small(raw: Iterator[bytes]) -> Iterator[bytes | memoryview]:
    """Pieces small enough to be inflated within the cache of a core, which takes two thirds of the time."""
    for piece in raw:
        view = memoryview(piece)
        yield from (view[at : at + _INFLATE_BYTES] for at in range(0, len(piece), _INFLATE_BYTES))


def _inflate(raw: Iterator[bytes], *, what: str) -> Iterator[bytes]:
    """Inflate gzip members one after the other; each must end with its trailer."""
    stream: Any = _inflater.decompressobj(wbits=_GZIP)
    try:
        for rest in _small(raw):
            while rest:
                if stream is None:
                    stream = _inflater.decompressobj(wbits=_GZIP)
                data = stream.decompress(rest)
                if data:
                    yield data
                rest = stream.unused_data if stream.eof else b""
                if stream.eof:
                    stream = None
    except (_inflater.error, zlib.error) as error:
        raise broken_answer(what=what, reason="its compressed data is damaged", changes=False) from error
    if stream is not None:
        raise broken_answer(what=what, reason="its compressed data is cut off", changes=False)
