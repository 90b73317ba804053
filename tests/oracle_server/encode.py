"""Rows of a result as the wire has them, built a column at a time.

Each column of an Arrow batch becomes one run of bytes and the length of each row's part; the parts are then scattered
to their rows' places at once. Values that no array operation can take (long texts, zones, ROWIDs) go one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tests.oracle_server import values
from tests.oracle_server.types import OraType
from tests.oracle_server.wire import Writer, clr_bytes

Bytes = NDArray[np.uint8]
Lengths = NDArray[np.int64]
_ROW_DATA = 7
_INT64_DIGITS = 18


def encode_rows(columns: list[tuple[pa.Array, OraType, str]], offset_minutes: int) -> bytes:
    """All rows of a batch, each with its message number before it.

    Args:
        columns: The values, their type, and the form: `value`, `long` (a LOB sent whole) or `locator` (values are
            locators that the caller made).
        offset_minutes: The session's zone, in which local time stamps are shown.
    """
    count = len(columns[0][0])
    parts: list[tuple[Bytes, Lengths]] = []
    for array, kind, form in columns:
        parts.append(_column(array, kind, form, offset_minutes))
    total = sum(lengths for _, lengths in parts) + 1
    ends = np.cumsum(total)
    place = ends - total
    out = np.empty(int(ends[-1]) if count else 0, dtype=np.uint8)
    out[place] = _ROW_DATA
    place = place + 1
    for flat, lengths in parts:
        source = np.cumsum(lengths) - lengths
        out[np.repeat(place - source, lengths) + np.arange(len(flat))] = flat
        place = place + lengths
    return out.tobytes()


def _column(array: pa.Array, kind: OraType, form: str, offset_minutes: int) -> tuple[Bytes, Lengths]:
    if array.null_count == len(array) and form == "value":
        return np.zeros(len(array), dtype=np.uint8), np.ones(len(array), dtype=np.int64)
    if form == "long":
        return _one_by_one(array, lambda value: clr_bytes(_raw(value)) + b"\x00\x00", null=b"\x00\x81\x01\x00")
    if form == "locator":
        return _one_by_one(array, bytes)
    if kind.is_number and pa.types.is_decimal(array.type) and array.type.precision <= _INT64_DIGITS - 1:
        return _numbers(array, array.type.scale)
    if kind.is_number and pa.types.is_integer(array.type):
        return _one_by_one(array, lambda value: clr_bytes(values.number_bytes(value)))
    if kind.is_number and pa.types.is_decimal(array.type):
        return _wide_numbers(array)
    if kind.is_text and not kind.is_national:
        return _texts(array)
    if kind.kind == "DATE" or (kind.kind == "TIMESTAMP" and pa.types.is_timestamp(array.type)):
        return _moments(array)
    return _one_by_one(array, lambda value: clr_bytes(_single(kind, offset_minutes)(value)), rowid=kind.kind == "ROWID")


def _wide_numbers(array: pa.Array) -> tuple[Bytes, Lengths]:
    bounds = pc.min_max(array)
    largest = max(abs(bounds["min"].as_py()), abs(bounds["max"].as_py()))
    scale = array.type.scale
    if largest.scaleb(scale, context=values.CONTEXT) < 10 ** (_INT64_DIGITS - 1):
        return _numbers(array, scale)
    return _one_by_one(array, lambda value: clr_bytes(values.number_bytes(value)))


def _numbers(array: pa.Array, scale: int) -> tuple[Bytes, Lengths]:
    """Decimals whose digits fit in 17: cut into pairs by division, without zeros at either end."""
    # The lower half of a small 128-bit number is the number itself, little-endian in two's complement.
    words = np.frombuffer(array.buffers()[1], dtype=np.int64)[2 * array.offset : 2 * (array.offset + len(array))]
    value = words[::2].copy()
    valid = _valid(array)
    value[~valid] = 0
    if scale % 2:
        value *= 10
    negative = value < 0
    rest = np.abs(value)
    pairs = np.empty((len(value), 10), dtype=np.uint8)
    for at in range(9, -1, -1):
        rest, digit = np.divmod(rest, 100)
        pairs[:, at] = digit
    used = pairs != 0
    first = used.argmax(axis=1)
    count = 10 - used[:, ::-1].argmax(axis=1) - first
    zero = ~used.any(axis=1)
    count[zero] = 0
    power = 10 - (scale + 1) // 2 - first
    shift = np.minimum(first[:, None] + np.arange(10), 9)
    digits = np.take_along_axis(pairs, shift, axis=1)
    whole = np.empty((len(value), 13), dtype=np.uint8)
    whole[:, 0] = count + 1 + negative
    whole[:, 1] = np.where(negative, 63 - power, 192 + power)
    whole[:, 2:12] = np.where(negative[:, None], 101 - digits, digits + 1)
    whole[:, 12] = 102
    end = np.flatnonzero(negative)
    whole[end, 2 + count[end]] = 102
    lengths = (count + 2 + negative).astype(np.int64)
    whole[zero, 1] = 0x80
    whole[~valid, 0] = 0
    lengths[~valid] = 1
    return whole[np.arange(13) < lengths[:, None]], lengths


def _texts(array: pa.Array) -> tuple[Bytes, Lengths]:
    array = array.cast(pa.large_binary()) if not pa.types.is_large_binary(array.type) else array
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    sizes = np.diff(offsets)
    valid = _valid(array)
    if len(sizes) and sizes.max() > 252:
        return _one_by_one(array, clr_bytes)
    sizes = np.where(valid, sizes, 0)
    lengths = sizes + 1
    starts = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths.sum()), dtype=np.uint8)
    out[starts] = sizes
    if sizes.any():
        data = np.frombuffer(array.buffers()[2], dtype=np.uint8)
        inner = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        out[np.repeat(starts + 1, sizes) + inner] = data[np.repeat(offsets[:-1], sizes) + inner]
    return out, lengths


def _moments(array: pa.Array) -> tuple[Bytes, Lengths]:
    micros = np.array(array.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0))
    valid = _valid(array)
    days, within = np.divmod(micros, 86_400_000_000)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    years = dates.astype("datetime64[Y]").astype(np.int64) + 1970
    whole = np.empty((len(micros), 12), dtype=np.uint8)
    whole[:, 1] = years // 100 + 100
    whole[:, 2] = years % 100 + 100
    whole[:, 3] = months.astype(np.int64) % 12 + 1
    whole[:, 4] = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    seconds, micro = np.divmod(within, 1_000_000)
    whole[:, 5] = seconds // 3600 + 1
    whole[:, 6] = seconds // 60 % 60 + 1
    whole[:, 7] = seconds % 60 + 1
    whole[:, 8:12] = (micro * 1000).astype(">u4")[:, None].view(np.uint8)
    # A fraction of zero is left out, as Oracle does.
    lengths = np.where(valid, np.where(micro > 0, 12, 8), 1).astype(np.int64)
    whole[:, 0] = lengths - 1
    return whole[np.arange(12) < lengths[:, None]], lengths


def _one_by_one(
    array: pa.Array, encode: Callable[[Any], bytes], *, null: bytes = b"\x00", rowid: bool = False
) -> tuple[Bytes, Lengths]:
    parts = [null if value is None else _rowid(value) if rowid else encode(value) for value in array.to_pylist()]
    lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
    return np.frombuffer(b"".join(parts), dtype=np.uint8), lengths


def _rowid(rid: int) -> bytes:
    data_object, file, block, slot = values.unpack_rowid(rid)
    return bytes(Writer().u8(13).ub(data_object, file).u8(0).ub(block, slot))


def _raw(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _valid(array: pa.Array) -> NDArray[np.bool_]:
    return np.array(array.is_valid())


def _single(kind: OraType, offset_minutes: int) -> Callable[[Any], bytes]:
    """How one value of a type is written, without its length."""
    name = kind.kind
    if kind.is_national:
        return lambda value: value.encode("utf-16-be")
    if kind.is_number:
        return lambda value: value if isinstance(value, bytes) else values.number_bytes(value)
    if name == "TIMESTAMP":
        return lambda value: values.moment_bytes(*values.fine_value(value))
    if name == "TIMESTAMP WITH TIME ZONE":
        return values.zoned_bytes
    if name == "TIMESTAMP WITH LOCAL TIME ZONE":
        return lambda value: values.local_bytes(value, offset_minutes)
    if name == "INTERVAL DAY TO SECOND":
        return lambda value: values.interval_seconds_bytes(int(value))
    if name == "INTERVAL YEAR TO MONTH":
        return values.interval_months_bytes
    if name == "BINARY_DOUBLE":
        return lambda value: values.binary_bytes(np.float64(value).astype(">f8").tobytes())
    if name == "BINARY_FLOAT":
        return lambda value: values.binary_bytes(np.float32(value).astype(">f4").tobytes())
    if name == "BOOLEAN":
        return lambda value: b"\x01\x01" if value else b"\x01\x00"
    return bytes


def one_value(value: Any, kind: OraType, offset_minutes: int) -> bytes:
    """One value as the wire has it, for binds that go out."""
    if value is None:
        return b"\x00"
    if kind.kind == "ROWID":
        return clr_bytes(values.rowid_text(value).encode())
    if kind.is_text and not kind.is_national:
        return clr_bytes(value.encode())
    if kind.kind == "DATE" or (kind.kind == "TIMESTAMP" and not isinstance(value, str)):
        return clr_bytes(values.moment_bytes(value, value.microsecond * 1000))
    if isinstance(value, Decimal | int) and kind.is_number:
        return clr_bytes(values.number_bytes(value))
    return clr_bytes(_single(kind, offset_minutes)(value))
