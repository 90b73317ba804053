"""The org twin: one object that holds schema, data file, users, jobs, limits and the worker that processes jobs."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

import duckdb

from forcelift.twin.automation_checks import effect_problems
from forcelift.twin.automation_models import Automations
from forcelift.twin.automation_state import AutomationState
from forcelift.twin.clock import Clock, SystemClock
from forcelift.twin.custom_fields import CustomFields, with_made_fields
from forcelift.twin.errors import SchemaError, not_found
from forcelift.twin.ids import base62, id18, make_id, org_pod
from forcelift.twin.jobs import IngestJobs
from forcelift.twin.pace import Pace
from forcelift.twin.processing import Processor
from forcelift.twin.results import Results
from forcelift.twin.row_faults import RowFaults
from forcelift.twin.schema import OrgSchema, Schema
from forcelift.twin.setup_rows import install_setup_rows, show_automations, show_user_permissions
from forcelift.twin.standard import with_standard_objects
from forcelift.twin.store import Store
from forcelift.twin.uploads import drop_orphans
from forcelift.twin.usage import Usage
from forcelift.twin.users import User

_IDLE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the twin runs; none of it changes what it answers, except `strict_results`.

    `commit_batches` Salesforce batches of 10,000 rows are committed together. `strict_results` refuses result files of
    jobs that have not ended. `threads` None gives the database half of the cores. `memory_mb` is what the database may
    keep in memory; None: 1024 for an org in memory, and for one in a file as much as its widest object needs.
    """

    commit_batches: int = 25
    memory_mb: int | None = None
    threads: int | None = None
    strict_results: bool = False


