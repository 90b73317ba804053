"""Hours, disk, pause and extract-first in the pure coordinator: what may begin, why not, and when to look again."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep, Control, Job, JobStep, Part
from forcelift.errors import DiskFull, ReadingStopped, StorageError
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.holds import DISK_FULL_PAUSE_S, DiskSeen, WaitKind
from forcelift.jobs.messages import (
    AbandonJob,
    Answer,
    ChunkSettled,
    ChunkStaged,
    CloseJob,
    CollectJob,
    Command,
    ControlSeen,
    CreateJob,
    FailChunk,
    IntendJob,
    PlanTable,
    PollJobs,
    SettleChunk,
    SkipChunks,
    StageChunk,
    TablePlanned,
    Tally,
    UploadJob,
)
from forcelift.jobs.resend import FILES_MAX, resend_rows_max
from forcelift.jobs.tracks import TableSpec
from forcelift.plan.windows import parse_hours
from forcelift.protocols.org import IngestJob, JobState

NIGHT = parse_hours("22:00-06:00 UTC")
EVENING = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MORNING = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PARENT = TableSpec(name="P", object="P__c", operation="upsert", external_id_field="K__c", group=0)
CHILD = TableSpec(
    name="C", object="C__c", operation="upsert", external_id_field="K__c", group=1, waits_for=frozenset({"P"})
)
ROWS = 10
FILE_BYTES = 1000


def chunk(number: int, table: str) -> Chunk:
    return Chunk(
        audit_id=number,
        batch_id="B",
        table_name=table,
        chunk_no=number,
        predicate={},
        rows_estimate=ROWS,
        status=ChunkStatus.PENDING,
        step=ChunkStep.PLANNED,
    )


@dataclass
class Engine:
    """A coordinator with the world played by hand: commands lie in `given` until `do` answers them."""

    coordinator: Coordinator
    now: datetime
    given: deque[Command]
    chunks: dict[str, list[Chunk]]
    jobs: int = 0

    @classmethod
    def of(cls, *specs: TableSpec, chunks: int = 2, now: datetime = EVENING, **settings: Any) -> Engine:
        governor = Governor(jobs_max=2, api_calls_reserve=0, rng=random.Random(1))
        coordinator = Coordinator(specs, settings=EngineSettings(readers=2, **settings), governor=governor)
        numbers = iter(range(1, 1000))
        planned = {spec.name: [chunk(next(numbers), spec.name) for _ in range(chunks)] for spec in specs}
        return cls(coordinator, now, deque(coordinator.start(now)), planned)

    @property
    def kinds(self) -> list[str]:
        return [type(command).__name__ for command in self.given]

    @property
    def waits(self) -> list[WaitKind]:
        return [wait.kind for wait in self.coordinator.waits]

    def tick(self, now: datetime | None = None) -> None:
        self.now = now or self.now
        self.given.extend(self.coordinator.tick(self.now))

    def hear(self, control: Control) -> None:
        self.given.extend(self.coordinator.on(ControlSeen(control=control), self.now))

    def see_disk(self, used: float) -> None:
        self.given.extend(self.coordinator.on(DiskSeen(total=1000, free=1000 - round(used * 10)), self.now))

    def answer(self, command: Command, *, result: Any = None, error: Exception | None = None) -> None:
        self.given.remove(command)
        self.given.extend(self.coordinator.on(Answer(command=command, result=result, error=error), self.now))

    def do(self, kind: type, *, error: Exception | None = None) -> Any:
        """Answer the first command of that kind, by default as if all went well."""
        command = next(command for command in self.given if isinstance(command, kind))
        self.answer(command, result=None if error else self._result(command), error=error)
        return command

    def do_all(self, *kinds: type) -> list[Command]:
        """Answer all commands, of these kinds if any are named, also those that come of it."""
        done = []
        while (found := next((c for c in self.given if not kinds or isinstance(c, kinds)), None)) is not None:
            if isinstance(found, PollJobs):
                self.now += timedelta(seconds=30)
            self.answer(found, result=self._result(found))
            done.append(found)
            if not self.given and (wake := self.coordinator.wake_at(self.now)) is not None:
                self.tick(wake)
        return done

    def _result(self, command: Any) -> Any:
        match command:
            case PlanTable(table=name):
                return TablePlanned(chunks=tuple(self.chunks[name]))
            case StageChunk(audit_id=number):
                part = Part(file=f"{number}.csv", rows=ROWS, bytes=FILE_BYTES, sha256="0")
                spec = PARENT if any(one.audit_id == number for one in self.chunks.get("P", [])) else CHILD
                draft = spec.draft(audit_id=number, kind="load", part=part, attempt=1)  # type: ignore[arg-type]  # a StrEnum's text
                return ChunkStaged(
                    drafts=(draft,), extracted=ROWS, rejected=0, duplicate=0, has_links=False, staged_bytes=FILE_BYTES
                )
            case IntendJob(draft=draft):
                self.jobs += 1
                self._drafts = {**getattr(self, "_drafts", {}), self.jobs: draft}
                return self._job(self.jobs, JobStep.INTENDED)
            case CreateJob(job_no=number):
                return self._job(number, JobStep.CREATED)
            case UploadJob(job_no=number):
                return self._job(number, JobStep.UPLOADED)
            case CloseJob(job_no=number):
                return self._job(number, JobStep.CLOSED)
            case PollJobs(job_nos=numbers):
                return {number: _seen() for number in numbers}
            case CollectJob():
                return Tally(sent=ROWS, created=ROWS, updated=0, failed=0, transient=0, locked=0, open=0, unknown=0)
            case SettleChunk():
                return ChunkSettled(
                    status=ChunkStatus.SUCCESS, created=ROWS, updated=0, failed=0, rejected=0, duplicate=0, unknown=0
                )
            case SkipChunks():
                return 1
        return () if type(command).__name__ == "CheckTable" else None

    def _job(self, number: int, step: JobStep) -> Job:
        draft = self._drafts[number]
        return Job(
            job_no=number,
            batch_id="B",
            audit_id=draft.audit_id,
            kind=draft.kind,
            object=draft.object,
            operation=draft.operation,
            external_id_field=draft.external_id_field,
            part=draft.part,
            attempt=draft.attempt,
            step=step,
            intended_at=self.now,
            sf_id=None if step is JobStep.INTENDED else f"750{number}",
        )


def _seen() -> IngestJob:
    return IngestJob(
        id="750",
        object="P__c",
        operation="upsert",
        state=JobState.JOB_COMPLETE,
        created_by_id="005",
        created_date=NOON,
        external_id_field="K__c",
        api_version=66.0,
        job_type="V2Ingest",
    )


def test_outside_of_the_hours_nothing_begins_and_the_opening_is_named() -> None:
    engine = Engine.of(PARENT, now=NOON, hours=NIGHT)
    assert engine.kinds == []
    [wait] = engine.coordinator.waits
    assert (wait.kind, wait.until) == (WaitKind.WINDOW, EVENING)
    assert engine.coordinator.waiting_for == (
        "outside of `limits.window` 22:00-06:00 UTC (until 2026-03-01T22:00:00+00:00)"
    )
    assert engine.coordinator.wake_at(NOON) == EVENING
    engine.tick(EVENING)
    assert engine.kinds == ["PlanTable"]
    assert engine.waits == []


def test_when_the_hours_end_an_intent_is_withdrawn_and_open_jobs_wait_and_closed_ones_are_collected() -> None:
    engine = Engine.of(PARENT, hours=NIGHT)
    engine.do_all(PlanTable, StageChunk)
    engine.do(IntendJob)
    engine.do(CreateJob)  # job 1 is created, and its upload handed out
    engine.do(IntendJob)
    assert engine.kinds == ["UploadJob", "CreateJob"]
    engine.now = MORNING
    engine.do(UploadJob)
    engine.do(CreateJob)
    assert engine.kinds == [], "uploaded and created jobs wait to be closed and filled"
    assert engine.waits == [WaitKind.WINDOW]
    evening = EVENING + timedelta(days=1)
    assert engine.coordinator.wake_at(engine.now) == evening
    engine.tick(evening)
    assert sorted(engine.kinds) == ["CloseJob", "UploadJob"]
    engine.do(CloseJob)
    engine.now = MORNING + timedelta(days=1)
    engine.do(UploadJob)
    assert engine.waits == [WaitKind.WINDOW]
    done = engine.do_all(PollJobs, CollectJob, SettleChunk)
    assert [type(command).__name__ for command in done] == ["PollJobs", "CollectJob", "SettleChunk"]


def test_an_intent_that_the_hours_overtook_is_withdrawn() -> None:
    engine = Engine.of(PARENT, hours=NIGHT, chunks=1)
    engine.do_all(PlanTable, StageChunk)
    engine.now = MORNING
    engine.do(IntendJob)
    [command] = engine.given
    assert isinstance(command, AbandonJob)
    assert "limits.window" in command.reason
    engine.do(AbandonJob)
    assert engine.kinds == []
    engine.tick(EVENING + timedelta(days=1))
    assert engine.kinds == ["IntendJob"]


def test_a_stop_outside_of_the_hours_does_not_wait_for_them() -> None:
    engine = Engine.of(PARENT, hours=NIGHT, chunks=1)
    engine.do_all(PlanTable, StageChunk, IntendJob)
    engine.do(CreateJob)
    engine.now = MORNING
    engine.do(UploadJob)
    assert engine.kinds == []
    engine.hear(Control(stop=True, by="op"))
    assert engine.kinds == ["AbandonJob"]
    engine.do_all()
    assert engine.coordinator.is_finished
    assert engine.waits == []


def test_a_stop_ends_a_run_that_waits_for_its_hours_before_anything_was_planned() -> None:
    engine = Engine.of(PARENT, hours=NIGHT, now=NOON)
    assert not engine.coordinator.is_finished
    engine.hear(Control(stop=True, by="op"))
    assert engine.kinds == []
    assert engine.coordinator.is_finished
    assert not engine.coordinator.is_complete


def test_a_read_that_the_hours_ended_is_begun_anew_when_they_open() -> None:
    engine = Engine.of(PARENT, hours=NIGHT, chunks=1)
    engine.do(PlanTable)
    engine.now = MORNING
    engine.tick()
    assert engine.coordinator.stops_reading
    engine.do(StageChunk, error=ReadingStopped("x"))
    assert engine.kinds == []
    engine.tick(EVENING + timedelta(days=1))
    assert engine.kinds == ["StageChunk"]
    assert not engine.coordinator.stops_reading


@pytest.mark.parametrize(
    ("evening", "minutes_open"),
    [
        ("2026-03-27", 480),  # a night as any other
        ("2026-03-28", 420),  # at 02:00 in Berlin the clocks go to 03:00
        ("2026-10-24", 540),  # at 03:00 they go back to 02:00
    ],
)
def test_hours_over_midnight_last_until_the_clock_on_the_wall_says_so(evening: str, minutes_open: int) -> None:
    """Method: the coordinator's clock goes minute by minute from noon to noon over a night in Berlin."""
    noon = datetime.fromisoformat(f"{evening}T11:00+00:00")
    engine = Engine.of(PARENT, hours=parse_hours("22:00-06:00 Europe/Berlin"), now=noon, chunks=1)
    began = str(engine.coordinator.waits[0])
    opened, told = [], set()
    for minute in range(24 * 60):
        engine.tick(noon + timedelta(minutes=minute))
        if engine.coordinator.stops_reading:
            told.add(str(engine.coordinator.waits[0]))
        else:
            opened.append(engine.now)
    assert began in told
    assert len(told) == 2, "before and behind the night, each with one opening that does not move"
    assert len(opened) == minutes_open
    assert opened[-1] - opened[0] == timedelta(minutes=minutes_open - 1)
    local = [moment.astimezone(ZoneInfo("Europe/Berlin")) for moment in (opened[0], opened[-1])]
    assert [f"{moment:%H:%M}" for moment in local] == ["22:00", "05:59"]
    assert opened[0].isoformat(timespec="seconds") in began


