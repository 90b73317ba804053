"""How soon a wish takes effect: a real process loads at a realistic pace, the real commands give the wishes.

Moments are those of the journal, whose rows are committed together with what they tell, and of looks at the org. Prints
one line for each wish: `pytest -m slow tests/faults/test_steering_pace.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_checks import TERMINAL
from tests.faults.fault_loader import BATCH, LoaderProcess
from tests.faults.fault_twin import OrgClient, TwinProcess, org_client
from tests.faults.fault_world import fault_world

PROMISED_S = 2.0
BEGINNINGS = ("chunk_started", "job_intended")
"""A chunk is begun to be read; a job is begun. All other rows of the journal are steps of what was begun."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the journal."""

    seq: int
    at: datetime
    action: str
    payload: dict[str, Any]


@dataclass(kw_only=True)
class Steered:
    """A loader and what its journal says of wishes. `lines` is what was measured so far."""

    loader: LoaderProcess
    lines: list[str] = field(default_factory=list)

    def wish(self, *words: str) -> Entry:
        """Give a wish by the command line, in a process of its own; its row in the journal."""
        before = self.loader.count("journal")
        self.loader.let_go_of_audit()
        command = [sys.executable, "-m", "forcelift", *words, "--plan", str(self.loader.plan), "--batch", BATCH]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        [entry] = [one for one in self.entries(after=before) if one.action.endswith("_asked")]
        return entry

    def entries(self, *, after: int = 0) -> list[Entry]:
        rows = self.loader.audit(f"SELECT seq, at, action, payload FROM journal WHERE seq > {after} ORDER BY seq")
        return [
            Entry(seq=seq, at=datetime.fromisoformat(at), action=action, payload=json.loads(payload))
            for seq, at, action, payload in rows
        ]

    def begun(self, wish: Entry) -> list[Entry]:
        """What was begun after a wish was committed."""
        return [one for one in self.entries(after=wish.seq) if one.action in BEGINNINGS]

    def late_s(self, wish: Entry, entries: list[Entry]) -> float:
        """From a wish to the last of these; 0 if there is none."""
        return max(((one.at - wish.at).total_seconds() for one in entries), default=0.0)

    def open_jobs(self) -> int:
        found = self.loader.audit("SELECT count(*) FROM job WHERE step NOT IN ('collected', 'abandoned')")
        return int(found[0][0]) if found else 0

    def in_hand(self) -> int:
        """Open jobs, and chunks on whose rows something is still to be done although all of their jobs are through."""
        ended = "('collected', 'abandoned')"
        chunks = self.loader.audit(
            "SELECT count(*) FROM chunk c WHERE step = 'staged' AND EXISTS (SELECT 1 FROM job j WHERE j.audit_id = "
            "c.audit_id) AND NOT EXISTS (SELECT 1 FROM job j WHERE j.audit_id = c.audit_id AND j.step NOT IN "
            f"{ended})"
        )
        return self.open_jobs() + int(chunks[0][0])

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        assert self.loader.wait_until(is_so, what), f"the loader ended before {what}"

    def beats(self, count: int) -> None:
        """Let a number of beats of the lease go by: the loader has turned its loop several times in each."""
        for _ in range(count):
            beat = self.loader.audit("SELECT heartbeat FROM lease")
            self.until(lambda last=beat: self.loader.audit("SELECT heartbeat FROM lease") != last, "a beat goes by")  # type: ignore[misc]  # bound in the loop

    def heard(self, wish: Entry, text: str) -> Entry:
        """The row in which the loader says that it has heard."""

        def rows() -> Iterator[Entry]:
            for one in self.entries(after=wish.seq):
                if one.action == "governor" and text in one.payload["decision"]:
                    yield one

        self.until(lambda: any(rows()), f"`{text}` is heard")
        return next(rows())

    def tell(self, wish: str, effect: str, seconds: float) -> None:
        self.lines.append(f"{wish:18} {effect:62} {seconds:5.2f} s")
        assert seconds < PROMISED_S, self.lines[-1]


