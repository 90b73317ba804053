"""Calls below `/tooling`: query, describe, and reading and changing of automations and custom fields."""

from __future__ import annotations

import re
import secrets
import string
import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC
from typing import Any, Final

from forcelift.twin.automation_checks import check_automation, refuse_managed
from forcelift.twin.automation_metadata import (
    flow_definition_metadata,
    flow_metadata,
    trigger_metadata,
    validation_rule_metadata,
    with_flow_definition_metadata,
    with_flow_metadata,
    with_trigger_metadata,
    with_validation_rule_metadata,
    with_workflow_rule_metadata,
    workflow_rule_metadata,
)
from forcelift.twin.automation_models import (
    Automation,
    Kind,
    RecordFlow,
    Trigger,
    ValidationRule,
    WorkflowRule,
)
from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.field_metadata import field_metadata
from forcelift.twin.http_core import Call, Reply, empty_reply, json_reply
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import FieldSchema, ObjectSchema
from forcelift.twin.soql import compile_query, render_records, total_size
from forcelift.twin.tooling_tables import TOOLING, ToolingTables, version_status

PAGE_ROWS: Final = 2000
CURSORS_MAX: Final = 20
PLACE: Final = "/sobjects/"
BLOB_FIELDS: Final = ("Metadata", "FullName")
# Both objects are made up from metadata at each query: Salesforce demands to be told about which object.
REIFIED: Final = re.compile(r"\bWHERE\b.*\b(EntityDefinitionId|DurableId|EntityDefinition\s*\.\s*\w+)\b", re.I | re.S)
_KIND_OF: Final[dict[str, Kind]] = {
    "ValidationRule": "validation_rules",
    "WorkflowRule": "workflow_rules",
    "ApexTrigger": "triggers",
    "FlowDefinition": "flows",
}


