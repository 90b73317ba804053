"""Single values: Oracle's bytes of numbers and moments, from and to Python."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal

from tests.oracle_server.errors import OracleError, not_taught

CONTEXT = Context(prec=40, rounding=ROUND_HALF_UP, Emin=-400, Emax=400)
"""Oracle computes with forty digits, rounded half away from zero."""
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def number_bytes(value: Decimal | int | str) -> bytes:
    """A number as Oracle keeps it: an exponent to the base of 100, then up to twenty pairs of digits."""
    sign, digits, exponent = CONTEXT.create_decimal(value).as_tuple()
    if not isinstance(exponent, int):
        raise OracleError(1722)
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return b"\x80"
    if exponent % 2:
        text, exponent = text + "0", exponent - 1
    if len(text) % 2:
        text = "0" + text
    pairs = [int(text[at : at + 2]) for at in range(0, len(text), 2)]
    power = len(pairs) + exponent // 2
    while pairs[-1] == 0:
        pairs.pop()
    if len(pairs) > 20:
        # The first pair holds one digit only: twenty-one pairs would be forty digits.
        shorter = Context(prec=39, rounding=ROUND_HALF_UP).create_decimal(value)
        return number_bytes(shorter)
    if power > 63:
        raise OracleError(1426)
    if power < -64:
        return b"\x80"
    if sign:
        return bytes([63 - power, *(101 - pair for pair in pairs)]) + (b"\x66" if len(pairs) < 20 else b"")
    return bytes([192 + power, *(pair + 1 for pair in pairs)])


def number_value(raw: bytes) -> Decimal:
    """The number that Oracle's bytes mean."""
    if raw == b"\x80":
        return Decimal(0)
    negative = raw[0] < 0x80
    if negative:
        pairs = [101 - one for one in raw[1:] if one != 102]
        power = 63 - raw[0]
    else:
        pairs = [one - 1 for one in raw[1:]]
        power = raw[0] - 192
    digits = "".join(f"{pair:02d}" for pair in pairs)
    return Decimal(f"{'-' if negative else ''}{digits}E{2 * (power - len(pairs))}")


def number_text(raw: bytes) -> str:
    """The number written plainly, as `TO_CHAR(n)` does: no zero before the point."""
    value = number_value(raw)
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if len(text.replace(".", "").lstrip("-0")) > 40:
        raise not_taught("the text of so long a number")
    return _without_zero(text)


def _without_zero(text: str) -> str:
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + (text.removeprefix("0") if text.startswith("0.") else text or "0")


def minimal_text(raw: bytes) -> str:
    """The number by the format TM9: plainly, or with an exponent if that takes more than 64 characters."""
    value = number_value(raw)
    text = format(value, "f")
    text = _without_zero(text.rstrip("0").rstrip(".") if "." in text else text)
    if len(text) <= 64:
        return text
    digits = "".join(map(str, value.as_tuple().digits)).rstrip("0")
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{fraction}E{value.adjusted():+03d}"


def moment_bytes(moment: datetime, nanoseconds: int = 0) -> bytes:
    """Seven bytes to the second; eleven with a fraction, if it is not zero."""
    raw = bytes(
        (
            moment.year // 100 + 100,
            moment.year % 100 + 100,
            moment.month,
            moment.day,
            moment.hour + 1,
            moment.minute + 1,
            moment.second + 1,
        )
    )
    return raw + struct.pack(">I", nanoseconds) if nanoseconds else raw


def moment_value(raw: bytes) -> tuple[datetime, int, int | None]:
    """The wall clock (UTC where there is an offset), its nanoseconds, and the offset in minutes."""
    year = (raw[0] - 100) * 100 + raw[1] - 100
    moment = datetime(year, raw[2], raw[3], raw[4] - 1, raw[5] - 1, raw[6] - 1)
    nanoseconds = struct.unpack(">I", raw[7:11])[0] if len(raw) >= 11 else 0
    if len(raw) < 13:
        return moment, nanoseconds, None
    if raw[11] & 0x80:
        raise not_taught("time zones by region in binds")
    return moment, nanoseconds, (raw[11] - 20) * 60 + raw[12] - 60


def fine_text(moment: datetime, nanoseconds: int) -> str:
    """A moment in the fixed form that sorts as moments do."""
    return f"{moment.year:04d}-{moment:%m-%d %H:%M:%S}.{nanoseconds:09d}"


def fine_value(text: str) -> tuple[datetime, int]:
    """What `fine_text` wrote."""
    return datetime.fromisoformat(text[:19]), int(text[20:29])


