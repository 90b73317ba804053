"""The preflight of a plan: named checks of machine, source, audit database, org and plan.

Reads:   the plan file, the source's dictionary and a row of each table, the org, the machine.
Writes:  the audit database, which is made if there is none: the scorecard is evidence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from forcelift.account.recorded import owner
from forcelift.account.state import State, open_state
from forcelift.before.check import Area, CheckResult, Verdict, fit, machine, oracle
from forcelift.before.check import org as org_checks
from forcelift.before.check import source as source_checks
from forcelift.before.check.model import attempt, failed_by, passed, skipped
from forcelift.before.estimate import Allowance, Forecast, forecast
from forcelift.before.prepare import Decision, Preparer, find_fields, find_history
from forcelift.errors import ForceliftError, OrgNotFound, PlanError, Problem
from forcelift.opening.assembly import Compiled, compile_plan, open_org, open_setup, open_source
from forcelift.plan import LoadedPlan, load_plan, unsupported
from forcelift.plan.thresholds import threshold_values
from forcelift.plan.windows import parse_hours
from forcelift.preflight.estimating import EstimateSettings, measure_plan
from forcelift.preflight.lasting import Lasting, forecast_snapshot
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import ObjectDescribe, Org
from forcelift.protocols.setup import Setup
from forcelift.protocols.source import Source
from forcelift.storage import disk_of

KIND: Final = "check"
"""The kind of evidence that a preflight is."""

_OF_SOURCE = ("source_readable", "source_keys")
_OF_ORG = (
    "org_kind",
    "clock_skew",
    "api_version",
    "api_requests",
    "rows_of_the_day",
    "salesforce_batches",
    "bulk_queries",
    "data_storage",
    "user_permissions",
    "object_permissions",
    "field_security",
    "external_ids",
    "required_fields",
    "audit_fields",
    "automations",
    "duplicate_rules",
    "field_history",
    "cli_agrees",
)


class CheckReport(Struct, frozen=True, kw_only=True):
    """The scorecard.

    Attributes:
        evidence_no: Under which it stands in the audit database; None if that cannot be written.
        org_id, is_production: None if the org cannot be reached.
    """

    project: str
    plan_sha256: str
    results: tuple[CheckResult, ...]
    org_id: str | None
    is_production: bool | None
    made_at: datetime
    evidence_no: int | None

    def of(self, verdict: Verdict) -> list[CheckResult]:
        """The checks with that verdict."""
        return [one for one in self.results if one.verdict is verdict]


class _Looking(Struct, kw_only=True):
    """What the checks share, as far as it could be opened."""

    loaded: LoadedPlan
    clock: Clock
    environment: Mapping[str, str]
    results: list[CheckResult] = field(default_factory=list)
    source: Source | None = None
    org: Org | None = None
    setup: Setup | None = None
    state: State | None = None
    forecast: Forecast | None = None
    is_production: bool | None = None
    compiled: Compiled | None = None


def check_plan(
    plan_file: str | Path, *, clock: Clock | None = None, environment: Mapping[str, str] | None = None
) -> CheckReport:
    """Look at everything that a load needs before it needs it.

    What cannot be opened is a failed check, and what rests on it is skipped.

    Args:
        environment: Variables that tell how Airflow is configured; this process's if None.
    Raises:
        PlanError: The plan file itself has faults.
    """
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    looking = _Looking(loaded=loaded, clock=clock, environment=os.environ if environment is None else environment)
    with ExitStack() as stack:
        looking.state = _open(
            looking, stack, "audit_writable", Area.AUDIT, lambda: open_state(loaded, clock=clock, create=True)
        )
        looking.source = _open(looking, stack, "source_reachable", Area.SOURCE, lambda: open_source(loaded))
        looking.org = _open(looking, stack, "org_reachable", Area.ORG, lambda: open_org(loaded, clock=clock))
        _check_source(looking)
        _check_org(looking)
        _check_oracle(looking)
        _check_machine(looking)
        return _recorded(looking)


def _open(looking: _Looking, stack: ExitStack, name: str, area: Area, opens: Callable[[], Any]) -> Any:
    """What a context manager gives; None and a failed check if it raises."""
    try:
        return stack.enter_context(opens())
    except ForceliftError as error:
        looking.results.append(failed_by(name, area, error))
        return None


def _check_source(looking: _Looking) -> None:
    source, tables = looking.source, looking.loaded.plan.tables
    if source is None:
        looking.results += fit.not_looked(_OF_SOURCE, Area.SOURCE, "the source cannot be reached")
        return
    looking.results.append(passed("source_reachable", Area.SOURCE, source.kind, f"{len(source.tables()):,} tables"))
    readable, described = source_checks.tables_readable(source, tables)
    looking.results.append(readable)
    looking.results.append(source_checks.keys(source, tables, described))
    if readable.verdict is Verdict.PASS:
        sizes = measure_plan(looking.loaded, EstimateSettings(by_statistics=True), source=source)
        looking.forecast = forecast(
            sizes,
            _allowance(looking),
            begins_at=looking.clock.now(),
            one_call=looking.loaded.audit_url().startswith("sqlite"),
        )


def _allowance(looking: _Looking) -> Allowance:
    limits = looking.loaded.plan.limits
    return Allowance(
        rows_per_day=limits.rows_per_day,
        hours=parse_hours(limits.window) if limits.window is not None else None,
        spent=_spent(looking),
    )


def _spent(looking: _Looking) -> int:
    if looking.state is None or looking.org is None:
        return 0
    return looking.state.audit.reserved(looking.org.org_id)[0]


def _check_org(looking: _Looking) -> None:
    org, loaded = looking.org, looking.loaded
    if org is None:
        looking.results += fit.not_looked(_OF_ORG, Area.ORG, "the org cannot be reached")
        return
    setup = open_setup(org, clock=looking.clock)
    facts = setup.facts()
    looking.is_production = facts.is_production
    looking.results.append(org_checks.reachable(org, facts))
    looking.results.append(org_checks.kind(facts))
    try:
        host = setup.host()
        looking.results.append(org_checks.clock_skew(host, looking.clock.now()))
        looking.results.append(org_checks.api_version(host, org.api_version))
    except ForceliftError as error:
        looking.results += [failed_by(name, Area.ORG, error) for name in ("clock_skew", "api_version")]
    _check_limits(looking, org)
    _check_fit(looking, org, setup)
    auth = loaded.plan.target.auth
    alias = auth.alias if auth is not None and auth.flow == "sf_cli" else None
    looking.results.append(machine.cli_agrees(alias, org_id=org.org_id, url=org.url, user_name=org.user_name))


def _check_limits(looking: _Looking, org: Org) -> None:
    names = ("api_requests", "rows_of_the_day", "salesforce_batches", "bulk_queries", "data_storage")
    foretold, plan = looking.forecast, looking.loaded.plan
    if foretold is None:
        looking.results += fit.not_looked(names, Area.ORG, "the source's rows are not known")
        return
    try:
        limits = org.limits()
    except ForceliftError as error:
        looking.results += [failed_by(name, Area.ORG, error) for name in names]
        return
    looking.results += [
        org_checks.api_requests(limits, foretold, reserve=plan.limits.api_calls_reserve),
        org_checks.rows_of_the_day(foretold, rows_per_day=plan.limits.rows_per_day, spent=_spent(looking)),
        org_checks.salesforce_batches(limits, foretold),
        org_checks.bulk_queries(limits, foretold),
        org_checks.data_storage(limits, foretold),
    ]


def _check_fit(looking: _Looking, org: Org, setup: Setup) -> None:
    loaded, results = looking.loaded, looking.results
    tables = loaded.plan.tables
    describes: dict[str, ObjectDescribe] = {}
    for table in tables:
        try:
            describes.setdefault(table.object, org.describe(table.object))
        except OrgNotFound:  # told by `object_permissions` and `field_types`
            continue
    known = [table for table in tables if table.object in describes]
    switches: list[bool] = []

    def look(name: str, check: Callable[[], CheckResult]) -> None:
        results.append(attempt(name, Area.ORG, check))

    def automations() -> Iterator[CheckResult]:
        if looking.state is None:
            yield from fit.not_looked(("automations", "duplicate_rules"), Area.ORG, "the audit database cannot be used")
            return
        preparer = Preparer(
            setup=setup,
            audit=looking.state.audit,
            org_id=org.org_id,
            by=owner(),
            clock=looking.clock,
            run_tests=loaded.plan.prepare.run_tests,
            told=lambda sentence: None,
        )
        found = preparer.look([one.name for one in describes.values()], loaded.plan.prepare.leave_on)
        switches.append(bool(found.of(Decision.SWITCH)))
        yield fit.automations(found)
        yield fit.duplicate_rules(found)

    try:
        results += list(automations())
    except ForceliftError as error:
        results += [failed_by(name, Area.ORG, error) for name in ("automations", "duplicate_rules")]
    look(
        "user_permissions",
        lambda: org_checks.user_permissions(setup.permissions(), switches=any(switches)),
    )
    look("object_permissions", lambda: fit.object_permissions(tables, describes))
    look("field_security", lambda: fit.field_security(tables, describes, setup))
    look("external_ids", lambda: fit.external_ids(find_fields(known, describes, setup)))
    look(
        "field_history",
        lambda: fit.field_history(find_history(known, describes, setup, loaded.plan.prepare.track_history)),
    )
    look("required_fields", lambda: fit.required_fields(tables, describes))
    look("audit_fields", lambda: fit.audit_fields(tables, describes))
    if looking.source is None:
        results += fit.not_looked(("field_types",), Area.PLAN, "the source cannot be reached")
        return
    results.append(attempt("field_types", Area.PLAN, lambda: fit.plan_fits(_problems(looking, org))))


def _problems(looking: _Looking, org: Org) -> Sequence[Problem]:
    assert looking.source is not None
    found: list[Problem] = list(unsupported(looking.loaded.plan))
    try:
        looking.compiled = compile_plan(looking.loaded, source=looking.source, org=org)
    except PlanError as error:
        found += error.problems
    return found


def _check_oracle(looking: _Looking) -> None:
    """What only an Oracle source can lack."""
    source, loaded = looking.source, looking.loaded
    if source is None or source.kind != "oracle":
        return

    def undo() -> CheckResult:
        if looking.compiled is None:
            return skipped("oracle_undo", Area.SOURCE, "the plan does not compile against source and org")
        works = looking.compiled.works.values()
        found = forecast_snapshot(loaded, source, works, disk=disk_of(Path(loaded.staging())), clock=looking.clock)
        if found is None:
            return skipped("oracle_undo", Area.SOURCE, "the batch reads without a snapshot")
        kept = "unknown" if found.snapshot_seconds is None else f"{found.snapshot_seconds:,.0f} s"
        figures = f"reading {found.run_seconds:,.0f} s, undo kept {kept}"
        return oracle.undo(found.sentences(), is_short=found.verdict is Lasting.TOO_SHORT, figures=figures)

    looking.results += [
        attempt("oracle_grants", Area.SOURCE, lambda: oracle.grants(source)),
        attempt("oracle_password", Area.SOURCE, lambda: oracle.password(source)),
        attempt("oracle_nls", Area.SOURCE, lambda: oracle.characters(source, loaded.plan)),
        attempt("oracle_undo", Area.SOURCE, undo),
    ]


def _check_machine(looking: _Looking) -> None:
    loaded = looking.loaded
    thresholds = threshold_values(loaded.plan.thresholds)
    folder = Path(loaded.staging())
    foretold = looking.forecast
    looking.results += [
        attempt(
            "staging_disk",
            Area.MACHINE,
            lambda: machine.staging_disk(
                disk_of(folder),
                folder=str(folder),
                needed=sum(one.staging_bytes for one in foretold.tables) if foretold is not None else 0,
                limit=int(loaded.plan.limits.staging_gb * 1e9),
                warning=thresholds["disk_usage_warning"],
                critical=thresholds["disk_usage_critical"],
            ),
        ),
        machine.memory(budget_mb=loaded.plan.limits.memory_mb, total_mb=machine.total_memory_mb()),
        machine.redis(looking.environment),
        machine.airflow_workers(looking.environment),
    ]


def _recorded(looking: _Looking) -> CheckReport:
    """The scorecard, in the order of its areas, written down where that can be."""
    loaded, state = looking.loaded, looking.state
    org_id = looking.org.org_id if looking.org is not None else None
    evidence_no = None
    if state is not None:
        looking.results.append(passed("audit_writable", Area.AUDIT, "written to", state.audit.where))
    order = list(Area)
    results = tuple(sorted(looking.results, key=lambda one: order.index(one.area)))
    if state is not None:
        try:
            made = state.audit.add_evidence(
                project=loaded.plan.project,
                kind=KIND,
                name=KIND,
                plan_sha256=loaded.sha256,
                org_id=org_id,
                passed=not any(one.verdict is Verdict.FAIL for one in results),
                document={"results": [result_document(one) for one in results]},
                by=owner(),
            )
            evidence_no = made.evidence_no
        except ForceliftError as error:
            others = [one for one in results if one.name != "audit_writable"]
            results = (*others, failed_by("audit_writable", Area.AUDIT, error))
    return CheckReport(
        project=loaded.plan.project,
        plan_sha256=loaded.sha256,
        results=results,
        org_id=org_id,
        is_production=looking.is_production,
        made_at=looking.clock.now(),
        evidence_no=evidence_no,
    )


def result_document(one: CheckResult) -> dict[str, Any]:
    """One check as JSON has it."""
    return {
        "name": one.name,
        "area": one.area.value,
        "verdict": one.verdict.value,
        "figure": one.figure,
        "evidence": list(one.evidence),
        "fix": one.fix,
    }
