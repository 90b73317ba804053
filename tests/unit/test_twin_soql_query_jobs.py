"""Bulk query jobs: JSON by stage, states, CSV pages, locators, limits, retention, restart."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.twin_soql_org import FIRST, NOW, SECOND, make_org, make_schema

from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import ApiError
from forcelift.twin.org import TwinOrg
from forcelift.twin.query_jobs import QueryJobs

USER = "005000000000001AAA"
SALES = "SELECT Id, Name FROM Sale__c"
BASE_KEYS = ["id", "operation", "object", "createdById", "createdDate", "systemModstamp", "state", "concurrencyMode"]
BASE_KEYS += ["contentType", "apiVersion"]


@pytest.fixture
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


@pytest.fixture
def jobs(org: TwinOrg) -> Iterator[QueryJobs]:
    """Jobs that run only when told to."""
    jobs = QueryJobs(org, workers=0)
    yield jobs
    jobs.close()


def create(jobs: QueryJobs, soql: str = SALES, **more: Any) -> str:
    body = {"operation": "query", "query": soql, **more}
    return str(jobs.create(body, user_id=USER, api_version="66.0")["id"])


def finished(jobs: QueryJobs, soql: str = SALES, **more: Any) -> str:
    job_id = create(jobs, soql, **more)
    jobs.run_pending()
    assert jobs.get(job_id)["state"] == "JobComplete"
    return job_id


def text(jobs: QueryJobs, job_id: str, **page: Any) -> str:
    return b"".join(jobs.results(job_id, **page).content).decode()


def refused(call: Any, *arguments: Any, **more: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call(*arguments, **more)
    return caught.value


def test_json_by_stage(jobs: QueryJobs) -> None:
    created = jobs.create({"operation": "query", "query": SALES}, user_id=USER, api_version="66.0")
    assert list(created) == [*BASE_KEYS, "lineEnding", "columnDelimiter"]
    assert created["id"].startswith("750")
    assert len(created["id"]) == 18
    assert created["state"] == "UploadComplete"
    assert created["apiVersion"] == 66.0
    assert created["createdDate"] == "2026-02-01T10:30:00.000+0000"
    assert (created["lineEnding"], created["columnDelimiter"]) == ("LF", "COMMA")
    jobs.run_pending()
    full = jobs.get(created["id"][:15])
    assert list(full)[len(BASE_KEYS) :] == [
        "jobType",
        "lineEnding",
        "columnDelimiter",
        "numberRecordsProcessed",
        "retries",
        "totalProcessingTime",
        "isPkChunkingSupported",
    ]
    assert (full["state"], full["jobType"], full["numberRecordsProcessed"]) == ("JobComplete", "V2Query", 3)


def test_csv_is_quoted_and_typed_as_bulk_results_are(jobs: QueryJobs) -> None:
    soql = """SELECT Id, Name, Amount__c, Rate__c, Count__c, Day__c, At__c, Hour__c, Ok__c, Notes__c, Tenant__r.Name
              FROM Sale__c WHERE Count__c != null ORDER BY Count__c"""
    assert text(jobs, finished(jobs, soql)) == (
        '"Id","Name","Amount__c","Rate__c","Count__c","Day__c","At__c","Hour__c","Ok__c","Notes__c","Tenant__r.Name"\n'
        f'"{FIRST}","One","9.12260031E8","1.25E-4","1","2026-01-31","2026-01-31T12:00:00.000Z","12:30:00.000Z","true",'
        '"say ""hi"", all","North Mall"\n'
        f'"{SECOND}","two_x","500.0","-2.5","2","2026-02-01","2026-02-01T00:00:00.000Z","","false","",""\n'
    )


def test_delimiter_and_line_ending_follow_the_job(jobs: QueryJobs) -> None:
    job_id = finished(jobs, f"{SALES} WHERE Name = 'One'", columnDelimiter="PIPE", lineEnding="CRLF")
    assert text(jobs, job_id) == f'"Id"|"Name"\r\n"{FIRST}"|"One"\r\n'


def test_no_rows_give_the_header_alone(jobs: QueryJobs) -> None:
    page = jobs.results(finished(jobs, f"{SALES} WHERE Name = 'nobody'"))
    assert (b"".join(page.content), page.record_count, page.locator) == (b'"Id","Name"\n', 0, None)


def test_pages_cover_the_result_once_and_can_be_read_again(org: TwinOrg, jobs: QueryJobs) -> None:
    with org.store.write() as cursor:
        cursor.execute(
            "INSERT INTO data.Sale__c BY NAME SELECT 'a02' || lpad(i::VARCHAR, 12, '0') || 'AAA' AS Id, "
            "'Name ' || i AS Name, false AS IsDeleted, i AS Count__c FROM range(10, 25010) AS t(i)"
        )
    job_id = finished(jobs, "SELECT Id, Count__c FROM Sale__c WHERE Count__c >= 10")
    pages: list[str] = []
    locators: list[str | None] = [None]
    while True:
        page = jobs.results(job_id, locator=locators[-1], max_records=7000)
        pages.append(b"".join(page.content).decode())
        assert page.record_count == len(pages[-1].splitlines()) - 1
        if page.locator is None:
            break
        locators.append(page.locator)
    assert len(pages) == 4
    assert all(page.startswith('"Id","Count__c"\n') for page in pages)
    counts = [int(row["Count__c"]) for page in pages for row in csv.DictReader(io.StringIO(page))]
    assert sorted(counts) == list(range(10, 25010))
    assert counts != sorted(counts)
    assert text(jobs, job_id, locator=locators[2], max_records=7000) == pages[2]
    assert text(jobs, job_id) == pages[0] + "".join(page.split("\n", 1)[1] for page in pages[1:])


def test_results_stay_as_they_were_when_records_change(org: TwinOrg, jobs: QueryJobs) -> None:
    job_id = finished(jobs, "SELECT Name, Tenant__r.Name FROM Sale__c ORDER BY Name")
    before = text(jobs, job_id)
    with org.store.write() as cursor:
        cursor.execute("UPDATE data.Sale__c SET Name = 'changed'")
        cursor.execute("DELETE FROM data.Tenant__c")
    assert text(jobs, job_id) == before
    assert text(jobs, finished(jobs, "SELECT Name FROM Sale__c LIMIT 1")) == '"Name"\n"changed"\n'


def test_query_all_reads_the_recycle_bin(jobs: QueryJobs) -> None:
    assert "Gone" not in text(jobs, finished(jobs))
    assert '"Gone"' in text(jobs, finished(jobs, operation="queryAll"))


def test_result_pages_name_the_same_pages(jobs: QueryJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.twin.query_jobs.PAGE_ROWS", 1)
    monkeypatch.setattr("forcelift.twin.query_jobs.RESULT_PAGES_MAX", 2)
    job_id = finished(jobs, f"{SALES} ORDER BY Id")
    base = f"/services/data/v66.0/jobs/query/{job_id}"
    first = jobs.result_pages(job_id, api_version="66.0")
    assert first["done"] is False
    assert [page["resultUrl"] for page in first["resultPages"]] == [f"{base}/results", f"{base}/results?locator=MQ"]
    assert first["nextRecordsUrl"] == f"{base}/resultPages?locator=Mg"
    assert jobs.result_pages(job_id, locator="Mg") == {
        "resultPages": [{"resultUrl": f"{base}/results?locator=Mg"}],
        "done": True,
    }
    assert text(jobs, job_id, locator="MQ").startswith(f'"Id","Name"\n"{SECOND}"')


def test_abort_and_delete_follow_the_state(org: TwinOrg, jobs: QueryJobs) -> None:
    waiting = create(jobs)
    assert refused(jobs.results, waiting).error_code == "INVALIDJOBSTATE"
    error = refused(jobs.delete, waiting)
    assert (error.http_status, error.error_code) == (400, "API_ERROR")
    assert error.message == "Error encountered when deleting the job because the job is not terminated"
    answer = jobs.patch(waiting, "Aborted")
    assert list(answer) == BASE_KEYS
    assert answer["state"] == "Aborted"
    jobs.run_pending()
    assert jobs.get(waiting)["state"] == "Aborted"
    error = refused(jobs.patch, waiting, "Aborted")
    assert (error.error_code, error.message) == ("INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
    done = finished(jobs)
    assert refused(jobs.patch, done, "UploadComplete").error_code == "INVALIDJOB"
    jobs.delete(done)
    assert refused(jobs.get, done).http_status == 404
    assert refused(jobs.results, done).error_code == "NOT_FOUND"
    jobs.delete(waiting)
    assert jobs.list()["records"] == []
    with org.store.read() as cursor:
        assert cursor.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'query_result%'"
        ).fetchone() == (0,)


@pytest.mark.parametrize("locator", ["", "x", "!!", "MTAwMDA", "LTE", "MDE", "é"])
def test_a_locator_that_is_none_is_refused(jobs: QueryJobs, locator: str) -> None:
    job_id = finished(jobs)
    if locator:
        assert refused(jobs.results, job_id, locator=locator).http_status == 400
    assert refused(jobs.list, "x").http_status == 400


def test_results_need_the_version_of_the_job(jobs: QueryJobs) -> None:
    job_id = finished(jobs)
    assert refused(jobs.results, job_id, api_version="65.0").http_status == 409
    assert jobs.results(job_id, api_version="66.0").record_count == 3


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"operation": "insert", "query": SALES}, "INVALIDJOB"),
        ({"operation": "query"}, "INVALIDJOB"),
        ({"operation": "query", "query": 5}, "INVALIDJOB"),
        ({"operation": "query", "query": SALES, "contentType": "JSON"}, "INVALIDJOB"),
        ({"operation": "query", "query": SALES, "columnDelimiter": ","}, "INVALIDJOB"),
        ({"operation": "query", "query": SALES, "lineEnding": ["LF"]}, "INVALIDJOB"),
        ({"operation": ["query"], "query": SALES}, "INVALIDJOB"),
        ({"operation": "query", "query": SALES, "nope": 1}, "JSON_PARSER_ERROR"),
        ({"operation": "query", "query": "SELECT COUNT() FROM Sale__c"}, "API_ERROR"),
        ({"operation": "query", "query": "SELECT Nope FROM Sale__c"}, "INVALID_FIELD"),
        ({"operation": "query", "query": "nonsense"}, "MALFORMED_QUERY"),
    ],
)
def test_requests_that_are_refused_leave_no_job(jobs: QueryJobs, body: dict[str, Any], code: str) -> None:
    error = refused(jobs.create, body, user_id=USER, api_version="66.0")
    assert (error.http_status, error.error_code) == (400, code)
    assert jobs.list() == {"done": True, "records": []}


def test_daily_limit_counts_deleted_jobs_and_frees_itself(org: TwinOrg, jobs: QueryJobs) -> None:
    org.usage.override("DailyBulkV2QueryJobs", 2)
    jobs.delete(finished(jobs))
    create(jobs)
    assert jobs.jobs_last_day() == 2
    error = refused(create, jobs)
    assert error.error_code == "LIMIT_EXCEEDED"
    assert error.message == "Max bulk v2 query jobs (2) per 24 hrs has been reached (3)"
    assert org.usage.limits_json()["DailyBulkV2QueryJobs"] == {"Max": 2, "Remaining": 0}
    assert isinstance(org.clock, ManualClock)
    org.clock.advance(timedelta(days=1))
    assert jobs.jobs_last_day() == 0
    create(jobs)


def test_daily_limit_of_results_counts_their_bytes(org: TwinOrg, jobs: QueryJobs) -> None:
    finished(jobs)
    with org.cursor() as cursor:
        stored = cursor.execute("SELECT sum(result_bytes) FROM meta.query_job").fetchone()
        assert stored is not None
        assert stored[0] > 0
        cursor.execute("UPDATE meta.query_job SET result_bytes = 3 * 1048576")
    org.usage.override("DailyBulkV2QueryFileStorageMB", 3)
    assert org.usage.limits_json()["DailyBulkV2QueryFileStorageMB"] == {"Max": 3, "Remaining": 0}
    error = refused(create, jobs)
    assert error.error_code == "LIMIT_EXCEEDED"
    assert error.message == "Max bulk v2 query result size stored (3072) kb per 24 hrs has been exceeded"
    org.usage.override("DailyBulkV2QueryFileStorageMB", 4)
    create(jobs)


def test_jobs_are_forgotten_seven_days_after_they_ended(org: TwinOrg, jobs: QueryJobs) -> None:
    job_id = finished(jobs)
    assert isinstance(org.clock, ManualClock)
    org.clock.advance(timedelta(days=6, hours=23))
    assert jobs.get(job_id)["state"] == "JobComplete"
    org.clock.advance(timedelta(hours=1))
    assert refused(jobs.get, job_id).http_status == 404
    with org.store.read() as cursor:
        assert cursor.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'query_result%'"
        ).fetchone() == (0,)


def test_list_is_paged_newest_first(jobs: QueryJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.twin.query_jobs.LIST_PAGE_JOBS", 2)
    ids = [create(jobs) for _ in range(3)]
    first = jobs.list(api_version="66.0")
    assert [record["id"] for record in first["records"]] == [ids[2], ids[1]]
    assert first["records"][0]["jobType"] == "V2Query"
    assert first["nextRecordsUrl"] == "/services/data/v66.0/jobs/query?queryLocator=Mg"
    rest = jobs.list("Mg")
    assert ([record["id"] for record in rest["records"]], rest["done"]) == ([ids[0]], True)


def test_abort_stops_a_running_job_and_leaves_no_result(org: TwinOrg) -> None:
    """Goal: an abort takes effect at once. Method: a query over so many rows that it outlasts the abort."""
    with org.store.write() as cursor:
        cursor.execute(
            "INSERT INTO data.Sale__c BY NAME SELECT 'a02' || lpad(i::VARCHAR, 12, '0') || 'AAA' AS Id, "
            "'Name ' || i AS Name, false AS IsDeleted FROM range(10, 300010) AS t(i)"
        )
    jobs = QueryJobs(org, workers=1)
    try:
        first = create(jobs, "SELECT Id, Name FROM Sale__c ORDER BY Name, LastModifiedDate")
        second = create(jobs)
        jobs.patch(first, "Aborted")
        jobs.patch(second, "Aborted")
        assert jobs.wait(60)
        assert [jobs.get(job_id)["state"] for job_id in (first, second)] == ["Aborted"] * 2
        with org.store.read() as cursor:
            found = cursor.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'query_result%'")
            assert found.fetchone() == (0,)
    finally:
        jobs.close()


def test_background_workers_finish_jobs(org: TwinOrg) -> None:
    jobs = QueryJobs(org, workers=2)
    try:
        ids = [create(jobs) for _ in range(6)]
        assert jobs.wait(60)
        assert [jobs.get(job_id)["state"] for job_id in ids] == ["JobComplete"] * 6
        assert len({job_id[:15] for job_id in ids}) == 6
    finally:
        jobs.close()


def test_a_query_that_cannot_be_carried_out_fails_the_job(org: TwinOrg, jobs: QueryJobs) -> None:
    job_id = create(jobs, "SELECT Id FROM Region__c")
    with org.store.write() as cursor:
        cursor.execute("ALTER TABLE data.Region__c RENAME TO hidden")
    jobs.run_pending()
    job = jobs.get(job_id)
    assert (job["state"], job["numberRecordsProcessed"]) == ("Failed", 0)
    assert job["errorMessage"] == "InternalServerError : CatalogException"
    assert refused(jobs.results, job_id).error_code == "INVALIDJOBSTATE"
    jobs.delete(job_id)


def test_restart_keeps_results_and_runs_what_waited(tmp_path: Path) -> None:
    path = tmp_path / "org.duckdb"
    with make_org(path) as org:
        jobs = QueryJobs(org, workers=0)
        done, waiting, running = finished(jobs), create(jobs), create(jobs)
        before = text(jobs, done)
        with org.store.write_meta() as cursor:
            cursor.execute("UPDATE meta.query_job SET state = 'InProgress' WHERE id = ?", [running])
        jobs.close()
    with TwinOrg.open(path, schema=make_schema(), clock=ManualClock(NOW)) as org:
        jobs = QueryJobs(org, workers=0)
        assert text(jobs, done) == before
        jobs.run_pending()
        assert [jobs.get(job_id)["state"] for job_id in (waiting, running)] == ["JobComplete"] * 2
        assert text(jobs, running) == before
        jobs.close()


def test_order_depends_on_the_seed_alone(org: TwinOrg, jobs: QueryJobs) -> None:
    with org.store.write() as cursor:
        cursor.execute(
            "INSERT INTO data.Sale__c BY NAME SELECT 'a02' || lpad(i::VARCHAR, 12, '0') || 'AAA' AS Id, "
            "false AS IsDeleted FROM range(10, 510) AS t(i)"
        )
    first, second = (
        text(jobs, finished(jobs, "SELECT Id FROM Sale__c")),
        text(jobs, finished(jobs, "SELECT Id FROM Sale__c")),
    )
    assert first == second
    org.seed = 8
    other = text(jobs, finished(jobs, "SELECT Id FROM Sale__c"))
    assert other != first
    assert sorted(other.splitlines()) == sorted(first.splitlines())
