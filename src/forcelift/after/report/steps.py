"""Where the time of a batch went: each instant is split among the steps that chunks were in at that instant. Pure.

So the seconds of all steps add up to the batch's duration, however much ran side by side. A chunk that waits for a free
job stands in front of the org, and counts there; one that waits while the rolling day is used up counts for the quota.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.after.report.figures import merged
from forcelift.audit.step_times import StepEvent


class Step(StrEnum):
    """What a chunk does, or why none does anything."""

    SOURCE = "source"  # reading: the source, and its own limit of rows a second
    CLEANING = "cleaning"  # rules, and writing the files
    NETWORK = "network"  # creating jobs, uploading, fetching answers
    ORG = "org"  # the org at work, and the queue in front of it
    QUOTA = "quota"  # the rolling day's allowance, or API requests, are used up
    LEDGER = "ledger"  # outcomes, sums, ledger
    HELD = "held"  # a pause, the hours, a full disk
    STOPPED = "stopped"  # no process was at work
    OTHER = "other"


BOTTLENECKS: Final = (Step.SOURCE, Step.CLEANING, Step.NETWORK, Step.ORG, Step.QUOTA, Step.LEDGER, Step.HELD)
_HOLD: Final = re.compile(r"(?P<kind>hold|no new jobs) until (?P<until>\S+): (?P<reason>.*)", re.DOTALL)
_QUOTA_WORDS: Final = ("API requests", "limit", "LIMIT", "allowance", "rolling day")


class Interval(Struct, frozen=True, kw_only=True):
    """From when to when a chunk was in a step; `weight` is below 1 where two steps alternate too fast to tell when."""

    began: datetime
    ended: datetime
    step: Step
    weight: float = 1.0


class StepShare(Struct, frozen=True, kw_only=True):
    """Seconds of the batch's duration that went to a step, and the seconds of all chunks in it, side by side."""

    step: Step
    seconds: float
    chunk_seconds: float


class StepShares(Struct, frozen=True, kw_only=True):
    """Where the time went; no shares where the journal has no steps."""

    shares: tuple[StepShare, ...] = ()

    @property
    def total(self) -> float:
        """All seconds."""
        return sum(one.seconds for one in self.shares)

    @property
    def bottleneck(self) -> StepShare | None:
        """The step that took the most of the time in which something was at work."""
        candidates = [one for one in self.shares if one.step in BOTTLENECKS and one.seconds > 0]
        return max(candidates, key=lambda one: one.seconds, default=None)


def without_pauses(shares: StepShares, seconds: float) -> StepShares:
    """Leave out the pauses between a project's batches, so that the steps add up to its duration, which has none."""
    left, found = seconds, []
    for one in sorted(shares.shares, key=lambda one: one.step is not Step.STOPPED):
        if one.step in (Step.STOPPED, Step.OTHER):
            taken = min(left, one.seconds)
            left -= taken
            one = replace(one, seconds=one.seconds - taken)
        if one.step not in (Step.STOPPED, Step.OTHER) or one.seconds > _NOTHING:
            found.append(one)
    return StepShares(shares=tuple(sorted(found, key=lambda one: list(Step).index(one.step))))


class _Chunk(Struct):
    """A chunk while its events are followed."""

    staging_since: datetime | None = None
    waiting_since: datetime | None = None
    settling_since: datetime | None = None
    open_jobs: set[int] = field(default_factory=set)


def step_shares(
    events: Sequence[StepEvent],
    work: Sequence[tuple[datetime, datetime]],
    began: datetime | None,
    ended: datetime | None,
) -> StepShares:
    """Split a batch's time.

    Args:
        events: All moves of its chunks and jobs, in order.
        work: From when to when processes were at work on it.
        began: Its first chunk's beginning.
        ended: Its last chunk's end.
    """
    if began is None or ended is None or ended <= began or not events:
        return StepShares()
    holds = list(hold_intervals(events, ended))
    at_work, queue_holds = merged(work), _disjoint(holds)
    intervals = [
        piece
        for one in chunk_intervals(events)
        for part in _clipped(one, at_work)
        for piece in _held(part, queue_holds)
        if piece.ended > began and piece.began < ended
    ]
    seconds, sums = _sweep(intervals, holds, at_work, began, ended)
    shares = [
        StepShare(step=step, seconds=seconds.get(step, 0.0), chunk_seconds=sums.get(step, 0.0))
        for step in Step
        if seconds.get(step, 0.0) > 0 or step in (Step.SOURCE, Step.CLEANING, Step.NETWORK, Step.ORG, Step.QUOTA)
    ]
    return StepShares(shares=tuple(shares))


