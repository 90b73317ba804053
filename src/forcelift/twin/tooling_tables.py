"""The objects of the Tooling API: their fields, and their rows as the org has them at one moment.

Rows live in a small database in memory, made anew when schema or automations have changed, so that the one SOQL
compiler answers Tooling queries as well. `Metadata` and `FullName` have no column: `http_tooling` fills them in.
Source: Tooling API guide; fields as sections 5 and 6 of the API reference list them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa

from forcelift.twin.automation_models import (
    DuplicateRule,
    RecordFlow,
    Trigger,
    TriggerEvent,
    ValidationRule,
    WorkflowRule,
)
from forcelift.twin.database import connect
from forcelift.twin.field_metadata import field_type
from forcelift.twin.ids import make_id, org_pod
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import FieldSchema, ObjectSchema, OrgSchema, Schema

# Name, then `Field:type` in the order of the describe; a type that begins with a capital is a lookup to that object.
_FIELDS: Final = {
    "ValidationRule": (
        "03d",
        "Id:id ValidationName:string Active:boolean Description:string EntityDefinitionId:EntityDefinition "
        "ErrorDisplayField:string ErrorMessage:string NamespacePrefix:string ManageableState:string "
        "Metadata:complexvalue FullName:complexvalue",
    ),
    "WorkflowRule": (
        "01Q",
        "Id:id Name:string TableEnumOrId:string NamespacePrefix:string ManageableState:string Metadata:complexvalue "
        "FullName:complexvalue",
    ),
    "ApexTrigger": (
        "01q",
        "Id:id Name:string TableEnumOrId:string EntityDefinitionId:EntityDefinition Status:string IsValid:boolean "
        "ApiVersion:double Body:textarea LengthWithoutComments:int UsageBeforeInsert:boolean UsageAfterInsert:boolean "
        "UsageBeforeUpdate:boolean UsageAfterUpdate:boolean UsageBeforeDelete:boolean UsageAfterDelete:boolean "
        "UsageAfterUndelete:boolean UsageIsBulk:boolean NamespacePrefix:string ManageableState:string "
        "Metadata:complexvalue FullName:complexvalue",
    ),
    "Flow": (
        "301",
        "Id:id DefinitionId:FlowDefinition MasterLabel:string Status:string VersionNumber:int ProcessType:string "
        "Description:string ManageableState:string Metadata:complexvalue FullName:complexvalue",
    ),
    "FlowDefinition": (
        "300",
        "Id:id DeveloperName:string MasterLabel:string Description:string ActiveVersionId:Flow LatestVersionId:Flow "
        "NamespacePrefix:string ManageableState:string Metadata:complexvalue FullName:complexvalue",
    ),
    "CustomField": (
        "00N",
        "Id:id DeveloperName:string TableEnumOrId:string EntityDefinitionId:EntityDefinition NamespacePrefix:string "
        "ManageableState:string Metadata:complexvalue FullName:complexvalue",
    ),
    "EntityDefinition": (
        "4ie",
        "Id:id DurableId:string QualifiedApiName:string DeveloperName:string MasterLabel:string Label:string "
        "PluralLabel:string KeyPrefix:string NamespacePrefix:string IsCustomizable:boolean IsQueryable:boolean "
        "IsApexTriggerable:boolean IsWorkflowEnabled:boolean IsEverCreatable:boolean IsEverUpdatable:boolean "
        "IsEverDeletable:boolean",
    ),
    "FieldDefinition": (
        "4fe",
        "Id:id DurableId:string QualifiedApiName:string DeveloperName:string MasterLabel:string Label:string "
        "DataType:string EntityDefinitionId:EntityDefinition NamespacePrefix:string Length:int Precision:int Scale:int "
        "IsIndexed:boolean IsCalculated:boolean IsNillable:boolean IsPolymorphicForeignKey:boolean "
        "IsFieldHistoryTracked:boolean IsCompound:boolean RelationshipName:string ExtraTypeInfo:string "
        "ReferenceTo:complexvalue",
    ),
}
_USAGE: Final[Mapping[str, TriggerEvent]] = {
    "UsageBeforeInsert": "before insert",
    "UsageAfterInsert": "after insert",
    "UsageBeforeUpdate": "before update",
    "UsageAfterUpdate": "after update",
    "UsageBeforeDelete": "before delete",
    "UsageAfterDelete": "after delete",
    "UsageAfterUndelete": "after undelete",
}
_ARROW: Final = {"boolean": pa.bool_(), "int": pa.int64(), "double": pa.decimal128(18, 1)}
# Shown as `DataType`: words for people, which is why clients must not parse them.
_WORDS: Final = {
    "string": "Text({length})",
    "textarea": "Text Area({length})",
    "double": "Number({digits}, {scale})",
    "currency": "Currency({digits}, {scale})",
    "percent": "Percent({digits}, {scale})",
    "reference": "Lookup({targets})",
    "boolean": "Checkbox",
    "datetime": "Date/Time",
    "url": "URL({length})",
    "email": "Email",
    "phone": "Phone",
    "multipicklist": "Picklist (Multi-Select)",
    "int": "Number({length}, 0)",
}


def _tooling_field(spec: str) -> FieldSchema:
    name, _, kind = spec.partition(":")
    shared: dict[str, Any] = {"nillable": True, "createable": False, "updateable": False}
    if kind[0].isupper():
        return FieldSchema(
            name=name, label=name, type="reference", length=18, reference_to=(kind,), relationship_name=name[:-2],
            **shared,
        )  # fmt: skip
    sizes: dict[str, dict[str, Any]] = {
        "string": {"length": 255},
        "textarea": {"length": 32_000},
        "id": {"length": 18},
        "int": {"digits": 9},
    }
    if kind == "double":
        sizes["double"] = {"precision": 18, "scale": 1}
    updateable = name == "Metadata"
    return FieldSchema(name=name, label=name, type=kind, **sizes.get(kind, {}), **{**shared, "updateable": updateable})


TOOLING: Final = Schema(
    org=OrgSchema(),
    users=(),
    objects=tuple(
        ObjectSchema(
            name=name, label=name, label_plural=f"{name}s", key_prefix=prefix, custom=False, deletable=False,
            createable=name in ("ValidationRule", "WorkflowRule", "CustomField"),
            updateable=name not in ("EntityDefinition", "FieldDefinition"),
            fields=tuple(_tooling_field(spec) for spec in fields.split()),
        )
        for name, (prefix, fields) in _FIELDS.items()
    ),
)  # fmt: skip


class ToolingTables:
    """The rows of all Tooling objects, as of the last change of the org."""

    def __init__(self, org: TwinOrg) -> None:
        self._org = org
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._made_for: tuple[object, ...] = ()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor on rows that show the org's present; the caller closes it."""
        with self._lock:
            current = (self._org.automations.revision, self._org.schema.objects)
            if self._connection is None or not _same(current, self._made_for):
                if self._connection is not None:
                    self._connection.close()
                self._connection = self._filled()
                self._made_for = current
            return self._connection.cursor()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _filled(self) -> duckdb.DuckDBPyConnection:
        connection = connect(config={"threads": 1, "memory_limit": "256MB"})
        connection.execute("CREATE SCHEMA data")
        rows: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in TOOLING.objects}
        for name, row in tooling_rows(self._org):
            rows[name].append(row)
        for entry in TOOLING.objects:
            columns = {field.name: _ARROW.get(field.type, pa.string()) for field in entry.stored_fields}
            # The compiler leaves deleted rows out by this column, which every object of the data API has.
            schema = pa.schema([*columns.items(), ("IsDeleted", pa.bool_())])
            found = [{"IsDeleted": False, **row} for row in rows[entry.name]]
            table = pa.Table.from_pylist(found, schema=schema)
            connection.register("twin_rows", table)
            connection.execute(f'CREATE TABLE data."{entry.name}" AS SELECT * FROM twin_rows')
            connection.unregister("twin_rows")
        return connection


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and one[0] == other[0] and one[1] is other[1]


