"""A whole migration from a seed: real coordinator, handlers, rules, ledger and audit database; simulated rest.

A schedule is one order of commands, org steps, lost replies, refusals, locks and crashes. After a crash everything that
lived in the process is thrown away and the batch is resumed from what is durable. When it has ended, the org itself is
asked: exactly one record per good row, no job of ours open, and every row with one outcome.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from tests.simulation.org import SOMEBODY, Faults, SimJob, SimOrg, SimulatedCrash
from tests.simulation.source import SimSource

from forcelift.audit import AuditStore
from forcelift.audit.records import Batch, BatchMode, BatchState, ChunkStatus, ChunkStep, Control, JobStep
from forcelift.audit.undo_records import BeforeImage
from forcelift.during.extract import ExtractHandlers, ExtractWorld
from forcelift.during.extract.pace import Pace
from forcelift.during.extract.record_data import SentRowsJson
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.handlers import dispatch, job_handlers
from forcelift.jobs.holds import DiskSeen
from forcelift.jobs.messages import Answer, Command, ControlSeen
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.work import TableWork
from forcelift.jobs.world import JobWorld
from forcelift.ledger import Ledger
from forcelift.plan.models import FieldRule, TablePlan
from forcelift.protocols.org import FieldDescribe, JobRequest, JobState, ObjectDescribe
from forcelift.rules import ParentField, SourceDefaults, compile_table
from forcelift.salesforce import CatalogueReader
from forcelift.storage import FolderStorage

INTERRUPTIONS_MAX = 6
STEPS_MAX = 20_000
TENANT, SALE = "TENANT", "SALE"


class SimClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class SimHours:
    """Open for some seconds of every round of seconds, shorter than hours so that a schedule meets many of them."""

    round_s: int
    open_s: int
    text: str = "simulated hours"

    def contains(self, instant: datetime) -> bool:
        return instant.timestamp() % self.round_s < self.open_s

    def next_open(self, instant: datetime) -> datetime:
        left = self.round_s - instant.timestamp() % self.round_s
        return instant + timedelta(seconds=left)


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What was allowed at one moment."""

    hours: bool = True
    read: bool = True


