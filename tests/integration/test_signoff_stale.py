"""What makes a sign-off out of date and what does not, who may sign what, and names as people type them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli_migration import Migration
from tests.integration.project_migration import served_project
from tests.integration.test_backup import Clock
from tests.integration.test_rollback_cli import BASE, call

from forcelift.account.recorded import open_recorded
from forcelift.audit import AuditStore
from forcelift.errors import ExitCode
from forcelift.handover.signing import SignOffAsked, list_sign_offs, sign_off

WORDS = ("--phase", "after", "--role", "DBA", "--name")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch) as migration:
        migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
        assert migration.run("report", "first", "--out", "report.md").returncode in (0, 1)
        yield migration


def why(migration: Migration) -> list[str | None]:
    return [one.why_stale for one in list_sign_offs(migration.plan).standing]


def test_what_somebody_changed_in_the_org_shows_once_a_validation_has_found_it(loaded: Migration) -> None:
    loaded.document("signoff", *WORDS, "A. Person")
    assert loaded.run("validate", "first", "--level", "1").returncode in (0, 1)
    assert why(loaded) == [None], "a validation that passes changes nothing"
    call(loaded, "PATCH", f"{BASE}/sobjects/Sale__c/Sale__c/100", json={"Amount__c": 77777})
    assert why(loaded) == [None], "nobody has looked at the org"
    assert loaded.run("validate", "first", "--level", "5").returncode == ExitCode.ROWS_REFUSED
    assert why(loaded) == ["a later validation (level 5) found table `sales` of batch `first` to be different"]
    status = loaded.document("status", "--batch", "first")
    assert status["sign_offs"][0]["is_stale"] is True
    assert loaded.document("audit", "verify")["is_whole"] is True


def test_marks_of_refused_rows_are_changes_and_notes_are_for_the_next_report(loaded: Migration) -> None:
    loaded.document("signoff", *WORDS, "A. Person")
    note = ("report", "note", "REJECTED_MISSING_PARENT", "--batch", "first", "--cause", "no tenant", "--by", "A")
    assert loaded.run(*note).returncode == 0
    assert why(loaded) == [None], "what was signed says what it said"
    refused = loaded.run("signoff", *WORDS[:3], "QA Lead", "--name", "B. Person")
    assert refused.returncode == ExitCode.STATE
    assert "what it says of refused rows has changed since it was written (report_note)" in refused.stderr
    words = ("failed", "resolve", "--table", "sales", "--by", "A", "--note")
    assert loaded.document(*words, "entered by hand")["rows"] > 0
    assert why(loaded) == ["refused rows of batch `first` were marked as resolved, or opened again, since"]


@pytest.mark.slow
def test_a_retry_or_rollback_that_is_not_through_is_not_signed(
    loaded: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch's sums are as before, while the org may be changed in part."""

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for end, words, what in (
        ("end_retry", ("failed", "retry", "--batch", "first"), "a retry of batch `first` is not through"),
        ("end_rollback", ("rollback", "first", "--execute", "--reason", "x"), "a rollback of batch `first`"),
    ):
        with monkeypatch.context() as dying:
            dying.setattr(AuditStore, end, die)
            assert loaded.run(*words).returncode == ExitCode.INTERRUPTED
        refused = loaded.run("signoff", *WORDS, "A. Person", "--without", "report", "--because", "a drill")
        assert (refused.returncode, what in refused.stderr) == (ExitCode.STATE, True), refused.stderr
        assert loaded.run(*words).returncode in (0, 1)
    loaded.document("signoff", *WORDS, "A. Person", "--without", "report", "--because", "a drill")


@pytest.mark.slow
def test_times_that_go_backwards_hide_no_later_batch_and_no_purge(loaded: Migration) -> None:
    """A host whose clock is a day ahead signs; what comes after it has earlier times."""
    ahead = Clock(datetime.now(UTC) + timedelta(days=1))
    for batch_id, project in (("first", False), (None, True)):
        asked = SignOffAsked(
            phase="after",
            role="DBA",
            name="A. Person",
            batch_id=batch_id,
            project=project,
            without=("report",),
            because="a drill",
        )
        sign_off(loaded.plan, asked, clock=ahead)
    assert why(loaded) == [None, None]
    loaded.run("run", "--dry-run", "--batch", "rehearsed")
    assert why(loaded) == [None, None], "a dry run sends nothing"
    loaded.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    assert why(loaded) == [None, "batch `second` was begun since"]
    loaded.document("audit", "purge", "--batch", "first", "--execute", "--no-way-back", "--reason", "retention")
    assert all("personal data of batch `first` were purged since" in str(one) for one in why(loaded))


def test_a_check_that_failed_counts_though_another_orgs_passed_after_it(loaded: Migration) -> None:
    assert loaded.run("check").returncode in (0, 1)
    without = ("--without", "profile", "--without", "estimate", "--because", "a drill")
    loaded.document("signoff", "--phase", "before", "--role", "DBA", "--name", "A. Person", *without)
    with open_recorded(loaded.plan) as (plan, state):
        [check] = state.audit.evidence(plan.plan.project, "check")
        for org, passed in ((check.org_id, False), ("00D000000000001AAA", True)):
            state.audit.add_evidence(
                project=check.project,
                kind="check",
                name=check.name,
                plan_sha256=check.plan_sha256,
                org_id=org,
                passed=passed,
                document={"n": 1},
                by="tests",
            )
    [told] = why(loaded)
    assert told is not None
    assert told.startswith("a later check failed (evidence ")


def test_names_are_kept_as_typed_and_what_is_no_name_is_refused(loaded: Migration) -> None:
    bad = ("", "  ", "\u200b", "\u2060 \u200d", "--", "a\nb\x1b[31m", "abc\u202exyz", "ก" * 100)
    for name in bad:
        refused = loaded.run("signoff", *WORDS, name)
        assert refused.returncode == ExitCode.USAGE, ascii(name)
        assert "nothing was changed" in refused.stderr
    name = "  นาย  สมชาย [bold]<b>=1+1  "
    assert loaded.document("signoff", *WORDS, name)["name"] == "นาย สมชาย [bold]<b>=1+1"
    assert "นาย สมชาย [bold]<b>=1+1" in loaded.run("signoff", "list").stdout
    assert loaded.run("report", "first", "--out", "signed.html").returncode in (0, 1)
    page = (loaded.folder / "signed.html").read_text(encoding="utf-8")
    assert "นาย สมชาย [bold]&lt;b&gt;=1+1" in page
    assert "<b>=1+1" not in page


def test_all_roles_may_sign_at_the_same_moment_and_one_role_is_signed_once(loaded: Migration) -> None:
    roles = ("Data Engineer", "DBA", "Business Owner", "QA Lead", "DBA", "DBA")

    def sign(number: int) -> str:
        asked = SignOffAsked(phase="after", role=roles[number], name=f"P {number}", batch_id="first")
        return sign_off(loaded.plan, asked).row.role

    with ThreadPoolExecutor(len(roles)) as pool:
        assert sorted(pool.map(sign, range(len(roles)))) == sorted(roles)
    found = list_sign_offs(loaded.plan)
    assert sorted(one.role for one in found.standing) == sorted(set(roles))
    assert [one.withdrawn_because for one in found.withdrawn] == ["signed anew"] * 2
    assert loaded.document("audit", "verify")["is_whole"] is True
