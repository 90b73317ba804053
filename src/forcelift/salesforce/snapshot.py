"""A picture of an org's shape, from which a twin can be made: describes, automations, limits, counts. No records.

Reads:   describe, Tooling queries, setup objects, `/limits`, `/limits/recordCount`, the Organization record.
Writes:  nothing, in the org or elsewhere. What could not be read, or cannot be known from outside, is told in `notes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from forcelift.errors import OrgRefused
from forcelift.salesforce.org import SalesforceOrg
from forcelift.salesforce.soql import identifier, quoted

OBJECTS_MAX: Final = 500
TARGETS_MAX: Final = 10
# A twin brings these itself, and a real org's lead on to all of its setup.
TWIN_HAS: Final = frozenset(
    {"User", "Group", "Organization", "RecordType", "Profile", "PermissionSet", "PermissionSetAssignment"}
    | {"FieldPermissions", "AssignmentRule", "DuplicateRule", "FlowDefinitionView", "UserPermissionAccess"}
)
_EVENTS: Final = {
    "UsageBeforeInsert": "before insert",
    "UsageBeforeUpdate": "before update",
    "UsageBeforeDelete": "before delete",
    "UsageAfterInsert": "after insert",
    "UsageAfterUpdate": "after update",
    "UsageAfterDelete": "after delete",
    "UsageAfterUndelete": "after undelete",
}
_FLOW_ON: Final = {"Create": "create", "Update": "update", "CreateAndUpdate": "create_and_update", "Delete": "delete"}
_TIMINGS: Final = {"RecordBeforeSave": "before_save", "RecordAfterSave": "after_save"}
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*\Z")


def take_snapshot(
    org: SalesforceOrg,
    objects: Sequence[str],
    *,
    follow_lookups: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The org's shape as the document of a twin's schema file.

    Args:
        objects: API names.
        follow_lookups: Also take the objects that their lookups point at, and so on, up to 500 objects.
        progress: Is told what is read next.
    Returns:
        `org`, `limits`, `describes`, `automations`, `record_counts`, `notes`: plain JSON. The org's Id, users and
        records are left out.
    Raises:
        OrgNotFound: An object does not exist or cannot be seen.
    """
    reader = _Reader(org, progress)
    describes = reader.describes(objects, follow_lookups=follow_lookups)
    names = [str(document["name"]) for document in describes]
    return {
        "org": reader.organization(),
        "limits": reader.limits(),
        "describes": describes,
        "automations": reader.automations(describes),
        "record_counts": reader.record_counts(names),
        "notes": reader.notes,
    }