@pytest.mark.slow
def test_every_wish_takes_effect_soon_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: pause, resume, throttle and stop within 2 s of the step in hand, and every row accounted for in the end."""
    with fault_world(tmp_path, seed=44, rows=24_000, chunk_rows=500, pace="realistic") as world:
        steered, loader = Steered(loader=world.loader), world.loader
        try:
            loader.start()
            steered.until(lambda: steered.open_jobs() >= 3 and loader.progress() > 0.05, "several jobs are at work")
            check_pause(steered, world.twin)
            check_resume(steered)
            with org_client(world.twin) as org:
                check_throttle(steered, org, world.others_jobs)
            check_stop(steered, loader)
            loader.start()
            steered.until(lambda: closed_jobs(loader) >= 3, "several jobs are at work")
            check_stop_now(steered, loader)
            assert loader.run() == 1
            world.check_end()
        finally:
            with capsys.disabled():
                print("\n" + "\n".join(steered.lines))


def check_pause(steered: Steered, twin: TwinProcess) -> None:
    wish = steered.wish("pause", "--reason", "measured")
    heard = steered.heard(wish, "measured")
    steered.tell("pause", "heard", (heard.at - wish.at).total_seconds())
    steered.until(lambda: steered.in_hand() == 0, "what was begun is finished")
    steered.beats(2)
    steered.tell("pause", "the last chunk or job that was still begun", steered.late_s(wish, steered.begun(wish)))
    begun, requests = len(steered.begun(wish)), made(twin)
    jobs = org_jobs(twin)
    steered.beats(2)
    assert (len(steered.begun(wish)), made(twin), org_jobs(twin)) == (begun, requests, jobs), "a paused batch begins"


def check_resume(steered: Steered) -> None:
    wish = steered.wish("resume")
    steered.until(lambda: bool(steered.begun(wish)), "something begins")
    first = steered.begun(wish)[0]
    steered.tell("resume", "the first chunk or job begun", (first.at - wish.at).total_seconds())
    steered.until(lambda: steered.open_jobs() >= 3, "several jobs are at work")


def check_throttle(steered: Steered, org: OrgClient, others_jobs: set[str]) -> None:
    """By the org itself: a job counts until the org has ended it, which the journal learns later."""
    wish = steered.wish("throttle", "--jobs", "1", "--reason", "measured")
    looks = Looks(org=org, others_jobs=others_jobs)
    heard = steered.heard(wish, "at most 1 job at once")
    steered.tell("throttle --jobs 1", "heard", (heard.at - wish.at).total_seconds())
    steered.until(lambda: looks.look() and len(looks.begun(alone=True)) >= 3, "jobs begin alone")
    accompanied = looks.begun(alone=False)
    late = max(((at - wish.at).total_seconds() for at in accompanied), default=0.0)
    steered.tell("throttle --jobs 1", "the last job begun while another was open", late)
    lifted = steered.wish("throttle")
    looks = Looks(org=org, others_jobs=others_jobs)
    steered.until(lambda: looks.look() and bool(looks.begun(alone=False)), "jobs have company again")
    late = (looks.begun(alone=False)[0] - lifted.at).total_seconds()
    steered.tell("throttle (lifted)", "a second job begins", late)
    steered.until(lambda: steered.open_jobs() >= 3, "several jobs are at work")


@dataclass(kw_only=True)
class Looks:
    """What stood unfinished in the org, look by look: the moment after each, and our jobs then."""

    org: OrgClient
    others_jobs: set[str]
    seen: list[tuple[datetime, frozenset[str]]] = field(default_factory=list)

    def look(self) -> bool:
        jobs = self.org.jobs()
        unfinished = {number for number, job in jobs.items() if job["state"] not in TERMINAL} - self.others_jobs
        self.seen.append((datetime.now(UTC), frozenset(unfinished)))
        return True

    def begun(self, *, alone: bool) -> list[datetime]:
        """When jobs were first seen that were begun since the first look, without or with another one beside them."""
        known = set(self.seen[0][1]) if self.seen else set()
        found = []
        for at, unfinished in self.seen:
            if unfinished - known and (len(unfinished) == 1) == alone:
                found.append(at)
            known |= unfinished
        return found


def check_stop(steered: Steered, loader: LoaderProcess) -> None:
    wish = steered.wish("stop", "--reason", "measured")
    assert loader.wait() == 130
    gone = datetime.now(UTC)
    steered.tell("stop", "the last chunk or job that was still begun", steered.late_s(wish, steered.begun(wish)))
    _tell_end(steered, "stop", wish, gone)
    assert steered.open_jobs() == 0


def check_stop_now(steered: Steered, loader: LoaderProcess) -> None:
    wish = steered.wish("stop", "--now", "--reason", "measured")
    assert loader.wait() == 130
    gone = datetime.now(UTC)
    aborted = [one for one in steered.entries(after=wish.seq) if one.action == "job_aborted"]
    assert aborted
    steered.tell("stop --now", "the last open job aborted", steered.late_s(wish, aborted))
    _tell_end(steered, "stop --now", wish, gone)


def _tell_end(steered: Steered, name: str, wish: Entry, gone: datetime) -> None:
    """From the end of the last step in hand to the end of the process."""
    steps = [one for one in steered.entries(after=wish.seq) if one.action in (*_JOB_ENDS, *_CHUNK_ENDS)]
    last = max([wish.at, *(one.at for one in steps)])
    in_hand = (last - wish.at).total_seconds()
    effect = f"from the end of the last step in hand ({in_hand:.2f} s after) to its end"
    steered.tell(name, effect, (gone - last).total_seconds())


_JOB_ENDS = ("job_collected", "job_abandoned")
_CHUNK_ENDS = ("chunk_settled", "chunk_loaded", "chunk_staged")


def made(twin: TwinProcess) -> int:
    """Jobs that were asked for in the org."""
    return twin.count("POST", "/jobs/ingest$")


def org_jobs(twin: TwinProcess) -> dict[str, str]:
    """By id the state of all jobs of the org."""
    with org_client(twin) as org:
        return {number: str(job["state"]) for number, job in org.jobs().items()}


def closed_jobs(loader: LoaderProcess) -> int:
    found = loader.audit("SELECT count(*) FROM job WHERE object = 'Sale__c' AND step = 'closed'")
    return int(found[0][0]) if found else 0
