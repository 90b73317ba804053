"""Each step that may want a second person: refused without, done with, and never by one person under two guises."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.prepare_fixtures import PreparedOrg, prepared_org
from tests.integration.project_migration import served_project
from tests.integration.test_backup import NOON, ROWS, Clock, Place
from tests.integration.test_rollback_full import OBJECTS, PLAN
from tests.integration.test_rollback_full import names as orders

from forcelift.account.consents import Approval, give_consent, waiting_consents
from forcelift.account.recorded import login, open_recorded, owner
from forcelift.errors import ExitCode, StateConflict, UsageError
from forcelift.preflight.backing_up import back_up, drop_backups
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

LOADED = ExitCode.ROWS_REFUSED  # a run of the small source has rows without a parent
At = Callable[[str], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Sit down at another login."""
    return lambda name: monkeypatch.setattr("forcelift.account.recorded.login", lambda: name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: At) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch, audit="roles: {second_person_for: [rollback, purge]}\n") as migration:
        at("first.person")
        yield migration


def want(migration: Migration, words: Sequence[str], numbers: Sequence[int]) -> None:
    """The command is refused, with these requests and no others."""
    done = migration.run(*words)
    assert done.returncode == ExitCode.STATE, done.stderr
    said = done.stderr.partition("(`roles.second_person_for`): ")[2].partition("\n")[0]
    assert said.removeprefix("requests ").removeprefix("request ") == ", ".join(map(str, numbers)), done.stderr


def approve(migration: Migration, at: At, *numbers: int) -> None:
    at("second.person")
    for number in numbers:
        migration.document("approve", str(number), "--name", "B. Person")
    at("first.person")


@pytest.mark.slow
def test_rollback_of_a_project_asks_for_all_batches_first_and_each_consent_is_for_one_of_them(
    project: Migration, at: At
) -> None:
    for batch in ("one", "two"):
        project.run("run", "--batch", batch)
    words = ("rollback", "--project", "--execute", "--reason", "wrong")
    before = project.count("Sale__c")
    want(project, words, [1, 2])
    approve(project, at, 1)
    want(project, words, [2])
    assert project.count("Sale__c") == before > 0
    # For good, past the recycle bin, is something else than into it.
    want(project, (*words, "--hard"), [3, 4])
    approve(project, at, 2)
    assert project.run(*words).returncode in (0, 1)
    assert project.count("Sale__c") == 0
    assert project.document("audit", "verify")["is_whole"] is True


def test_purge_of_several_batches_gets_through_by_one_consent_for_each(project: Migration, at: At) -> None:
    for batch in ("one", "two"):
        project.run("run", "--batch", batch)
    words = ("audit", "purge", "--older-than", "0d", "--execute", "--no-way-back", "--reason", "retention")
    want(project, words, [1, 2])
    approve(project, at, 1)
    want(project, words, [2])
    approve(project, at, 2)
    done = project.document(*words)
    assert [one["done"] for one in done["batches"]] == [True, True]
    assert project.document("audit", "verify")["is_whole"] is True


@pytest.mark.slow
def test_a_consent_to_one_batch_or_to_other_data_is_none(project: Migration, at: At) -> None:
    for batch in ("one", "two"):
        project.run("run", "--batch", batch)
    purge = ("--execute", "--no-way-back", "--reason", "retention")
    want(project, ("audit", "purge", "--batch", "one", *purge), [1])
    approve(project, at, 1)
    want(project, ("audit", "purge", "--batch", "two", *purge), [2])
    # Nor is a consent to a purge one to a rollback; and what is rolled back since is no more what was consented to.
    want(project, ("rollback", "one", "--execute", "--reason", "wrong"), [3])
    approve(project, at, 3)
    assert project.run("rollback", "one", "--execute", "--reason", "wrong").returncode in (0, 1)
    want(project, ("audit", "purge", "--batch", "one", *purge), [4])


NAMES = ("first.person", "First.Person", " FIRST.PERSON ", "first person", "ﬁrst.ｐｅｒｓｏｎ", "first\u200b.person")


def test_the_one_who_asked_is_no_second_however_the_name_is_written(project: Migration, at: At) -> None:
    project.run("run", "--batch", "one")
    want(project, ("rollback", "one", "--execute", "--reason", "x"), [1])
    for here in ("second.person", "FIRST.PERSON", "first.person"):
        at(here)
        for name, more in product(NAMES, ((), ("--shared-login",))):
            refused = project.run("approve", "1", "--name", name, *more)
            assert refused.returncode == ExitCode.STATE, (here, name, more)
            assert "asked for it, and the second person is another" in refused.stderr
    for empty in ("", "  ", "\u200b\u2060", "-.-"):
        assert project.run("approve", "1", "--name", empty).returncode == ExitCode.USAGE
    at("FIRST.PERSON")
    assert "was asked for at this login" in project.run("approve", "1", "--name", "B. Person").stderr


def test_who_consents_does_not_carry_it_out(project: Migration, at: At) -> None:
    """A request that was left lying by somebody else would let one person do both."""
    project.run("run", "--batch", "one")
    words = ("rollback", "one", "--execute", "--reason", "x")
    want(project, words, [1])
    at("second.person")
    assert project.document("approve", "1", "--name", "B. Person")["name"] == "B. Person"
    # The consent is the other's to use; this one has to ask for itself, and may not answer itself.
    want(project, words, [2])
    assert "was asked for at this login" in project.run("approve", "2", "--name", "C. Person").stderr
    assert project.count("Sale__c") > 0
    at("first.person")
    assert project.run(*words).returncode in (0, 1)
    assert project.count("Sale__c") == 0


