"""What becomes of each row: staged outcomes and the org's answers, joined by key."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from forcelift.audit.records import ChunkStatus, StagedChunk
from forcelift.jobs.answers import ANSWERS, merge_answers, tally
from forcelift.jobs.settlement import open_keys, settle_rows

ROWS = {
    "row": pl.UInt32,
    "key": pl.String,
    "outcome": pl.String,
    "code": pl.String,
    "fields": pl.String,
    "details": pl.String,
    "hash": pl.Binary,
}
HASH = b"\x01" + bytes(15)
LINK_HASH = b"\x02" + bytes(15)


def rows(*lines: tuple[str | None, str | None]) -> pl.DataFrame:
    """Staged rows from (key, outcome)."""
    return pl.DataFrame(
        [
            {
                "row": number,
                "key": key,
                "outcome": outcome,
                "code": "REJECTED_TOO_LONG" if outcome == "rejected" else None,
                "details": "too long" if outcome == "rejected" else None,
                "hash": HASH if outcome is None else None,
            }
            for number, (key, outcome) in enumerate(lines)
        ],
        schema=ROWS,
    )


def answer(key: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "kind": kind, "transient": False, "locked": False, "evidence": "result", "job": 1} | more


def answers(*lines: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(lines), schema=ANSWERS)


def outcomes(frame: pl.DataFrame) -> dict[int, str]:
    return dict(frame.select("row", "outcome").iter_rows())


def test_each_row_has_one_outcome() -> None:
    staged = rows(("a", None), ("b", None), ("c", "rejected"), (None, "rejected"), ("a", "duplicate"))
    found = merge_answers(
        [answers(answer("a", "created", id="001A"), answer("b", "failed", code="X", message="m", fields="F"))]
    )
    settled = settle_rows(staged, found)
    assert outcomes(settled.ledger) == {0: "created", 1: "failed", 2: "rejected", 3: "rejected", 4: "duplicate"}
    lines = settled.ledger.rows(named=True)
    assert lines[0]["id"] == "001A"
    assert lines[1]["code"] == "X"
    assert lines[2]["code"] == "REJECTED_TOO_LONG"
    assert lines[4]["id"] is None, "a duplicate has no part in the winner's record"
    assert settled.status is ChunkStatus.PARTIAL


def test_a_sent_row_without_an_answer_is_unknown_and_keeps_the_chunk_open() -> None:
    settled = settle_rows(rows(("a", None), ("b", None)), merge_answers([answers(answer("a", "created", id="1"))]))
    assert outcomes(settled.ledger)[1] == "unknown"
    assert settled.status is ChunkStatus.FAILED


def test_created_stays_created_whatever_comes_later() -> None:
    merged = merge_answers(
        [answers(answer("a", "created", id="001A", job=1)), answers(answer("a", "updated", id="001A", job=2))]
    )
    settled = settle_rows(rows(("a", None)), merged)
    assert outcomes(settled.ledger) == {0: "created"}


def test_a_refused_resend_of_a_created_row_is_failed_but_remembered_as_created() -> None:
    merged = merge_answers(
        [answers(answer("a", "created", id="001A")), answers(answer("a", "failed", code="X", message="m", fields=""))]
    )
    line = settle_rows(rows(("a", None)), merged).ledger.row(0, named=True)
    assert (line["outcome"], line["created"], line["id"]) == ("failed", True, "001A")


def test_the_worse_of_load_and_link_counts() -> None:
    staged = rows(("a", None), ("b", None), ("c", None), ("d", None))
    loaded = merge_answers([answers(*(answer(key, "created", id=f"00{key}") for key in "abcd"))])
    link_rows = pl.DataFrame(
        {
            "row": [0, 1, 2],
            "key": ["a", "b", "c"],
            "outcome": [None, None, "rejected"],
            "code": [None, None, "REJECTED_MISSING_PARENT"],
            "fields": [None, None, "BOSS"],
            "details": [None, None, "no parent"],
            "hash": [LINK_HASH, LINK_HASH, None],
        },
        schema=ROWS,
    )
    linked = merge_answers(
        [answers(answer("a", "updated", id="00a"), answer("b", "failed", code="L", message="m", fields=""))]
    )
    settled = settle_rows(staged, loaded, link_rows=link_rows, link_answers=linked)
    assert outcomes(settled.ledger) == {0: "created", 1: "failed", 2: "failed", 3: "created"}
    lines = settled.ledger.rows(named=True)
    assert lines[0]["hash"] == b"\x03" + bytes(15), "the link's part is added to the row's hash"
    assert lines[3]["hash"] == HASH
    assert lines[2]["code"] == "REJECTED_MISSING_PARENT"
    assert lines[1]["created"], "the record exists, although its link failed"


def test_rows_without_a_final_answer_are_sent_again() -> None:
    found = merge_answers(
        [
            answers(
                answer("done", "created", id="1"),
                answer("locked", "failed", code="UNABLE_TO_LOCK_ROW", transient=True, locked=True),
                answer("bad", "failed", code="X"),
                answer("never", "open"),
                answer("lost", "unknown", evidence="queried"),
            )
        ]
    )
    staged = rows(*((key, None) for key in ("done", "locked", "bad", "never", "lost", "silent")))
    again = open_keys(staged, found, include_unknown=False)
    assert dict(again.sort("key").iter_rows()) == {"locked": True, "never": False, "silent": False}
    assert set(open_keys(staged, found, include_unknown=True)["key"]) == {"locked", "never", "silent", "lost"}


def test_a_tally_counts_what_the_job_answered() -> None:
    counted = tally(
        answers(answer("a", "created"), answer("b", "failed", transient=True, locked=True), answer("c", "open")),
        job_error=None,
        passes=True,
    )
    assert (counted.sent, counted.created, counted.failed, counted.transient, counted.locked, counted.open) == (
        3,
        1,
        1,
        1,
        1,
        1,
    )
    assert not counted.is_clean


KINDS = st.sampled_from(["created", "updated", "failed", "open", "unknown", None])


@given(
    staged=st.lists(st.sampled_from([None, None, "rejected", "duplicate"]), max_size=12),
    kinds=st.lists(st.lists(KINDS, min_size=12, max_size=12), max_size=4),
)
def test_no_row_is_lost_or_doubled_whatever_the_answers(
    staged: list[str | None], kinds: list[list[str | None]]
) -> None:
    lines = rows(*((f"k{number}", outcome) for number, outcome in enumerate(staged)))
    jobs = [
        answers(
            *(
                answer(f"k{number}", kind, job=attempt)
                for number, kind in enumerate(job[: len(staged)])
                if kind is not None and staged[number] is None
            )
        )
        for attempt, job in enumerate(kinds)
    ]
    settled = settle_rows(lines, merge_answers(jobs))
    assert settled.ledger["row"].to_list() == list(range(len(staged)))
    assert sum(settled.outcomes.values()) == len(staged)
    for number, outcome in enumerate(staged):
        mine = [job[number] for job in kinds if job[number] is not None]
        found = settled.ledger.row(number, named=True)
        if outcome is not None:
            assert found["outcome"] == outcome
            continue
        last = mine[-1] if mine else "unknown"
        expected = {"open": "unknown"}.get(last, last)
        if expected == "updated" and "created" in mine:
            expected = "created"
        assert found["outcome"] == expected
        assert found["created"] == ("created" in mine)
    if settled.unknown == 0:
        done = StagedChunk(
            source_count=len(staged),
            extracted=len(staged),
            transformed=staged.count(None),
            rejected=staged.count("rejected"),
            duplicate=staged.count("duplicate"),
            parts=(),
            rows_file="r",
            refused_file=None,
            links_file=None,
            source_checksum="",
        )
        counts = settled.counts(done)
        assert counts.extracted == counts.transformed + counts.skipped
        assert counts.transformed == counts.loaded
