"""Files with a broken row or bad bytes: found before the first row of any table is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scenarios.scenario_support import Project, assert_clear_error, copy_case

CASE = "bad_run"
HEADER = b"SALES_ID,TENANT_CODE,TITLE\n"
GOOD = [b"1,T1,first\n", b"2,T2,second\n", b"3,T1,third\n", b"4,T2,fourth\n"]


def assert_untouched(project: Project) -> None:
    """No record and no job in the org; nothing staged, no ledger, and no chunk that looks begun."""
    assert project.traces() == (0, 0)
    assert not list(project.state.rglob("*.csv*"))
    assert not list(project.state.rglob("*.parquet"))
    assert not list(project.state.rglob("*.tmp"))
    if project.batches():
        begun = "SELECT count(*) FROM MIGRATION_AUDIT_LOG WHERE STATUS NOT IN ('PENDING', 'SKIPPED')"
        assert project.audit(begun) == [(0,)]
        assert project.audit("SELECT count(*) FROM job") == [(0,)]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"5,T1\n", "has 2 fields, not 3"),
        (b"5,T1,fifth,more\n", "has 4 fields, not 3"),
        (b'5,T1,"never closed\n', "a quoted field is never closed"),
        (b'5,T1,5" pipe\n', "a quote stands inside a field"),
        (b"\n", "an empty line"),
    ],
    ids=["too few fields", "too many fields", "open quote", "stray quote", "empty line"],
)
def test_a_broken_file_is_found_before_anything_is_sent(row: bytes, fault: str, tmp_path: Path) -> None:
    """Goal: also the last chunk's fault stops all tables. Method: a good parent table, the fault behind two chunks."""
    project = copy_case(CASE, tmp_path)
    (tmp_path / "data" / "sales.csv").write_bytes(HEADER + b"".join(GOOD) + row + b"6,T1,sixth\n")
    screen = project.run("--batch", "one")
    assert_clear_error(screen, code=4, says=["sales.csv", "line 6", fault])
    assert "pipe" not in screen.err
    assert_untouched(project)


def test_a_mended_file_is_loaded_by_a_resume(tmp_path: Path) -> None:
    project = copy_case(CASE, tmp_path)
    project.change_plan({"external_id: Sale_Key__c": "external_id: Sale_Key__c\n    where: SALES_ID <> '2'"})
    file = tmp_path / "data" / "sales.csv"
    file.write_bytes(HEADER + b"".join(GOOD) + b"5,T1\n")
    assert_clear_error(project.run(), code=4, says=["sales.csv", "line 6", "has 2 fields, not 3"])
    assert_untouched(project)
    file.write_bytes(HEADER + b"".join(GOOD))
    assert project.run("--resume").code == 0
    assert project.traces()[0] == 5
