"""CSV files for people: no cell is a formula, and each comes back as it was."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcelift.errors import StorageError, UsageError
from forcelift.people_csv import (
    append_frame,
    neutral,
    neutral_frame,
    original,
    original_frame,
    read_rows,
    write_rows,
)

AWKWARD = [
    "=1+1",
    "+66 2",
    "-5",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "＝1",
    " =1",
    "'=1",
    "''=1",
    "'",
    "'a",
    "a=1",
    "",
    " ",
    "ก",
]
CELLS = st.text(
    alphabet=st.one_of(st.sampled_from("'=+-@\t\r\n \u00a0＝a;,\"ก"), st.characters(codec="utf-8")), max_size=8
)


def test_no_cell_begins_as_a_formula_does() -> None:
    begins = [neutral(cell)[:1] for cell in AWKWARD]
    assert not set(begins) & set("=+-@\t\r\n＝")
    assert neutral(" =1") == "' =1"
    assert [neutral(cell) for cell in ("'a", "a=1", "", " ", "ก", "'")] == ["'a", "a=1", "", " ", "ก", "'"]


@given(cell=CELLS)
def test_each_cell_comes_back_as_it_was(cell: str) -> None:
    assert original(neutral(cell)) == cell


@given(cells=st.lists(CELLS, min_size=1, max_size=5))
def test_frames_are_written_as_single_cells_are(cells: list[str]) -> None:
    frame = pl.DataFrame({"a": cells, "n": list(range(len(cells)))}, schema={"a": pl.String, "n": pl.Int64})
    shown = neutral_frame(frame)
    assert shown["a"].to_list() == [neutral(cell) for cell in cells]
    assert original_frame(shown).equals(frame)


@given(rows=st.lists(st.tuples(CELLS, CELLS).filter(any), max_size=5))
def test_a_file_comes_back_as_it_was(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("people") / "rows.csv"
    assert write_rows(path, ("key", "=note"), rows) == len(rows)
    # A blank key cell may come before a written one; only lines without any cell are passed over.
    assert [(row["key"], row["=note"]) for row in read_rows(path, ("key", "=note"))] == rows


def test_appended_frames_read_as_one_file(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    append_frame(path, pl.DataFrame({"key": ["=1", None]}), is_new=True)
    append_frame(path, pl.DataFrame({"key": ["'=2", "x"]}), is_new=False)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfkey\n'=1\n")
    assert [row["key"] for row in read_rows(path, ("key",))] == ["=1", "'=2", "x"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_a_spreadsheet_saved_is_read(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "saved.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([["more", " key ", "note"], ["1", "'=1", "a;b,c"], ["", "", ""], ["2", "K2", "line\nbreak"]])
    assert list(read_rows(path, ("key", "note"))) == [
        {"key": "=1", "note": "a;b,c"},
        {"key": "K2", "note": "line\nbreak"},
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"key,note\nK1\n", "line 2 of .* has 1 cells, its first line 2"),
        (b"name,note\nK1,x\n", "must name the column `key` exactly once"),
        (b"key,note,key\nK1,x,K2\n", "must name the column `key` exactly once"),
        (b"", "must name the column `key`"),
        ("key,note\nK1,ก\n".encode("cp874"), "is not UTF-8"),
        (b'key,note\n"K1,x\n', "is not a CSV file"),
    ],
)
def test_a_file_that_is_not_such_a_one_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=told):
        list(read_rows(path, ("key", "note")))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        list(read_rows(tmp_path / "nowhere.csv", ("key",)))
    with pytest.raises(StorageError, match="cannot be written"):
        write_rows(tmp_path / "no" / "folder.csv", ("key",), [])


def test_a_write_that_breaks_off_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, ("key",), [("before",)])

    def breaking() -> Iterator[tuple[str]]:
        yield ("new",)
        raise KeyError("the rows end early")

    with pytest.raises(KeyError):
        write_rows(path, ("key",), breaking())
    assert [row["key"] for row in read_rows(path, ("key",))] == ["before"]
    assert list(tmp_path.iterdir()) == [path]
