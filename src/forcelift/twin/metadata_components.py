"""Components of the Metadata API that the twin has: each type's files, and what a deployed file changes.

A validation rule, workflow rule or custom field stands inside a file of its object; triggers, duplicate rules and flows
have files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from xml.etree.ElementTree import Element

from forcelift.twin.automation_checks import check_automation, refuse_managed
from forcelift.twin.automation_metadata import (
    duplicate_rule_metadata,
    flow_definition_metadata,
    flow_metadata,
    trigger_metadata,
    validation_rule_metadata,
    with_duplicate_rule_metadata,
    with_flow_definition_metadata,
    with_flow_metadata,
    with_trigger_metadata,
    with_validation_rule_metadata,
    with_workflow_rule_metadata,
    workflow_rule_metadata,
)
from forcelift.twin.automation_models import (
    Automation,
    DuplicateRule,
    Kind,
    RecordFlow,
    Trigger,
    ValidationRule,
    WorkflowRule,
)
from forcelift.twin.errors import ApiError
from forcelift.twin.field_metadata import field_metadata
from forcelift.twin.metadata_zip import element_values, metadata_xml
from forcelift.twin.org import TwinOrg
from forcelift.twin.soap import children, read_xml, text_of
from forcelift.twin.tooling_tables import trigger_body, version_status

KIND_OF: Final[Mapping[str, Kind]] = {
    "ValidationRule": "validation_rules",
    "WorkflowRule": "workflow_rules",
    "ApexTrigger": "triggers",
    "DuplicateRule": "duplicate_rules",
    "Flow": "flows",
    "FlowDefinition": "flows",
}
TYPES: Final = (*KIND_OF, "CustomField")
FOLDERS: Final = {
    "ApexTrigger": ("triggers", ".trigger"),
    "DuplicateRule": ("duplicateRules", ".duplicateRule"),
    "Flow": ("flows", ".flow"),
    "FlowDefinition": ("flowDefinitions", ".flowDefinition"),
    "CustomField": ("objects", ".object"),
    "ValidationRule": ("objects", ".object"),
    "WorkflowRule": ("workflows", ".workflow"),
}
_LISTS: Final = (
    "actions",
    "criteriaItems",
    "workflowTimeTriggers",
    "operationsOnInsert",
    "operationsOnUpdate",
    "value",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one component of a deploy does. `automation` None with a kind deletes it; `field` holds new Metadata."""

    type: str
    full_name: str
    file_name: str
    kind: Kind | None = None
    automation: Automation | None = None
    field: Mapping[str, Any] | None = None
    created: bool = False
    changed: bool = True


def names_of(org: TwinOrg, type_name: str) -> list[str]:
    """The full names of all components of a type."""
    if type_name == "CustomField":
        return [f"{entry.name}.{field.name}" for entry, field in org.fields.all()]
    kind = KIND_OF.get(type_name)
    return [] if kind is None else [entry.full_name for entry in getattr(org.automations.current(), kind)]


def component_id(org: TwinOrg, type_name: str, full_name: str) -> str:
    if type_name == "CustomField":
        return org.fields.id_of(*full_name.split(".", 1))
    return org.automations.id_of(KIND_OF[type_name], full_name)


def file_of(type_name: str, full_name: str) -> str:
    folder, ending = FOLDERS[type_name]
    name = full_name.partition(".")[0] if ending in (".object", ".workflow") else full_name
    return f"{folder}/{name}{ending}"


