"""The `Metadata` of automations, as the Tooling API shows and takes it as JSON and the Metadata API as XML.

A write replaces the whole block: what is left out is lost, and a required member that is left out refuses the write.
Source: Tooling and Metadata API guides; sections 6 and 9 (point 33) of the API reference. Codes of refusals are those
of other calls: which ones Salesforce gives here is not documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from forcelift.twin.automation_models import DuplicateRule, RecordFlow, Trigger, ValidationRule, WorkflowRule
from forcelift.twin.errors import ApiError

_M = TypeVar("_M", bound=BaseModel)
WORKFLOW_ACTION: Final = "FieldUpdate"


class _Camel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class ValidationRuleMetadata(_Camel):
    active: bool
    error_condition_formula: str = Field(min_length=1)
    error_message: str = Field(min_length=1, max_length=255)
    error_display_field: str | None = None
    description: str | None = None
    should_evaluate_on_client: bool | None = None
    urls: Any = None


class _Action(_Camel):
    name: str
    type: str


class WorkflowRuleMetadata(_Camel):
    active: bool
    trigger_type: Literal["onCreateOnly", "onCreateOrTriggeringUpdate", "onAllChanges"]
    formula: str | None = None
    actions: tuple[_Action, ...] = ()
    description: str | None = None
    boolean_filter: str | None = None
    criteria_items: tuple[Any, ...] = ()
    workflow_time_triggers: tuple[Any, ...] = ()
    urls: Any = None


class FlowDefinitionMetadata(_Camel):
    active_version_number: int | None = Field(None, ge=0)
    description: str | None = None
    developer_name: str | None = None
    master_label: str | None = None
    urls: Any = None


class FlowMetadata(BaseModel):
    """Of a flow's many members only the status is looked at; the others describe what the twin declares elsewhere."""

    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel)

    label: str
    process_type: str
    status: Literal["Active", "Draft", "Obsolete", "InvalidDraft"]


class TriggerMetadata(_Camel):
    api_version: float = Field(ge=1, le=999)
    status: Literal["Active", "Inactive", "Deleted"]
    package_versions: tuple[Any, ...] = ()
    urls: Any = None


class DuplicateRuleMetadata(_Camel):
    """`fullName` stands in XML files of some tools; the file's name counts."""

    action_on_insert: Literal["Allow", "Block"]
    action_on_update: Literal["Allow", "Block"]
    is_active: bool
    master_label: str
    security_option: Literal["BypassSharingRules", "EnforceSharingRules"]
    sort_order: int
    alert_text: str | None = None
    description: str | None = None
    duplicate_rule_filter: Any = None
    duplicate_rule_match_rules: Any = None
    operations_on_insert: tuple[str, ...] = ()
    operations_on_update: tuple[str, ...] = ()
    full_name: str | None = None


def read_metadata(model: type[_M], metadata: object, *, what: str) -> _M:
    """Check a `Metadata` block. Raises ApiError 400 that names the first member at fault, never its value."""
    if not isinstance(metadata, Mapping):
        raise ApiError(400, "JSON_PARSER_ERROR", f"{what}: Metadata must be an object")
    try:
        return model.model_validate(metadata)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "missing":
            raise ApiError(400, "REQUIRED_FIELD_MISSING", f"Required field is missing: {place}", [place]) from error
        if item["type"] == "extra_forbidden":
            raise ApiError(400, "INVALID_FIELD", f"No such column '{place}' on sobject of type {what}") from error
        raise ApiError(400, "INVALID_FIELD", f"{what}: {place}: {item['msg']}", [place]) from error


def shown_label(automation: RecordFlow | DuplicateRule) -> str:
    return automation.label or automation.name.replace("_", " ")


def kept_label(automation: RecordFlow | DuplicateRule, given: str) -> str | None:
    """The label to store: what is shown only because none was declared is no change when it comes back."""
    return automation.label if given == shown_label(automation) else given


def validation_rule_metadata(rule: ValidationRule) -> dict[str, Any]:
    return {
        "description": rule.description,
        "errorConditionFormula": rule.formula,
        "errorDisplayField": rule.error_field,
        "errorMessage": rule.error_message,
        "shouldEvaluateOnClient": None,
        "urls": None,
        "active": rule.active,
    }


def with_validation_rule_metadata(rule: ValidationRule, metadata: object) -> ValidationRule:
    read = read_metadata(ValidationRuleMetadata, metadata, what="ValidationRule")
    return replace(
        rule,
        active=read.active,
        formula=read.error_condition_formula,
        error_message=read.error_message,
        error_field=read.error_display_field,
        description=read.description,
    )


def action_name(rule: WorkflowRule, field: str) -> str:
    return f"{rule.name}_{field.removesuffix('__c')}"


def workflow_rule_metadata(rule: WorkflowRule) -> dict[str, Any]:
    updates = [{"name": action_name(rule, update.field), "type": WORKFLOW_ACTION} for update in rule.field_updates]
    return {
        "actions": updates,
        "active": rule.active,
        "booleanFilter": None,
        "criteriaItems": [],
        "description": rule.description,
        "formula": rule.condition,
        "triggerType": rule.on,
        "urls": None,
        "workflowTimeTriggers": [],
    }


