"""Result files in pieces: whatever the pieces and the block's size, the rows are those of the whole file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.jobs.csv_blocks import header_of, whole_rows

VALUES = st.text(alphabet='a,"\n\r\u0e01 ', max_size=6)
ROWS = st.lists(st.tuples(VALUES, VALUES), max_size=12)


def written(rows: list[tuple[str, str]], *, header: tuple[str, str] = ("sf__Id", 'Key "1"')) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([header, *rows])
    return file.getvalue().encode()


def cut(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@settings(deadline=None)
@given(rows=ROWS, piece=st.integers(1, 40), block=st.integers(1, 60))
def test_blocks_hold_the_rows_of_the_file_in_its_order(rows: list[tuple[str, str]], piece: int, block: int) -> None:
    content = written(rows)
    blocks = list(whole_rows(cut(content, piece), block_bytes=block))
    head, *_ = content.split(b"\n")
    read = [list(csv.reader(io.StringIO(one.decode(), newline=""))) for one in blocks]
    assert all(one.startswith(head + b"\n") for one in blocks)
    assert all(header_of(one) == ["sf__Id", 'Key "1"'] for one in blocks)
    assert [tuple(row) for one in read for row in one[1:]] == rows


@settings(deadline=None)
@given(rows=ROWS, piece=st.integers(1, 40))
def test_a_last_row_without_a_line_end_is_a_row(rows: list[tuple[str, str]], piece: int) -> None:
    content = written(rows)
    whole, open_ended = (list(whole_rows(cut(text, piece), block_bytes=50)) for text in (content, content[:-1]))
    joined = [b"".join(one.partition(b"\n")[2] for one in blocks) for blocks in (whole, open_ended)]
    assert joined[0].removesuffix(b"\n") == joined[1]


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_of_nothing_comes_nothing(pieces: list[bytes]) -> None:
    assert list(whole_rows(pieces)) == []


def test_a_file_of_a_header_alone_is_a_block_without_rows() -> None:
    (block,) = whole_rows([b'"sf__Id",', b'"Key"\n'])
    assert header_of(block) == ["sf__Id", "Key"]
    assert pl.read_csv(block, infer_schema=False).height == 0


def test_memory_is_that_of_a_block_not_of_the_file() -> None:
    content = written([("x" * 50, str(number)) for number in range(2_000)])
    sizes = [len(block) for block in whole_rows(cut(content, 700), block_bytes=5_000)]
    assert max(sizes) < 6_000
    assert len(sizes) > 10