def test_a_stop_while_a_chunk_is_read_leaves_no_chunk_running() -> None:
    engine = Engine.of(PARENT, chunks=3)
    engine.do(PlanTable)
    assert engine.kinds == ["StageChunk", "StageChunk"]
    engine.hear(Control(stop=True, by="op", reason="enough"))
    engine.do(StageChunk, error=ReadingStopped("x"))
    engine.do(StageChunk, error=ReadingStopped("x"))
    done = engine.do_all()
    assert [type(command).__name__ for command in done] == ["FailChunk", "FailChunk", "SkipChunks"]
    assert engine.coordinator.is_finished
    assert engine.coordinator.errors == ()


def test_above_the_critical_share_reading_waits_and_goes_on_with_some_slack() -> None:
    engine = Engine.of(PARENT, chunks=6, disk_critical=95.0)
    engine.see_disk(94.9)
    engine.do(PlanTable)
    assert engine.kinds == ["StageChunk", "StageChunk"]
    engine.see_disk(95.1)
    assert len(engine.do_all(StageChunk)) == 2, "those under way are finished and no other is begun"
    assert engine.waits == [WaitKind.DISK]
    assert "95.1 % full, above `disk_usage_critical` 95 %" in str(engine.coordinator.waiting_for)
    assert "IntendJob" in engine.kinds, "what is staged is sent: that makes room"
    engine.see_disk(94.5)
    assert "StageChunk" not in engine.kinds
    engine.see_disk(93.9)
    assert "StageChunk" in engine.kinds
    assert engine.waits == []


