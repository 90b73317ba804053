"""The answers of one job: gathered, given out in slices, written and counted."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from forcelift.jobs.answers import ANSWERS, KIND, Gathered, answers_writer, tally

KINDS = st.sampled_from(["created", "updated", "failed", "open"])


def gathered(kinds: list[str], order: list[int]) -> Gathered:
    """Rows `k0`, `k1`, ... of which the answer to the nth stands in line `order[n]`."""
    lines = pl.DataFrame(
        {
            "kind": pl.Series(kinds, dtype=KIND),
            "id": pl.Series([f"Id{number}" for number in range(len(kinds))], dtype=pl.String),
            "transient": pl.Series([None if kind != "failed" else True for kind in kinds], dtype=pl.Boolean),
        }
    )
    keys = pl.Series("key", [f"k{number}" for number in range(len(kinds))], dtype=pl.String)
    return Gathered(job_no=7, lines=lines, keys=keys, order=pl.Series(order, dtype=pl.UInt32))


@given(
    st.lists(KINDS, max_size=40).flatmap(lambda kinds: st.tuples(st.just(kinds), st.permutations(range(len(kinds)))))
)
def test_slices_are_the_whole_whatever_their_size(told: tuple[list[str], list[int]]) -> None:
    kinds, order = told
    answers = gathered(kinds, order)
    [whole] = answers.slices(1_000)
    assert whole.schema == ANSWERS
    assert whole["key"].to_list() == [f"k{number}" for number in range(len(kinds))]
    assert whole["id"].to_list() == [f"Id{place}" for place in order]
    assert whole["kind"].to_list() == [kinds[place] for place in order]
    assert whole["job"].to_list() == [7] * len(kinds)
    assert not whole["transient"].null_count()
    for rows in (1, 7):
        slices = list(answers.slices(rows))
        assert_frame_equal(pl.concat(slices), whole)
        parts = [tally(lines, job_error="e", passes=True) for lines in slices]
        assert reduce(add, parts) == tally(whole, job_error="e", passes=True)


def test_lines_that_have_their_keys_are_given_as_they_are() -> None:
    [whole] = gathered(["created", "failed", "open"], [2, 0, 1]).slices(10)
    again = Gathered(job_no=8, lines=whole)
    assert_frame_equal(pl.concat(again.slices(2)), whole.with_columns(job=pl.lit(8, dtype=pl.Int64)))


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_what_is_written_is_read_again(tmp_path: Path, rows: int) -> None:
    answers = gathered(["created", "failed", "open", "updated", "created"][:rows], list(range(rows))[::-1])
    with answers_writer(tmp_path / "answers") as writer:
        for lines in answers.slices(2):
            writer.write_table(lines.to_arrow(compat_level=pl.CompatLevel.oldest()))
    found = pl.read_parquet(tmp_path / "answers", glob=False)
    assert_frame_equal(found, pl.concat(answers.slices(2)))
    assert found.schema == ANSWERS