def chunk_intervals(events: Sequence[StepEvent]) -> Iterator[Interval]:
    """The steps of all chunks. What waits in front of the org is the org's until a hold says otherwise."""
    chunks: dict[int, _Chunk] = defaultdict(_Chunk)
    jobs: dict[int, tuple[datetime, str]] = {}
    for event in events:
        if event.audit_id is None:
            continue
        chunk, at = chunks[event.audit_id], event.at
        if event.action == "chunk_started":
            chunk.staging_since, chunk.waiting_since, chunk.settling_since = at, None, None
        elif event.action == "chunk_staged":
            if chunk.staging_since is not None:
                yield from _staging(chunk.staging_since, at, event.payload)
            chunk.staging_since, chunk.waiting_since = None, at
        elif event.action == "job_intended" and event.job_no is not None:
            # A chunk that was staged by an earlier process is started anew and not staged again.
            since = chunk.waiting_since or chunk.staging_since
            if since is not None and not chunk.open_jobs:
                yield Interval(began=since, ended=at, step=Step.ORG)
            chunk.staging_since = chunk.waiting_since = chunk.settling_since = None
            chunk.open_jobs.add(event.job_no)
            jobs[event.job_no] = at, event.action
        elif event.job_no is not None and event.job_no in jobs:
            yield from _job(jobs, event)
            if event.action in ("job_collected", "job_abandoned"):
                jobs.pop(event.job_no)
                chunk.open_jobs.discard(event.job_no)
                if not chunk.open_jobs:
                    chunk.waiting_since = chunk.settling_since = at
        elif event.action in ("chunk_settled", "chunk_loaded", "links_staged", "chunk_failed"):
            if chunk.settling_since is not None:
                yield Interval(began=chunk.settling_since, ended=at, step=Step.LEDGER)
            chunk.settling_since = None
            chunk.waiting_since = at if event.action == "links_staged" else None


def _staging(began: datetime, ended: datetime, payload: Mapping[str, float]) -> Iterator[Interval]:
    whole = float(payload.get("seconds") or 0.0)
    cleaning = min(1.0, float(payload.get("clean_seconds") or 0.0) / whole) if whole > 0 else 0.0
    if cleaning > 0:
        yield Interval(began=began, ended=ended, step=Step.CLEANING, weight=cleaning)
    if cleaning < 1:
        yield Interval(began=began, ended=ended, step=Step.SOURCE, weight=1 - cleaning)


def _job(jobs: dict[int, tuple[datetime, str]], event: StepEvent) -> Iterator[Interval]:
    assert event.job_no is not None
    since, before = jobs[event.job_no]
    if event.action in ("job_created", "job_closed"):
        yield Interval(began=since, ended=event.at, step=Step.NETWORK)
    elif before == "job_closed":
        fetched = max(since, event.at - timedelta(seconds=float(event.payload.get("seconds") or 0.0)))
        yield Interval(began=since, ended=fetched, step=Step.ORG)
        yield Interval(began=fetched, ended=event.at, step=Step.NETWORK)
    jobs[event.job_no] = event.at, event.action


def hold_intervals(events: Sequence[StepEvent], ended: datetime) -> Iterator[Interval]:
    """From when to when the batch was held back: by the quota, by an org that is away, by a pause, hours or disk."""
    paused: datetime | None = None
    waits: datetime | None = None
    for event in events:
        if event.action == "governor":
            found = _HOLD.fullmatch(str(event.payload.get("decision", "")))
            if found is not None:
                is_quota = found["kind"] == "no new jobs" or any(word in found["reason"] for word in _QUOTA_WORDS)
                until = min(datetime.fromisoformat(found["until"]), ended)
                if until > event.at:
                    yield Interval(began=event.at, ended=until, step=Step.QUOTA if is_quota else Step.ORG)
        elif event.action == "waits":
            if waits is not None:
                yield Interval(began=waits, ended=event.at, step=Step.HELD)
            waits = event.at if event.payload.get("waits") else None
        elif event.action == "pause_asked":
            paused = paused or event.at
        elif paused is not None and event.action in ("resume_asked", "control_cleared"):
            yield Interval(began=paused, ended=event.at, step=Step.HELD)
            paused = None
    for since in (paused, waits):
        if since is not None and since < ended:
            yield Interval(began=since, ended=ended, step=Step.HELD)