def test_a_disk_that_is_full_is_tried_again_later_and_longer_each_time() -> None:
    engine = Engine.of(PARENT, chunks=1)
    engine.do(PlanTable)
    pauses = []
    for _ in range(8):
        engine.do(StageChunk, error=DiskFull("`x.csv` cannot be written: the disk is full"))
        assert engine.kinds == []
        assert engine.coordinator.waits[0].reason == "`x.csv` cannot be written: the disk is full"
        wake = engine.coordinator.wake_at(engine.now)
        assert wake is not None
        pauses.append((wake - engine.now).total_seconds())
        engine.tick(wake)
    assert pauses[0] == DISK_FULL_PAUSE_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == 300
    engine.do_all()
    assert engine.coordinator.is_complete
    assert engine.coordinator.errors == ()


def test_more_room_ends_the_wait_for_a_full_disk_at_once() -> None:
    engine = Engine.of(PARENT, chunks=1)
    engine.see_disk(100)
    engine.do(PlanTable)
    engine.do(StageChunk, error=DiskFull("full"))
    engine.see_disk(99.5)
    assert engine.kinds == []
    engine.see_disk(50)
    assert engine.kinds == ["StageChunk"]


def test_staging_gb_is_kept_by_what_a_chunk_is_expected_to_take() -> None:
    engine = Engine.of(PARENT, chunks=5, staged_bytes_max=int(2.5 * FILE_BYTES))
    engine.do(PlanTable)
    engine.do(StageChunk)
    engine.do(StageChunk)
    assert "StageChunk" not in engine.kinds, "a third one would not fit"
    engine.do_all()
    assert engine.coordinator.is_complete


