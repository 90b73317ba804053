"""Rehearse a plan: load it into a twin of its org, and say what would fail, without one write to the org.

Reads:   the plan file, the source; of the org its describes, automations, limits, and the keys that lookups go by.
Writes:  a folder beside the staging folder, removed at the end unless it is to be kept; evidence in the audit database.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from forcelift.account.recorded import owner
from forcelift.account.remedies import remedy_of
from forcelift.account.state import open_state
from forcelift.account.summary import BatchSummary
from forcelift.audit.readings import FailureGroup
from forcelift.before.rehearse import (
    LOOKED_UP,
    MappedId,
    Seed,
    bare_document,
    ids_lines,
    mapped_ids,
    narrowed_picklists,
    scratch_folder,
    seeds,
    unknowable,
    users_document,
    with_optional,
    without_ids,
)
from forcelift.errors import TargetError
from forcelift.migration.running import RunOptions, Watcher, run_migration
from forcelift.opening.assembly import compile_plan, open_org, open_source, org_snapshot, plan_owners, unread_notes
from forcelift.people_csv import write_rows
from forcelift.plan import LoadedPlan, load_plan
from forcelift.plan.models import AuditSettings, TargetSettings
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import JobRequest, JobState, Org, ResultKind

KIND: Final = "rehearsal"
_POLL_S = 0.2

Told = Callable[[str], None]


class RehearseSettings(Struct, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        tables: Only these; all if empty.
        sample_percent: A sample of the rows; all if None.
        is_prepared: As after `prepare`: automations that it would switch off do not act.
        export_keys: Where to write the keys of all rows that would fail.
        keep: Leave the rehearsal's folder with twin and audit database.
    """

    tables: tuple[str, ...] = ()
    sample_percent: str | None = None
    is_prepared: bool = False
    export_keys: Path | None = None
    keep: bool = False


class Foretold(Struct, frozen=True, kw_only=True):
    """Rows that would fail for one reason. `rule` names what refuses them, where the org tells it."""

    group: FailureGroup
    object: str
    rule: str | None
    remedy: str


class RehearsalReport(Struct, frozen=True, kw_only=True):
    """What would become of the load.

    Attributes:
        cannot_know: What the twin does not act out; where there is any, other rows may fail than are foretold.
        notes: What else was not taken from the org.
        seeded: Records of which the twin has the keys, by object: parents that are in the org already.
        folder: Where the rehearsal lies, if it was kept.
    """

    project: str
    org_id: str
    cannot_know: tuple[str, ...]
    notes: tuple[str, ...]
    seeded: Mapping[str, int]
    foretold: tuple[Foretold, ...]
    summary: BatchSummary
    evidence_no: int
    folder: Path | None

    @property
    def fails(self) -> int:
        """Rows that would be rejected or refused."""
        return sum(one.group.rows for one in self.foretold)


def rehearse_plan(
    plan_file: str | Path,
    settings: RehearseSettings | None = None,
    *,
    told: Told = lambda sentence: None,
    watcher: Watcher | None = None,
    clock: Clock | None = None,
) -> RehearsalReport:
    """Load the plan into a twin of its org.

    Raises:
        PlanError: The plan does not fit the org.
        TargetError: The org cannot be asked, or no twin can be made of what it tells.
        StateConflict: The rehearsal did not come to its end; the batch's own error is its cause.
    """
    settings, clock = settings or RehearseSettings(), clock or SystemClock()
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock, create=True):
        pass  # A rehearsal takes hours: that its result cannot be kept is told before it begins.
    folder = Path(loaded.staging()).parent / "rehearsals" / f"{clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    with scratch_folder(folder, keep=settings.keep):
        twin_plan = _retargeted(loaded, folder)
        org_id, document, seeded, narrowed, by_ids = _take(loaded, twin_plan, folder, settings, told=told, clock=clock)
        twin_plan = replace(twin_plan, plan=without_ids(twin_plan.plan, by_ids))
        unread = unread_notes(document)
        cannot_know = unknowable(
            document, unread, is_prepared=settings.is_prepared, leave_on=loaded.plan.prepare.leave_on
        )
        cannot_know += [*narrowed, *ids_lines(by_ids)]
        options = RunOptions(
            batch_id=folder.name,
            tables=settings.tables,
            sample_percent=settings.sample_percent,
            prepare=settings.is_prepared or None,
            before_images=False,
            is_rehearsal=True,
        )
        summary = run_migration(twin_plan, options, watcher=watcher or Watcher(on_note=told), clock=clock)
        if summary.first_error is not None:
            raise summary.first_error
        foretold = _foretold(twin_plan, summary, document, settings, clock=clock)
        with open_state(loaded, clock=clock, create=True) as state:
            made = state.audit.add_evidence(
                project=loaded.plan.project,
                kind=KIND,
                name=folder.name,
                plan_sha256=loaded.sha256,
                org_id=org_id,
                passed=not foretold and not cannot_know,
                document={
                    "sample_percent": settings.sample_percent,
                    "is_prepared": settings.is_prepared,
                    "tables": list(settings.tables),
                    "rows": sum(table.source for table in summary.tables),
                    "cannot_know": cannot_know,
                    "foretold": [foretold_document(one) for one in foretold],
                },
                by=owner(),
            )
        return RehearsalReport(
            project=loaded.plan.project,
            org_id=org_id,
            cannot_know=tuple(cannot_know),
            notes=tuple(note for note in document["notes"] if note not in cannot_know),
            seeded=seeded,
            foretold=tuple(foretold),
            summary=summary,
            evidence_no=made.evidence_no,
            folder=folder if settings.keep else None,
        )