class TwinOrg:
    """An open org. Safe to use from several threads; each takes its own `cursor()`."""

    def __init__(self, store: Store, schema: Schema, *, clock: Clock, seed: int, pace: Pace, options: Options) -> None:
        self.store = store
        self.schema = schema
        self.clock = clock
        self.seed = seed
        self.pace = pace
        self._pod = org_pod(seed)
        with store.read() as cursor:
            info = store.info(cursor)
        self.org_id = info["org_id"]
        self.users = self._read_users()
        schema.restrict({user.username: user.id for user in self.users})
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self._worker_error: BaseException | None = None
        self.schema_changed_at = clock.now()
        self.schema_lock = threading.RLock()
        self.fields = CustomFields(store, schema, lock=self.schema_lock, change=self.change_schema, pod=self._pod)
        self.automations = AutomationState(store, schema, pod=self._pod)
        self.automations.on_change(self._show_automations)
        with store.write_meta() as cursor:
            self._show_automations(cursor, self.automations.current())
            show_user_permissions(cursor, self.users)
        self.usage = Usage(store, schema, clock)
        self.jobs = IngestJobs(store, schema, clock, pod=self._pod, wake=self._wake.set)
        self.jobs.find_assignment_rule = self.automations.assignment_rule
        self._results = Results(store, schema, seed=seed, strict=options.strict_results)
        self.processor = Processor(
            store,
            schema,
            self.jobs,
            self.usage,
            clock,
            pod=self._pod,
            seed=seed,
            # Batches that run side by side are committed together, and with a pace no more: progress is to show.
            commit_batches=options.commit_batches if pace.rows_per_second is None else pace.parallel_batches,
            pace=pace,
            active_on=self.automations.acting_on,
        )
        self.row_faults = RowFaults(schema, clock, seed=seed)
        self.processor.row_faults = self.row_faults

    @classmethod
    def open(
        cls,
        path: Path | str | None = None,
        *,
        schema: Schema | None = None,
        clock: Clock | None = None,
        seed: int = 0,
        pace: Pace | None = None,
        options: Options | None = None,
    ) -> TwinOrg:
        """Open an org, or make one.

        Args:
            path: The data file; None keeps everything in memory.
            schema: Needed for a new file. For an existing one it must be the stored schema or an extension of it.
            clock: The org's time; the machine's if left out.
            seed: Decides Ids and orders of a new org; a file keeps the seed that it was made with.
            pace: How fast the background worker processes rows.
            options: Memory, threads, size of commits.
        Raises:
            StoreError: The file cannot be opened, or is held by another process.
            SchemaChanged: The schema contradicts the stored one.
        """
        clock, options = clock or SystemClock(), options or Options()
        store = Store(Path(path) if path is not None else None, memory_mb=options.memory_mb, threads=options.threads)
        try:
            stored = store.stored_schema()
            if stored is None and schema is None:
                raise SchemaError(
                    ["a new org needs a schema; the file holds none yet"], source=str(path) if path else None
                )
            _check_effects(schema or stored, source=str(path) if path else None)
            if stored is None:
                assert schema is not None  # checked above
                schema = with_standard_objects(schema)
                _make_org(store, schema, clock.now(), seed)
            else:
                schema = with_standard_objects(with_made_fields(schema or stored, stored))
                if schema != stored:
                    with store.write() as cursor:
                        store.install_schema(cursor, schema, earlier=stored)
                        _install_rows(cursor, schema, clock.now(), org_pod(_stored_seed(store)))
            store.check_hashes(schema)
            drop_orphans(store)
            store.bound_memory(schema)
            return cls(
                store,
                schema,
                clock=clock,
                seed=_stored_seed(store),
                pace=pace or Pace(),
                options=options,
            )
        except BaseException:
            store.close()
            raise

    def _show_automations(self, cursor: duckdb.DuckDBPyConnection, automations: Automations) -> None:
        show_automations(cursor, automations, state=self.automations, schema=self.schema, now=self.clock.now())

    def _read_users(self) -> tuple[User, ...]:
        permissions = {user.username: user.permissions for user in self.schema.users}
        with self.store.read() as cursor:
            rows = cursor.execute(
                'SELECT Id, Username, Name, Email, IsActive FROM data."User" WHERE NOT IsDeleted ORDER BY Id'
            ).fetchall()
        return tuple(
            User(
                id=row[0],
                username=row[1],
                name=row[2],
                email=row[3],
                active=row[4],
                permissions=frozenset(permissions.get(row[1], ())),
            )
            for row in rows
        )

    def user(self, name_or_id: str) -> User | None:
        """The user of that username (whatever its case) or Id."""
        wanted = name_or_id.lower()
        return next((user for user in self.users if user.username.lower() == wanted or user.id == name_or_id), None)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection for one thread, to read records in `data."Object__c"`. The caller closes it."""
        return self.store.cursor()

    def change_schema(self, changed: Schema) -> None:
        """Let the running org have another schema: written to the data file, then taken over by all its parts.

        The caller holds `schema_lock` from reading the present schema to here, so that no change is lost.

        Raises:
            SchemaChanged: It is not merely an extension of the present one.
        """
        with self.store.write() as cursor:
            self.store.install_schema(cursor, changed, earlier=self.schema)
        self.store.bound_memory(changed)
        self.schema.adopt(changed)
        self.automations.schema_changed()
        self.schema_changed_at = self.clock.now()

    def new_id(self, prefix: str) -> str:
        """An Id that was never given before, for something with that key prefix."""
        return make_id(prefix, self._pod, self.store.take_numbers(prefix))

    def describe(self, name: str, *, api_version: str = "66.0", user_id: str | None = None) -> dict[str, Any]:
        """The describe document of an object, as that user sees it. Raises the API's 404 for an unknown one."""
        entry = self.schema.seen_by(user_id).object(name)
        if entry is None:
            raise not_found()
        with self.store.read() as cursor:
            rows = cursor.execute(
                "SELECT DeveloperName, Id FROM data.RecordType WHERE SobjectType = ?", [entry.name]
            ).fetchall()
        return entry.describe_json(schema=self.schema, record_type_ids=dict(rows), api_version=api_version)

    def limits_json(self) -> dict[str, Any]:
        """The document of `/limits`."""
        return self.usage.limits_json()

    def results(self, job_id: str, kind: str) -> Iterator[bytes]:
        """One result file of an ingest job in pieces; see `Results.stream`."""
        return self._results.stream(self.jobs.find(job_id), kind)

    def step(self) -> int | None:
        """Process one piece of work in the caller's thread; None when there is nothing to do."""
        return self.processor.step()

    def run_until_idle(self) -> int:
        """Process all closed jobs in the caller's thread; tell the number of rows."""
        total = 0
        while (rows := self.step()) is not None:
            total += rows
        return total

    def start(self) -> None:
        """Start the background worker; it stops with `stop()` or `close()`."""
        if self._worker is not None:
            return
        self._stopping.clear()
        self._worker = threading.Thread(target=self._work, name="twin-worker", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Stop the background worker after its current commit. Raises what the worker died of, if it did."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._stopping.set()
            self._wake.set()
            worker.join()
        error, self._worker_error = self._worker_error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                rows = self.step()
                self.usage.flush()
                if rows is None:
                    self._wake.wait(min(self.processor.busy_s() or _IDLE_S, _IDLE_S))
        except BaseException as error:  # noqa: BLE001 - handed to whoever calls stop()
            self._worker_error = error

    def close(self) -> None:
        """Stop the worker and close the data file."""
        try:
            self.stop()
            self.usage.flush()
        finally:
            self.processor.close()
            self.store.close()

    def __enter__(self) -> TwinOrg:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_effects(schema: Schema | None, *, source: str | None) -> None:
    """Raises SchemaError for formulas of declared effects that the twin cannot compute."""
    problems = [] if schema is None else effect_problems(schema.automations, schema)
    if problems:
        raise SchemaError(problems, source=source)


def _stored_seed(store: Store) -> int:
    with store.read() as cursor:
        return int(store.info(cursor)["seed"])


def _make_org(store: Store, schema: Schema, now: datetime, seed: int) -> None:
    """Write everything that a new org has, in one transaction."""
    org_id = schema.org.id or f"00D{base62(random.Random(f'org:{seed}').randrange(62**8), 8)}EAM0"  # noqa: S311 - a name
    with store.write() as cursor:
        store.set_info(cursor, "org_id", id18(org_id))
        store.set_info(cursor, "seed", str(seed))
        store.install_schema(cursor, schema, earlier=None)
        _install_rows(cursor, schema, now, org_pod(seed))


def _install_rows(cursor: duckdb.DuckDBPyConnection, schema: Schema, now: datetime, pod: str) -> None:
    """Write the records of the org itself, its users and record types, unless they are there already."""
    stamp = now.replace(tzinfo=None, microsecond=0)
    known = {row[0] for row in cursor.execute('SELECT Username FROM data."User"').fetchall()}
    first_user = make_id("005", pod, 1)
    audit = {
        "IsDeleted": False,
        "CreatedDate": stamp,
        "CreatedById": first_user,
        "LastModifiedDate": stamp,
        "LastModifiedById": first_user,
        "SystemModstamp": stamp,
    }
    number = len(known)
    for user in schema.users:
        if user.username in known:
            continue
        number += 1
        record = {"Id": make_id("005", pod, number), "Username": user.username, "Name": user.name, "Email": user.email}
        _insert(cursor, "User", {**record, "IsActive": user.active, "UserType": "Standard", **audit})
    count = cursor.execute("SELECT count(*) FROM data.Organization").fetchone()
    if count is not None and count[0]:
        _update_organization(cursor, schema, stamp)
    else:
        org_id = cursor.execute("SELECT value FROM meta.info WHERE name = 'org_id'").fetchone()
        assert org_id is not None  # written when the org is made
        _insert(
            cursor,
            "Organization",
            {
                "Id": org_id[0],
                "Name": schema.org.name,
                "OrganizationType": schema.org.edition,
                "IsSandbox": schema.org.sandbox,
                "IsReadOnly": False,
                "InstanceName": schema.org.instance,
                "TrialExpirationDate": trial_end(schema.org),
                "NamespacePrefix": schema.org.namespace,
                **audit,
            },
        )
    _install_record_types(cursor, schema, pod, audit)
    install_setup_rows(cursor, pod, audit)


def _update_organization(cursor: duckdb.DuckDBPyConnection, schema: Schema, stamp: datetime) -> None:
    """Take over what the schema says about an org that exists: a file may be given again with another edition."""
    org = schema.org
    facts = [org.name, org.edition, org.sandbox, org.instance, org.namespace, trial_end(org)]
    cursor.execute(
        "UPDATE data.Organization SET Name = $1, OrganizationType = $2, IsSandbox = $3, InstanceName = $4, "
        "NamespacePrefix = $5, TrialExpirationDate = $6, LastModifiedDate = $7, SystemModstamp = $7 WHERE "
        "(Name, OrganizationType, IsSandbox, InstanceName) IS DISTINCT FROM ($1, $2, $3, $4) "
        "OR NamespacePrefix IS DISTINCT FROM $5 OR TrialExpirationDate IS DISTINCT FROM $6",
        [*facts, stamp],
    )


def trial_end(org: OrgSchema) -> datetime | None:
    """When the trial ends, in UTC without its zone as the store has it; None for an org that is no trial."""
    return None if org.trial_expires is None else datetime.combine(date.fromisoformat(org.trial_expires), time())


def _install_record_types(
    cursor: duckdb.DuckDBPyConnection, schema: Schema, pod: str, audit: dict[str, object]
) -> None:
    known = set(cursor.execute("SELECT SobjectType, DeveloperName FROM data.RecordType").fetchall())
    number = len(known)
    for entry in schema.objects:
        for record_type in entry.record_types:
            if (entry.name, record_type.developer_name) in known:
                continue
            number += 1
            record = {
                "Id": id18(record_type.id) if record_type.id else make_id("012", pod, number),
                "Name": record_type.name,
                "DeveloperName": record_type.developer_name,
                "SobjectType": entry.name,
                "IsActive": record_type.active,
            }
            _insert(cursor, "RecordType", {**record, **audit})


def _insert(cursor: duckdb.DuckDBPyConnection, name: str, record: dict[str, object]) -> None:
    columns, marks = ", ".join(f'"{key}"' for key in record), ", ".join("?" * len(record))
    cursor.execute(f'INSERT INTO data."{name}" ({columns}) VALUES ({marks})', list(record.values()))
