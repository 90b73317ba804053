"""Checks of the plan against the org: objects, fields, the external ID, and what acts on records.

Reads:   describes, and fields as setup shows them.
Writes:  nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forcelift.before.check.model import Area, CheckResult, failed, passed, skipped, some, warned
from forcelift.before.prepare import (
    Decision,
    FieldFinding,
    FieldState,
    HistoryFinding,
    PreparePlan,
    mapped_fields,
)
from forcelift.errors import Problem
from forcelift.plan import TablePlan
from forcelift.protocols.org import ObjectDescribe
from forcelift.protocols.setup import AutomationKind, Setup

_ORG, _PLAN = Area.ORG, Area.PLAN
AUDIT_FIELDS = frozenset({"CreatedById", "CreatedDate", "LastModifiedById", "LastModifiedDate"})

Tables = Sequence[TablePlan]
Describes = Mapping[str, ObjectDescribe]


def object_permissions(tables: Tables, describes: Describes) -> CheckResult:
    """Whether the user may query, create and edit records, and delete them for a rollback."""
    lacking, undeletable = [], []
    for table in tables:
        describe = describes.get(table.object)
        if describe is None:
            lacking.append(f"{table.object}: not there, or not visible to this user")
            continue
        need = {"query": describe.queryable, "create": describe.createable}
        if table.operation == "upsert":
            need["edit"] = describe.updateable
        lacking += [f"{describe.name}: may not {what}" for what, may in need.items() if not may]
        if not describe.deletable:
            undeletable.append(f"{describe.name}: may not delete")
    count = f"{len({table.object for table in tables})} objects"
    if lacking:
        fix = "give the user read, create and edit on these objects, by a permission set"
        return failed("object_permissions", _ORG, f"{len(lacking)} lacking", *some(lacking), fix=fix)
    if undeletable:
        fix = "give the user delete on these objects, or nothing that was created can be rolled back"
        return warned("object_permissions", _ORG, "no delete", *some(undeletable), fix=fix)
    return passed("object_permissions", _ORG, count, "query, create, edit and delete")


def field_security(tables: Tables, describes: Describes, setup: Setup) -> CheckResult:
    """Whether every field that the plan fills is visible to the user and may be written."""
    hidden, read_only, total = [], [], 0
    for table in tables:
        if (describe := describes.get(table.object)) is None:
            continue
        for name in mapped_fields(table, describe):
            total += 1
            field = describe.fields.get(name)
            if field is None:
                if "." not in name and setup.field(describe.name, name) is not None:
                    hidden.append(f"{describe.name}.{name}: there, but this user may not see it")
            elif not (field.createable or name.lower() == "id") or (
                table.operation == "upsert"
                and not field.updateable
                # The parent of a master-detail is set when a record is made, and often fixed from then on.
                and not field.cascade_delete
                and name not in AUDIT_FIELDS
            ):
                read_only.append(f"{describe.name}.{name}: may not be written")
    if hidden or read_only:
        fix = "grant read and edit of these fields to the user (field-level security), by a permission set"
        found = [*hidden, *read_only]
        return failed("field_security", _ORG, f"{len(found)} of {total} fields", *some(found), fix=fix)
    return passed("field_security", _ORG, f"{total} fields", "each visible, and to be written by this user")


def external_ids(findings: Sequence[FieldFinding]) -> CheckResult:
    """Whether the external ID fields are there, unique and indexed."""
    name = "external_ids"
    bad = [f"{one.object}.{one.field}: {one.state.value}" for one in findings if one.state is not FieldState.FINE]
    notes = [f"{one.object}.{one.field}: {note}" for one in findings for note in one.notes]
    if bad:
        fix = "`forcelift prepare --execute` makes and grants those that are missing"
        return failed(name, _ORG, f"{len(bad)} of {len(findings)}", *some(bad), fix=fix)
    doubtful = [note for note in notes if "not unique" in note or "not indexed" in note]
    if doubtful:
        fix = "make the field unique in Setup; unique external IDs are indexed"
        return warned(name, _ORG, f"{len(doubtful)} doubtful", *some(doubtful), fix=fix)
    fine = [f"{one.object}.{one.field}: there, and an external ID" for one in findings]
    return passed(name, _ORG, f"{len(findings)} fields", *some([*fine, *notes]))


def field_history(findings: Sequence[HistoryFinding]) -> CheckResult:
    """Which fields that the plan fills have their history tracked: each change of one writes a record more."""
    asked = [f"{one.object}.{name}: asked for, and not tracked" for one in findings for name in one.asked]
    if asked:
        fix = "`forcelift prepare --execute` switches it on, where the object itself tracks history"
        return warned("field_history", _ORG, f"{len(asked)} asked for are not tracked", *some(asked), fix=fix)
    tracked = [f"{one.object}.{name}" for one in findings for name in one.tracked if name not in one.wanted]
    if tracked:
        fix = "leave it, and name them in `prepare.track_history`, if the load's changes are to be tracked; else switch"
        fix += " field history off for the load"
        return warned("field_history", _ORG, f"{len(tracked)} fields tracked", *some(tracked), fix=fix)
    if wanted := [f"{one.object}.{name}" for one in findings for name in one.wanted]:
        return passed("field_history", _ORG, f"{len(wanted)} tracked, as asked for", *some(wanted))
    return passed("field_history", _ORG, "none tracked", "no field that the plan fills writes history")


def plan_fits(problems: Sequence[Problem]) -> CheckResult:
    """Whether objects, fields, types and rules fit together, by the compiler that a run uses."""
    if problems:
        fix = problems[0].hint or "mend the lines of the plan that are named"
        return failed("field_types", _PLAN, f"{len(problems)} problems", *some([str(p) for p in problems]), fix=fix)
    return passed("field_types", _PLAN, "all fit", "as `forcelift run` would compile them")


def required_fields(tables: Tables, describes: Describes) -> CheckResult:
    """Whether every field that a new record must have is filled."""
    missing, total = [], 0
    for table in tables:
        if (describe := describes.get(table.object)) is None:
            continue
        filled = {name.lower() for name in mapped_fields(table, describe)}
        for field in describe.fields.values():
            if field.required and field.type != "boolean":
                total += 1
                if field.name.lower() not in filled:
                    missing.append(f"{describe.name}.{field.name} ({field.type})")
    if missing:
        fix = "map a column onto each, or give it a constant"
        return failed("required_fields", _PLAN, f"{len(missing)} of {total} not filled", *some(missing), fix=fix)
    return passed("required_fields", _PLAN, f"{total} required", "each is filled")


def audit_fields(tables: Tables, describes: Describes) -> CheckResult:
    """Whether audit fields that the plan sets may be set, which an administrator has to allow."""
    asked, refused = [], []
    for table in tables:
        if (describe := describes.get(table.object)) is None:
            continue
        for name in mapped_fields(table, describe):
            if name in AUDIT_FIELDS:
                asked.append(f"{describe.name}.{name}")
                field = describe.fields.get(name)
                if field is None or not field.createable:
                    refused.append(f"{describe.name}.{name}: may not be set")
    if not asked:
        return passed("audit_fields", _PLAN, "none asked for", "the plan sets no CreatedDate and the like")
    if refused:
        fix = "switch `Set Audit Fields upon Record Creation` on in Setup, and give the user that permission"
        return failed("audit_fields", _PLAN, f"{len(refused)} of {len(asked)}", *some(refused), fix=fix)
    return passed("audit_fields", _PLAN, f"{len(asked)} may be set", "on new records only")


def automations(plan: PreparePlan) -> CheckResult:
    """Which automations act on the records of a load."""
    kinds = [kind for kind in AutomationKind if kind is not AutomationKind.DUPLICATE_RULE]
    return _active("automations", plan, kinds, "automations")


def duplicate_rules(plan: PreparePlan) -> CheckResult:
    """Which duplicate rules act on the records of a load."""
    return _active("duplicate_rules", plan, [AutomationKind.DUPLICATE_RULE], "duplicate rules")


def _active(name: str, plan: PreparePlan, kinds: Sequence[AutomationKind], noun: str) -> CheckResult:
    of_kind = [item for item in plan.items if item.item.kind in kinds]
    on = [str(item.item) for item in of_kind if item.decision is Decision.SWITCH]
    changed = [f"{item.item}: changed by somebody" for item in of_kind if item.decision is Decision.CHANGED]
    stays = [
        f"{item.item}: {item.decision.value}"
        for item in of_kind
        if item.decision in (Decision.LEAVE, Decision.LEAVE_OFF, Decision.MANAGED)
    ]
    unplaced = [f"not told whether it is of these objects: {one}" for one in plan.unplaced] if on or stays else []
    if changed:
        return failed(name, _ORG, f"{len(changed)} changed", *some(changed), fix="`forcelift restore` shows what to do")
    if on:
        fix = "`forcelift prepare --execute`, or `forcelift run --prepare`; name those that shall act in `leave_on`"
        return warned(name, _ORG, f"{len(on)} {noun} on", *some([*on, *stays, *unplaced]), fix=fix)
    off = sum(item.decision in (Decision.INACTIVE, Decision.JOIN) for item in of_kind)
    return passed(name, _ORG, f"no {noun} to switch off", f"{off} are inactive or switched off", *some(stays))


def not_looked(names: Sequence[str], area: Area, why: str) -> list[CheckResult]:
    """Checks that could not be made because another one failed."""
    return [skipped(name, area, why) for name in names]
