"""TNS packets on a socket, and the primitives of the TTC messages inside them.

Source: the notes on the wire protocol that the project keeps (facts of the thin driver's own, openly licensed code).
"""

from __future__ import annotations

import select
import socket
import struct

from tests.oracle_server.network_services import subject_of

CONNECT, ACCEPT, REFUSE, DATA, MARKER = 1, 2, 4, 6, 12
FLAG_EOF, FLAG_END_OF_RESPONSE = 0x0040, 0x2000
BREAK, RESET, INTERRUPT = 1, 2, 3


class Disconnected(Exception):
    """The client went away."""


class Interrupted(Exception):
    """The client asked to stop the call under way."""


class Packets:
    """The packets of one connection. Before ACCEPT a length has two bytes, afterwards four."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = bytearray()
        self.long_lengths = False
        self.sdu = 8192
        self.subject = subject_of(sock)

    def receive(self) -> tuple[int, bytes]:
        """The next packet's type and body."""
        header = self._take(8)
        length = struct.unpack(">I", header[:4])[0] if self.long_lengths else struct.unpack(">H", header[:2])[0]
        return header[4], self._take(length - 8)

    def waiting(self) -> bool:
        """True if the client sent something that was not read yet."""
        return bool(self._received) or bool(select.select([self._sock], [], [], 0)[0])

    def send(self, kind: int, body: bytes) -> None:
        """One packet."""
        self._write(self._header(kind, len(body)) + body)

    def send_data(self, payload: bytes | bytearray | memoryview, *, end_flag: int = 0) -> None:
        """A reply, cut into packets; the last one carries `end_flag`."""
        view = memoryview(payload)
        step = self.sdu - 10
        parts: list[bytes | memoryview] = []
        size = 0
        for start in range(0, max(len(view), 1), step):
            part = view[start : start + step]
            flags = end_flag if start + step >= len(view) else 0
            parts += (self._header(DATA, len(part) + 2) + struct.pack(">H", flags), part)
            size += len(part)
            if size >= 1 << 20:
                self._write(b"".join(parts))
                parts, size = [], 0
        self._write(b"".join(parts))

    def marker(self, kind: int) -> None:
        self.send(MARKER, bytes((1, 0, kind)))

    def close(self) -> None:
        self._sock.close()

    def _header(self, kind: int, length: int) -> bytes:
        if self.long_lengths:
            return struct.pack(">IBBH", length + 8, kind, 0, 0)
        return struct.pack(">HHBBH", length + 8, 0, kind, 0, 0)

    def _write(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Disconnected from error

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            try:
                part = self._sock.recv(max(65536, count - len(self._received)))
            except OSError as error:
                raise Disconnected from error
            if not part:
                raise Disconnected
            self._received += part
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken


class Reader:
    """A request. It carries no length, and a value may straddle packets, so packets are taken as they are needed."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self._data = b""
        self._at = 0

    def start(self) -> bool:
        """Wait for a request. False if the client said that it ends the connection."""
        self._data, self._at = b"", 0
        return self._pull()

    def at_end(self) -> bool:
        """True if the packet at hand is used up."""
        return self._at >= len(self._data)

    def _pull(self) -> bool:
        kind, body = self._packets.receive()
        if kind == MARKER:
            raise Interrupted
        if kind != DATA:
            raise Disconnected
        if struct.unpack(">H", body[:2])[0] & FLAG_EOF:
            return False
        self._data, self._at = self._data[self._at :] + body[2:], 0
        return True

    def raw(self, count: int) -> bytes:
        while len(self._data) - self._at < count:
            if not self._pull():
                raise Disconnected
        self._at += count
        return self._data[self._at - count : self._at]

    def u8(self) -> int:
        return self.raw(1)[0]

    def u16le(self) -> int:
        return int.from_bytes(self.raw(2), "little")

    def u16(self) -> int:
        return int.from_bytes(self.raw(2))

    def ub(self) -> int:
        """A number of up to eight bytes, its length first; the sign is the top bit of the length."""
        length = self.u8()
        value = int.from_bytes(self.raw(length & 0x7F))
        return -value if length & 0x80 else value

    def clr(self) -> bytes | None:
        """Bytes with their length, or in chunks; None for null."""
        length = self.u8()
        if length in (0, 255):
            return None
        if length != 254:
            return self.raw(length)
        parts = []
        while chunk := self.ub():
            parts.append(self.raw(chunk))
        return b"".join(parts)

    def lclr(self) -> bytes:
        """Bytes whose total length stands before them as a number."""
        return (self.clr() or b"") if self.ub() else b""

    def until_zero(self) -> bytes:
        taken = bytearray()
        while one := self.u8():
            taken.append(one)
        return bytes(taken)


class Writer(bytearray):
    """A reply in the making."""

    def u8(self, *values: int) -> Writer:
        self.extend(values)
        return self

    def u16(self, value: int) -> Writer:
        self.extend(struct.pack(">H", value))
        return self

    def ub(self, *values: int) -> Writer:
        for value in values:
            raw = abs(value).to_bytes((abs(value).bit_length() + 7) // 8)
            self.append(len(raw) | (0x80 if value < 0 else 0))
            self.extend(raw)
        return self

    def clr(self, value: bytes | None) -> Writer:
        self.extend(clr_bytes(value))
        return self

    def lclr(self, value: bytes) -> Writer:
        self.ub(len(value))
        if value:
            self.clr(value)
        return self


def clr_bytes(value: bytes | None) -> bytes:
    """Bytes as the wire has them: a length, or chunks where they are longer than 252."""
    if not value:
        return b"\x00"
    if len(value) <= 252:
        return bytes((len(value),)) + value
    out = Writer(b"\xfe")
    for start in range(0, len(value), 32767):
        part = value[start : start + 32767]
        out.ub(len(part))
        out.extend(part)
    return bytes(out.ub(0))
