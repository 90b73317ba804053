"""Whether a snapshot lasts: the verdict and its words, by figures alone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from forcelift.preflight.lasting import Lasting, SnapshotForecast

SMALL = SnapshotForecast(
    rows=1_000_000,
    staged_bytes=200_000_000,
    room_bytes=100_000_000_000,
    read_rows_per_second=100_000.0,
    load_rows_per_second=2_883.0,
    snapshot_seconds=900.0,
)


def test_what_is_read_in_time_says_nothing() -> None:
    assert SMALL.verdict is Lasting.FINE
    assert SMALL.sentences() == []
    assert SMALL.run_seconds == pytest.approx(346.9, abs=0.1)
    assert SMALL.extract_seconds == 10.0


def test_a_long_load_is_read_first_where_there_is_room() -> None:
    long = replace(SMALL, rows=20_000_000, staged_bytes=4_000_000_000)
    assert long.verdict is Lasting.EXTRACT_FIRST
    first, second = long.sentences()
    assert first == (
        "reading 20,000,000 rows takes about 1.9 h at the pace of the load, and the source keeps its snapshot for "
        "about 15 min only"
    )
    assert second.startswith("`--extract-first` reads everything in about 3 min and stages about 4.0 GB")
    assert replace(long, is_extract_first=True).verdict is Lasting.FINE
    assert replace(long, load_rows_per_second=None).verdict is Lasting.FINE
    crowded = replace(long, room_bytes=3_000_000_000)
    assert crowded.verdict is Lasting.TOO_SHORT
    assert "would stage about 4.0 GB; there is room for 3.0 GB" in crowded.sentences()[-1]


def test_what_lasts_neither_way_says_what_would() -> None:
    huge = replace(SMALL, rows=481_000_000, staged_bytes=90_000_000_000)
    assert huge.verdict is Lasting.TOO_SHORT
    assert "an `undo_retention` of 2.0 h" in huge.sentences()[-1]
    assert replace(huge, is_extract_first=True).verdict is Lasting.TOO_SHORT
    assert replace(huge, snapshot_seconds=3 * 86_400.0).verdict is Lasting.FINE


def test_a_retention_that_cannot_be_asked_is_the_usual_one() -> None:
    assert replace(SMALL, snapshot_seconds=None).verdict is Lasting.FINE
    unknown = replace(SMALL, rows=20_000_000, snapshot_seconds=None)
    assert unknown.verdict is Lasting.UNKNOWN
    assert "V_$UNDOSTAT" in unknown.sentences()[0]


def test_the_document_holds_the_figures() -> None:
    assert SMALL.document() == {
        "verdict": "fine",
        "rows": 1_000_000,
        "extract_seconds": 10.0,
        "run_seconds": 346.9,
        "snapshot_seconds": 900.0,
        "staged_bytes": 200_000_000,
        "room_bytes": 100_000_000_000,
    }