def files_for(org: TwinOrg, wanted: Mapping[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of existing components, `{type: full names}`, as a retrieve gives them."""
    objects: dict[str, dict[str, list[dict[str, Any]]]] = {}
    workflows: dict[str, list[dict[str, Any]]] = {}
    for type_name, names in wanted.items():
        for name in names:
            if type_name == "CustomField":
                entry, field = next(pair for pair in org.fields.all() if f"{pair[0].name}.{pair[1].name}" == name)
                values = {"fullName": field.name, **dict(sorted(field_metadata(field).items()))}
                objects.setdefault(entry.name, {}).setdefault("fields", []).append(values)
                continue
            automation = org.automations.find(KIND_OF[type_name], name)
            match automation:
                case ValidationRule():
                    values = {"fullName": automation.name, **validation_rule_metadata(automation)}
                    objects.setdefault(automation.object, {}).setdefault("validationRules", []).append(values)
                case WorkflowRule():
                    values = {"fullName": automation.name, **workflow_rule_metadata(automation)}
                    workflows.setdefault(automation.object, []).append(values)
                case Trigger():
                    yield file_of(type_name, name), trigger_body(automation).encode()
                    yield f"{file_of(type_name, name)}-meta.xml", metadata_xml(type_name, trigger_metadata(automation))
                case DuplicateRule():
                    yield file_of(type_name, name), metadata_xml(type_name, duplicate_rule_metadata(automation))
                case RecordFlow() if type_name == "FlowDefinition":
                    yield file_of(type_name, name), metadata_xml(type_name, flow_definition_metadata(automation))
                case RecordFlow():
                    number = automation.active_version or max(version.number for version in automation.versions)
                    values = flow_metadata(automation, number, version_status(automation, number))
                    yield file_of(type_name, name), metadata_xml(type_name, values)
    for object_name, parts in objects.items():
        yield f"objects/{object_name}.object", metadata_xml("CustomObject", dict(sorted(parts.items())))
    for object_name, rules in workflows.items():
        yield f"workflows/{object_name}.workflow", metadata_xml("Workflow", {"rules": rules})


def read_change(org: TwinOrg, type_name: str, full_name: str, files: Mapping[str, bytes]) -> Change:
    """What deploying a component would do. Raises ApiError with the problem that the deploy tells for it."""
    if type_name not in TYPES:
        raise ApiError(400, "INVALID_TYPE", f"Unknown type name '{type_name}' specified in package.xml")
    file_name = file_of(type_name, full_name)
    if file_name not in files:
        text = f"An object '{full_name}' of type {type_name} was named in package.xml, but was not found in zipped "
        raise ApiError(400, "NOT_FOUND", f"{text}directory")
    base = Change(type=type_name, full_name=full_name, file_name=file_name)
    if type_name == "CustomField":
        return _field_change(org, base, _part(files[file_name], "fields", full_name, file_name))
    return _automation_change(org, base, files)


def _field_change(org: TwinOrg, base: Change, metadata: dict[str, Any]) -> Change:
    object_name, _, name = base.full_name.partition(".")
    entry = org.schema.object(object_name)
    known = None if entry is None else entry.field(name) or entry.hidden_field(name)
    if entry is None or known is None:
        org.fields.check(base.full_name, metadata)
        return replace(base, field=metadata, created=True)
    present = {key: value for key, value in field_metadata(known).items() if value is not None}
    differing = sorted(
        key for key, value in metadata.items() if key in present and not _same_member(present[key], value)
    )
    if differing:
        text = f"the twin does not change a custom field that exists: {', '.join(differing)} would differ"
        raise ApiError(400, "FUNCTIONALITY_NOT_ENABLED", text)
    return replace(base, changed=False)


def _same_member(present: Any, given: Any) -> bool:
    if isinstance(present, (dict, list)):
        return True  # value sets: the twin compares what a loader depends on
    return str(present).lower() == str(given).lower()


def _automation_change(org: TwinOrg, base: Change, files: Mapping[str, bytes]) -> Change:
    kind = KIND_OF[base.type]
    present = org.automations.find(kind, base.full_name)
    if present is not None:
        refuse_managed(present)
    if base.type in ("ValidationRule", "WorkflowRule"):
        part = "validationRules" if base.type == "ValidationRule" else "rules"
        metadata = _part(files[base.file_name], part, base.full_name, base.file_name)
    elif base.type == "ApexTrigger":
        metadata = _whole(files, f"{base.file_name}-meta.xml")
    else:
        metadata = _whole(files, base.file_name)
    automation = _MAKERS[base.type](present, base, metadata)
    if isinstance(automation, Trigger):
        body = files[base.file_name].decode("utf-8", "replace")
        if body != trigger_body(automation):
            automation = replace(automation, body=body)
    if automation is not None:
        target = org.schema.object(automation.object)
        if target is not None and target.name != automation.object:
            automation = replace(automation, object=target.name)
        check_automation(org.schema, automation, kind, org.automations.find(kind, automation.full_name))
    change = replace(base, kind=kind, automation=automation, created=present is None)
    return replace(change, changed=automation != present)


def _validation_rule(present: Automation | None, base: Change, metadata: dict[str, Any]) -> Automation:
    object_name, _, name = base.full_name.partition(".")
    new = ValidationRule(name=name, object=object_name, formula="false", error_message="-")
    return with_validation_rule_metadata(present if isinstance(present, ValidationRule) else new, metadata)


def _workflow_rule(present: Automation | None, base: Change, metadata: dict[str, Any]) -> Automation:
    object_name, _, name = base.full_name.partition(".")
    new = WorkflowRule(name=name, object=object_name, condition="false")
    return with_workflow_rule_metadata(present if isinstance(present, WorkflowRule) else new, metadata)


def _trigger(present: Automation | None, base: Change, metadata: dict[str, Any]) -> Automation | None:
    if not isinstance(present, Trigger):
        raise _undeclared("trigger", base)
    return with_trigger_metadata(present, metadata)


def _duplicate_rule(present: Automation | None, base: Change, metadata: dict[str, Any]) -> Automation:
    if not isinstance(present, DuplicateRule):
        raise _undeclared("duplicate rule", base)
    return with_duplicate_rule_metadata(present, metadata)


def _flow_definition(present: Automation | None, base: Change, metadata: dict[str, Any]) -> Automation:
    if not isinstance(present, RecordFlow):
        raise _undeclared("flow", base)
    return with_flow_definition_metadata(present, metadata)


def _flow(present: Automation | None, base: Change, metadata: dict[str, Any]) -> Automation:
    if not isinstance(present, RecordFlow):
        raise _undeclared("flow", base)
    number = present.active_version or max(version.number for version in present.versions)
    return with_flow_metadata(present, number, metadata)


_MAKERS: Final[Mapping[str, Callable[[Automation | None, Change, dict[str, Any]], Automation | None]]] = {
    "ValidationRule": _validation_rule,
    "WorkflowRule": _workflow_rule,
    "ApexTrigger": _trigger,
    "DuplicateRule": _duplicate_rule,
    "FlowDefinition": _flow_definition,
    "Flow": _flow,
}


def _undeclared(what: str, base: Change) -> ApiError:
    text = f"the twin has no {what} {base.full_name}, and cannot read from code what a new one would do; declare it"
    return ApiError(400, "FUNCTIONALITY_NOT_ENABLED", text)


def _whole(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        raise ApiError(400, "NOT_FOUND", f"the zipped directory lacks {name}")
    return element_values(_xml(files[name], name), lists=_LISTS)


def _part(content: bytes, part: str, full_name: str, file_name: str) -> dict[str, Any]:
    """The members of one component inside its object's file."""
    name = full_name.partition(".")[2]
    for element in children(_xml(content, file_name), part):
        if (text_of(element, "fullName") or "").lower() == name.lower():
            values = element_values(element, lists=_LISTS)
            values.pop("fullName", None)
            return values
    raise ApiError(400, "NOT_FOUND", f"{file_name} has no {part} named {name}")


def _xml(content: bytes, name: str) -> Element:
    try:
        return read_xml(content)
    except ValueError as error:
        raise ApiError(400, "INVALID_XML", f"Error parsing {name}: {error}") from error
