"""How the command line writes numbers, lengths of time and tables."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from forcelift.cli.output import count, duration, plural, size, table_lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (1.4, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (166_980, "46 h 23 min")],
)
def test_duration_has_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB")])
def test_size(number: int, text: str) -> None:
    assert size(number) == text


def test_counts_and_plurals() -> None:
    assert (count(None), count(1234567)) == ("-", "1,234,567")
    assert [plural(1, "job"), plural(2000, "job"), plural(2, "entry", "entries")] == [
        "1 job",
        "2,000 jobs",
        "2 entries",
    ]


def test_tables_are_aligned_by_what_a_terminal_shows_and_cut_nothing_off() -> None:
    rows = [("สินค้า__c", "336,776"), ("A__c", "1")]
    lines = [line.plain for line in table_lines(("object", "source"), rows)]
    assert len({cell_len(line) for line in lines}) == 1
    assert all(line.endswith(number) for line, number in zip(lines, ("source", "336,776", "1"), strict=True))
