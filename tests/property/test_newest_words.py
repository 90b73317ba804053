"""The newest word on each row, counted by DuckDB over ledger files, against a plain model of the same rules."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from forcelift.ledger import LEDGER, Ledger
from forcelift.ledger.newest import NewestCounts, WordFile, count_newest, newest_refusals
from forcelift.storage import FolderStorage

OUTCOMES = ("created", "updated", "failed", "rejected", "duplicate", "unknown", "rolled_back", "kept")
CODES = {"failed": ("STRING_TOO_LONG", "DUPLICATE_VALUE"), "rejected": ("REJECTED_NULL", "REJECTED_DATE")}


@dataclass(frozen=True)
class Line:
    key: str | None
    outcome: str
    code: str | None
    id: str | None
    created: bool
    job: int | None


@dataclass(frozen=True)
class Chunk:
    batch: int
    place: int
    reading: str
    undone: bool
    lines: tuple[Line, ...]


@st.composite
def lines(draw: st.DrawFn) -> Line:
    outcome = draw(st.sampled_from(OUTCOMES))
    key = draw(st.sampled_from(["a", "A", "b", "c", "d", "ก"]))
    if outcome == "rejected" and draw(st.integers(0, 3)) == 0:
        key = None  # only such rows have none
    code = draw(st.sampled_from(CODES[outcome])) if outcome in CODES else None
    if outcome == "kept":
        code = draw(st.sampled_from(["CHANGED_FIELDS", "RECORD_GONE"]))
    was_sent = outcome not in ("rejected", "duplicate")
    record = f"id-{key}" if was_sent and (outcome != "failed" or draw(st.booleans())) else None
    created = outcome == "created" or (record is not None and outcome != "updated" and draw(st.booleans()))
    return Line(key, outcome, code, record, created, draw(st.integers(1, 30)) if was_sent else None)


@st.composite
def chunks(draw: st.DrawFn) -> list[Chunk]:
    return [
        Chunk(
            batch=batch,
            place=draw(st.integers(0, 30)),
            reading="reading" if batch % 2 else draw(st.sampled_from(["reading", "other"])),
            undone=draw(st.integers(0, 5)) == 0,
            lines=tuple(draw(st.lists(lines(), max_size=8))),
        )
        for batch in range(draw(st.integers(1, 4)))
        for _ in range(draw(st.integers(1, 2)))
    ]


def place_of(chunk: Chunk, line: Line, jobs: dict[int, int]) -> int:
    return chunk.place if line.job is None else jobs[line.job]


def newest_of(found: list[Chunk], jobs: dict[int, int]) -> dict[str, tuple[int, list[Line]]]:
    """By key the batch whose word counts, and its lines."""
    by_batch: dict[str, dict[int, list[tuple[Chunk, Line]]]] = {}
    for chunk in found:
        for line in chunk.lines:
            if line.key is not None:
                by_batch.setdefault(line.key, {}).setdefault(chunk.batch, []).append((chunk, line))

    def rank(word: tuple[int, list[tuple[Chunk, Line]]]) -> tuple[int, int, int]:
        batch, pairs = word
        said = [
            place_of(chunk, line, jobs)
            for chunk, line in pairs
            if not chunk.undone and line.outcome not in ("duplicate", "rolled_back")
        ]
        if said:
            return 2, max(said), batch
        is_undone = any(chunk.undone or line.outcome == "rolled_back" for chunk, line in pairs)
        return int(is_undone), max(place_of(chunk, line, jobs) for chunk, line in pairs), batch

    found_words = {key: max(words.items(), key=rank) for key, words in by_batch.items()}
    return {key: (batch, [line for _, line in pairs]) for key, (batch, pairs) in found_words.items()}


def has_record(line: Line) -> bool:
    if line.outcome == "kept":
        return line.code != "RECORD_GONE"
    return line.outcome in ("created", "updated") or (line.outcome == "failed" and line.id is not None)


def model(found: list[Chunk], jobs: dict[int, int]) -> NewestCounts:
    counts: Counter[str] = Counter()
    for key, (_, word) in newest_of(found, jobs).items():
        every = [line for chunk in found for line in chunk.lines if line.key == key]
        made = any(line.created and line.id is not None and line.outcome != "rolled_back" for line in every)
        for line in word:
            accepted = line.outcome in ("created", "updated")
            counts[("created" if made else "updated") if accepted else line.outcome] += 1
            counts["source"] += 1
        gone = any(line.outcome == "kept" and line.code == "RECORD_GONE" for line in word)
        counts["in_org"] += int(any(map(has_record, every)) and not gone)
    keyless: dict[tuple[str, str], Counter[int]] = {}
    for chunk in found:
        for line in chunk.lines:
            if line.key is None:
                keyless.setdefault((chunk.reading, line.outcome), Counter())[chunk.batch] += 1
    for (_, outcome), by_batch in keyless.items():
        counts[outcome] += max(by_batch.values())
        counts["source"] += max(by_batch.values())
    return NewestCounts(**{name: counts[name] for name in NewestCounts.__struct_fields__})


def keyless_by_code(found: list[Chunk], outcome: str) -> dict[tuple[str | None, str], Counter[int]]:
    counts: dict[tuple[str | None, str], Counter[int]] = {}
    for chunk in found:
        for line in chunk.lines:
            if line.key is None and line.outcome == outcome:
                counts.setdefault((line.code, chunk.reading), Counter())[chunk.batch] += 1
    return counts


def written(ledger: Ledger, found: list[Chunk]) -> list[WordFile]:
    files = []
    for number, chunk in enumerate(found, start=1):
        frame = pl.DataFrame(
            [
                {
                    "row": row,
                    "key": line.key,
                    "id": line.id,
                    "outcome": line.outcome,
                    "code": line.code,
                    "fields": None,
                    "message": None,
                    "evidence": "result",
                    "created": line.created,
                    "hash": None,
                    "job": line.job,
                }
                for row, line in enumerate(chunk.lines)
            ],
            schema=LEDGER,
        )
        sealed = ledger.write(f"b{chunk.batch}", "a [table]*", number, 0, frame)
        files.append(
            WordFile(
                name=sealed.name,
                batch=chunk.batch,
                place=chunk.place,
                reading=chunk.reading,
                undone=chunk.undone,
            )
        )
    return files


@settings(max_examples=60, deadline=None)
@given(found=chunks(), shuffled=st.permutations(range(1, 31)))
def test_each_row_counts_once_by_its_newest_word(found: list[Chunk], shuffled: list[int]) -> None:
    jobs = dict(zip(range(1, 31), shuffled, strict=True))  # numbers need not grow with time
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(FolderStorage(Path(folder)))
        files = written(ledger, found)
        counted = count_newest(ledger, files, list(jobs.items()))
        expected = model(found, jobs)
        assert asdict(counted) == asdict(expected)
        parts = asdict(counted)
        assert parts["source"] == sum(parts[name] for name in OUTCOMES)
        reasons = newest_refusals(ledger, files, list(jobs.items()))
        newest = newest_of(found, jobs)
        for outcome in CODES:
            told = Counter({one.code: one.rows for one in reasons if one.outcome == outcome})
            expected_rows = Counter(
                line.code for _, word in newest.values() for line in word if line.outcome == outcome
            )
            for (code, _), by_batch in keyless_by_code(found, outcome).items():
                expected_rows[code] += max(by_batch.values())
            assert +told == +expected_rows
        for one in reasons:
            refused = {
                line.key
                for chunk in found
                if not chunk.undone
                for line in chunk.lines
                if (line.outcome, line.code) == (one.outcome, one.code) and line.key is not None
            }
            good = {
                key
                for key in refused
                if not any(line.outcome in CODES for line in newest[key][1])
                and any(line.outcome in ("created", "updated", "kept") for line in newest[key][1])
            }
            assert one.mended == len(good)
            assert len(one.keys) <= 5


def test_no_files_are_no_rows(tmp_path: Path) -> None:
    ledger = Ledger(FolderStorage(tmp_path))
    assert set(asdict(count_newest(ledger, [], [])).values()) == {0}
    assert newest_refusals(ledger, [], []) == []


def test_more_rows_than_fit_into_memory_are_counted(tmp_path: Path) -> None:
    """800,000 words on 400,000 keys, with 64 MB."""
    rows = 200_000
    ledger = Ledger(FolderStorage(tmp_path / "state"), memory_mb=64, spill=tmp_path)
    files = []
    for batch in range(2):
        for part in range(2):
            keys = pl.Series(range(part * rows, (part + 1) * rows))
            frame = pl.DataFrame(
                {
                    "row": pl.Series(range(rows), dtype=pl.UInt32),
                    "key": keys.cast(pl.String),
                    "id": "a0B" + keys.cast(pl.String).str.zfill(15),
                    "outcome": "updated" if batch else "created",
                    "code": None,
                    "fields": None,
                    "message": None,
                    "evidence": "result",
                    "created": batch == 0,
                    "hash": None,
                    "job": batch * 2 + part + 1,
                },
                schema=LEDGER,
            )
            sealed = ledger.write(f"b{batch}", "t", part + 1, 0, frame)
            files.append(WordFile(name=sealed.name, batch=batch, place=0, reading=""))
    counted = count_newest(ledger, files, [(number, number) for number in range(1, 5)])
    assert (counted.source, counted.created, counted.updated, counted.in_org) == (2 * rows, 2 * rows, 0, 2 * rows)
