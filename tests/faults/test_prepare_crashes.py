"""A crash at every request and every commit of a prepare and of a restore, and lost replies: each is undone exactly.

The crash is an exception below the HTTP client or inside the audit database, which nothing catches; what follows is
done by new objects that know the audit file alone, as a new process would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import pytest
from tests.integration.prepare_fixtures import AUTOMATIONS, SWITCHED, PreparedOrg, prepared_org

from forcelift.audit import AuditStore, Holder
from forcelift.audit.database import no_step
from forcelift.before.prepare import Outcome, Preparer
from forcelift.errors import OrgRefused
from forcelift.salesforce import AuthSettings, connect
from forcelift.salesforce.setup import SalesforceSetup
from forcelift.twin.automation_models import Automations

OBJECTS = ["Sale__c"]
DEAD = Holder(kind="batch", name="dead", by="somebody")
When = Literal["before", "after"]


class SimulatedCrash(BaseException):
    """The process dies."""


class Wire(httpx.BaseTransport):
    """The real transport, which dies before or after a request, or loses the replies to changes."""

    def __init__(self, *, crash_at: int | None = None, when: When = "before", loses: int = 0) -> None:
        self._real = httpx.HTTPTransport()
        self._crash_at, self._when, self._loses = crash_at, when, loses
        self.requests = 0
        self.armed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        number = self.requests
        self.requests += self.armed
        strikes = self.armed and number == self._crash_at
        if strikes and self._when == "before":
            raise SimulatedCrash
        response = self._real.handle_request(request)
        is_change = request.method == "PATCH" or request.url.path.endswith("/deployRequest")
        if strikes or (self.armed and is_change and self._loses > 0):
            response.read()
            response.close()
            if strikes:
                raise SimulatedCrash
            self._loses -= 1
            raise httpx.ReadError("lost", request=request)
        return response

    def close(self) -> None:
        self._real.close()


class QuickClock:
    """Real time whose waits are short: the twin's deploys take milliseconds."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))


@contextmanager
def preparer(
    made: PreparedOrg, *, wire: Wire | None = None, on_step: Callable[[str], None] = no_step
) -> Iterator[Preparer]:
    clock = QuickClock()
    auth = AuthSettings(flow="token", access_token=made.server.access_token)
    org = connect(made.server.url, auth=auth, clock=clock, wire=wire or Wire())
    url = f"sqlite:///{made.folder / 'audit.db'}"
    with AuditStore.open(url, clock=clock, on_step=on_step) as audit:
        yield Preparer(setup=SalesforceSetup(org, clock=clock), audit=audit, org_id=org.org_id, by="tests", clock=clock)
    org.close()


def switch_off(one: Preparer) -> None:
    with one.alone():
        one.switch_off(one.look(OBJECTS, ()), DEAD)


def restore(one: Preparer) -> None:
    with one.alone():
        done, errors = one.restore(one.dead_holders(one.audit.open_states(one.org_id)))
    assert errors == []
    assert {item.outcome for item in done} <= {Outcome.RESTORED, Outcome.FOUND}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedOrg]:
    active = {
        kind: [one for one in listed if one.get("active", True) and one.get("active_version", 1)]
        for kind, listed in AUTOMATIONS.items()
        if kind != "apex_tests"
    }
    with prepared_org(tmp_path_factory.mktemp("crash"), **active) as found:
        yield found


def check_whole(made: PreparedOrg, before: Automations) -> None:
    """A new process puts everything back; nothing is left open, and the journal is one chain."""
    with preparer(made) as other:
        restore(other)
        assert other.audit.open_states() == []
        assert other.audit.verify_journal() == []
    assert made.org.automations.current() == before


# All of them take minutes; a few of each stand in for them in `make test`.
STRIDES = [pytest.param(9, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]


def crash(work: Callable[[], None]) -> bool:
    try:
        work()
    except SimulatedCrash:
        return True
    return False


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("phase", ["prepare", "restore"])
def test_a_crash_at_any_request_is_undone(made: PreparedOrg, phase: str, when: When, stride: int) -> None:
    before = made.org.automations.current()
    at, crashed = 0, True
    while crashed:
        wire = Wire(crash_at=at, when=when)
        if phase == "restore":
            with preparer(made) as first:
                switch_off(first)
        with preparer(made, wire=wire) as one:
            wire.armed = True
            crashed = crash(lambda one=one: switch_off(one) if phase == "prepare" else restore(one))
        check_whole(made, before)
        at += stride
    assert at > 15, "there were that many requests to die at"


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("when", ["write.before", "write.done"])
@pytest.mark.parametrize("phase", ["prepare", "restore"])
def test_a_crash_at_any_commit_is_undone(made: PreparedOrg, phase: str, when: str, stride: int) -> None:
    before = made.org.automations.current()
    at, crashed = 0, True
    while crashed:
        seen = -1

        def on_step(step: str, at: int = at) -> None:
            nonlocal seen
            seen += step == when
            if step == when and seen == at:
                raise SimulatedCrash

        if phase == "restore":
            with preparer(made) as first:
                switch_off(first)
        with preparer(made, on_step=on_step) as one:
            crashed = crash(lambda one=one: switch_off(one) if phase == "prepare" else restore(one))
        check_whole(made, before)
        at += stride
    assert at > 10


def test_lost_replies_are_asked_about(made: PreparedOrg) -> None:
    before, active = made.org.automations.current(), made.active()
    wire = Wire(loses=3)
    with preparer(made, wire=wire) as one:
        wire.armed = True
        switch_off(one)
        assert made.active() == active - SWITCHED
        assert all(state.off_at is not None for state in one.audit.open_states())
    check_whole(made, before)


def test_a_refused_deploy_leaves_the_rest_to_be_put_back(tmp_path: Path) -> None:
    """Production: the tests need the trigger, so that it cannot be switched off."""
    production = {"name": "Prod", "edition": "Enterprise Edition", "sandbox": False}
    tests = {"classes": ["SaleTest"], "coverage": 80, "need_active": ["SaleTrigger"]}
    with prepared_org(tmp_path, org=production, apex_tests=tests) as made:
        before = made.org.automations.current()
        with preparer(made) as one:
            with pytest.raises(OrgRefused, match=r"Apex test SaleTest\.acts failed"):
                switch_off(one)
            assert made.active() >= {("trigger", "SaleTrigger")}
        check_whole(made, before)