def test_staging_that_can_never_fit_ends_with_the_setting_to_raise() -> None:
    engine = Engine.of(PARENT, chunks=5, staged_bytes_max=int(2.5 * FILE_BYTES), extract_first=True)
    engine.do_all()
    [error] = engine.coordinator.errors
    assert isinstance(error, StorageError)
    assert "limits.staging_gb" in error.message
    assert engine.coordinator.is_finished
    assert engine.jobs == 0


def test_files_that_are_kept_count_to_the_end() -> None:
    engine = Engine.of(PARENT, chunks=5, staged_bytes_max=int(2.5 * FILE_BYTES), keeps_staged=True)
    engine.do_all()
    assert "limits.staging_gb" in str(engine.coordinator.errors[0])
    assert engine.jobs == 2


@pytest.mark.parametrize("patience", [60.0, 7200.0])
def test_extract_first_gives_a_full_disk_up_after_a_while(patience: float) -> None:
    engine = Engine.of(PARENT, chunks=4, disk_critical=95.0, extract_first=True, room_patience_s=patience)
    engine.do(PlanTable)
    engine.do(StageChunk)
    engine.see_disk(99)
    engine.do_all(StageChunk)
    engine.tick(engine.now + timedelta(seconds=3600))
    engine.do_all()
    assert engine.coordinator.is_finished == (patience < 3600)
    assert bool(engine.coordinator.errors) == (patience < 3600)


