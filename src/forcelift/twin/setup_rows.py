"""Records of setup objects: the profile and permission set of every org, and the data API's view of automations."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import duckdb

from forcelift.twin.automation_models import Automations, RecordFlow
from forcelift.twin.automation_state import AutomationState
from forcelift.twin.ids import make_id
from forcelift.twin.schema import Schema
from forcelift.twin.standard import USER_PERMISSIONS
from forcelift.twin.users import User

PROFILE = "System Administrator"


def install_setup_rows(cursor: duckdb.DuckDBPyConnection, pod: str, audit: dict[str, object]) -> None:
    """Write the administrators' profile and its permission set, unless they are there."""
    profile_id = make_id("00e", pod, 1)
    if cursor.execute("SELECT 1 FROM data.Profile").fetchone() is None:
        _insert(cursor, "Profile", {"Id": profile_id, "Name": PROFILE, "UserType": "Standard", **audit})
        _insert(
            cursor,
            "PermissionSet",
            {
                "Id": make_id("0PS", f"{pod}", 62**8),  # far from the Ids that inserts will count up to
                "Name": "X00ex00000000000AAA",
                "Label": PROFILE,
                "ProfileId": profile_id,
                "IsOwnedByProfile": True,
                **audit,
            },
        )


def show_user_permissions(cursor: duckdb.DuckDBPyConnection, users: Iterable[User]) -> None:
    """Write what each user may do anew. A query sees the row of its own user alone, whose Id the row has."""
    cursor.execute("DELETE FROM data.UserPermissionAccess")
    for user in users:
        may = {name: need is None or need in user.permissions for name, need in USER_PERMISSIONS.items()}
        _insert(cursor, "UserPermissionAccess", {"Id": user.id, "IsDeleted": False, **may})


def show_automations(
    cursor: duckdb.DuckDBPyConnection,
    automations: Automations,
    *,
    state: AutomationState,
    schema: Schema,
    now: datetime,
) -> None:
    """Write the rows of DuplicateRule, AssignmentRule and FlowDefinitionView anew, in the caller's transaction."""
    stamp = now.replace(tzinfo=None, microsecond=0)
    row = cursor.execute('SELECT min(Id) FROM data."User"').fetchone()
    user = row[0] if row is not None else None
    audit = {
        "IsDeleted": False,
        "CreatedDate": stamp,
        "CreatedById": user,
        "LastModifiedDate": stamp,
        "LastModifiedById": user,
        "SystemModstamp": stamp,
    }
    cursor.execute("DELETE FROM data.DuplicateRule")
    for rule in automations.duplicate_rules:
        values = {
            "Id": state.id_of("duplicate_rules", rule.full_name),
            "DeveloperName": rule.name,
            "MasterLabel": rule.label or rule.name.replace("_", " "),
            "SobjectType": rule.object,
            "IsActive": rule.active,
            "NamespacePrefix": rule.namespace,
        }
        _insert(cursor, "DuplicateRule", {**values, **audit})
    cursor.execute("DELETE FROM data.AssignmentRule")
    for assignment in automations.assignment_rules:
        values = {
            "Id": state.assignment_rule_id(assignment),
            "Name": assignment.name,
            "SobjectType": assignment.object,
            "Active": assignment.active,
        }
        _insert(cursor, "AssignmentRule", {**values, **audit})
    cursor.execute("DELETE FROM data.FlowDefinitionView")
    for flow in automations.flows:
        _insert(cursor, "FlowDefinitionView", {**_flow_view(flow, state, schema), **audit})


def _flow_view(flow: RecordFlow, state: AutomationState, schema: Schema) -> dict[str, Any]:
    flow_id = state.id_of("flows", flow.full_name)
    latest = max(version.number for version in flow.versions)
    target = schema.object(flow.object)
    return {
        "Id": flow_id,
        "DurableId": flow_id,
        "ApiName": flow.name,
        "Label": flow.label or flow.name.replace("_", " "),
        "ProcessType": flow.process_type,
        "TriggerType": "RecordBeforeSave" if flow.timing == "before_save" else "RecordAfterSave",
        "RecordTriggerType": {"create": "Create", "update": "Update", "delete": "Delete"}.get(
            flow.on, "CreateAndUpdate"
        ),
        "TriggerObjectOrEventLabel": flow.object if target is None else target.label,
        "TriggerObjectOrEventId": flow.object,
        "IsActive": flow.active,
        "ActiveVersionId": state.version_id(flow.name, flow.active_version) if flow.active_version else None,
        "LatestVersionId": state.version_id(flow.name, latest),
        "VersionNumber": flow.active_version or latest,
        "NamespacePrefix": flow.namespace,
    }


def _insert(cursor: duckdb.DuckDBPyConnection, name: str, record: dict[str, object]) -> None:
    columns, marks = ", ".join(f'"{key}"' for key in record), ", ".join("?" * len(record))
    cursor.execute(f'INSERT INTO data."{name}" ({columns}) VALUES ({marks})', list(record.values()))
