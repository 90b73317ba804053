"""The structure of CSV: where rows end, and every way that quotes can be broken."""

from __future__ import annotations

import io

import pytest

from forcelift.source.csv_scan import CsvFault, CsvStructure, nth_row_end, shrink, stretches


@pytest.mark.parametrize(
    ("block", "inside", "expected"),
    [
        (b"a,b\n", False, (b"a,b\n", False)),
        (b'"a\n",b\n', False, (b'",b\n', False)),
        (b'a,"b', False, (b'a,"', True)),
        (b'x\ny",c\n', True, (b",c\n", False)),
        (b"still inside\n", True, (b"", True)),
        (b'""', False, (b'"', False)),
        (b'x","y', True, (b',"', True)),
    ],
)
def test_shrink_leaves_what_stands_outside_of_quotes(block, inside, expected):
    assert shrink(block, inside=inside) == expected


def test_nth_row_end_skips_line_feeds_in_quotes():
    block = b'1,"a\nb"\n2,c\n3,"d\n\n"\n'
    assert [nth_row_end(block, inside=False, nth=nth) for nth in (1, 2, 3)] == [8, 12, len(block)]


def feed_all(text: bytes, size: int) -> CsvStructure:
    structure = CsvStructure()
    for at in range(0, len(text), size):
        structure.feed(text[at : at + size])
    structure.finish()
    return structure


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "text",
    [b'a,"b ""c"" d"\r\n"","e"\r\n', b'"""",x\n', b'"\r",\n', b'""""""\n', b"", b"a\n\nb", 'ไทย,"ก\nข"\n'.encode()],
)
def test_sound_rows_pass_in_any_blocks(text, size):
    assert feed_all(text, size).lines == text.count(b"\n")


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'a,b\nx,5" pipe\n', 1),
        (b'a,b\n\n"x" ,y\n', 2),
        (b'ok\n"a"b\n', 1),
        (b'ok\n"a",b""\n', 1),
        (b'ok\n"line\nfeed",ok\nx,"never closed\n\n', 3),
        (b"a\rb\n", 0),
        (b"a\nb\r", 1),
        (b'x\n\r"a"\n', 1),
    ],
)
def test_broken_rows_are_named_by_their_line(text, line, size):
    with pytest.raises(CsvFault) as raised:
        feed_all(text, size)
    assert raised.value.line == line
    assert "pipe" not in raised.value.message


def cut(text: bytes, rows: int, *, fields: int = 2) -> list[tuple[bytes, int, int]]:
    found = stretches(io.BytesIO(text), start=0, line=0, rows=rows, fields=fields)
    return [(text[part.start : part.end], part.line, part.rows) for part in found]


def test_stretches_hold_whole_rows_and_know_their_line():
    assert cut(b'1,"a\nb"\n2,c\n3,d\n4,e', 2) == [(b'1,"a\nb"\n2,c\n', 0, 2), (b"3,d\n4,e", 3, 2)]


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_empty_lines_at_the_end_are_no_rows_unless_there_is_one_column(rows):
    text = b"1,a\r\n2,b\r\n\r\n\r\n"
    assert b"".join(part for part, _, _ in cut(text, rows)) == b"1,a\r\n2,b\r\n"
    assert sum(count for _, _, count in cut(text, rows)) == 2
    assert sum(count for _, _, count in cut(b"1\n\n\n", rows, fields=1)) == 3


@pytest.mark.parametrize(("text", "line"), [(b"1,a\n\n2,b\n", 1), (b"\n1,a\n", 0), (b'1,"\n\n"\n\r\n2,b\n', 3)])
def test_an_empty_line_between_rows_is_a_fault(text, line):
    with pytest.raises(CsvFault, match="empty line") as raised:
        cut(text, 10)
    assert raised.value.line == line


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        (b"1,a\n2\n3,c\n", 1, "has 1 fields, not 2"),
        (b'1,"\n"\n2,b,c\n', 2, "has 3 fields, not 2"),
        (b"1,a\nabc\n\n\n", 1, "has 1 fields, not 2"),
        (b'1,a\n2,"\n",c', 1, "has 3 fields, not 2"),
        (b"1,a,x\n2\n", 0, "has 3 fields, not 2"),
    ],
)
def test_a_wrong_number_of_fields_is_found_while_the_file_is_cut(text, line, fault):
    """Also where fields too few in one row make up for too many in another, and before empty lines at the end."""
    with pytest.raises(CsvFault, match=fault) as raised:
        cut(text, 1)
    assert raised.value.line == line


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("text", ["1,ไทย\n2,é😀\n".encode(), "1,a\n2,😀".encode()])
def test_characters_may_be_cut_by_blocks(text, size, monkeypatch):
    monkeypatch.setattr("forcelift.source.csv_scan.BLOCK_BYTES", size)
    assert b"".join(part for part, _, _ in cut(text, 1)) == text


def test_nothing_gives_no_stretch():
    assert cut(b"", 5) == cut(b"\n\n", 5) == []