def test_a_consent_runs_out_and_is_given_once(project: Migration, at: At) -> None:
    project.run("run", "--batch", "one")
    want(project, ("rollback", "one", "--execute", "--reason", "x"), [1])
    at("second.person")
    for hours in (0, 169, 10**6):
        with pytest.raises(UsageError, match="holds for 1 to 168 hours"):
            give_consent(project.plan, Approval(number=1, name="B", hours=hours))
    # Given long ago by the clock, so that it has run out by now.
    with open_recorded(project.plan) as (_, state):
        long_ago = Clock(state.audit.clock.now() - timedelta(hours=3))
    give_consent(project.plan, Approval(number=1, name="B", hours=2), clock=long_ago)
    with pytest.raises(StateConflict, match="waits for a second person"):
        give_consent(project.plan, Approval(number=1, name="C"))
    # Two may look at the same moment: the database takes one.
    with open_recorded(project.plan) as (_, state), pytest.raises(StateConflict, match="does not wait any more"):
        state.audit.give_consent(1, name="D", typed_by=owner(), shared_login=False, note="", hours=1)
    at("first.person")
    want(project, ("rollback", "one", "--execute", "--reason", "x"), [2])


def test_the_login_is_the_operating_systems_and_not_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody.else")
    assert login() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr("os.getuid", lambda: 3_999_999_999)
    assert login() == "uid3999999999"


def test_full_rollback_of_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: At) -> None:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE orders AS SELECT printf('O%03d', i) AS no, 'order ' || i AS name, "
            "DATE '2026-01-01' + i::INTEGER AS made FROM range(60) AS r(i)"
        )
    monkeypatch.chdir(tmp_path)
    with TwinOrg.open(schema=schema_from_dict({"objects": OBJECTS})) as org, TwinServer(org) as server:
        plan = PLAN.format(url=server.url) + "roles: {second_person_for: [rollback]}\n"
        (tmp_path / "forcelift.yaml").write_text(plan, encoding="utf-8")
        monkeypatch.setenv("FULL_TEST_TOKEN", server.access_token)
        migration = Migration(folder=tmp_path, org=org, server=server)
        at("first.person")
        migration.document("run", "--batch", "one")
        words = ("rollback", "--full", "Order__c", "--since", "2026-02-01", "--execute", "--reason", "wrong")
        want(migration, words, [1])
        approve(migration, at, 1)
        # An earlier day takes more than was consented to.
        want(migration, (*words[:4], "2026-01-05", *words[5:]), [2])
        assert len(orders(server)) == 60
        assert migration.document(*words)["deleted"] == 29
        assert len(orders(server)) == 31


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedOrg]:
    with prepared_org(tmp_path) as made:
        monkeypatch.chdir(made.folder)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def test_restore_wants_one_and_what_a_run_puts_back_by_itself_does_not(sandbox: PreparedOrg, at: At) -> None:
    at("first.person")
    plan = sandbox.folder / "forcelift.yaml"
    plan.write_text(plan.read_text(encoding="utf-8") + "roles: {second_person_for: [restore]}\n", encoding="utf-8")
    before = sandbox.picture()
    # A run that switches off by itself switches on by itself, when it ends and when it fails: nobody is waited for.
    assert sandbox.document("run", "--prepare", "--batch", "prepared")["exit_code"] == 0
    assert sandbox.picture() == before
    assert sandbox.document("approve")["waiting"] == []
    assert sandbox.run("prepare", "--execute").returncode in (0, 1)
    switched = sandbox.picture()
    assert switched != before
    want(sandbox, ("restore", "--execute"), [1])
    assert sandbox.picture() == switched
    approve(sandbox, at, 1)
    # To overwrite what somebody changed since is more than that.
    want(sandbox, ("restore", "--execute", "--all"), [2])
    sandbox.document("restore", "--execute")
    assert sandbox.picture() == before


def test_dropping_copies_of_tables(tmp_path: Path, at: At) -> None:
    def ask(query: str) -> list[Any]:
        with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
            return connection.execute(query).fetchall()

    ask(f"CREATE TABLE sales AS SELECT i AS sale_id, 'x' AS note FROM range({ROWS}) AS r(i)")
    place = Place(tmp_path, "duckdb:///s.duckdb", ask)
    plan = place.plan.read_text(encoding="utf-8") + "roles: {second_person_for: [drop_backup]}\n"
    place.plan.write_text(plan, encoding="utf-8")
    at("first.person")
    back_up(place.plan, clock=Clock(NOON))
    later = Clock(NOON + timedelta(days=31))
    assert drop_backups(place.plan, older_than_days=30, clock=later).executed is False
    with pytest.raises(StateConflict, match=r"`drop_backup` of 1 copies of tables needs a second person .* request 1"):
        drop_backups(place.plan, older_than_days=30, execute=True, clock=later)
    [waiting] = waiting_consents(place.plan)
    assert [name.rpartition(" ")[2] for name in waiting.details["copies"]] == [place.recorded()[0][1]]
    at("second.person")
    give_consent(place.plan, Approval(number=1, name="B. Person"), clock=later)
    at("first.person")
    drop_backups(place.plan, older_than_days=30, execute=True, clock=later)
    assert [is_there for *_, is_there in place.recorded()] == [0]
