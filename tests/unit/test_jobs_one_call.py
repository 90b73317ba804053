"""Which jobs go with their data, and which of the org's jobs may be one whose reply was lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.stray_support import AT, INTENT
from tests.stray_support import OURS as OPENED

from forcelift.audit.records import Job, JobKind, Part
from forcelift.jobs.one_call import fits_one_call, holds_our_rows
from forcelift.jobs.stray import LoadedStrays, loaded_strays, same_elsewhere
from forcelift.protocols.org import FieldDescribe, IngestJob, JobState, ObjectDescribe, ResultKind
from forcelift.storage import FolderStorage

TAKEN = replace(OPENED, state=JobState.JOB_COMPLETE)


def fitting(*listed: IngestJob, known: frozenset[str] = frozenset()) -> LoadedStrays:
    return loaded_strays(INTENT, listed=listed, known_ids=known, user_id="005A", api_version="66.0")


@pytest.mark.parametrize("kind", [JobKind.LOAD, JobKind.RESEND, JobKind.RETRY, JobKind.LINK])
def test_an_upsert_of_a_hundred_thousand_bytes_goes_at_once(kind: JobKind) -> None:
    assert fits_one_call(replace(INTENT, kind=kind))


@pytest.mark.parametrize(
    "other",
    [
        replace(INTENT, part=replace(INTENT.part, bytes=100_001)),
        replace(INTENT, kind=JobKind.UNDO),
        *(replace(INTENT, operation=operation) for operation in ("insert", "update", "delete", "hardDelete")),
    ],
    ids=["larger", "undo", "insert", "update", "delete", "hardDelete"],
)
def test_nothing_else_does(other: Job) -> None:
    assert not fits_one_call(other)


@pytest.mark.parametrize("state", [JobState.JOB_COMPLETE, JobState.FAILED, JobState.ABORTED])
def test_a_job_that_ended_may_be_ours_however_late_it_came(state: JobState) -> None:
    late = replace(TAKEN, state=state, created_date=AT + timedelta(hours=3))
    assert fitting(late) == LoadedStrays(at_work=(), ended=(late,))


@pytest.mark.parametrize("state", [JobState.UPLOAD_COMPLETE, JobState.IN_PROGRESS])
def test_a_job_at_work_is_waited_for(state: JobState) -> None:
    at_work = replace(TAKEN, state=state)
    assert fitting(at_work) == LoadedStrays(at_work=(at_work,), ended=())


def test_the_oldest_is_looked_into_first() -> None:
    older = replace(TAKEN, id="750000000000002AAA", created_date=AT)
    assert fitting(TAKEN, older).ended == (older, TAKEN)


@pytest.mark.parametrize(
    "other",
    [
        replace(TAKEN, state=JobState.OPEN),
        replace(TAKEN, created_by_id="005B"),
        replace(TAKEN, object="Tenant__c"),
        replace(TAKEN, operation="update"),
        replace(TAKEN, external_id_field="Other__c"),
        replace(TAKEN, api_version=65.0),
        replace(TAKEN, created_date=AT - timedelta(minutes=1)),
    ],
    ids=["open", "user", "object", "operation", "key", "version", "earlier"],
)
def test_what_cannot_be_ours(other: IngestJob) -> None:
    assert fitting(other) == LoadedStrays(at_work=(), ended=())


def test_a_job_that_we_know_is_accounted_for() -> None:
    assert fitting(TAKEN, known=frozenset({TAKEN.id})).ended == ()


def test_a_second_batch_in_doubt_about_the_same_file_is_a_rival() -> None:
    assert not same_elsewhere(INTENT, [INTENT])
    assert not same_elsewhere(INTENT, [INTENT, replace(INTENT, job_no=8, part=replace(INTENT.part, sha256="1"))])
    assert same_elsewhere(INTENT, [INTENT, replace(INTENT, job_no=8)])


class Answering:
    """An org that knows one job that has ended, its results and its fields."""

    def __init__(self, **results: str) -> None:
        self.results_of = results
        self.asked: list[str] = []

    def get_job(self, job_id: str) -> IngestJob:
        return replace(TAKEN, id=job_id, records_processed=3)

    def describe(self, name: str) -> ObjectDescribe:
        text = FieldDescribe(name="Key__c", label="Key", type="string", length=20)
        number = FieldDescribe(name="Amount__c", label="Amount", type="currency", precision=12, scale=2)
        return ObjectDescribe(name=name, label=name, key_prefix="a00", fields={"Key__c": text, "Amount__c": number})

    def results(self, job_id: str, kind: ResultKind) -> Iterator[bytes]:
        self.asked.append(kind.name)
        yield self.results_of[kind.name.lower()].encode()


DONE = '"sf__Id","sf__Created",Key__c,Amount__c,Tenant__r.Code__c\n'
REFUSED = '"sf__Id","sf__Error",Key__c,Amount__c,Tenant__r.Code__c\n'
OPEN = "Key__c,Amount__c,Tenant__r.Code__c\n"
OURS = {
    "successful": DONE + '"a01","true","b","9.12260031E8","7.0"\n',
    "failed": REFUSED + '"","BAD:no:--","c","#N/A",""\n',
    "unprocessed": OPEN + '"a","1.50","T1"\n',
}


def holds(tmp_path: Path, **results: str) -> bool:
    storage = FolderStorage(tmp_path, fsync=False)
    with storage.write("f") as file:
        file.write(b"Key__c,Amount__c,Tenant__r.Code__c\na,1.5,T1\nb,912260031,7\nc,#N/A,\n")
        sealed = file.commit()
    part = Part(file="f", rows=3, bytes=sealed.size, sha256=sealed.sha256)
    org: Any = Answering(**{**OURS, **results})
    return holds_our_rows(org, TAKEN, part, storage=storage, key="Key__c")


def test_a_job_with_our_rows_is_ours_however_its_results_write_them(tmp_path: Path) -> None:
    assert holds(tmp_path)


@pytest.mark.parametrize(
    "results",
    [
        {"unprocessed": OPEN},
        {"unprocessed": OPEN + "a,1.5,T1\nd,1,T1\n"},
        {"unprocessed": OPEN + "d,1.5,T1\n"},
        {"unprocessed": OPEN + "a,1.51,T1\n"},
        {"unprocessed": OPEN + "a,1.5,T2\n"},
        {"unprocessed": "Key__c,Amount__c\na,1.5\n"},
        {"unprocessed": "Key__c,Amount__c,Tenant__r.Code__c,Name\na,1.5,T1,x\n"},
        {"failed": REFUSED + '"","BAD:no:--","c","0",""\n'},
    ],
    ids=["fewer", "more", "key", "number", "parent", "column less", "column more", "null"],
)
def test_a_job_with_other_rows_is_not(tmp_path: Path, results: dict[str, str]) -> None:
    assert not holds(tmp_path, **results)