class _Reader:
    """Reads one part after the other and notes what it cannot."""

    def __init__(self, org: SalesforceOrg, progress: Callable[[str], None]) -> None:
        self._org = org
        self._progress = progress
        self.notes: list[str] = []

    def describes(self, objects: Sequence[str], *, follow_lookups: bool) -> list[dict[str, Any]]:
        """Describe documents in the order found; each asked for first, then what their lookups point at."""
        found: dict[str, dict[str, Any]] = {}
        waiting = list(dict.fromkeys(objects))
        while waiting:
            name = waiting.pop(0)
            if name.lower() in found:
                continue
            if len(found) >= OBJECTS_MAX:
                self.notes.append(f"objects: only the first {OBJECTS_MAX} were taken; lookups to others have no target")
                break
            self._progress(f"describe {name}")
            document = self._org.read(f"/sobjects/{identifier(name)}/describe", what=f"describe `{name}`")
            found[name.lower()] = document
            if follow_lookups:
                targets = [field.get("referenceTo") or () for field in document["fields"]]
                # A lookup with very many targets can point at anything: it would bring in the whole org.
                near = dict.fromkeys(target for names in targets if len(names) <= TARGETS_MAX for target in names)
                waiting += [target for target in near if target not in TWIN_HAS and target.lower() not in found]
        return list(found.values())

    def organization(self) -> dict[str, Any]:
        self._progress("the org")
        columns = "Name, OrganizationType, IsSandbox, InstanceName, NamespacePrefix, TrialExpirationDate"
        record = next(iter(self._org.query(f"SELECT {columns} FROM Organization LIMIT 1")))
        trial = record.get("TrialExpirationDate")
        return {
            "name": record["Name"],
            "edition": record["OrganizationType"],
            "sandbox": bool(record["IsSandbox"]),
            "instance": record.get("InstanceName") or "TWIN1",
            "namespace": record.get("NamespacePrefix"),
            "trial_expires": None if trial is None else str(trial)[:10],
        }

    def limits(self) -> dict[str, int]:
        """The maxima; what remains is of the moment and stays out."""
        try:
            document = self._org.read("/limits", what="read the org's limits")
        except OrgRefused as refused:
            self.notes.append(f"limits: the org refused to tell them ({refused.code}); the twin has its own")
            return {}
        return {
            name: entry["Max"]
            for name, entry in sorted(document.items())
            if isinstance(entry, Mapping) and isinstance(entry.get("Max"), int)
        }

    def record_counts(self, names: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for start in range(0, len(names), 100):  # a URL has room for a few hundred names
            self._progress("record counts")
            part = ",".join(names[start : start + 100])
            try:
                document = self._org.read(f"/limits/recordCount?sObjects={part}", what="read record counts")
            except OrgRefused as refused:
                self.notes.append(f"record_counts: the org refused to tell them ({refused.code})")
                break
            counts |= {entry["name"]: int(entry["count"]) for entry in document.get("sObjects", ())}
        return counts

    def automations(self, describes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        fields = {
            str(document["name"]): {str(field["name"]).lower() for field in document["fields"]}
            for document in describes
            if document.get("createable")
        }
        entities = {name: name for name in fields}
        entities |= {
            str(row["DurableId"])[:15]: str(row["QualifiedApiName"])
            for row in self._entities(list(fields))
            if row["QualifiedApiName"] in fields
        }
        parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "validation_rules": lambda: self._validation_rules(fields),
            "triggers": lambda: self._triggers(entities),
            "flows": lambda: self._flows(entities),
            "workflow_rules": lambda: self._workflow_rules(entities),
        }
        found: dict[str, Any] = {}
        for part, read in parts.items():
            self._progress(part.replace("_", " "))
            try:
                found[part] = self._once(part, read())
            except OrgRefused as refused:
                self.notes.append(f"{part}: the org refused to list them ({refused.code}); none were taken")
        self._note_duplicate_rules(set(fields))
        return found

    def _once(self, part: str, rules: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        """A package may bring a name that the org has too; a twin keeps one of each name, the org's own first."""
        kept: dict[tuple[str, str], dict[str, Any]] = {}
        for rule in sorted(rules, key=lambda rule: rule["namespace"] is not None):
            # Triggers and flows are named once in an org, the others once on their object.
            key = ("" if part in ("triggers", "flows") else rule["object"].lower(), rule["name"].lower())
            if key in kept:
                self.notes.append(f"{part}: {rule['namespace']}__{rule['name']} has the name of another; left out")
            else:
                kept[key] = rule
        return list(kept.values())

    def _entities(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for part in _parts(names):
            listed = ", ".join(quoted(name) for name in part)
            where = f"QualifiedApiName IN ({listed})"
            yield from self._tooling(f"SELECT DurableId, QualifiedApiName FROM EntityDefinition WHERE {where}")

    def _validation_rules(self, fields: Mapping[str, set[str]]) -> Iterator[dict[str, Any]]:
        columns = "Id, ValidationName, NamespacePrefix, EntityDefinition.QualifiedApiName"
        for part in _parts(list(fields)):
            listed = ", ".join(quoted(name) for name in part)
            where = f"EntityDefinition.QualifiedApiName IN ({listed})"
            for row in self._tooling(f"SELECT {columns} FROM ValidationRule WHERE {where}"):
                object_name = str(row["EntityDefinition"]["QualifiedApiName"])
                full_name = f"{object_name}.{row['ValidationName']}"
                metadata = self._metadata("ValidationRule", row["Id"])
                if not metadata or not metadata.get("errorConditionFormula"):
                    self.notes.append(f"validation rule {full_name}: its formula cannot be read; left out")
                    continue
                shown = metadata.get("errorDisplayField")
                if shown is not None and shown.lower() not in fields[object_name]:
                    self.notes.append(f"validation rule {full_name}: its error field {shown} cannot be seen")
                    shown = None
                yield {
                    "name": row["ValidationName"],
                    "object": object_name,
                    "formula": metadata["errorConditionFormula"],
                    "error_message": metadata["errorMessage"],
                    "error_field": shown,
                    "active": bool(metadata["active"]),
                    "description": metadata.get("description"),
                    "namespace": row.get("NamespacePrefix"),
                }

    def _triggers(self, entities: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        columns = f"Name, TableEnumOrId, Status, ApiVersion, NamespacePrefix, {', '.join(_EVENTS)}"
        for row in self._tooling(f"SELECT {columns} FROM ApexTrigger"):
            object_name = _entity(entities, row["TableEnumOrId"])
            if object_name is None:
                continue
            events = [event for column, event in _EVENTS.items() if row.get(column)]
            if not events:
                self.notes.append(f"trigger {row['Name']}: the org tells no event of it; left out")
                continue
            self.notes.append(f"trigger {row['Name']}: what its code does is not known; declare its effects")
            yield {
                "name": row["Name"],
                "object": object_name,
                "events": events,
                "active": row["Status"] == "Active",
                "api_version": float(row["ApiVersion"]),
                "namespace": row.get("NamespacePrefix"),
            }

    def _flows(self, entities: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        columns = (
            "DurableId, ApiName, Label, ProcessType, TriggerType, RecordTriggerType, TriggerObjectOrEventId, "
            "NamespacePrefix"
        )
        views = list(self._org.query(f"SELECT {columns} FROM FlowDefinitionView"))
        mine = [(view, _entity(entities, view.get("TriggerObjectOrEventId"))) for view in views]
        for view, object_name in mine:
            if object_name is None:
                continue
            where = f"DefinitionId = {quoted(str(view['DurableId']))}"
            versions = list(self._tooling(f"SELECT VersionNumber, Status, Description FROM Flow WHERE {where}"))
            if not versions or view.get("TriggerType") not in _TIMINGS or not _NAME.match(str(view["ApiName"])):
                self.notes.append(f"flow {view['ApiName']}: not triggered by a save, or without versions; left out")
                continue
            active = [row["VersionNumber"] for row in versions if row["Status"] == "Active"]
            self.notes.append(f"flow {view['ApiName']}: what it does is not known; declare the effects of its versions")
            yield {
                "name": view["ApiName"],
                "object": object_name,
                "label": view.get("Label"),
                "timing": _TIMINGS[view["TriggerType"]],
                "on": _FLOW_ON.get(str(view.get("RecordTriggerType")), "create_and_update"),
                "versions": [
                    {"number": row["VersionNumber"], "description": row.get("Description")}
                    for row in sorted(versions, key=lambda row: int(row["VersionNumber"]))
                ],
                "active_version": active[0] if active else None,
                "process_type": "Workflow" if view.get("ProcessType") == "Workflow" else "AutoLaunchedFlow",
                "namespace": view.get("NamespacePrefix"),
            }

    def _workflow_rules(self, entities: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for row in self._tooling("SELECT Id, Name, TableEnumOrId, NamespacePrefix FROM WorkflowRule"):
            object_name = _entity(entities, row["TableEnumOrId"])
            if object_name is None:
                continue
            metadata = self._metadata("WorkflowRule", row["Id"])
            name = re.sub(r"[^A-Za-z0-9]+", "_", str(row["Name"])).strip("_")
            if not metadata or not metadata.get("formula") or not _NAME.match(name):
                self.notes.append(f"workflow rule {object_name}.{row['Name']}: it has no formula to take; left out")
                continue
            self.notes.append(f"workflow rule {object_name}.{name}: its field updates are not known; declare them")
            yield {
                "name": name,
                "object": object_name,
                "condition": metadata["formula"],
                "on": metadata["triggerType"],
                "active": bool(metadata["active"]),
                "description": metadata.get("description"),
                "namespace": row.get("NamespacePrefix"),
            }

    def _note_duplicate_rules(self, names: set[str]) -> None:
        try:
            rows = list(self._org.query("SELECT DeveloperName, SobjectType, IsActive FROM DuplicateRule"))
        except OrgRefused as refused:
            self.notes.append(f"duplicate_rules: the org refused to list them ({refused.code})")
            return
        self.notes += [
            f"duplicate rule {row['SobjectType']}.{row['DeveloperName']} "
            f"({'active' if row['IsActive'] else 'inactive'}): the fields it matches by are not told; declare it"
            for row in rows
            if row["SobjectType"] in names
        ]

    def _metadata(self, kind: str, record_id: str) -> dict[str, Any]:
        """The Metadata of one record; empty where the org does not show it."""
        try:
            record = self._org.read(f"/tooling/sobjects/{kind}/{quote(record_id, safe='')}", what=f"read a {kind}")
        except OrgRefused:
            return {}
        found = record.get("Metadata")
        return found if isinstance(found, dict) else {}

    def _tooling(self, query: str) -> Iterator[dict[str, Any]]:
        path: str | None = f"/tooling/query?q={quote(query, safe='')}"
        seen: set[str] = set()
        while path is not None and path not in seen:
            seen.add(path)
            page = self._org.read(path, what="query the Tooling API")
            yield from page["records"]
            # Only the locator is taken: the host and the version stay those of this connection.
            following = None if page.get("done", True) else page.get("nextRecordsUrl")
            path = None if following is None else f"/tooling/query/{quote(following.rpartition('/')[2])}"


def _entity(entities: Mapping[str, str], told: Any) -> str | None:
    """The object's name, told as name or as Id of 15 or 18 characters."""
    text = str(told or "")
    return entities.get(text) or entities.get(text[:15] if text.startswith("01I") else "")


def _parts(names: Sequence[str], size: int = 50) -> Iterable[Sequence[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))
