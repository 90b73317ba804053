"""Profile a plan's tables before anything is sent: what a plan names is opened, looked at, and written down.

Reads:   the plan file, source, org; findings that people accepted, in the audit database.
Writes:  the profile, in the audit database under its id, and evidence of it; scratch files in staging, which go at the
         end; with an export folder the keys of all findings.
Re-run:  each profile is one more; none is changed.
"""

from __future__ import annotations

import difflib
import secrets
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl
from msgspec import Struct

from forcelift.account.recorded import owner
from forcelift.account.state import State, open_state
from forcelift.audit.profiles import AcceptedRow, ProfileRow
from forcelift.before.profile import Acceptance, Profile, ProfileWorld, profile_tables
from forcelift.before.profile.page import html_page
from forcelift.during.extract.pace import Pace
from forcelift.during.extract.parents import ParentIndex
from forcelift.errors import ExitCode, StateConflict, UsageError
from forcelift.opening.assembly import Compiled, compile_plan, open_org, open_source
from forcelift.opening.bounds import SENDERS_MORE, MemoryShares
from forcelift.plan import LoadedPlan, load_plan, unsupported
from forcelift.plan.zones import codec_name
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import Org
from forcelift.rules import LookupInfo, ParentKeys, SamplePercent


class ProfileSettings(Struct, frozen=True, kw_only=True):
    """What to look at.

    Attributes:
        tables: Only these; all of the plan if empty. Parents left out must stand in the org already.
        sample_percent: Read only so much of each table.
        all_columns: Look at columns that go nowhere too.
        export: A folder for the keys of all findings, made if it is missing.
    """

    tables: tuple[str, ...] = ()
    sample_percent: str | None = None
    all_columns: bool = False
    export: Path | None = None


def exit_code(profile: Profile) -> ExitCode:
    """1 while a finding is open."""
    return ExitCode.ROWS_REFUSED if profile.open_findings else ExitCode.DONE


