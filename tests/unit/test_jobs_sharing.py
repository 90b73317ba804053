"""The coordinator of a runner that may not be alone: what it claims, what it waits for, and when it gives all up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep, Job, JobDraft, JobKind, JobStep, Part, StagedChunk
from forcelift.audit.shared_work import Around, ClaimedChunks, FailedElsewhere
from forcelift.audit.shares import IntentRefused
from forcelift.errors import LeaseLost
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.messages import (
    Answer,
    CheckTable,
    ChunkStaged,
    ClaimChunks,
    Command,
    CreateJob,
    IntendJob,
    LookAround,
    PlanTable,
    StageChunk,
    TablePlanned,
)
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.work import duplicates_name, staged_names

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = TableSpec(name="T", object="T__c", operation="upsert", external_id_field="K__c", group=0)
PART = Part(file="f", rows=10, bytes=100, sha256="0")
NOTHING = Around(
    runners=2,
    planned={},
    settled=(),
    loaded=frozenset(),
    failed=(),
    free=frozenset(),
    held=frozenset(),
    silent_s=0.0,
    orphan_intent=False,
)


def chunk(audit_id: int, *, step: ChunkStep = ChunkStep.PLANNED) -> Chunk:
    settled = step is ChunkStep.SETTLED
    return Chunk(
        audit_id=audit_id,
        batch_id="B1",
        table_name="T",
        chunk_no=audit_id,
        predicate={},
        rows_estimate=10,
        status=ChunkStatus.SUCCESS if settled else ChunkStatus.PENDING,
        step=step,
    )


class Driver:
    """Holds the commands that wait for an answer, and answers one of a kind."""

    def __init__(self, *, chunks: int = 4, jobs_max: int = 4) -> None:
        governor = Governor(jobs_max=jobs_max, api_calls_reserve=0, rng=random.Random(1))
        settings = EngineSettings(is_shared=True, readers=2, active_chunks_max=3)
        self.coordinator = Coordinator([SPEC], settings=settings, governor=governor)
        self.now = NOW
        self.coordinator.restore(["T"] if chunks else [], [chunk(number) for number in range(1, chunks + 1)], [])
        self.commands: list[Command] = self.coordinator.start(self.now)

    def answer(self, kind: type[Any], result: Any = None, error: Exception | None = None) -> Any:
        command = next(command for command in self.commands if isinstance(command, kind))
        self.commands.remove(command)
        self.commands += self.coordinator.on(Answer(command=command, result=result, error=error), self.now)
        return command

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.commands += self.coordinator.tick(self.now)

    def kinds(self) -> list[str]:
        return sorted(type(command).__name__ for command in self.commands)

    def claim(self, *audit_ids: int) -> Any:
        return self.answer(ClaimChunks, ClaimedChunks(chunks=tuple(chunk(number) for number in audit_ids), jobs=()))


def test_chunks_are_claimed_before_they_are_begun() -> None:
    driver = Driver()
    assert driver.kinds() == ["ClaimChunks", "LookAround"]
    assert driver.claim(1, 2).wanted == 2
    assert driver.kinds() == ["LookAround", "StageChunk", "StageChunk"]


def test_what_is_not_to_be_had_is_waited_for_and_the_runner_stays() -> None:
    driver = Driver()
    driver.answer(LookAround, NOTHING)
    driver.claim()
    assert driver.kinds() == []
    assert not driver.coordinator.is_finished
    driver.wait(5)
    assert driver.answer(LookAround, replace(NOTHING, held=frozenset({1, 2, 3, 4}))).open_ids == {1, 2, 3, 4}
    assert driver.kinds() == []
    driver.wait(5)
    settled = tuple(chunk(number, step=ChunkStep.SETTLED) for number in (1, 2, 3))
    driver.answer(LookAround, replace(NOTHING, settled=settled, free=frozenset({4})))
    assert driver.kinds() == ["ClaimChunks"], "the last one's runner died"
    driver.claim(4)
    assert driver.kinds() == ["StageChunk"]


def test_waiting_for_chunks_of_others_is_told_with_their_last_sign_of_life() -> None:
    driver = Driver()
    driver.answer(LookAround, replace(NOTHING, held=frozenset({3, 4}), silent_s=3.0))
    driver.claim(1, 2)
    assert driver.coordinator.waiting_for is None, "it has chunks of its own"

    driver = Driver()
    driver.claim()
    told = []
    for silent_s in (3.0, 9.0, 25.0, 39.0, 40.0):
        driver.answer(LookAround, replace(NOTHING, held=frozenset({1, 2, 3, 4}), silent_s=silent_s))
        told.append(driver.coordinator.waiting_for)
        driver.wait(5)
    words = "4 chunks are another process's (last sign of life {} s ago)"
    assert told == [words.format(f"{text}") for text in ("under 20", "under 20", 20, 20, 40)]
    settled = tuple(chunk(number, step=ChunkStep.SETTLED) for number in (1, 2, 3))
    driver.answer(LookAround, replace(NOTHING, settled=settled, held=frozenset({4}), silent_s=59.0))
    driver.wait(0)
    assert driver.coordinator.waiting_for == "1 chunk is another process's (last sign of life 40 s ago)"
    driver.wait(5)
    driver.answer(LookAround, replace(NOTHING, free=frozenset({4})))
    driver.claim(4)
    assert driver.coordinator.waiting_for is None, "the other one died, its chunk is ours"


@pytest.mark.parametrize("is_shared", [True, False])
def test_rows_that_an_earlier_process_read_are_counted_once(is_shared: bool) -> None:
    """They were left out of what progress tells: a table was "40 of 60 rows, done"."""
    sealed = StagedChunk(
        source_count=10,
        extracted=10,
        transformed=7,
        rejected=2,
        duplicate=1,
        parts=(PART,),
        rows_file="r",
        refused_file=None,
        links_file=None,
        source_checksum="0",
    )
    left = replace(chunk(1), status=ChunkStatus.RUNNING, step=ChunkStep.STAGED, staged=sealed)
    coordinator = Coordinator(
        [SPEC],
        settings=EngineSettings(is_shared=is_shared),
        governor=Governor(jobs_max=1, api_calls_reserve=0, rng=random.Random(1)),
    )
    coordinator.restore(["T"], [left], [])
    commands = coordinator.start(NOW)
    for command in commands:
        if isinstance(command, ClaimChunks):
            coordinator.on(Answer(command=command, result=ClaimedChunks(chunks=(left,), jobs=())), NOW)
    figures = coordinator.figures()["T"]
    assert (figures.rows, figures.extracted, figures.rejected, figures.duplicate) == (10, 10, 2, 1)


def test_the_end_waits_for_the_others_and_a_table_is_looked_over_once() -> None:
    driver = Driver(chunks=1)
    driver.claim()
    driver.answer(LookAround, replace(NOTHING, held=frozenset({1})))
    assert not driver.coordinator.is_finished
    driver.wait(5)
    driver.answer(LookAround, replace(NOTHING, settled=(chunk(1, step=ChunkStep.SETTLED),)))
    assert driver.kinds() == ["CheckTable"]
    driver.answer(CheckTable, None)
    assert driver.kinds() == []
    assert not driver.coordinator.is_finished, "another runner looks"
    driver.wait(5)
    driver.answer(CheckTable, ())
    assert driver.coordinator.is_finished
    assert driver.coordinator.is_complete


def test_what_another_gave_up_is_told_and_ends_the_run() -> None:
    driver = Driver(chunks=1)
    driver.claim()
    driver.answer(LookAround, replace(NOTHING, failed=(FailedElsewhere(audit_id=1, message="the rows moved"),)))
    assert driver.coordinator.is_finished
    assert not driver.coordinator.is_complete
    [error] = driver.coordinator.errors
    assert "given up by another process: the rows moved" in str(error)


def test_a_table_that_another_plans_comes_with_a_look() -> None:
    driver = Driver(chunks=0)
    driver.answer(LookAround, NOTHING)
    driver.answer(PlanTable, None)
    driver.wait(5)
    assert driver.kinds() == ["LookAround", "PlanTable"], "asked again too, in case that one died"
    driver.answer(PlanTable, None)
    assert driver.answer(LookAround, replace(NOTHING, planned={"T": (chunk(1),)})).unplanned == ("T",)
    assert driver.kinds() == ["ClaimChunks"]


def staged(driver: Driver) -> None:
    """Claim and stage chunks 1 and 2, each with one file."""
    driver.claim(1, 2)
    for _ in range(2):
        command = next(command for command in driver.commands if isinstance(command, StageChunk))
        draft = SPEC.draft(audit_id=command.audit_id, kind=JobKind.LOAD, part=PART, attempt=1)
        result = ChunkStaged(drafts=(draft,), extracted=10, rejected=0, duplicate=0, has_links=False, staged_bytes=100)
        driver.answer(StageChunk, result)


def job(draft: JobDraft, job_no: int) -> Job:
    return Job(
        job_no=job_no,
        batch_id="B1",
        audit_id=draft.audit_id,
        kind=draft.kind,
        object=draft.object,
        operation=draft.operation,
        external_id_field=draft.external_id_field,
        part=draft.part,
        attempt=1,
        step=JobStep.INTENDED,
        intended_at=NOW,
    )


def test_an_intent_that_is_refused_for_another_runners_is_tried_again() -> None:
    driver = Driver()
    staged(driver)
    assert [command.others_max for command in driver.commands if isinstance(command, IntendJob)] == [3]
    driver.answer(IntendJob, IntentRefused(reason="another process is creating a job", retry_s=0.2))
    assert "IntendJob" not in driver.kinds()
    wake = driver.coordinator.wake_at(driver.now)
    assert wake is not None
    assert wake - driver.now <= timedelta(seconds=0.3)
    driver.wait(0.3)
    assert "IntendJob" in driver.kinds()


def test_each_runner_keeps_to_its_part_of_the_jobs_while_chunks_are_left() -> None:
    driver = Driver(jobs_max=2)
    driver.answer(LookAround, NOTHING)
    staged(driver)
    command = next(command for command in driver.commands if isinstance(command, IntendJob))
    driver.answer(IntendJob, job(command.draft, 1))
    created = replace(job(command.draft, 1), step=JobStep.CREATED, sf_id="750000000000001AAA")
    driver.answer(CreateJob, created)
    assert "IntendJob" not in driver.kinds(), "one of two jobs is this runner's part"


@pytest.mark.parametrize("kind", [StageChunk, LookAround])
def test_a_runner_that_was_written_off_gives_no_further_command(kind: type[Any]) -> None:
    driver = Driver()
    driver.claim(1, 2)
    driver.answer(kind, error=LeaseLost("another took it over"))
    left = list(driver.commands)
    assert not driver.coordinator.is_finished, "what is under way is waited for"
    for command in left:
        driver.answer(type(command), TablePlanned(chunks=()))
    driver.wait(1000)
    assert driver.commands == []
    assert driver.coordinator.is_finished
    assert [type(error) for error in driver.coordinator.errors] == [LeaseLost]


def test_each_runner_of_a_shared_batch_writes_files_of_its_own() -> None:
    """One that was taken over may rename a file at any later time: it must never be one that another has sealed."""
    lone, first, second = (staged_names("B1", "T", 1, fence=fence) for fence in (None, 1, 2))
    assert first.folder == second.folder == lone.folder == lone.own
    files = [
        {names.rows, names.refused, names.links, names.link_rows}
        | {names.part(1), names.link_part(1), names.resend_part(2, 1, links=False), names.answers(7)}
        | {duplicates_name("B1", "T", fence=fence)}
        for names, fence in ((lone, None), (first, 1), (second, 2))
    ]
    assert not files[0] & files[1]
    assert not files[1] & files[2]
    assert all(name.startswith(first.folder + "/") for name in files[1] if "duplicates" not in name)
