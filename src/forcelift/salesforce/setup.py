"""The org's setup, as `forcelift.protocols.setup.Setup` wants it: automations, each by its own API, and fields.

Reads:   Tooling queries and records, FlowDefinitionView and DuplicateRule of the data API, metadata retrieves.
Writes:  `Metadata` of rules and flow definitions (Tooling), files of triggers and duplicate rules (deploys), custom
         fields and their field-level security.
Re-run:  everything written is a whole state, so that writing it twice is the same as once.
Source:  section 6 of the API reference.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

from forcelift.errors import TargetError, UsageError
from forcelift.protocols.clock import Clock
from forcelift.protocols.setup import (
    Automation,
    AutomationKind,
    FieldSeen,
    Found,
    Grant,
    HostFacts,
    ItemName,
    ItemState,
    NewField,
    OrgFacts,
    Permissions,
)
from forcelift.salesforce import metadata, tooling
from forcelift.salesforce.org import SalesforceOrg
from forcelift.salesforce.soql import identifier, quoted

TOOLING_TYPES: Final = {
    AutomationKind.VALIDATION_RULE: "ValidationRule",
    AutomationKind.WORKFLOW_RULE: "WorkflowRule",
    AutomationKind.FLOW: "FlowDefinition",
}
METADATA_TYPES: Final = {AutomationKind.TRIGGER: "ApexTrigger", AutomationKind.DUPLICATE_RULE: "DuplicateRule"}
_KIND_OF: Final = {name: kind for kind, name in METADATA_TYPES.items()}
_PERMISSIONS: Final = {
    "api_enabled": "PermissionsApiEnabled",
    "bulk_hard_delete": "PermissionsBulkApiHardDelete",
    "customize_application": "PermissionsCustomizeApplication",
    "modify_metadata": "PermissionsModifyMetadata",
}
_EDITIONS_NOT_PRODUCTION: Final = ("Developer Edition",)
# The one place in the file that says whether it acts, when it does, and what stands there when it does not.
_SWITCHES: Final = {
    AutomationKind.TRIGGER: (re.compile(rb"<status>\s*Active\s*</status>"), b"<status>Inactive</status>"),
    AutomationKind.DUPLICATE_RULE: (re.compile(rb"<isActive>\s*true\s*</isActive>"), b"<isActive>false</isActive>"),
}


class SalesforceSetup:
    """The setup of a signed-in org. Implements `forcelift.protocols.setup.Setup`."""

    def __init__(self, org: SalesforceOrg, *, clock: Clock) -> None:
        self._org = org
        self._clock = clock
        self._organization: dict[str, Any] | None = None

    def facts(self) -> OrgFacts:
        """What kind of org it is: production is what is neither sandbox, nor Developer Edition, nor a trial."""
        row = self._org_row()
        edition = str(row.get("OrganizationType") or "")
        is_spare = bool(row.get("IsSandbox")) or row.get("TrialExpirationDate") is not None
        return OrgFacts(
            name=str(row.get("Name") or ""),
            edition=edition,
            is_production=not is_spare and edition not in _EDITIONS_NOT_PRODUCTION,
        )

    def host(self) -> HostFacts:
        """The host's clock by the `Date` of an answer (RFC 9110), which has whole seconds."""
        versions, date = self._org.transport.versions()
        try:
            now = parsedate_to_datetime(date) if date is not None else None
        except ValueError:  # no date: the org's clock is not known
            now = None
        return HostFacts(now=now, versions=tuple(versions))

    def permissions(self) -> Permissions:
        """By `UserPermissionAccess`, which has the signed-in user's one row; an org has columns for what it knows."""
        known = self._org.describe("UserPermissionAccess").fields
        columns = [column for column in _PERMISSIONS.values() if column in known]
        row: Mapping[str, Any] = {}
        if columns:
            row = next(self._org.query(f"SELECT {', '.join(columns)} FROM UserPermissionAccess"), {})
        return Permissions(
            **{name: bool(row[column]) if column in row else None for name, column in _PERMISSIONS.items()}
        )

    def _org_row(self) -> dict[str, Any]:
        if self._organization is None:
            columns = "Name, OrganizationType, IsSandbox, TrialExpirationDate, NamespacePrefix"
            found = next(self._org.query(f"SELECT {columns} FROM Organization LIMIT 1"), None)
            if found is None:
                raise TargetError(
                    "the org does not show its Organization record to this user, so it may be a production org",
                    state="nothing was read or written",
                    hint="give the user `API Enabled` and `View Setup and Configuration`",
                )
            self._organization = found
        return self._organization

    def find(self, objects: Sequence[str]) -> Found:
        """All automations of these objects, active or not, managed ones too."""
        names = [identifier(name) for name in objects]
        entities = tooling.Entities(self._org, names)
        unplaced: list[str] = []
        found = [
            *self._triggers(entities),
            *self._flows(entities, unplaced),
            *self._workflow_rules(entities),
            *self._validation_rules(names),
            *self._duplicate_rules(names),
        ]
        return Found(automations=tuple(found), unplaced=tuple(unplaced))

    def _namespace(self, row: Mapping[str, Any]) -> str | None:
        """The managed package's; what is of the org's own namespace can be changed."""
        namespace = row.get("NamespacePrefix")
        return str(namespace) if namespace and namespace != self._org_row().get("NamespacePrefix") else None

    def _name(self, row: Mapping[str, Any], column: str) -> str:
        """The name, with that of its package before it: the org may have one of its own that is called the same."""
        namespace = self._namespace(row)
        return str(row[column]) if namespace is None else f"{namespace}__{row[column]}"

    def _triggers(self, entities: tooling.Entities) -> Iterator[Automation]:
        for row in tooling.query(self._org, "SELECT Id, Name, TableEnumOrId, Status, NamespacePrefix FROM ApexTrigger"):
            object_name = entities.of(row["TableEnumOrId"])
            if object_name is not None:
                yield Automation(
                    item=ItemName(AutomationKind.TRIGGER, self._name(row, "Name")),
                    object=object_name,
                    record_id=str(row["Id"]),
                    is_active=row["Status"] == "Active",
                    namespace=self._namespace(row),
                )

    def _flows(self, entities: tooling.Entities, unplaced: list[str]) -> Iterator[Automation]:
        columns = "DurableId, ApiName, ProcessType, TriggerObjectOrEventId, IsActive, NamespacePrefix"
        for row in self._org.query(f"SELECT {columns} FROM FlowDefinitionView"):
            told = row.get("TriggerObjectOrEventId")
            object_name = entities.of(told)
            if object_name is not None:
                yield Automation(
                    item=ItemName(AutomationKind.FLOW, self._name(row, "ApiName")),
                    object=object_name,
                    record_id=str(row["DurableId"]),
                    is_active=bool(row["IsActive"]),
                    namespace=self._namespace(row),
                )
            elif not told and row.get("ProcessType") == "Workflow" and row["IsActive"]:
                unplaced.append(f"process {row['ApiName']}")

    def _workflow_rules(self, entities: tooling.Entities) -> Iterator[Automation]:
        soql = "SELECT Id, Name, TableEnumOrId, NamespacePrefix FROM WorkflowRule"
        for row in tooling.query(self._org, soql):
            object_name = entities.of(row["TableEnumOrId"])
            if object_name is not None:
                yield Automation(
                    item=ItemName(AutomationKind.WORKFLOW_RULE, f"{object_name}.{self._name(row, 'Name')}"),
                    object=object_name,
                    record_id=str(row["Id"]),
                    is_active=None,
                    namespace=self._namespace(row),
                )

    def _validation_rules(self, objects: Sequence[str]) -> Iterator[Automation]:
        columns = "Id, ValidationName, Active, NamespacePrefix, EntityDefinition.QualifiedApiName"
        for part in tooling.parts(objects):
            listed = ", ".join(quoted(name) for name in part)
            where = f"EntityDefinition.QualifiedApiName IN ({listed})"
            for row in tooling.query(self._org, f"SELECT {columns} FROM ValidationRule WHERE {where}"):
                object_name = str(row["EntityDefinition"]["QualifiedApiName"])
                yield Automation(
                    item=ItemName(AutomationKind.VALIDATION_RULE, f"{object_name}.{self._name(row, 'ValidationName')}"),
                    object=object_name,
                    record_id=str(row["Id"]),
                    is_active=bool(row["Active"]),
                    namespace=self._namespace(row),
                )

    def _duplicate_rules(self, objects: Sequence[str]) -> Iterator[Automation]:
        names = {name.lower() for name in objects}
        columns = "Id, DeveloperName, SobjectType, IsActive, NamespacePrefix"
        for row in self._org.query(f"SELECT {columns} FROM DuplicateRule"):
            if str(row["SobjectType"]).lower() in names:
                yield Automation(
                    item=ItemName(
                        AutomationKind.DUPLICATE_RULE, f"{row['SobjectType']}.{self._name(row, 'DeveloperName')}"
                    ),
                    object=str(row["SobjectType"]),
                    record_id=str(row["Id"]),
                    is_active=bool(row["IsActive"]),
                    namespace=self._namespace(row),
                )

    def read(self, automations: Sequence[tuple[ItemName, str]]) -> dict[ItemName, ItemState]:
        """The exact states: whole Tooling records one by one, files by one retrieve."""
        found: dict[ItemName, ItemState] = {}
        members: dict[str, list[str]] = {}
        wanted: dict[tuple[str, str], tuple[ItemName, str]] = {}
        for item, record_id in automations:
            if item.kind in TOOLING_TYPES:
                record = tooling.record(self._org, TOOLING_TYPES[item.kind], record_id)
                if record is not None:
                    block = record["Metadata"]
                    if item.kind is AutomationKind.FLOW:
                        # 0 and null both say that no version is active; one of them makes equal states equal.
                        block = {**block, "activeVersionNumber": block.get("activeVersionNumber") or None}
                    document = {"id": record_id, "FullName": record.get("FullName"), "Metadata": block}
                    found[item] = self.restored(document, item)
            else:
                kind = METADATA_TYPES[item.kind]
                members.setdefault(kind, []).append(item.name)
                wanted[kind, item.name.lower()] = item, record_id
        if members:
            for component in metadata.retrieve(self._org, members, clock=self._clock):
                named = wanted.get((component.type, component.full_name.lower()))
                if named is not None:
                    item, record_id = named
                    files = {path: base64.b64encode(data).decode() for path, data in sorted(component.files.items())}
                    document = {"id": record_id, "fullName": component.full_name, "files": files}
                    found[item] = self.restored(document, item)
        return found

    def restored(self, document: Mapping[str, Any], item: ItemName) -> ItemState:
        """A state from its document."""
        return ItemState(
            item=item,
            record_id=str(document["id"]),
            is_active=_is_active(item.kind, document),
            document=document,
            acts=_acts(item.kind, document),
        )

    def switched_off(self, state: ItemState) -> ItemState:
        """The same with its one switch turned. Raises `TargetError` if the switch is not where it should be."""
        kind, document = state.item.kind, dict(state.document)
        if not state.is_active:
            return state
        if kind is AutomationKind.FLOW:
            document["Metadata"] = {**document["Metadata"], "activeVersionNumber": None}
        elif kind in TOOLING_TYPES:
            document["Metadata"] = {**document["Metadata"], "active": False}
        else:
            pattern, off = _SWITCHES[kind]
            path = _switch_file(document["files"])
            content, turned = pattern.subn(off, base64.b64decode(document["files"][path]))
            if turned != 1:
                raise TargetError(
                    f"{state.item} cannot be switched off: its file `{path}` does not say once that it is active",
                    state="nothing was changed",
                    hint="add it to `prepare.leave_on` of the plan and switch it off by hand",
                )
            document["files"] = {**document["files"], path: base64.b64encode(content).decode()}
        return self.restored(document, state.item)

    def steps(self, states: Sequence[ItemState]) -> list[list[ItemState]]:
        """Files go in one deploy for each type, as Apex needs tests and rules do not; records go one by one."""
        by_kind = [[state for state in states if state.item.kind is kind] for kind in METADATA_TYPES]
        return [*filter(None, by_kind), *([state] for state in states if state.item.kind in TOOLING_TYPES)]

    def write(self, states: Sequence[ItemState], *, run_tests: Sequence[str]) -> None:
        """Make one step of items be so."""
        components = []
        for state in states:
            kind, document = state.item.kind, state.document
            if kind in TOOLING_TYPES:
                tooling.replace(self._org, TOOLING_TYPES[kind], state.record_id, _body(kind, document))
            else:
                files = {path: base64.b64decode(text) for path, text in document["files"].items()}
                full_name = str(document["fullName"])
                components.append(metadata.Component(type=METADATA_TYPES[kind], full_name=full_name, files=files))
        if components:
            has_apex = any(component.type == "ApexTrigger" for component in components)
            options = self._test_options(run_tests) if has_apex else {}
            metadata.deploy(self._org, components, options=options, clock=self._clock)

    def _test_options(self, run_tests: Sequence[str]) -> dict[str, Any]:
        """Production demands tests wherever Apex is deployed; elsewhere none are run."""
        if not self.facts().is_production:
            return {"testLevel": "NoTestRun"}
        if run_tests:
            return {"testLevel": "RunSpecifiedTests", "runTests": list(run_tests)}
        return {"testLevel": "RunLocalTests"}

    def field(self, object_name: str, name: str) -> FieldSeen | None:
        """A field as the Tooling API shows it, which does not look at field-level security."""
        soql = (
            "SELECT DurableId, IsIndexed, IsFieldHistoryTracked FROM FieldDefinition "
            f"WHERE EntityDefinition.QualifiedApiName = {quoted(object_name)} AND QualifiedApiName = {quoted(name)}"
        )
        row = next(tooling.query(self._org, soql), None)
        if row is None:
            return None
        return FieldSeen(
            record_id=str(row["DurableId"]),
            is_indexed=row.get("IsIndexed"),
            has_history=row.get("IsFieldHistoryTracked"),
        )

    def tracked_fields(self, object_name: str) -> dict[str, bool]:
        """All fields of an object, in one query, and whether their history is tracked."""
        soql = (
            "SELECT QualifiedApiName, IsFieldHistoryTracked FROM FieldDefinition "
            f"WHERE EntityDefinition.QualifiedApiName = {quoted(object_name)}"
        )
        rows = tooling.query(self._org, soql)
        return {str(row["QualifiedApiName"]): bool(row.get("IsFieldHistoryTracked")) for row in rows}

    def track_field(self, object_name: str, name: str) -> None:
        """Switch the history of a custom field on: its whole block is read and sent back with that one member."""
        seen = self.field(object_name, name)
        if seen is None:
            raise UsageError(f"{object_name} has no field `{name}`", hint="mend `prepare.track_history`")
        # The durable Id of a custom field is that of its object, a dot, and its own.
        record_id = seen.record_id.rpartition(".")[2]
        record = tooling.record(self._org, "CustomField", record_id)
        if record is None:
            raise TargetError(
                f"the org does not show the definition of {object_name}.{name}",
                state="its history was not switched on",
                hint="switch it on in Setup: Object Manager, Fields & Relationships, Set History Tracking",
            )
        block = {**record["Metadata"], "trackHistory": True}
        tooling.replace(self._org, "CustomField", record_id, {"FullName": record["FullName"], "Metadata": block})

    def make_field(self, field: NewField) -> None:
        """Make an external ID field of text, unique."""
        block = {
            "type": "Text",
            "label": field.label,
            "length": field.length,
            "externalId": True,
            "unique": True,
            "caseSensitive": field.case_sensitive,
            "required": False,
        }
        full_name = f"{identifier(field.object)}.{identifier(field.name)}"
        tooling.create(self._org, "CustomField", {"FullName": full_name, "Metadata": block})

    def grant_field(self, object_name: str, name: str, *, permission_set: str | None) -> Grant:
        """Field-level security for a field: a new one is seen by nobody, administrators included."""
        grant = self._permission_set(permission_set)
        body = {
            "ParentId": grant.permission_set_id,
            "SobjectType": object_name,
            "Field": f"{object_name}.{name}",
            "PermissionsRead": True,
            "PermissionsEdit": True,
        }
        what = f"grant the field {object_name}.{name}"
        self._org.transport.send_json("POST", f"{self._org.root}/sobjects/FieldPermissions", body, what=what)
        return grant

    def _permission_set(self, name: str | None) -> Grant:
        if name is not None:
            rows = list(self._org.query(f"SELECT Id, Label FROM PermissionSet WHERE Name = {quoted(name)}"))
            if not rows:
                raise UsageError(f"the org has no permission set `{name}`", hint="mend `prepare.permission_set`")
            return Grant(permission_set_id=str(rows[0]["Id"]), label=f"permission set {rows[0]['Label']}")
        assigned = self._assigned()
        where = "IsOwnedByProfile = true" + (f" AND Id IN ({assigned})" if assigned else "")
        owned = list(self._org.query(f"SELECT Id, Label FROM PermissionSet WHERE {where}"))
        if len(owned) != 1:
            raise UsageError(
                "the org does not tell which profile the signed-in user has",
                state="the field was made, and nobody sees it yet",
                hint="name a permission set of the loading user in `prepare.permission_set`, then run this again",
            )
        return Grant(permission_set_id=str(owned[0]["Id"]), label=f"profile {owned[0]['Label']}")

    def _assigned(self) -> str:
        """The Ids of the user's permission sets as a list for SOQL; empty where the org shows none."""
        user = quoted(self._org.user_id)
        rows = self._org.query(f"SELECT PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = {user}")
        return ", ".join(quoted(str(row["PermissionSetId"])) for row in rows)


