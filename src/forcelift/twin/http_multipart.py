"""Split a multipart/form-data body: job and data in one request."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from forcelift.twin.http_errors import HttpError


@dataclass(slots=True)
class Part:
    """One part of the body. `name` is that of its Content-Disposition."""

    name: str = ""
    content_type: str = ""
    content: bytearray = field(default_factory=bytearray)


class _Collector:
    """Receives the parser's callbacks."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._header_name = bytearray()
        self._header_value = bytearray()

    def on_part_begin(self) -> None:
        self.parts.append(Part())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        name = self._header_name.decode("latin-1").strip().lower()
        value, options = parse_options_header(bytes(self._header_value))
        if name == "content-disposition":
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        elif name == "content-type":
            self.parts[-1].content_type = value.decode("latin-1").strip().lower()
        self._header_name.clear()
        self._header_value.clear()

    def on_end(self) -> None:
        self.ended = True


def split_multipart(body: bytes, content_type: str) -> dict[str, Part]:
    """The parts of a body by name.

    Raises:
        HttpError: 400 for a missing boundary, a damaged body, or a name that stands there twice.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise HttpError(400, "BAD_REQUEST", "The Content-Type of a multipart request must name its boundary")
    collector = _Collector()
    callbacks = {
        name: getattr(collector, name)
        for name in ("on_part_begin", "on_part_data", "on_header_field", "on_header_value", "on_header_end", "on_end")
    }
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a dict of the callbacks it names
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise HttpError(400, "BAD_REQUEST", "The multipart body is damaged") from error
    if not collector.ended:
        raise HttpError(400, "BAD_REQUEST", "The multipart body ends before its closing boundary")
    parts = {part.name: part for part in collector.parts}
    if len(parts) != len(collector.parts):
        raise HttpError(400, "BAD_REQUEST", "The multipart body has two parts of the same name")
    return parts