def with_workflow_rule_metadata(rule: WorkflowRule, metadata: object) -> WorkflowRule:
    """The rule keeps those of its field updates which `actions` still names."""
    read = read_metadata(WorkflowRuleMetadata, metadata, what="WorkflowRule")
    if read.criteria_items or read.workflow_time_triggers or read.formula is None:
        text = "the twin knows workflow rules with a formula, and neither criteria items nor time triggers"
        raise ApiError(400, "FIELD_INTEGRITY_EXCEPTION", text, ["formula"])
    known = {action_name(rule, update.field): update for update in rule.field_updates}
    unknown = [action.name for action in read.actions if action.name not in known or action.type != WORKFLOW_ACTION]
    if unknown:
        text = f"no {WORKFLOW_ACTION} named {unknown[0]} found"
        raise ApiError(400, "INVALID_CROSS_REFERENCE_KEY", text, ["actions"])
    return replace(
        rule,
        active=read.active,
        on=read.trigger_type,
        condition=read.formula,
        description=read.description,
        field_updates=tuple(known[action.name] for action in read.actions),
    )


def flow_definition_metadata(flow: RecordFlow) -> dict[str, Any]:
    return {
        "activeVersionNumber": flow.active_version or None,
        "description": None,
        "developerName": None,
        "masterLabel": flow.label,
        "urls": None,
    }


def with_flow_definition_metadata(flow: RecordFlow, metadata: object) -> RecordFlow:
    """0, or no number, switches the flow off."""
    read = read_metadata(FlowDefinitionMetadata, metadata, what="FlowDefinition")
    number = read.active_version_number or None
    if number is not None and number not in [version.number for version in flow.versions]:
        text = f"The version number {number} of the flow {flow.name} does not exist"
        raise ApiError(400, "INVALID_CROSS_REFERENCE_KEY", text, ["activeVersionNumber"])
    return replace(flow, active_version=number, label=read.master_label or flow.label)


def flow_metadata(flow: RecordFlow, number: int, status: str) -> dict[str, Any]:
    version = next(entry for entry in flow.versions if entry.number == number)
    return {
        "description": version.description,
        "label": shown_label(flow),
        "processType": flow.process_type,
        "start": {
            "object": flow.object,
            "recordTriggerType": {"create": "Create", "update": "Update", "delete": "Delete"}.get(
                flow.on, "CreateAndUpdate"
            ),
            "triggerType": "RecordBeforeSave" if flow.timing == "before_save" else "RecordAfterSave",
        },
        "status": status,
    }


def with_flow_metadata(flow: RecordFlow, number: int, metadata: object) -> RecordFlow:
    """The status of a version decides whether it is the active one."""
    read = read_metadata(FlowMetadata, metadata, what="Flow")
    if read.status == "Active":
        return replace(flow, active_version=number, label=kept_label(flow, read.label))
    off = flow.active_version == number
    return replace(flow, active_version=None if off else flow.active_version, label=kept_label(flow, read.label))


def trigger_metadata(trigger: Trigger) -> dict[str, Any]:
    status = "Active" if trigger.active else "Inactive"
    return {"apiVersion": trigger.api_version, "packageVersions": [], "status": status, "urls": None}


def with_trigger_metadata(trigger: Trigger, metadata: object) -> Trigger | None:
    """The trigger as described; None if the status is Deleted."""
    read = read_metadata(TriggerMetadata, metadata, what="ApexTrigger")
    if read.status == "Deleted":
        return None
    return replace(trigger, active=read.status == "Active", api_version=read.api_version)


def duplicate_rule_metadata(rule: DuplicateRule) -> dict[str, Any]:
    action = rule.action.capitalize()
    return {
        "actionOnInsert": action if rule.on_insert else "Allow",
        "actionOnUpdate": action if rule.on_update else "Allow",
        "alertText": rule.alert_text if rule.action == "block" else None,
        "duplicateRuleMatchRules": {
            "matchRuleSObjectType": rule.object,
            "matchingRule": f"{rule.name}_Matching",
            "objectMapping": None,
        },
        "isActive": rule.active,
        "masterLabel": shown_label(rule),
        "operationsOnInsert": ["Alert", "Report"] if rule.action == "allow" and rule.on_insert else [],
        "operationsOnUpdate": ["Alert", "Report"] if rule.action == "allow" and rule.on_update else [],
        "securityOption": "EnforceSharingRules",
        "sortOrder": 1,
    }


def with_duplicate_rule_metadata(rule: DuplicateRule, metadata: object) -> DuplicateRule:
    """What the rule matches by is its matching rule's and stays as it is."""
    read = read_metadata(DuplicateRuleMetadata, metadata, what="DuplicateRule")
    blocks = "Block" in (read.action_on_insert, read.action_on_update)
    if blocks:
        on_insert, on_update = read.action_on_insert == "Block", read.action_on_update == "Block"
    else:
        on_insert, on_update = bool(read.operations_on_insert), bool(read.operations_on_update)
    return replace(
        rule,
        active=read.is_active,
        action="block" if blocks else "allow",
        on_insert=on_insert,
        on_update=on_update,
        label=kept_label(rule, read.master_label),
        alert_text=read.alert_text or rule.alert_text,
    )
