"""Any data through plan file, source, rules, staged CSV, HTTP to the twin, and back: unharmed, or rejected rightly.

Each example is a real run of the engine with a table of its own in a shared twin; what must come back is worked out by
Python's own means (`tests/awkward_support.py`).
"""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.awkward_support import COLUMNS, AwkwardWorld, Refused, Sent, expected, failed_records, plain, row_of, world

__all__ = ["world"]

_runs = count(1)

ODD = [
    *(
        "#N/A",
        "\x00",
        "\x01",
        "\x7f",
        "\x85",
        "\r",
        "\n",
        "\r\n",
        "\t",
        "\v",
        " ",
        '"',
        '""',
        ",",
        "\\",
        "|",
        "'",
        ";",
        "=",
    ),
    *("é", "e\u0301", "น้ำ", "\u0e4d\u0e32", "\u00a0", "\u200b", "\u200d", "\ufeff", "\u2028", "\U0001f600", "\ufffd"),
    *("\uffff", "\\N", "null", "{x}", "${X}", "%s", "<b>", "0", "-0"),
]
# Unassigned code points may be composed by one Unicode version and not by another.
any_char = st.characters(exclude_categories=["Cs", "Cn"])
odd_text = st.lists(st.sampled_from(ODD) | any_char, max_size=12).map("".join)
cell = st.none() | odd_text | st.text(any_char, max_size=30)
padding = st.text(" \t\r\n", max_size=2)


def padded(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    """Such texts with blanks around them, odd texts, or nothing."""
    return st.none() | st.builds("{}{}{}".format, padding, texts, padding) | st.sampled_from(ODD)


numbers = padded(
    st.decimals(-(10**14), 10**14, allow_nan=False, allow_infinity=False, places=3).map(str)
    | st.decimals(-(10**19), 10**19, places=None, allow_nan=False, allow_infinity=False).map(str)
    | st.integers(-(10**18), 10**18).map(str)
    | st.from_regex(r"[+-]?[0-9]{1,20}\.?[0-9]{0,25}([eE][+-]?[0-9])?", fullmatch=True)
)
days = padded(
    st.dates(date(1690, 1, 1), date(4010, 12, 31)).map(str)
    | st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]", fullmatch=True)
)
moments = padded(
    st.datetimes(datetime(1699, 12, 30), datetime(4001, 1, 3)).map(lambda at: f"{at:%Y-%m-%d %H:%M:%S}".rjust(19, "0"))
    # The hours around the clock changes of New York, also in years beyond the tables that libraries carry.
    | st.builds(
        lambda year, day, hour, minute: f"{year:04d}-{day} {hour:02d}:{minute:02d}:00",
        st.integers(1970, 3999),
        st.sampled_from([*(f"03-{n:02d}" for n in range(8, 15)), *(f"11-{n:02d}" for n in range(1, 8))]),
        st.integers(0, 3),
        st.integers(0, 59),
    )
)
booleans = st.none() | st.sampled_from(
    ["true", "FALSE", "Yes", "no", "Y", "n", "1", "0", "T", "off", " on ", "2", "#N/A"]
)
COLUMN_CELLS = {
    "BODY": cell,
    "LINE": st.none() | st.lists(st.sampled_from(ODD) | any_char, max_size=5).map("".join),
    "STRICT": cell,
    "BIG": numbers,
    "PRICE": numbers,
    "FLAG": booleans,
    "DAY": days,
    "AT": moments,
    "MUST": st.sampled_from([" y\t", "", None, "\x01"]) | st.text(any_char, max_size=3),
}
# A row is rejected for its first fault, so most cells of a row are tame.
rows_of_cells = st.lists(
    st.lists(st.sampled_from(sorted(COLUMN_CELLS)), min_size=1, max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: COLUMN_CELLS[name] for name in names})
    ),
    min_size=10,
    max_size=60,
)


def composed(text: str | None) -> str | None:
    """LINE: without zero-width characters, in NFC, `#N/A` as null. Short enough never to be cut."""
    if text is None:
        return None
    bare = "".join(char for char in text if char not in "\u200b\u200c\u200d\u2060\ufeff").strip("\t\n\x0b\x0c\r ")
    return None if bare in ("", "#N/A") else unicodedata.normalize("NFC", bare)


def as_stored(fields: dict[str, str | None]) -> dict[str, str | None]:
    return {
        name: plain(Decimal(repr(float(text)))) if text is not None and name in ("Big__c", "Price__c") else text
        for name, text in fields.items()
    }


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cells=rows_of_cells, kind=st.sampled_from(["sqlite", "csv", "duckdb", "parquet"]))
def test_what_arrives_is_unharmed_and_the_rest_is_rejected(
    cells: list[dict[str, Any]], kind: str, world: AwkwardWorld
) -> None:
    prefix = f"h{next(_runs)}-"
    rows = [row_of(ID=f"{prefix}{at}", **row) for at, row in enumerate(cells)]
    wanted = {row["ID"]: expected(row, compose=composed) for row in rows}
    loaded = world.run(rows, kind=kind, prefix=prefix)
    ends = {
        key: ("rejected", f"REJECTED_{end.rule.upper()}") if isinstance(end, Refused) else ("created", None)
        for key, end in wanted.items()
    }
    assert loaded.outcomes == ends, loaded.err
    arrived = {key: as_stored(end.fields) for key, end in wanted.items() if isinstance(end, Sent)}
    assert loaded.rest == arrived
    assert loaded.bulk == arrived
    records = failed_records(loaded.audit)
    assert {key: code for key, (code, _) in records.items()} == {
        key: code for key, (outcome, code) in ends.items() if outcome == "rejected"
    }
    # All columns of the source are shown of a refused row, and none of its texts: they may be personal.
    for _, data in records.values():
        assert set(data) == set(COLUMNS)
        assert set(data.values()) <= {None, "***"}