class ToolingCalls:
    """Handlers of the Tooling API. The rows of its queries show the org as it is at each call."""

    def __init__(self, org: TwinOrg) -> None:
        self._org = org
        self._tables = ToolingTables(org)
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, tuple[str, str, list[dict[str, Any]], int]] = OrderedDict()

    def close(self) -> None:
        self._tables.close()

    def root(self, call: Call) -> Reply:
        base = f"/services/data/v{call.version}/tooling"
        return json_reply({"query": f"{base}/query", "sobjects": f"{base}/sobjects"})

    def objects(self, call: Call) -> Reply:
        document = TOOLING.sobjects_json(api_version=call.version)
        for entry in document["sobjects"]:
            entry["urls"] = {name: _tooling_url(url) for name, url in entry["urls"].items()}
        return json_reply(document)

    def object_info(self, call: Call) -> Reply:
        document = _entry(call).sobject_json(api_version=call.version)
        document["urls"] = {name: _tooling_url(url) for name, url in document["urls"].items()}
        return json_reply({"objectDescribe": document, "recentItems": []})

    def describe(self, call: Call) -> Reply:
        document = _entry(call).describe_json(schema=TOOLING, api_version=call.version)
        document["urls"] = {name: _tooling_url(url) for name, url in document["urls"].items()}
        for field in document["fields"]:
            if field["name"] == "FullName":
                field |= {"type": "string", "length": 255, "byteLength": 765, "soapType": "xsd:string"}
        return json_reply(document)

    def query(self, call: Call) -> Reply:
        soql = call.query.get("q", "")
        if not soql.strip():
            raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
        now = self._org.clock.now().astimezone(UTC)
        compiled = compile_query(soql, TOOLING, now=now, user_id=call.session.user_id)
        name = compiled.object_name
        if name == "FieldDefinition" and not REIFIED.search(soql):
            text = "a filter on a reified column is required [EntityDefinitionId,DurableId]"
            raise ApiError(400, "MALFORMED_QUERY", text)
        cursor = self._tables.cursor()
        try:
            size = total_size(compiled, cursor)
            rows = [] if compiled.is_count else cursor.execute(compiled.sql).fetchall()
        finally:
            cursor.close()
        records = render_records(compiled, rows, call.version)
        asked = [column.keys[-1] for column in compiled.columns if len(column.keys) == 1 and not compiled.is_aggregate]
        if any(field in BLOB_FIELDS for field in asked) and len(records) > 1:
            text = (
                "When retrieving results with Metadata or FullName fields, the query qualifications must specify no "
                f"more than one row for retrieval. Result size: {len(records)}"
            )
            raise ApiError(400, "MALFORMED_QUERY", text)
        for record, row in zip(records, rows, strict=True):
            if not compiled.is_aggregate:
                self._fill(name, record, row[len(compiled.columns)], asked)
            _mend_urls(record)
        return json_reply(self._page(call, name, size, records, 0))

    def query_more(self, call: Call) -> Reply:
        locator, _, start = call.params["locator"].rpartition("-")
        with self._lock:
            found = self._pages.get(locator)
        if found is None or found[0] != call.session.user_id or not start.isascii() or not start.isdigit():
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        _, name, records, size = found
        return json_reply(self._page(call, name, size, records, int(start[:9]), locator=locator))

    def _page(
        self, call: Call, name: str, size: int, records: list[dict[str, Any]], start: int, *, locator: str = ""
    ) -> dict[str, Any]:
        part = records[start : start + PAGE_ROWS]
        done = start + PAGE_ROWS >= len(records)
        answer: dict[str, Any] = {"size": len(part), "totalSize": size, "done": done, "queryLocator": None}
        if not done:
            if not locator:
                locator = "01g" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(15))
                with self._lock:
                    self._pages[locator] = (call.session.user_id, name, records, size)
                    while len(self._pages) > CURSORS_MAX:
                        self._pages.popitem(last=False)
            answer["queryLocator"] = f"{locator}-{start + PAGE_ROWS}"
            url = f"/services/data/v{call.version}/tooling/query/{locator}-{start + PAGE_ROWS}"
            answer["nextRecordsUrl"] = url
        return {**answer, "entityTypeName": name, "records": part}

    def record(self, call: Call) -> Reply:
        """One record with all its fields, `Metadata` and `FullName` among them."""
        entry = _entry(call)
        record_id = self._existing(entry, call.params["id"])
        names = [field.name for field in entry.fields]
        soql = f"SELECT {', '.join(names)} FROM {entry.name} WHERE Id = '{record_id}'"
        compiled = compile_query(soql, TOOLING)
        cursor = self._tables.cursor()
        try:
            rows = cursor.execute(compiled.sql).fetchall()
        finally:
            cursor.close()
        if not rows:
            raise not_found()
        record = render_records(compiled, rows, call.version)[0]
        self._fill(entry.name, record, record_id, names)
        _mend_urls(record)
        return json_reply(record)

    def create(self, call: Call) -> Reply:
        entry = _entry(call)
        body = call.json_object()
        if not entry.createable:
            raise ApiError(400, "INVALID_TYPE_FOR_OPERATION", f"entity type cannot be inserted: {entry.name}")
        full_name = _full_name(body)
        refuse_columns(body, "insert")
        if entry.name == "CustomField":
            metadata = body.get("Metadata")
            if not isinstance(metadata, dict):
                raise ApiError(400, "REQUIRED_FIELD_MISSING", "Required field is missing: Metadata", ["Metadata"])
            new_id = self._org.fields.create(full_name, metadata)
        else:
            new_id = self._create_rule(entry.name, full_name, body.get("Metadata"))
        answer = {"id": new_id, "success": True, "errors": [], "warnings": [], "infos": []}
        return json_reply(answer, status=201)

    def update(self, call: Call) -> Reply:
        """Replace the whole `Metadata` of a record."""
        entry = _entry(call)
        body = call.json_object()
        if not entry.updateable:
            raise ApiError(400, "INVALID_TYPE_FOR_OPERATION", f"entity type cannot be updated: {entry.name}")
        record_id = self._existing(entry, call.params["id"])
        refuse_columns(body, "update")
        if entry.name == "CustomField":
            place, field = self._field(record_id)
            self._org.fields.change(place.name, field.name, body.get("Metadata"))
            return empty_reply()
        kind, automation, number = self._automation(entry.name, record_id)
        refuse_managed(automation)
        name = body.get("FullName")
        if name is not None and str(name).lower() != automation.full_name.lower():
            raise ApiError(400, "FIELD_INTEGRITY_EXCEPTION", "FullName: a record cannot be renamed here", ["FullName"])
        if "Metadata" not in body:
            raise ApiError(400, "REQUIRED_FIELD_MISSING", "Required field is missing: Metadata", ["Metadata"])
        changed = self._changed(automation, body["Metadata"], number)
        if changed is None:
            self._org.automations.remove((kind, automation.full_name))
        else:
            present = self._org.automations.find(kind, changed.full_name)
            check_automation(self._org.schema, changed, kind, present)
            self._org.automations.put((kind, changed))
        return empty_reply()

    def delete(self, call: Call) -> Reply:
        entry = _entry(call)
        record_id = self._existing(entry, call.params["id"])
        if entry.name != "WorkflowRule":
            raise ApiError(400, "INVALID_TYPE_FOR_OPERATION", f"entity type cannot be deleted: {entry.name}")
        kind, automation, _ = self._automation(entry.name, record_id)
        refuse_managed(automation)
        self._org.automations.remove((kind, automation.full_name))
        return empty_reply()

    def _changed(self, automation: Automation, metadata: object, number: int | None) -> Automation | None:
        match automation:
            case ValidationRule():
                return with_validation_rule_metadata(automation, metadata)
            case WorkflowRule():
                return with_workflow_rule_metadata(automation, metadata)
            case Trigger():
                if self._org.schema.org.is_production:
                    raise ApiError(400, "INSUFFICIENT_ACCESS_OR_READONLY", "Can't alter metadata in an active org")
                return with_trigger_metadata(automation, metadata)
            case RecordFlow() if number is not None:
                return with_flow_metadata(automation, number, metadata)
            case RecordFlow():
                return with_flow_definition_metadata(automation, metadata)
        raise not_found()

    def _create_rule(self, name: str, full_name: str, metadata: object) -> str:
        object_name, _, rule_name = full_name.partition(".")
        kind = _KIND_OF[name]
        if self._org.automations.find(kind, full_name) is not None:
            text = f"duplicate value found: {full_name}"
            raise ApiError(400, "DUPLICATE_DEVELOPER_NAME", text, ["DeveloperName"])
        rule: Automation
        if kind == "validation_rules":
            empty = ValidationRule(name=rule_name, object=object_name, formula="false", error_message="-")
            rule = with_validation_rule_metadata(empty, metadata)
        else:
            rule = with_workflow_rule_metadata(
                WorkflowRule(name=rule_name, object=object_name, condition="false"), metadata
            )
        rule = replace(rule, object=self._object_name(object_name))
        check_automation(self._org.schema, rule, kind, self._org.automations.find(kind, rule.full_name))
        self._org.automations.put((kind, rule))
        return self._org.automations.id_of(kind, rule.full_name)

    def _object_name(self, name: str) -> str:
        entry = self._org.schema.object(name)
        if entry is None:
            raise ApiError(400, "INVALID_TYPE", f"no object named {name} found", ["FullName"])
        return entry.name

    def _existing(self, entry: ObjectSchema, record_id: str) -> str:
        """The Id as the rows have it, given in 15 or 18 characters. Raises ApiError 404."""
        cursor = self._tables.cursor()
        try:
            row = cursor.execute(
                f'SELECT Id FROM data."{entry.name}" WHERE Id = $1 OR (length($1) = 15 AND left(Id, 15) = $1)',
                [record_id],
            ).fetchone()
        finally:
            cursor.close()
        if row is None:
            raise not_found()
        return str(row[0])

    def _automation(self, object_name: str, record_id: str) -> tuple[Kind, Automation, int | None]:
        """The automation of a record; for a flow's version its number too."""
        state = self._org.automations
        for kind, automation in state.current().each():
            if _KIND_OF.get(object_name) == kind and state.id_of(kind, automation.full_name) == record_id:
                return kind, automation, None
            if object_name == "Flow" and isinstance(automation, RecordFlow):
                for version in automation.versions:
                    if state.version_id(automation.name, version.number) == record_id:
                        return kind, automation, version.number
        raise not_found()

    def _fill(self, object_name: str, record: dict[str, Any], record_id: str, asked: list[str]) -> None:
        """Put in what has no column."""
        if "ReferenceTo" in asked and object_name == "FieldDefinition":
            record["ReferenceTo"] = {"referenceTo": self._targets(record_id) or None}
        if not any(name in BLOB_FIELDS for name in asked):
            return
        full_name, metadata = self._blob(object_name, record_id)
        record |= {name: value for name, value in (("FullName", full_name), ("Metadata", metadata)) if name in asked}

    def _blob(self, object_name: str, record_id: str) -> tuple[str, dict[str, Any]]:
        if object_name == "CustomField":
            entry, field = self._field(record_id)
            return f"{entry.name}.{field.name}", field_metadata(field)
        _, automation, number = self._automation(object_name, record_id)
        match automation:
            case ValidationRule():
                return automation.full_name, validation_rule_metadata(automation)
            case WorkflowRule():
                return automation.full_name, workflow_rule_metadata(automation)
            case Trigger():
                return automation.full_name, trigger_metadata(automation)
            case RecordFlow() if number is not None:
                status = version_status(automation, number)
                return f"{automation.name}-{number}", flow_metadata(automation, number, status)
            case RecordFlow():
                return automation.full_name, flow_definition_metadata(automation)
        raise not_found()

    def _field(self, record_id: str) -> tuple[ObjectSchema, FieldSchema]:
        ids = self._org.fields.ids()
        for entry, field in self._org.fields.all():
            if ids[f"{entry.name}.{field.name}"] == record_id:
                return entry, field
        raise not_found()

    def _targets(self, durable_id: str) -> list[str]:
        cursor = self._tables.cursor()
        try:
            row = cursor.execute(
                'SELECT e.QualifiedApiName, f.QualifiedApiName FROM data."FieldDefinition" f '
                'JOIN data."EntityDefinition" e ON e.Id = f.EntityDefinitionId WHERE f.Id = ?',
                [durable_id],
            ).fetchone()
        finally:
            cursor.close()
        entry = None if row is None else self._org.schema.object(row[0])
        if entry is None or row is None:
            return []
        field = entry.field(row[1]) or entry.hidden_field(row[1])
        return [] if field is None else list(field.reference_to)