def test_a_pause_keeps_its_reason_when_something_else_is_asked_later() -> None:
    engine = Engine.of(PARENT, chunks=3)
    engine.hear(Control(paused=True, by="ann", reason="month end"))
    engine.hear(Control(paused=True, throttle_jobs=1, by="bob", reason="users complain"))
    assert engine.coordinator.waiting_for == "paused by ann: month end"
    engine.do(PlanTable)
    assert engine.kinds == [], "a pause begins no read"
    engine.hear(Control(throttle_jobs=1, by="ann"))
    assert engine.kinds == ["StageChunk", "StageChunk"]
    assert engine.coordinator.take_decisions() == [
        "paused by ann: month end",
        "at most 1 job at once, as bob asked: users complain",
        "paused no more",
    ]


def test_extract_first_sends_nothing_before_everything_is_staged_and_parents_before_children() -> None:
    engine = Engine.of(PARENT, CHILD, chunks=3, extract_first=True)
    done = engine.do_all()
    names = [type(command).__name__ for command in done]
    assert names.index("IntendJob") > max(place for place, name in enumerate(names) if name == "StageChunk")
    staged = [command.audit_id for command in done if isinstance(command, StageChunk)]
    parents = {one.audit_id for one in engine.chunks["P"]}
    assert set(staged[:3]) == parents
    settled = [command.audit_id for command in done if isinstance(command, SettleChunk)]
    assert set(settled[:3]) == parents
    sent = [command.draft.audit_id for command in done if isinstance(command, IntendJob)]
    assert set(sent[:3]) == parents
    assert engine.coordinator.is_complete


def test_a_stop_while_extracting_marks_what_is_staged_and_what_is_not() -> None:
    engine = Engine.of(PARENT, CHILD, chunks=3, extract_first=True)
    engine.do_all(PlanTable)
    engine.do(StageChunk)
    engine.hear(Control(stop=True, by="op"))
    done = engine.do_all()
    failed = [command for command in done if isinstance(command, FailChunk)]
    assert len(failed) == 3, "of the two under way and the one staged"
    assert isinstance(done[-1], SkipChunks)
    assert engine.coordinator.is_finished
    assert engine.jobs == 0


@pytest.mark.parametrize("rows", [1, 300, 9_999, 100_000, 500_000])
def test_rows_sent_again_go_in_ever_smaller_company(rows: int) -> None:
    sizes = [resend_rows_max(attempt, rows) for attempt in range(2, 12)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size >= 1 and -(-rows // size) <= FILES_MAX for size in sizes)
    assert sizes[0] == max(10_000, -(-rows // FILES_MAX))
    assert resend_rows_max(3, 300) == 2_500