def profile_plan(
    plan_file: str | Path,
    settings: ProfileSettings | None = None,
    *,
    tell: Callable[[str], None] = lambda sentence: None,
    clock: Clock | None = None,
) -> Profile:
    """Profile a plan's tables and write down what was found.

    Args:
        tell: Told how far the work has come.
    Raises:
        UsageError: The settings name a table that the plan lacks, or a share that is none.
        PlanError: The plan does not fit source and org.
        SourceError, TargetError: A side cannot be asked.
    """
    clock, settings = clock or SystemClock(), settings or ProfileSettings()
    loaded = load_plan(plan_file)
    if later := unsupported(loaded.plan):
        raise loaded.error(later)
    percent = None if settings.sample_percent is None else SamplePercent.of(settings.sample_percent)
    limits = loaded.plan.limits
    shares = MemoryShares.of(limits.memory_mb, senders=limits.parallel_jobs + SENDERS_MORE)
    if settings.export is not None:
        _make_export(settings.export)
    with (
        open_state(loaded, clock=clock, create=True) as state,
        open_source(loaded, memory_mb=max(shares.source_mb, limits.memory_mb // 16)) as source,
        open_org(loaded, clock=clock) as org,
        tempfile.TemporaryDirectory(dir=state.storage.root, prefix="profile-") as scratch,
    ):
        compiled = compile_plan(loaded, source=source, org=org, only=settings.tables or None)
        as_of = source.now()
        world = ProfileWorld(
            source=source,
            clock=clock,
            works=compiled.works,
            fields={name: org.describe(work.plan.object).fields for name, work in compiled.works.items()},
            codecs={
                name: codec_name(work.plan.encoding or loaded.plan.source.encoding)
                for name, work in compiled.works.items()
            },
            make_parents=_parents_of(org, compiled),
            as_of=as_of,
            scratch=Path(scratch),
            memory_mb=limits.memory_mb,
            # Nothing is sent meanwhile, so a batch may be larger than a load's: each column is looked at on its own.
            batch_rows=max(2 * shares.batch_rows, min(100_000, 50 * limits.memory_mb)),
            slice_rows=_slice_rows(loaded),
            sample_percent=None if percent is None or percent.is_whole else percent.value,
            all_columns=settings.all_columns,
            export=settings.export,
            accepted=_accepted(state, loaded),
            through=Pace(clock=clock, rows_per_second=loaded.plan.source.limits.rows_per_second).through,
            tell=tell,
        )
        tables = tuple(profile_tables(world))
        profile = Profile(
            profile_id=_new_id(clock.now()),
            project=loaded.plan.project,
            plan_sha256=loaded.sha256,
            org_id=org.org_id,
            source_kind=source.kind,
            snapshot=source.snapshot(),
            as_of=as_of,
            sample_percent=None if world.sample_percent is None else f"{world.sample_percent:f}",
            taken_at=clock.now(),
            taken_by=owner(),
            tables=tables,
            circles=_circles(compiled),
        )
        state.audit.add_profile(
            ProfileRow(
                profile_id=profile.profile_id,
                project=profile.project,
                plan_sha256=profile.plan_sha256,
                org_id=profile.org_id,
                sample_percent=profile.sample_percent,
                open_findings=len(profile.open_findings),
                document=profile.document(),
                taken_by=profile.taken_by,
                taken_at=profile.taken_at,
            )
        )
        if not settings.tables:
            _add_evidence(state, profile)
        return profile


def _add_evidence(state: State, profile: Profile) -> None:
    """What a checklist cites; of a profile of all tables only."""
    totals = profile.document()["totals"]
    state.audit.add_evidence(
        project=profile.project,
        kind="profile",
        name=profile.profile_id,
        plan_sha256=profile.plan_sha256,
        org_id=profile.org_id,
        passed=not profile.open_findings,
        document={"profile_id": profile.profile_id, "sample_percent": profile.sample_percent, "totals": totals},
        by=profile.taken_by,
    )


def check_page(path: Path) -> None:
    """See that a page can be written there, before the work is done. Raises `UsageError`."""
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"the folder of `{path}` does not exist",
            state="nothing was read or written",
            hint="make it, or name another file under `--html`",
        )


def write_page(profile: Profile, path: Path) -> None:
    """Write the HTML page of a profile, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(html_page(profile), encoding="utf-8")
    new.replace(path)


def accept_finding(
    plan_file: str | Path, name: str, *, by: str, reason: str, clock: Clock | None = None
) -> AcceptedRow:
    """Accept a finding of the plan's newest profile by its name, with as many rows as it had there.

    Raises:
        StateConflict: There is no profile of this plan yet.
        UsageError: It holds no such finding, or who accepts it and why is not said.
    """
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    if not by.strip() or not reason.strip():
        raise UsageError(
            "who accepts the finding and why must be said",
            state="nothing was changed",
            hint="give `--by` and `--reason`",
        )
    with open_state(loaded, clock=clock, create=False) as state:
        newest = _newest(state, loaded)
        findings = {one["name"]: one for table in newest.document["tables"] for one in table["findings"]}
        if name not in findings:
            raise _unknown_finding(name, list(findings), newest.profile_id)
        row = AcceptedRow(
            finding=name,
            profile_id=newest.profile_id,
            found_rows=int(findings[name]["rows"]),
            accepted_by=by.strip(),
            reason=reason.strip(),
            accepted_at=clock.now(),
        )
        state.audit.accept_finding(loaded.plan.project, row)
        return row


def reopen_finding(plan_file: str | Path, name: str, *, by: str, clock: Clock | None = None) -> None:
    """Withdraw what somebody accepted. Raises `UsageError` if that finding is not accepted."""
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock or SystemClock(), create=False) as state:
        if not state.audit.withdraw_acceptance(loaded.plan.project, name, by=by):
            raise _unknown_finding(name, list(state.audit.accepted_findings(loaded.plan.project)), None)


def _newest(state: State, loaded: LoadedPlan) -> ProfileRow:
    newest = state.audit.newest_profile(loaded.plan.project)
    if newest is None:
        raise StateConflict(
            "there is no profile of this plan yet", state="nothing was changed", hint="run `forcelift profile`"
        )
    return newest


def _unknown_finding(name: str, known: Sequence[str], profile_id: str | None) -> UsageError:

    near = difflib.get_close_matches(name, known, n=1)
    where = f"profile `{profile_id}` holds no finding" if profile_id else "nobody has accepted a finding"
    names = ", ".join(f"`{one}`" for one in known[:10]) or "none"
    return UsageError(
        f"{where} `{name}`",
        state="nothing was changed",
        hint=f"did you mean `{near[0]}`?" if near else f"there is: {names}",
    )


def _make_export(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = next(folder.iterdir(), None)
    except OSError as error:
        raise UsageError(
            f"the folder `{folder}` cannot be used: {error.strerror}",
            state="nothing was read or written",
            hint="name another folder under `--export-keys`",
        ) from error
    if held is not None:
        raise UsageError(
            f"the folder `{folder}` is not empty",
            state="nothing was read or written",
            hint="name a new folder under `--export-keys`, so that lists of two profiles do not mix",
        )


def _slice_rows(loaded: LoadedPlan) -> int:
    rows = loaded.plan.chunks.rows
    return 2_000_000 if isinstance(rows, str) else max(1, rows)


def _accepted(state: State, loaded: LoadedPlan) -> dict[str, Acceptance]:
    return {
        name: Acceptance(by=row.accepted_by, reason=row.reason, rows=row.found_rows, at=row.accepted_at)
        for name, row in state.audit.accepted_findings(loaded.plan.project).items()
    }


def _parents_of(org: Org, compiled: Compiled) -> Callable[[LookupInfo, Callable[[], pl.LazyFrame]], ParentKeys]:
    def parents(info: LookupInfo, accepted: Callable[[], pl.LazyFrame]) -> ParentKeys:
        key = compiled.parent_keys[info.parent_object, info.key_field]
        return ParentIndex(org=org, object_name=info.parent_object, key=key, accepted=accepted)

    return parents


def _circles(compiled: Compiled) -> tuple[str, ...]:
    """Tables that refer to each other or to themselves, in words."""
    told = []
    for name, work in compiled.works.items():
        columns = [info for info in work.rules.lookups.values() if info.is_link]
        told += [f"{name}.{info.column} -> {info.parent_table}" for info in columns]
    return tuple(told)


def _new_id(now: datetime) -> str:
    return f"profile-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
