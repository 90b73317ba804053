"""The answers of one job: gathered, given out in slices, written and counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from forcelift.jobs import answers, csv_blocks
from forcelift.jobs.answers import ANSWERS, KIND, AnswerCollector, Gathered, answers_writer, tally
from forcelift.protocols.org import FieldDescribe, JobState, ResultKind
from forcelift.salesforce.refusals import CatalogueReader

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


@given(heights=st.lists(st.integers(0, 40), max_size=12), least=st.sampled_from([1, 300, 10_000]))
def test_frames_are_put_together_without_loss_and_in_order(heights: list[int], least: int) -> None:
    numbers = itertools.count()
    frames = [
        pl.DataFrame({"text": [f"{next(numbers):09d}" for _ in range(height)]}, schema={"text": pl.String})
        for height in heights
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "TOLD_BYTES", least)
        together = list(answers._together(frames))
    assert [text for frame in together for text in frame["text"]] == [f"{n:09d}" for n in range(sum(heights))]
    assert all(frame.estimated_size() >= least for frame in together[:-1])
    assert all(frame.n_chunks() == 1 for frame in together)


@pytest.mark.parametrize("least", [1, 2_000, 10_000_000])
def test_a_result_file_is_read_whatever_the_size_of_its_parts(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    words = ["true", "false", "True", "FALSE", "TRUE", "no", ""]
    rows = [(f"K{number:04d}", words[number % len(words)]) for number in range(700)]
    lines = [f'"a0{number:016d}","{word}","{key}","of\ntwo ""lines"""' for number, (key, word) in enumerate(rows)]
    text = "\n".join(['"sf__Id","sf__Created","Key__c","Note__c"', *reversed(lines)]).encode()

    def results(sf_id: str, kind: ResultKind) -> Iterator[bytes]:
        assert (sf_id, kind) == ("750x", ResultKind.SUCCESSFUL)
        yield from (text[at : at + 900] for at in range(0, len(text), 900))

    monkeypatch.setattr(answers, "TOLD_BYTES", least)
    monkeypatch.setattr(csv_blocks.whole_rows, "__kwdefaults__", {"block_bytes": 3_000})
    work: Any = SimpleNamespace(key_field=FieldDescribe(name="Key__c", label="", type="string"))
    org: Any = SimpleNamespace(results=results)
    refusals: Any = None  # asked of failed rows only
    seen: Any = SimpleNamespace(state=JobState.JOB_COMPLETE, records_processed=700, records_failed=0)
    job: Any = SimpleNamespace(job_no=3, sf_id="750x")
    keys = pl.Series([key for key, _ in rows])
    collector = AnswerCollector(org=org, refusals=refusals, work=work, keys=keys, find=lambda keys: [])
    told = pl.concat(collector.collect(job, seen).slices(90))
    assert told["key"].to_list() == [key for key, _ in rows]
    assert told["kind"].to_list() == ["created" if word.lower() == "true" else "updated" for _, word in rows]
    assert told["id"].to_list() == [f"a0{number:016d}" for number in range(len(rows))]


_SAID = {
    ResultKind.SUCCESSFUL: ["sf__Id,sf__Created,Key__c", *(f"a0{n:016d},true,K{n}" for n in range(7))],
    ResultKind.FAILED: ["sf__Id,sf__Error,Key__c", *(f",REQUIRED_FIELD_MISSING:no:Name --,K{n}" for n in (7, 8))],
    ResultKind.UNPROCESSED: ["Key__c", "K9"],
}


@pytest.mark.parametrize(
    ("counted", "asked"),
    [
        ((9, 2), list(ResultKind)),
        ((None, None), list(ResultKind)),
        ((10, 0), [ResultKind.SUCCESSFUL, ResultKind.UNPROCESSED]),
        ((7, 0), [ResultKind.SUCCESSFUL, ResultKind.UNPROCESSED]),
        ((10, 10), [ResultKind.FAILED, ResultKind.UNPROCESSED]),
        ((0, 0), [ResultKind.UNPROCESSED]),
    ],
)
def test_no_row_is_lost_where_the_counters_of_a_job_are_wrong(
    counted: tuple[int | None, int | None], asked: list[ResultKind]
) -> None:
    """Seven rows were saved, two refused, one left: what is not asked for is open or, if the org holds it, unknown."""
    fetched: list[ResultKind] = []

    def results(sf_id: str, kind: ResultKind) -> Iterator[bytes]:
        fetched.append(kind)
        yield "\n".join(_SAID[kind]).encode()

    def find(wanted: list[str]) -> list[tuple[str, str]]:
        return [(f"a0{int(key[1:]):016d}", key) for key in wanted if int(key[1:]) < 7]

    processed, failed = counted
    seen: Any = SimpleNamespace(
        id="750x", state=JobState.JOB_COMPLETE, records_processed=processed, records_failed=failed
    )
    org: Any = SimpleNamespace(results=results, get_job=lambda sf_id: seen)
    work: Any = SimpleNamespace(
        key_field=FieldDescribe(name="Key__c", label="", type="string"), personal_fields=(), null_text="#N/A"
    )
    job: Any = SimpleNamespace(job_no=3, sf_id="750x")
    keys = pl.Series([f"K{n}" for n in range(10)])
    collector = AnswerCollector(org=org, refusals=CatalogueReader(), work=work, keys=keys, find=find)
    told = pl.concat(collector.collect(job, seen).slices(4))
    assert fetched == asked
    kinds = dict(told.select("key", pl.col("kind").cast(pl.String)).iter_rows())
    assert sorted(kinds) == keys.to_list()
    saved = "created" if ResultKind.SUCCESSFUL in asked else "open" if processed == 0 else "unknown"
    refused = "failed" if ResultKind.FAILED in asked else "open"
    assert [kinds[key] for key in keys] == [saved] * 7 + [refused] * 2 + ["open"]