def _body(kind: AutomationKind, document: Mapping[str, Any]) -> dict[str, Any]:
    """What a PATCH sends: the whole block, and the name that goes with it."""
    block = document["Metadata"]
    if kind is AutomationKind.FLOW:
        return {"Metadata": {**block, "activeVersionNumber": block.get("activeVersionNumber") or 0}}
    return {"FullName": document["FullName"], "Metadata": block}


def _switch_file(files: Mapping[str, str]) -> str:
    """The file with the switch: beside a trigger's code its `-meta.xml`."""
    return next((path for path in files if path.endswith("-meta.xml")), next(iter(files)))


def _is_active(kind: AutomationKind, document: Mapping[str, Any]) -> bool:
    if kind is AutomationKind.FLOW:
        return bool(document["Metadata"].get("activeVersionNumber"))
    if kind in TOOLING_TYPES:
        return bool(document["Metadata"].get("active"))
    files = document["files"]
    return _SWITCHES[kind][0].search(base64.b64decode(files[_switch_file(files)])) is not None


def _acts(kind: AutomationKind, document: Mapping[str, Any]) -> str:
    """What an automation does, as far as its state tells."""
    match kind:
        case AutomationKind.VALIDATION_RULE:
            formula = " ".join(str(document["Metadata"].get("errorConditionFormula")).split())
            return f"refuses records where {formula}"
        case AutomationKind.WORKFLOW_RULE:
            actions = document["Metadata"].get("actions") or ()
            named = ", ".join(f"{action.get('type')} {action.get('name')}" for action in actions)
            when = document["Metadata"].get("formula") or "its criteria hold"
            return f"does {named or 'nothing'} where {' '.join(str(when).split())}"
        case AutomationKind.FLOW:
            return f"runs version {document['Metadata'].get('activeVersionNumber')} of the flow"
        case AutomationKind.TRIGGER:
            path = next((path for path in document["files"] if not path.endswith("-meta.xml")), "")
            code = base64.b64decode(document["files"].get(path, "")).decode("utf-8", "replace")
            events = re.search(r"\btrigger\s+\w+\s+on\s+\w+\s*\(([^)]*)\)", code, re.IGNORECASE)
            return f"runs Apex {' '.join(events[1].split())}" if events else "runs Apex that the org does not show"
        case AutomationKind.DUPLICATE_RULE:
            content = base64.b64decode(next(iter(document["files"].values()), ""))
            blocks = b">Block<" in content
            return "refuses records that it takes for duplicates" if blocks else "reports records as duplicates"