def _clipped(one: Interval, at_work: Sequence[tuple[datetime, datetime]]) -> Iterator[Interval]:
    """The parts of it in which a process was at work."""
    for began, ended in at_work:
        first, last = max(one.began, began), min(one.ended, ended)
        if first < last:
            yield Interval(began=first, ended=last, step=one.step, weight=one.weight)


def _disjoint(holds: Sequence[Interval]) -> list[Interval]:
    """What holds the queue before the org back, in order and without overlaps; the one that began first counts."""
    found: list[Interval] = []
    for hold in sorted((hold for hold in holds if hold.step is not Step.ORG), key=lambda one: (one.began, one.ended)):
        began = max(hold.began, found[-1].ended) if found else hold.began
        if began < hold.ended:
            found.append(Interval(began=began, ended=hold.ended, step=hold.step))
    return found


def _held(one: Interval, holds: Sequence[Interval]) -> Iterator[Interval]:
    """Cut it where a hold begins and ends; what stood before the org in a hold is the hold's."""
    at = one.began
    first = bisect_right(holds, one.began, key=lambda hold: hold.ended) if one.step is Step.ORG else len(holds)
    for place in range(first, len(holds)):
        hold = holds[place]
        if hold.began >= one.ended:
            break
        if hold.began > at:
            yield Interval(began=at, ended=hold.began, step=one.step, weight=one.weight)
        began, at = max(hold.began, at), min(hold.ended, one.ended)
        yield Interval(began=began, ended=at, step=hold.step, weight=one.weight)
    if at < one.ended:
        yield Interval(began=at, ended=one.ended, step=one.step, weight=one.weight)


def _sweep(
    intervals: Sequence[Interval],
    holds: Sequence[Interval],
    at_work: Sequence[tuple[datetime, datetime]],
    began: datetime,
    ended: datetime,
) -> tuple[dict[Step, float], dict[Step, float]]:
    """Seconds of the duration, and seconds of all chunks together, by step."""
    changes: list[tuple[datetime, int, Step | None, float]] = []
    for one in intervals:
        first, last = max(one.began, began), min(one.ended, ended)
        changes += [(first, 1, one.step, one.weight), (last, 1, one.step, -one.weight)]
    for pause in holds:
        changes += [(max(pause.began, began), 0, pause.step, 1.0), (min(pause.ended, ended), 0, pause.step, -1.0)]
    for first, last in at_work:
        changes += [(max(first, began), 2, None, 1.0), (min(last, ended), 2, None, -1.0)]
    changes = sorted((one for one in changes if began <= one[0] <= ended), key=lambda one: one[0])
    active: dict[Step, float] = defaultdict(float)
    held: dict[Step, float] = defaultdict(float)
    runners = 0.0
    seconds: dict[Step, float] = defaultdict(float)
    sums: dict[Step, float] = defaultdict(float)
    now = began
    for at, kind, step, change in [*changes, (ended, 3, None, 0.0)]:
        length = (at - now).total_seconds()
        if length > 0:
            weights = {busy: weight for busy, weight in active.items() if weight > _NOTHING}
            whole = sum(weights.values())
            for busy, weight in weights.items():
                seconds[busy] += length * weight / whole
                sums[busy] += length * weight
            if not weights:
                waiting = next((hold for hold, weight in held.items() if weight > _NOTHING), Step.OTHER)
                seconds[waiting if runners > 0 else Step.STOPPED] += length
            now = at
        if kind == 1 and step is not None:
            active[step] += change
        elif kind == 0 and step is not None:
            held[step] += change
        elif kind == 2:
            runners += change
    return seconds, sums


_NOTHING: Final = 1e-9