def foretold_document(one: Foretold) -> dict[str, Any]:
    """One reason as JSON has it; without keys of rows, which may be personal."""
    return {
        "table": one.group.table_name,
        "object": one.object,
        "code": one.group.code,
        "fields": one.group.fields,
        "rule": one.rule,
        "rows": one.group.rows,
        "example": one.group.message,
        "remedy": one.remedy,
    }


def _retargeted(loaded: LoadedPlan, folder: Path) -> LoadedPlan:
    """The same plan with a twin as its org, and audit database and staging of its own."""
    plan = loaded.plan
    target = TargetSettings(
        url=f"twin:{folder / 'org.duckdb'}",
        twin_schema=str(folder / "schema.json"),
        api_version=plan.target.api_version,
    )
    audit = AuditSettings.model_validate({"url": f"sqlite:///{folder / 'audit.db'}"})
    changes = {"target": target, "audit": audit, "staging": str(folder / "staging")}
    return replace(loaded, plan=plan.model_copy(update=changes))


def _take(
    loaded: LoadedPlan,
    twin_plan: LoadedPlan,
    folder: Path,
    settings: RehearseSettings,
    *,
    told: Told,
    clock: Clock,
) -> tuple[str, dict[str, Any], dict[str, int], list[str], list[MappedId]]:
    """The org's shape as a twin's file, and the keys of parents that are there. Returns the org's Id, the shape, how
    many records were taken of each object, which picklists the shape does not tell all of, and what goes by Ids.
    """
    only = settings.tables or None
    with open_source(loaded) as source, open_org(loaded, clock=clock) as org:
        told(f"reading the shape of {org.url}")
        compiled = compile_plan(loaded, source=source, org=org, only=only)
        works = [work.spec for work in compiled.works.values()]
        objects = [one.object for one in works]
        upserted = {one.object: one.external_id_field if one.operation == "upsert" else None for one in works}
        describes = {name: org.describe(name) for name in upserted}
        parents = [name for name, _ in compiled.parent_keys]
        document = org_snapshot(org, list(dict.fromkeys([*objects, *parents])), progress=told)
        document["users"] = users_document(plan_owners(loaded, org, only))
        _write(folder / "schema.json", bare_document(document))
        rules = document["automations"].get("validation_rules", ())
        seeded = {}
        with open_org(twin_plan, clock=clock) as twin:
            for seed in seeds(compiled.parent_keys, upserted, describes, rules):
                told(f"reading the keys of {seed.object}")
                if not (taken := _seed(org, twin, seed, clock=clock)):
                    continue
                seeded[seed.object] = taken
                if seed.unseen:
                    document["notes"].append(
                        f"validation rules {', '.join(seed.unseen)} of {seed.object} {LOOKED_UP} of the {taken:,} "
                        "records that are in the org already"
                    )
        tables = [work.plan for work in compiled.works.values()]
        by_ids = mapped_ids(tables, describes)
        document = with_optional(document, by_ids)
        _write(folder / "schema.json", document)
        return org.org_id, document, seeded, narrowed_picklists(tables, describes), by_ids


def _seed(org: Org, twin: Org, seed: Seed, *, clock: Clock) -> int:
    """Copy the keys of an object's records into the twin. Returns how many there are."""
    where = " OR ".join(f"{field} != null" for field in seed.keys)
    fields = ", ".join((*seed.keys, *seed.read))
    seeded = 0
    for page in org.bulk_query(f"SELECT {fields} FROM {seed.object} WHERE {where}"):
        job = twin.create_job(JobRequest(object=seed.object, operation="insert"))
        twin.upload(job.id, content=lambda page=page: [page], size=len(page))  # type: ignore[misc]  # bound at once
        twin.close_job(job.id)
        job = twin.get_job(job.id)
        while not job.state.is_terminal:
            clock.sleep(_POLL_S)
            job = twin.get_job(job.id)
        refused = b"".join(twin.results(job.id, ResultKind.FAILED)).splitlines()[:2]
        if job.state is not JobState.JOB_COMPLETE or job.records_failed:
            raise TargetError(
                f"the keys of {seed.object} could not be put into the twin: {job.records_failed} were refused",
                state="nothing was written to the org",
                hint=f"report it: {refused[-1].decode(errors='replace')[:60] if refused else job.error_message}",
            )
        seeded += job.records_processed or 0
    return seeded


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _foretold(
    twin_plan: LoadedPlan,
    summary: BatchSummary,
    document: Mapping[str, Any],
    settings: RehearseSettings,
    *,
    clock: Clock,
) -> list[Foretold]:
    rules = {
        (rule["object"].lower(), rule["error_message"]): f"{rule['object']}.{rule['name']}"
        for rule in document["automations"].get("validation_rules", ())
    }
    objects = {table.table: table.object for table in summary.tables}
    with open_state(twin_plan, clock=clock, create=False) as state:
        groups = state.audit.failure_groups(summary.batch.batch_id)
        if settings.export_keys is not None:
            keys = state.audit.failed_keys(summary.batch.batch_id)
            write_rows(settings.export_keys, ("table", "key", "code"), keys)
    found = []
    for group in groups:
        name = objects.get(group.table_name, "")
        found.append(
            Foretold(
                group=group,
                object=name,
                rule=rules.get((name.lower(), group.message.split(":", 1)[-1]))
                or rules.get((name.lower(), group.message)),
                remedy=remedy_of(group.code, group.message),
            )
        )
    return found