def zoned_bytes(text: str) -> bytes:
    """Thirteen bytes of a TIMESTAMP WITH TIME ZONE: UTC, then the offset. A region is marked by its top bit."""
    moment, nanoseconds = fine_value(text[:29])
    head = moment_bytes(moment) + struct.pack(">I", nanoseconds)
    zone = text[29:]
    if zone[0] not in "+-":
        return head + b"\x80\x04"
    minutes = int(zone)
    hours = int(minutes / 60)
    return head + bytes((hours + 20, minutes - hours * 60 + 60))


def local_bytes(text: str, offset_minutes: int) -> bytes:
    """A TIMESTAMP WITH LOCAL TIME ZONE on the wall clock of a session."""
    moment, nanoseconds = fine_value(text)
    return moment_bytes(moment + timedelta(minutes=offset_minutes), nanoseconds)


def interval_seconds_bytes(nanoseconds: int) -> bytes:
    """Eleven bytes of an INTERVAL DAY TO SECOND; all parts carry its sign."""
    sign = -1 if nanoseconds < 0 else 1
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    head = struct.pack(">I", sign * days + 2**31) + bytes(60 + sign * part for part in (hour, minute, second))
    return head + struct.pack(">I", sign * fraction + 2**31)


def interval_seconds_value(raw: bytes) -> int:
    days, fraction = struct.unpack(">I", raw[:4])[0] - 2**31, struct.unpack(">I", raw[7:11])[0] - 2**31
    hours, minutes, seconds = (part - 60 for part in raw[4:7])
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**9 + fraction


def interval_months_bytes(months: int) -> bytes:
    years, rest = divmod(abs(months), 12)
    sign = -1 if months < 0 else 1
    return struct.pack(">I", sign * years + 2**31) + bytes((60 + sign * rest,))


def interval_months_value(raw: bytes) -> int:
    return (struct.unpack(">I", raw[:4])[0] - 2**31) * 12 + raw[4] - 60


def binary_bytes(raw: bytes) -> bytes:
    """IEEE bytes, big-endian, in the form that sorts: the sign turned, or all bits of a negative."""
    return bytes((raw[0] | 0x80, *raw[1:])) if raw[0] < 0x80 else bytes(one ^ 0xFF for one in raw)


def binary_value(raw: bytes) -> float:
    plain = bytes((raw[0] & 0x7F, *raw[1:])) if raw[0] & 0x80 else bytes(one ^ 0xFF for one in raw)
    value: float = struct.unpack(">d" if len(plain) == 8 else ">f", plain)[0]
    return value


# A ROWID as a number: data object, file, block and slot, most significant first.
SLOT_BITS, BLOCK_BITS, FILE_BITS = 12, 22, 9
SLOT_MAX = 2**SLOT_BITS - 1


def pack_rowid(data_object: int, file: int, block: int, slot: int) -> int:
    """A ROWID as a number that sorts as ROWIDs do. No block holds more than 4,095 rows here, so later slots are one."""
    if not (0 <= data_object < 2**20 and 0 <= file < 2**FILE_BITS and 0 <= block < 2**BLOCK_BITS and slot >= 0):
        raise OracleError(1410)
    return ((data_object << FILE_BITS | file) << BLOCK_BITS | block) << SLOT_BITS | min(slot, SLOT_MAX)


def unpack_rowid(rid: int) -> tuple[int, int, int, int]:
    block_and_more = rid >> SLOT_BITS
    file_and_more = block_and_more >> BLOCK_BITS
    return (
        file_and_more >> FILE_BITS,
        file_and_more & (2**FILE_BITS - 1),
        block_and_more & (2**BLOCK_BITS - 1),
        rid & SLOT_MAX,
    )


def rowid_text(rid: int) -> str:
    """The eighteen letters of a ROWID: six of the object, three of the file, six of the block, three of the slot."""
    parts = []
    for value, letters in zip(unpack_rowid(rid), (6, 3, 6, 3), strict=True):
        parts.append("".join(ALPHABET[value >> 6 * at & 63] for at in range(letters - 1, -1, -1)))
    return "".join(parts)


def rowid_value(text: str) -> int:
    if len(text) != 18 or any(letter not in ALPHABET for letter in text):
        raise OracleError(1410)
    parts = []
    for part in (text[:6], text[6:9], text[9:15], text[15:]):
        value = 0
        for letter in part:
            value = value << 6 | ALPHABET.index(letter)
        parts.append(value)
    return pack_rowid(*parts)


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