class StoppingPace(Pace):
    """Gives reads up now and then, as a stop or the end of the hours does in the middle of them."""

    def __init__(self, clock: SimClock, may_stop: Callable[[], bool]) -> None:
        super().__init__(clock=clock)
        self._may_stop = may_stop

    def through(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in super().through(batches):
                self.stop(self._may_stop())
                yield batch
        finally:
            self.stop(False)


class CrashingAudit:
    """An audit database whose every call may be the process's last: before it took effect, or after."""

    def __init__(self, audit: AuditStore, maybe_crash: Callable[[], None]) -> None:
        self._audit, self._maybe_crash = audit, maybe_crash

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._audit, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._maybe_crash()
            result = method(*args, **kwargs)
            self._maybe_crash()
            return result

        return call


def _text(name: str, *, length: int = 40, **more: Any) -> FieldDescribe:
    return FieldDescribe(name=name, label=name, type="string", length=length, **more)


def _objects() -> dict[str, ObjectDescribe]:
    key = _text("Key__c", external_id=True, id_lookup=True, unique=True)
    lookup = {"type": "reference", "length": 18, "label": "x"}
    tenant = ObjectDescribe(
        name="Tenant__c",
        label="Tenant",
        key_prefix="a00",
        fields={
            "Key__c": key,
            "Note__c": _text("Note__c", length=10),
            "Boss__c": FieldDescribe(
                name="Boss__c", reference_to=("Tenant__c",), relationship_name="Boss__r", **lookup
            ),
        },
    )
    sale = ObjectDescribe(
        name="Sale__c",
        label="Sale",
        key_prefix="a01",
        fields={
            "Key__c": key,
            "Note__c": _text("Note__c", length=10),
            "Tenant__c": FieldDescribe(
                name="Tenant__c", reference_to=("Tenant__c",), relationship_name="Tenant__r", **lookup
            ),
        },
    )
    return {"Tenant__c": tenant, "Sale__c": sale}


def _plans() -> dict[str, TablePlan]:
    tenant = TablePlan(
        table=TENANT,
        object="Tenant__c",
        key=("K",),
        external_id="Key__c",
        fields={
            "K": FieldRule(field="Key__c"),
            "NOTE": FieldRule(field="Note__c"),
            "BOSS": FieldRule(field="Boss__r.Key__c", parent=TENANT, missing_parent="to_null"),
        },
    )
    sale = TablePlan(
        table=SALE,
        object="Sale__c",
        key=("K",),
        external_id="Key__c",
        fields={
            "K": FieldRule(field="Key__c"),
            "NOTE": FieldRule(field="Note__c"),
            "TENANT": FieldRule(field="Tenant__r.Key__c", parent=TENANT, missing_parent="reject"),
        },
    )
    return {TENANT: tenant, SALE: sale}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The tables, and what must become of them."""

    tables: dict[str, pa.Table]
    good: dict[str, set[str]]


def _make_rows(rng: random.Random) -> Rows:
    """Small tables with good rows, rows too long, null keys, repeated keys, orphans, and rows that the org refuses."""
    tables: dict[str, pa.Table] = {}
    good: dict[str, set[str]] = {TENANT: set(), SALE: set()}
    for table, prefix, count in ((TENANT, "t", rng.randint(0, 30)), (SALE, "s", rng.randint(0, 60))):
        keys: list[str | None] = [f"{prefix}{number}" for number in range(count)]
        notes = [rng.choices(["ok", "much too long", "refuse"], [8, 1, 1])[0] for _ in keys]
        for _ in range(count // 10):
            keys[rng.randrange(count)] = None
        if count > 4 and rng.random() < 0.5:
            keys[1] = keys[3] = "Twice" if rng.random() < 0.5 else "tWICE"
        repeated = {key for key, seen in Counter(key.lower() for key in keys if key).items() if seen > 1}
        candidates = [f"t{number}" for number in range(32)]
        links = [rng.choice([None, rng.choice(candidates)]) for _ in keys]
        for key, note, link in zip(keys, notes, links, strict=True):
            accepted = key is not None and key.lower() not in repeated and note == "ok"
            if accepted and (table == TENANT or link is None or link in good[TENANT]):
                good[table].add(key)
        column = "BOSS" if table == TENANT else "TENANT"
        kinds = pa.string()
        tables[table] = pa.table(
            {"K": pa.array(keys, kinds), "NOTE": pa.array(notes, kinds), column: pa.array(links, kinds)}
        )
    return Rows(tables=tables, good=good)


class Simulation:
    """One schedule."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.clock = SimClock()
        self.rows = _make_rows(self.rng)
        objects = _objects()
        self.org = self.make_org(objects)
        self.audit = self.open_audit()
        self.folder = folder
        self.crashes = self.stops = self.forgotten = self.others = 0
        self.calm = False
        self.stops_share = self.rng.choice([0.0, 0.0, 0.005])
        self.forgets_share = self.rng.choice([0.0, 0.0, 0.0, 0.02])
        self.mix = Faults(
            crash=self.rng.choice([0.0, 0.002, 0.01]),
            refused=self.rng.choice([0.0, 0.05, 0.2]),
            lost=self.rng.choice([0.0, 0.05, 0.2]),
            limit=self.rng.choice([0.0, 0.0, 0.01]),
            locked_row=self.rng.choice([0.0, 0.02, 0.2]),
            job_fails=self.rng.choice([0.0, 0.02]),
        )
        self.existing = self._put_earlier_records()
        self.fills_share = self.rng.choice([0.0, 0.0, 0.0, 0.01])
        self.extract_first = self.rng.random() < 0.25
        self.others_share = self.rng.choice([0.0, 0.0, 0.005, 0.03])
        self.one_call = self.rng.random() < 0.7
        self.disk = DiskSeen(total=100, free=50)
        self.allowed = Allowed()
        self.governor_jobs: int | None = None
        self.decisions: list[str] = []
        self.settings = EngineSettings(
            readers=self.rng.randint(1, 3),
            active_chunks_max=self.rng.randint(1, 6),
            attempts_max=30,
            abort_settle_s=15.0,
            extract_first=self.extract_first,
            hours=self.rng.choice([None, None, SimHours(round_s=200, open_s=self.rng.randint(20, 150))]),
            disk_critical=self.rng.choice([None, 90.0]),
            # One chunk's files take some kB: a small limit makes chunks wait for each other.
            staged_bytes_max=100_000_000 if self.extract_first else self.rng.choice([80_000, 100_000_000]),
            room_patience_s=1e9,
            takes_images=self.rng.random() < 0.5,
        )
        self.chunk_rows = self.rng.randint(3, 20)
        self.batch = Batch(
            batch_id="simulated",
            project="simulation",
            mode=BatchMode.EXTRACT_FIRST if self.extract_first else BatchMode.RUN,
            state=BatchState.RUNNING,
            org_id=self.org.org_id,
            org_url=self.org.url,
            source_url="simulated",
            as_of=self.clock.now(),
            snapshot=None,
            plan_sha256="0" * 64,
            plan_revision=1,
            created_by="simulation",
            started_at=self.clock.now(),
        )
        self.audit.begin_batch(self.batch, plan_document={})

    def make_org(self, objects: dict[str, ObjectDescribe]) -> SimOrg:
        return SimOrg(objects, dict.fromkeys(objects, "Key__c"), rng=self.rng, clock=self.clock)

    def open_audit(self) -> AuditStore:
        return AuditStore.open("sqlite://", clock=self.clock)

    def run(self) -> None:
        """Crash or stop, and resume, until the batch has ended; then check the promises."""
        for _ in range(10 * INTERRUPTIONS_MAX):
            if self._one_process():
                break
            self.calm = self.crashes + self.stops + self.forgotten >= INTERRUPTIONS_MAX
        else:
            raise AssertionError("the batch does not end, however often it is resumed")
        self._check()

    def _put_earlier_records(self) -> dict[str, set[str]]:
        """Records that stood in the org before, and a job of somebody else that looks like ours."""
        existing: dict[str, set[str]] = {}
        for table, name in ((TENANT, "Tenant__c"), (SALE, "Sale__c")):
            existing[table] = {key for key in sorted(self.rows.good[table]) if self.rng.random() < 0.2}
            for number, key in enumerate(sorted(existing[table])):
                record = {"Id": f"a0X{number:012d}AAA", "Key__c": key.upper(), "Note__c": "before"}
                self.org.records[name][key.lower()] = [record]
        self.org.open_job(JobRequest(object="Sale__c", operation="upsert", external_id_field="Key__c"), user=SOMEBODY)
        return existing

    def _maybe_crash(self) -> None:
        if not self.calm:
            self.org.maybe_crash()

    def _one_process(self) -> bool:
        """What one process does, from start to crash, stop or end; whether the batch is through."""
        self.org.faults = Faults() if self.calm else self.mix
        try:
            with self.audit.lease(self.batch.batch_id, "simulation") as lease:
                audit: Any = CrashingAudit(self.audit, self._maybe_crash)
                storage = FolderStorage(self.folder, fsync=False, on_step=self._on_disk_step)
                storage.sweep()
                coordinator, handlers = self._start(audit, storage, lease)
                self._drive(coordinator, handlers)
        except SimulatedCrash:
            self.crashes += 1
            return False
        if coordinator.control.stop and not coordinator.is_complete:
            self.stops += 1
            return False
        if coordinator.errors:
            # The one fault that is told and left to a resume: answers that the org no longer has.
            assert self.forgotten, coordinator.errors
            assert all("without proof" in str(error) for error in coordinator.errors), coordinator.errors
            self.forgotten += 1
            return False
        assert coordinator.is_complete
        return True

    def _start(
        self, audit: Any, storage: FolderStorage, lease: Any, own_fence: int | None = None
    ) -> tuple[Coordinator, dict[type, Any]]:
        plans, objects, ledger = _plans(), _objects(), Ledger(storage)
        source = SimSource(
            self.rows.tables,
            may_fail=lambda: not self.calm and self.rng.random() < 0.01,
            on_read=self._check_may_read,
        )
        parent = ParentField.of(objects["Tenant__c"].fields["Key__c"])
        works: dict[str, TableWork] = {}
        for number, (table, column) in enumerate(((TENANT, "BOSS"), (SALE, "TENANT"))):
            described = source.describe(table)
            describe = objects[plans[table].object]
            rules = compile_table(
                plans[table],
                table=described,
                describe=describe,
                parents={column: parent},
                link_columns=frozenset({"BOSS"}) if table == TENANT else frozenset(),
                defaults=SourceDefaults(),
            )
            spec = TableSpec(
                name=table,
                object=describe.name,
                operation="upsert",
                external_id_field="Key__c",
                group=number,
                waits_for=frozenset() if table == TENANT else frozenset({TENANT}),
                has_links=table == TENANT,
            )
            works[table] = TableWork(
                spec=spec, plan=plans[table], source=described, rules=rules, key_field=describe.fields["Key__c"]
            )
        extract = ExtractHandlers(
            ExtractWorld(
                batch=self.batch,
                source=source,
                org=self.org,
                audit=audit,
                storage=storage,
                ledger=ledger,
                clock=self.clock,
                works=works,
                positions={TENANT: 0, SALE: 1},
                parent_keys={("Tenant__c", "Key__c"): objects["Tenant__c"].fields["Key__c"]},
                chunk_rows=self.chunk_rows,
                batch_rows=10,
                readers=2,
                memory_mb=256,
                record_detail="masked",
                scratch=self.folder,
                pace=StoppingPace(self.clock, lambda: not self.calm and self.rng.random() < 0.01),
                own_fence=own_fence,
            )
        )
        jobs = job_handlers(
            JobWorld(
                batch=self.batch,
                org=self.org,
                audit=audit,
                lease=lease,
                storage=storage,
                ledger=ledger,
                clock=self.clock,
                refusals=CatalogueReader(),
                record_data=SentRowsJson("masked"),
                rows_per_day=150_000_000,
                keep_staged=False,
                works=works,
                own_fence=own_fence,
                one_call=self.one_call and own_fence is None,
            )
        )
        jobs_max = self.governor_jobs or self.rng.randint(1, 4)
        governor = Governor(jobs_max=jobs_max, api_calls_reserve=0, rng=self.rng)
        coordinator = Coordinator([work.spec for work in works.values()], settings=self.settings, governor=governor)
        for chunk in audit.chunks(self.batch.batch_id) if own_fence is None else ():
            if chunk.status is ChunkStatus.FAILED and chunk.step is not ChunkStep.SETTLED:
                audit.start_chunk(chunk.audit_id)
        planned = [table.table_name for table in audit.tables(self.batch.batch_id)]
        self.org.may_begin = lambda: self.allowed.hours and not self._is_extracting()
        coordinator.restore(planned, audit.chunks(self.batch.batch_id), audit.jobs(self.batch.batch_id))
        return coordinator, extract.handlers() | jobs

    def _drive(self, coordinator: Coordinator, handlers: dict[type, Any]) -> None:
        """Any pending command, the org, or time may come next."""
        pending = self._hand_out(coordinator, coordinator.on(self.disk, self.clock.now()))
        for _ in range(STEPS_MAX):
            self.decisions.extend(coordinator.take_decisions())
            if coordinator.is_finished:
                return
            self._maybe_crash()
            if not self.calm:
                pending.extend(self._hand_out(coordinator, self._interfere(coordinator)))
            elif self.disk.free < 50:
                pending.extend(self._hand_out(coordinator, self._see_disk(coordinator, free=50)))
            if self.org.has_work and self.rng.random() < 0.4:
                self.org.work()
            elif pending and self.rng.random() < 0.9:
                command, self.allowed = pending.pop(self.rng.randrange(len(pending)))
                answer = self._answer(handlers, command)
                pending.extend(self._hand_out(coordinator, coordinator.on(answer, self.clock.now())))
            else:
                wake = coordinator.wake_at(self.clock.now())
                jump = (wake - self.clock.now()).total_seconds() if wake and not pending else 0.0
                self.clock.sleep(max(jump, self.rng.random()))
                pending.extend(self._hand_out(coordinator, coordinator.tick(self.clock.now())))
                self._check_waits(coordinator, bool(pending))
        raise AssertionError(f"no end after {STEPS_MAX} steps; pending: {pending}, waits: {coordinator.waiting_for}")

    def _hand_out(self, coordinator: Coordinator, commands: list[Command]) -> list[tuple[Command, Allowed]]:
        """What was allowed when a command was given; a thread may carry it out a little later."""
        allowed = Allowed(
            hours=self._is_open(),
            read=not coordinator.control.paused and (self.settings.disk_critical is None or self.disk.free >= 10),
        )
        return [(command, allowed) for command in commands]

    def _interfere(self, coordinator: Coordinator) -> list[Command]:
        """An operator stops the batch, the org forgets a job that has ended, or another loader makes one."""
        if self.rng.random() < self.forgets_share:
            # Not one that we are still looking for: its creation would have been in doubt for seven days.
            self.forgotten += self.org.forget_a_job(self.audit.known_sf_ids(self.org.org_id))
        if self.rng.random() < self.others_share:
            self._make_others_job()
        if coordinator.control.paused and self.rng.random() < 0.05:
            return coordinator.on(ControlSeen(control=Control()), self.clock.now())
        if self.rng.random() < self.stops_share and coordinator.control == Control():
            paused = Control(paused=True, throttle_jobs=self.rng.choice([None, 1]), by="operator")
            return coordinator.on(ControlSeen(control=paused), self.clock.now())
        if self.disk.free < 50 and self.rng.random() < 0.02:
            return self._see_disk(coordinator, free=50)
        if self.rng.random() < self.fills_share:
            return self._see_disk(coordinator, free=5)
        if self.rng.random() < self.stops_share and not coordinator.control.stop:
            control = Control(stop=True, stop_now=self.rng.random() < 0.5, by="operator", reason="simulated")
            return coordinator.on(ControlSeen(control=control), self.clock.now())
        return []

    def _make_others_job(self) -> None:
        """A job of another loader that signs in as our user: of other rows, or of ours with other values.

        The org refuses its rows, so that it shows if one of our own rows is taken for done by it.
        """
        table, name = self.rng.choice([(TENANT, "Tenant__c"), (SALE, "Sale__c")])
        keys = [key for key in self.rows.tables[table].column("K").to_pylist() if key] or ["none"]
        lookup = {TENANT: "Boss__r.Key__c", SALE: "Tenant__r.Key__c"}[table]
        start = self.rng.randrange(len(keys))
        chosen = keys[start : start + self.chunk_rows]
        columns = self.rng.choice([["Key__c", "Note__c"], ["Key__c", "Note__c", lookup], ["Key__c", lookup, "Note__c"]])
        rows = [",".join({"Key__c": key, "Note__c": "refuse"}.get(one, "") for one in columns) for key in chosen]
        content = "".join(f"{line}\n" for line in [",".join(columns), *rows]).encode()
        self.org.open_loaded(
            JobRequest(object=name, operation="upsert", external_id_field="Key__c"), content, user=self.org.user_id
        )
        self.others += 1

    def _see_disk(self, coordinator: Coordinator, *, free: int) -> list[Command]:
        self.disk = DiskSeen(total=100, free=free)
        return coordinator.on(self.disk, self.clock.now())

    def _on_disk_step(self, step: str, name: str) -> None:
        """A crash, or a disk that has no room for this file."""
        self._maybe_crash()
        if step == "commit.before" and not self.calm and self.rng.random() < self.fills_share:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_open(self) -> bool:
        return self.settings.hours is None or self.settings.hours.contains(self.clock.now())

    def _is_extracting(self) -> bool:
        """Whether something is still to be staged although `--extract-first` was asked, by the audit database."""
        if not self.extract_first:
            return False
        tables = self.audit.tables(self.batch.batch_id)
        chunks = self.audit.chunks(self.batch.batch_id)
        return len(tables) < 2 or any(chunk.step is ChunkStep.PLANNED for chunk in chunks)

    def _check_may_read(self) -> None:
        assert self.allowed.hours, "a read began outside of the hours"
        assert self.allowed.read, "a read began in a pause, or although the disk is nearly full"

    def _check_waits(self, coordinator: Coordinator, pending: bool) -> None:
        """A batch that waits says when to look again, and not at once, which would be a loop without a pause."""
        now = self.clock.now()
        wake = coordinator.wake_at(now)
        assert pending or wake is None or wake > now, f"a hot wait: {coordinator.waits}"
        if not self._is_open() and not (coordinator.control.stop or coordinator.is_finished or coordinator.errors):
            assert "window" in [wait.kind.value for wait in coordinator.waits]

    def _answer(self, handlers: dict[type, Any], command: Command) -> Answer:
        try:
            return Answer(command=command, result=dispatch(handlers, command))
        except Exception as error:  # noqa: BLE001 - as the runner does
            return Answer(command=command, error=error)

    def _check(self) -> None:
        self._check_org()
        self._check_jobs()
        for table in (TENANT, SALE):
            self._check_ledger(table)
        assert self.audit.verify_journal() == []

    def _check_org(self) -> None:
        for table, name in ((TENANT, "Tenant__c"), (SALE, "Sale__c")):
            records = self.org.records[name]
            assert all(len(same) == 1 for same in records.values()), "a doubled record"
            assert set(records) == {key.lower() for key in self.rows.good[table]}
            for key in self.rows.good[table]:
                assert records[key.lower()][0]["Note__c"] == "ok"
        source = self.rows.tables[TENANT].to_pylist()
        for row in source:
            if row["K"] in self.rows.good[TENANT]:
                record = self.org.records["Tenant__c"][row["K"].lower()][0]
                wanted = row["BOSS"] if row["BOSS"] in self.rows.good[TENANT] else None
                assert (record.get("Boss__r.Key__c") or None) == wanted

    def _check_jobs(self) -> None:
        ours = {job.sf_id for job in self.audit.jobs(self.batch.batch_id)}
        for job in self.org.jobs.values():
            if job.view.created_by_id == SOMEBODY:
                assert job.view.state is JobState.OPEN, "somebody else's job was touched"
            elif job.view.id in ours:
                assert job.view.state.is_terminal, f"our job {job.view.id} is {job.view.state}"
            else:
                assert job.view.state is not JobState.OPEN or self.may_stay_open(job), "a job of ours was left open"
                assert not job.done, "a job that we do not know of wrote records"
        steps = {job.step for job in self.audit.jobs(self.batch.batch_id)}
        assert steps <= {JobStep.COLLECTED, JobStep.ABANDONED}

    def may_stay_open(self, job: SimJob) -> bool:
        return False

    def _check_ledger(self, table: str) -> None:
        chunks = self.audit.chunks(self.batch.batch_id, table)
        ledger = Ledger(FolderStorage(self.folder, fsync=False))
        files = [chunk.ledger_file for chunk in chunks if chunk.ledger_file is not None]
        rows = ledger.scan(files).collect()
        source = self.rows.tables[table]
        assert rows.height == source.num_rows
        for chunk in chunks:
            assert chunk.status in (ChunkStatus.SUCCESS, ChunkStatus.PARTIAL)
            assert chunk.source_count == chunk.extracted_count
            assert chunk.extracted_count == (chunk.transformed_count or 0) + (chunk.skipped_count or 0)
            assert chunk.transformed_count == chunk.loaded_count
            assert chunk.loaded_count == (chunk.success_count or 0) + (chunk.failed_count or 0)
        accepted = rows.filter(pl.col("outcome").is_in(["created", "updated"]))
        assert set(accepted["key"]) == self.rows.good[table]
        created = set(rows.filter(pl.col("outcome") == "created")["key"])
        truly_created = self.rows.good[table] - self.existing[table]
        # A row whose first answer was forgotten may be told as updated, never one as created that was not.
        images = [self.audit.image(chunk.audit_id) for chunk in chunks]
        were_sent = [chunk for chunk in chunks if self.audit.jobs(chunk.batch_id, chunk.audit_id)]
        if self.settings.takes_images:
            taken = {image.audit_id: image for image in images if image is not None}
            assert {chunk.audit_id for chunk in were_sent} <= set(taken)
            self._check_images(table, taken)
        # Only an image proves that a record whose first answer was forgotten is ours.
        proved = self.settings.takes_images and all(
            image is not None and image.file is not None for image in images if image is not None
        )
        proved = proved and {chunk.audit_id for chunk in were_sent} <= {image.audit_id for image in images if image}
        assert created <= truly_created if self.forgotten and not proved else created == truly_created
        object_name = _plans()[table].object
        for key, record_id in accepted.select("key", "id").iter_rows():
            assert self.org.records[object_name][key.lower()][0]["Id"] == record_id

    def _check_images(self, table: str, images: dict[int, BeforeImage]) -> None:
        """An image holds the records of its chunk's keys that stood before, as they were, and no others."""
        storage = FolderStorage(self.folder, fsync=False)
        seen: set[str] = set()
        for image in images.values():
            if image.file is None:
                assert not self.existing[table]
                continue
            frame = pl.read_parquet(storage.path(image.file))
            assert frame.height == image.rows
            assert set(frame["Note__c"]) <= {"before"}, "an image was taken after the batch had written"
            assert not seen & set(frame["norm"])
            seen |= set(frame["norm"])
        if all(image.file is not None for image in images.values()):
            assert seen == {key.lower() for key in self.existing[table]}


@contextlib.contextmanager
def simulated(seed: int, folder: Path) -> Iterator[Simulation]:
    """A simulation that names its seed when it fails."""
    simulation = Simulation(seed, folder)
    try:
        yield simulation
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
