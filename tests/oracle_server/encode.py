"""Rows of a result as the wire has them, built a column at a time.

Each column of an Arrow batch becomes an array of the bytes that its cells have on the wire, and Arrow joins the arrays
row by row. Values that no array operation can take (long texts, zones, ROWIDs) go one by one.
"""

from __future__ import annotations

import struct
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

_ROW_DATA = 7
_INT64_DIGITS = 18
_LENGTHS = pa.array([bytes((length,)) for length in range(253)], pa.binary())


def encode_rows(columns: list[tuple[pa.Array, OraType, str]], offset_minutes: int) -> bytes:
    """All rows of a batch, each with its message number before it.

    Args:
        columns: The values, their type, and the form: `value`, `long` (a LOB sent whole) or `locator` (values are
            locators that the caller made).
        offset_minutes: The session's zone, in which local time stamps are shown.
    """
    cells: list[Any] = [pa.repeat(pa.scalar(bytes((_ROW_DATA,)), pa.binary()), len(columns[0][0]))]
    for array, kind, form in columns:
        cells += _column(array, kind, form, offset_minutes)
    joined = pc.binary_join_element_wise(*cells, pa.scalar(b"", pa.binary()), null_handling="replace")
    ends = np.frombuffer(joined.buffers()[1], dtype=np.int32)
    data: bytes = joined.buffers()[2].slice(0, int(ends[len(joined)])).to_pybytes()
    return data


def _column(array: pa.Array, kind: OraType, form: str, offset_minutes: int) -> list[pa.Array]:
    """Arrays of bytes whose values, joined, are the column's part of each row. A null counts as no bytes."""
    if array.null_count == len(array) and form == "value":
        return [pa.scalar(b"\x00", pa.binary())]
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
    if (kind.is_text and not kind.is_national) or (kind.is_number and pa.types.is_binary(array.type)):
        return _texts(array)
    if kind.kind == "DATE" or (kind.kind == "TIMESTAMP" and pa.types.is_timestamp(array.type)):
        return _moments(array)
    if kind.kind == "ROWID":
        return _one_by_one(array, _rowid)
    single = _single(kind, offset_minutes)
    return _one_by_one(array, lambda value: clr_bytes(single(value)))


def _wide_numbers(array: pa.Array) -> list[pa.Array]:
    bounds = pc.min_max(array)
    largest = max(abs(bounds["min"].as_py()), abs(bounds["max"].as_py()))
    scale = array.type.scale
    if largest.scaleb(scale, context=values.CONTEXT) < 10 ** (_INT64_DIGITS - 1):
        return _numbers(array, scale)
    return _one_by_one(array, lambda value: clr_bytes(values.number_bytes(value)))


def _numbers(array: pa.Array, scale: int) -> list[pa.Array]:
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
    return [_ragged(whole, lengths)]


def _texts(array: pa.Array) -> list[pa.Array]:
    sizes = pc.fill_null(pc.binary_length(array), 0)
    if len(sizes) and pc.max(sizes).as_py() > 252:
        return _one_by_one(array, lambda value: clr_bytes(_raw(value)))
    return [_LENGTHS.take(sizes), array.cast(pa.binary())]


def _moments(array: pa.Array) -> list[pa.Array]:
    micros = np.array(array.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0))
    valid = _valid(array)
    days, within = np.divmod(micros, 86_400_000_000)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    years = dates.astype("datetime64[Y]").astype(np.int64) + 1970
    # Oracle counts years before Christ without a year 0, and both bytes go down: 53 and 88 are 4712 BC.
    before = years <= 0
    years = np.where(before, 1 - years, years)
    sign = np.where(before, -1, 1)
    whole = np.empty((len(micros), 12), dtype=np.uint8)
    whole[:, 1] = 100 + sign * (years // 100)
    whole[:, 2] = 100 + sign * (years % 100)
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
    return [_ragged(whole, lengths)]


def _one_by_one(array: pa.Array, encode: Callable[[Any], bytes], *, null: bytes = b"\x00") -> list[pa.Array]:
    return [pa.array([null if value is None else encode(value) for value in array.to_pylist()], pa.binary())]


def _ragged(whole: NDArray[np.uint8], lengths: NDArray[np.int64]) -> pa.Array:
    """Rows of a matrix, each cut to its length."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    flat = whole[np.arange(whole.shape[1]) < lengths[:, None]]
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(flat)])


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
        return lambda value: values.binary_bytes(struct.pack(">d", value))
    if name == "BINARY_FLOAT":
        return lambda value: values.binary_bytes(struct.pack(">f", value))
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
