"""What acts on records as they are saved: validation rules, triggers, flows, workflow and duplicate rules, as declared.

Reads:   the `automations` part of a schema file, or the JSON that `automations_json` made. Nothing acts here: what is
         active now is known to `automation_state`, what an active rule does to a load is the engine's part.
Formulas (`formula`, `condition`, `when`) are in Salesforce's formula language and true or false of one record.
Source:  order of execution and kinds of automation in sections 5 and 6 of the API reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Discriminator, Field, TypeAdapter

# An unknown key is an error, with its place; pydantic checks types when a file is read, and only then.
_STRICT: Final = ConfigDict(extra="forbid")

TriggerEvent = Literal[
    "before insert",
    "before update",
    "before delete",
    "after insert",
    "after update",
    "after delete",
    "after undelete",
]
GovernorLimit = Literal["cpu_time", "soql_queries", "soql_rows", "dml_statements", "dml_rows", "heap"]
FieldValue = str | bool | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectRows:
    """Refuse rows for which `when` is true; without `when`, all.

    `how` is `error` for `addError` on each row alone, `exception` for one unhandled error that fails the whole chunk.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    effect: Literal["reject"] = "reject"
    message: str
    when: str | None = None
    field: str | None = None
    how: Literal["error", "exception"] = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillField:
    """Set a field to a literal `value` (null empties it) or, if `formula` is given, to what that computes."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    effect: Literal["fill"] = "fill"
    field: str
    value: FieldValue = None
    formula: str | None = None
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeTime:
    """Cost time: for each row and once for each chunk of 200, in milliseconds of the org's clock."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    effect: Literal["time"] = "time"
    row_ms: Annotated[float, Field(ge=0)] = 0.0
    chunk_ms: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockParent:
    """Lock the record that a lookup `field` of the row points at until the chunk's transaction ends."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    effect: Literal["lock_parent"] = "lock_parent"
    field: str
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceedLimit:
    """Exceed a governor limit if `when` is true for a row of the chunk (without `when`: always); the chunk fails."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    effect: Literal["exceed_limit"] = "exceed_limit"
    limit: GovernorLimit
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurse:
    """Save the same records again from within, `depth` times; more than 16 is `maximum trigger depth exceeded`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    effect: Literal["recurse"] = "recurse"
    depth: Annotated[int, Field(ge=1, le=1000)] = 17
    when: str | None = None


Effect = Annotated[
    RejectRows | FillField | TakeTime | LockParent | ExceedLimit | Recurse,
    Discriminator("effect"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRule:
    """Refuses a row for which `formula` is true. `error_field` None shows the message at the top of the page.

    `namespace`, here and below, is that of a managed package: what is managed can be read and not changed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    object: str
    formula: str
    error_message: Annotated[str, Field(min_length=1, max_length=255)]
    error_field: str | None = None
    active: bool = True
    description: str | None = None
    namespace: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.object}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """An Apex trigger: what it does is declared as `effects`, in their order. `body` is only shown and deployed."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    object: str
    events: Annotated[tuple[TriggerEvent, ...], Field(min_length=1)] = ("before insert", "before update")
    effects: tuple[Effect, ...] = ()
    active: bool = True
    body: str | None = None
    api_version: Annotated[float, Field(ge=1, le=999)] = 66.0
    namespace: str | None = None

    @property
    def full_name(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowVersion:
    """One version of a flow."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    number: Annotated[int, Field(ge=1)]
    effects: tuple[Effect, ...] = ()
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFlow:
    """A record-triggered flow, or a process of Process Builder (`process_type: Workflow`).

    `active_version` is the number of the version that runs; None and 0 mean that none does.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    object: str
    label: str | None = None
    timing: Literal["before_save", "after_save"] = "after_save"
    on: Literal["create", "update", "create_and_update", "delete"] = "create_and_update"
    condition: str | None = None
    versions: Annotated[tuple[FlowVersion, ...], Field(min_length=1)] = (FlowVersion(number=1),)
    active_version: Annotated[int, Field(ge=0)] | None = None
    process_type: Literal["AutoLaunchedFlow", "Workflow"] = "AutoLaunchedFlow"
    namespace: str | None = None

    @property
    def full_name(self) -> str:
        return self.name

    @property
    def active(self) -> bool:
        return bool(self.active_version)

    @property
    def running(self) -> FlowVersion | None:
        """The version that acts on records now."""
        return next((version for version in self.versions if version.number == self.active_version), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldUpdate:
    """What a workflow rule sets: a literal `value`, or what `formula` computes."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    field: str
    value: FieldValue = None
    formula: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRule:
    """Updates fields of rows for which `condition` is true, after the save; update triggers then fire once more."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    object: str
    condition: str
    field_updates: tuple[FieldUpdate, ...] = ()
    on: Literal["onCreateOnly", "onCreateOrTriggeringUpdate", "onAllChanges"] = "onAllChanges"
    active: bool = True
    description: str | None = None
    namespace: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.object}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateRule:
    """Refuses (`block`) or only reports (`allow`) a row that equals another record in all `match_fields`.

    Nulls match nothing; text compares without case and outer blanks.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    object: str
    match_fields: Annotated[tuple[str, ...], Field(min_length=1)]
    action: Literal["block", "allow"] = "block"
    on_insert: bool = True
    on_update: bool = True
    active: bool = True
    label: str | None = None
    alert_text: str = "Use one of these records?"
    namespace: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.object}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentEntry:
    """One entry of an assignment rule: records for which `condition` is true (without one: all) go to `owner`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    owner: str
    condition: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRule:
    """Gives records to users, by the first entry that is met; `owner` is a username.

    It runs for a job that names its Id in `assignmentRuleId`, whether it is active or not, and for no other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    object: Literal["Case", "Lead"]
    entries: Annotated[tuple[AssignmentEntry, ...], Field(min_length=1)]
    active: bool = True

    @property
    def full_name(self) -> str:
        return f"{self.object}.{self.name}"