def refuse_columns(body: dict[str, Any], verb: str) -> None:
    """Only `Metadata` and `FullName` can be written: a plain column such as `Active` has no Update property."""
    columns = [name for name in body if name not in (*BLOB_FIELDS, "attributes", "Id")]
    if columns:
        text = (
            f"Unable to create/update fields: {', '.join(columns)}. Please check the security settings of this field "
            "and verify that it is read/write for your profile or permission set."
        )
        raise ApiError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", text, columns)
    if "Id" in body:
        text = f"The Id field should not be specified in the sobject data of an {verb}."
        raise ApiError(400, "INVALID_FIELD", text, ["Id"])


def _full_name(body: dict[str, Any]) -> str:
    value = body.get("FullName")
    if not isinstance(value, str) or "." not in value:
        raise ApiError(400, "REQUIRED_FIELD_MISSING", "Required field is missing: FullName", ["FullName"])
    return value


def _entry(call: Call) -> ObjectSchema:
    entry = TOOLING.object(call.params["object"])
    if entry is None:
        raise not_found()
    return entry


def _tooling_url(url: str) -> str:
    return url.replace(PLACE, f"/tooling{PLACE}", 1)


def _mend_urls(record: dict[str, Any]) -> None:
    """Records of queries carry the urls of the data API; these live below `/tooling`."""
    attributes = record.get("attributes")
    if isinstance(attributes, dict) and "url" in attributes:
        attributes["url"] = _tooling_url(attributes["url"])
    for name, value in record.items():
        if name not in ("attributes", "Metadata") and isinstance(value, dict):
            _mend_urls(value)
