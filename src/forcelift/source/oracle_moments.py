"""Moments before year 1, which Oracle keeps (from 4712 BC on) and the driver cannot make.

The driver gives up on the whole reply at such a value, though no target takes it: one row's mistyped year would end a
batch. So these moments are left out of their columns by the query, and their texts come in a column beside them, which
is null but for such rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from forcelift.source.oracle_columns import OracleColumn

_TOGETHER_MAX = 100  # moments in one text, which has 4,000 bytes at most
_TEXT = re.compile(r"([ -]?)(\d{4})(-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)")
_EARLIEST = np.datetime64("-4712-01-01", "us")  # 4713 BC, a year before the first that Oracle has


def is_moment(one: OracleColumn) -> bool:
    """Whether the driver makes this column's values from years, months and days."""
    return bool(pa.types.is_timestamp(one.asked))


def within_years(one: OracleColumn) -> str:
    """SQL of a column without what the driver cannot make."""
    return f"CASE WHEN {one.expression} >= {_first(one)} THEN {one.expression} END"


def texts_before(columns: Sequence[OracleColumn]) -> list[str]:
    """SQL of what `within_years` leaves out of these columns, one text for up to a hundred of them."""
    moments = [one for one in columns if is_moment(one)]
    found = []
    for start in range(0, len(moments), _TOGETHER_MAX):
        part = moments[start : start + _TOGETHER_MAX]
        before = [f"{one.expression} < {_first(one)}" for one in part]
        shown = " || ',' || ".join(
            f"TO_CHAR(CASE WHEN {condition} THEN {one.expression} END, '{_format(one)}')"
            for one, condition in zip(part, before, strict=True)
        )
        found.append(f"CASE WHEN {' OR '.join(before)} THEN {shown} END")
    return found


def put_back(arrays: Sequence[pa.Array], columns: Sequence[OracleColumn], texts: Sequence[pa.Array]) -> list[pa.Array]:
    """The columns with their moments before year 1, by the proleptic calendar as all others.

    A text that is no moment, as a client that checks nothing may have stored, becomes 4713-01-01 BC.
    """
    made = list(arrays)
    places = [at for at, one in enumerate(columns) if is_moment(one)]
    for group, column in enumerate(texts):
        if column.null_count == len(column):
            continue
        rows = [row for row, is_there in enumerate(column.is_valid().to_pylist()) if is_there]
        cells = [column[row].as_py().split(",") for row in rows]
        for nth, at in enumerate(places[group * _TOGETHER_MAX : (group + 1) * _TOGETHER_MAX]):
            put = {row: _moment(cell[nth]) for row, cell in zip(rows, cells, strict=True) if cell[nth]}
            if put:
                made[at] = _replaced(made[at], put)
    return made


def _replaced(array: pa.Array, put: dict[int, np.datetime64]) -> pa.Array:
    whole = np.array(array.cast(pa.int64()).fill_null(0))
    empty = np.array(array.is_null())
    whole[list(put)] = np.array(list(put.values()), dtype="datetime64[us]").astype(np.int64)
    empty[list(put)] = False
    return pa.array(whole, pa.int64(), mask=empty).cast(array.type)


def _moment(text: str) -> np.datetime64:
    found = _TEXT.fullmatch(text)
    if found is None:
        return _EARLIEST
    sign, year, day, clock = found.groups()
    # There is no year 0: 1 BC comes before AD 1.
    counted = 1 - int(year) if sign == "-" else int(year)
    try:
        return np.datetime64(f"{'-' if counted < 0 else ''}{abs(counted):04d}{day}T{clock}", "us")
    except ValueError:
        return _EARLIEST


def _first(one: OracleColumn) -> str:
    return "DATE '0001-01-01'" if _is_date(one) else "TIMESTAMP '0001-01-01 00:00:00'"


def _format(one: OracleColumn) -> str:
    return "SYYYY-MM-DD HH24:MI:SS" if _is_date(one) else "SYYYY-MM-DD HH24:MI:SS.FF6"


def _is_date(one: OracleColumn) -> bool:
    return one.column.declared == "DATE"