Automation = ValidationRule | Trigger | RecordFlow | WorkflowRule | DuplicateRule
Kind = Literal["validation_rules", "triggers", "flows", "workflow_rules", "duplicate_rules"]
KINDS: Final[tuple[Kind, ...]] = ("validation_rules", "triggers", "flows", "workflow_rules", "duplicate_rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApexTests:
    """The org's Apex tests, which a deploy to production runs: class names, the coverage that they reach in percent,
    and the triggers without which they fail."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    classes: tuple[str, ...] = ()
    coverage: Annotated[int, Field(ge=0, le=100)] = 100
    need_active: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Automations:
    """All automations of an org. `of(object)` and `active_on(object)` look up without case."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    validation_rules: tuple[ValidationRule, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    flows: tuple[RecordFlow, ...] = ()
    workflow_rules: tuple[WorkflowRule, ...] = ()
    duplicate_rules: tuple[DuplicateRule, ...] = ()
    assignment_rules: tuple[AssignmentRule, ...] = ()
    """As declared; no call changes them. Of what is active on an object none is one, until a job asks for it."""
    apex_tests: ApexTests = ApexTests()

    def each(self) -> Iterator[tuple[Kind, Automation]]:
        """All of them with their kinds, kind by kind in declared order."""
        for kind in KINDS:
            for entry in getattr(self, kind):
                yield kind, entry

    def active_on(self, object_name: str) -> Automations:
        """Only what is active on an object. The engine asks this once for each chunk."""
        wanted = object_name.lower()

        def chosen(kind: Kind) -> tuple[Any, ...]:
            return tuple(e for e in getattr(self, kind) if e.active and e.object.lower() == wanted)

        return Automations(**{kind: chosen(kind) for kind in KINDS}, apex_tests=self.apex_tests)

    def declared_on(self, object_name: str) -> Automations:
        """All of an object's, active or not."""
        wanted = object_name.lower()
        chosen = {kind: tuple(e for e in getattr(self, kind) if e.object.lower() == wanted) for kind in KINDS}
        return Automations(**chosen, apex_tests=self.apex_tests)

    @property
    def is_empty(self) -> bool:
        return not self.assignment_rules and not any(getattr(self, kind) for kind in KINDS)


NO_AUTOMATIONS: Final = Automations()
_READER: Final = TypeAdapter(Automations)


def read_automations(content: object) -> Automations:
    """Check and convert the `automations` part of a schema file, or what `automations_json` gave.

    Raises:
        pydantic.ValidationError: Unknown keys, wrong types or values, with their places.
    """
    return _READER.validate_python(content)


def automations_json(automations: Automations) -> dict[str, Any]:
    """As plain JSON; `read_automations` gives an equal object back."""
    document = _READER.dump_python(automations, mode="json")
    assert isinstance(document, dict)
    return document


def known_keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where a validation error stands, for the hint at the nearest one."""
    models: Mapping[str, Any] = {
        "validation_rules": ValidationRule,
        "triggers": Trigger,
        "flows": RecordFlow,
        "workflow_rules": WorkflowRule,
        "duplicate_rules": DuplicateRule,
        "assignment_rules": AssignmentRule,
        "entries": AssignmentEntry,
        "apex_tests": ApexTests,
        "versions": FlowVersion,
        "field_updates": FieldUpdate,
        "reject": RejectRows,
        "fill": FillField,
        "time": TakeTime,
        "lock_parent": LockParent,
        "exceed_limit": ExceedLimit,
        "recurse": Recurse,
    }
    model = next(
        (models[part] for part in reversed(place[:-1]) if isinstance(part, str) and part in models), Automations
    )
    return [entry.name for entry in fields(model)]