def tooling_rows(org: TwinOrg) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row with the name of its object. Values are as Arrow takes them."""
    pod = org_pod(org.seed)
    field_ids = org.fields.ids()
    entity_ids = {entry.name: entity_id(entry, number, pod) for number, entry in enumerate(org.schema.objects, start=1)}
    by_name = {name.lower(): durable_id for name, durable_id in entity_ids.items()}
    for entry in org.schema.objects:
        yield "EntityDefinition", _entity_row(entry, entity_ids[entry.name])
        for field in (*entry.fields, *entry.hidden):
            yield "FieldDefinition", _field_row(entry, field, entity_ids[entry.name], field_ids)
            if field.custom:
                yield (
                    "CustomField",
                    {
                        "Id": field_ids[f"{entry.name}.{field.name}"],
                        "DeveloperName": field.name.removesuffix("__c"),
                        "TableEnumOrId": entity_ids[entry.name],
                        "EntityDefinitionId": entity_ids[entry.name],
                        "ManageableState": "unmanaged",
                    },
                )
    for kind, automation in org.automations.current().each():
        entity = by_name.get(automation.object.lower(), automation.object)
        shared = {
            "Id": org.automations.id_of(kind, automation.full_name),
            "NamespacePrefix": automation.namespace,
            "ManageableState": "unmanaged" if automation.namespace is None else "installed",
        }
        match automation:
            case ValidationRule():
                yield (
                    "ValidationRule",
                    {
                        **shared,
                        "ValidationName": automation.name,
                        "Active": automation.active,
                        "Description": automation.description,
                        "EntityDefinitionId": entity,
                        "ErrorDisplayField": automation.error_field,
                        "ErrorMessage": automation.error_message,
                    },
                )
            case WorkflowRule():
                yield "WorkflowRule", {**shared, "Name": automation.name, "TableEnumOrId": entity}
            case Trigger():
                yield "ApexTrigger", {**shared, **_trigger_row(automation, entity)}
            case RecordFlow():
                yield from _flow_rows(org, automation, shared)
            case DuplicateRule():
                pass  # the Tooling API has no such object; the data API shows them


def entity_id(entry: ObjectSchema, number: int, pod: str) -> str:
    """The durable Id of an object: its name if it is a standard one, else an Id."""
    return make_id("01I", pod, number) if entry.custom else entry.name


def _entity_row(entry: ObjectSchema, durable_id: str) -> dict[str, Any]:
    return {
        "Id": durable_id,
        "DurableId": durable_id[:15] if entry.custom else durable_id,
        "QualifiedApiName": entry.name,
        "DeveloperName": entry.name.removesuffix("__c"),
        "MasterLabel": entry.label,
        "Label": entry.label,
        "PluralLabel": entry.label_plural,
        "KeyPrefix": entry.key_prefix,
        "IsCustomizable": entry.createable,
        "IsQueryable": entry.queryable,
        "IsApexTriggerable": entry.createable,
        "IsWorkflowEnabled": entry.createable,
        "IsEverCreatable": entry.createable,
        "IsEverUpdatable": entry.updateable,
        "IsEverDeletable": entry.deletable,
    }


def _field_row(entry: ObjectSchema, field: FieldSchema, entity: str, field_ids: Mapping[str, str]) -> dict[str, Any]:
    last = field_ids[f"{entry.name}.{field.name}"] if field.custom else field.name.removesuffix("Id") or "Id"
    return {
        "Id": f"{entity[:15] if entry.custom else entity}.{last[:15] if field.custom else last}",
        "DurableId": f"{entity[:15] if entry.custom else entity}.{last[:15] if field.custom else last}",
        "QualifiedApiName": field.name,
        "DeveloperName": field.name.removesuffix("__c"),
        "MasterLabel": field.label,
        "Label": field.label,
        "DataType": data_type(field),
        "EntityDefinitionId": entity,
        "Length": field.length,
        "Precision": field.precision or field.digits,
        "Scale": field.scale,
        "IsIndexed": field.external_id or field.unique or field.type in ("id", "reference") or field.name_field,
        "IsCalculated": field.calculated,
        "IsNillable": field.nillable,
        # True for every lookup, also with one target: clients must count the targets.
        "IsPolymorphicForeignKey": field.polymorphic,
        "IsFieldHistoryTracked": field.track_history,
        "IsCompound": field.type in ("address", "location"),
        "RelationshipName": field.relationship_name,
        "ExtraTypeInfo": field.extra_type_info,
    }


def data_type(field: FieldSchema) -> str:
    """The type in the words of the setup pages."""
    if field.master_detail:
        return f"Master-Detail({','.join(field.reference_to)})"
    pattern = _WORDS.get(field.type, field_type(field))
    text = pattern.format(
        length=field.length or field.digits, digits=field.precision - field.scale, scale=field.scale,
        targets=",".join(field.reference_to),
    )  # fmt: skip
    if field.auto_number:
        text = "Auto Number"
    if field.calculated:
        return f"Formula ({field_type(field)})"
    marks = [word for word, is_so in (("External ID", field.external_id), ("Unique", field.unique)) if is_so]
    return f"{text} ({') ('.join(marks)})" if marks else text


def _trigger_row(trigger: Trigger, entity: str) -> dict[str, Any]:
    return {
        "Name": trigger.name,
        "TableEnumOrId": entity,
        "EntityDefinitionId": entity,
        "Status": "Active" if trigger.active else "Inactive",
        "IsValid": True,
        "ApiVersion": Decimal(f"{trigger.api_version:.1f}"),
        "Body": trigger_body(trigger) if trigger.namespace is None else "(hidden)",
        "LengthWithoutComments": len(trigger_body(trigger)),
        "UsageIsBulk": True,
        **{name: event in trigger.events for name, event in _USAGE.items()},
    }


def trigger_body(trigger: Trigger) -> str:
    """The Apex text: the declared one, or a heading without statements, since the twin runs none."""
    if trigger.body is not None:
        return trigger.body
    return f"trigger {trigger.name} on {trigger.object} ({', '.join(trigger.events)}) {{\n}}\n"


def _flow_rows(org: TwinOrg, flow: RecordFlow, shared: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    latest = max(version.number for version in flow.versions)
    label = flow.label or flow.name.replace("_", " ")
    yield (
        "FlowDefinition",
        {
            **shared,
            "DeveloperName": flow.name,
            "MasterLabel": label,
            "ActiveVersionId": org.automations.version_id(flow.name, flow.active_version)
            if flow.active_version
            else None,
            "LatestVersionId": org.automations.version_id(flow.name, latest),
        },
    )
    for version in flow.versions:
        yield (
            "Flow",
            {
                "Id": org.automations.version_id(flow.name, version.number),
                "DefinitionId": shared["Id"],
                "MasterLabel": label,
                "Status": version_status(flow, version.number),
                "VersionNumber": version.number,
                "ProcessType": flow.process_type,
                "Description": version.description,
                "ManageableState": shared["ManageableState"],
            },
        )


def version_status(flow: RecordFlow, number: int) -> str:
    """A version that has been active once cannot be told from one that never was: older ones count as obsolete."""
    if number == flow.active_version:
        return "Active"
    return "Obsolete" if number < (flow.active_version or max(v.number for v in flow.versions)) else "Draft"
