"""What a load needs of an org's setup: automations that are found, read exactly, switched off and put back; fields.

A state is a document that the adapter made and only it understands; to everybody else equal documents are equal states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from msgspec import Struct


class AutomationKind(StrEnum):
    """Kinds of automations that act on records as they are saved."""

    TRIGGER = "trigger"
    FLOW = "flow"  # processes of Process Builder too
    WORKFLOW_RULE = "workflow_rule"
    VALIDATION_RULE = "validation_rule"
    DUPLICATE_RULE = "duplicate_rule"

    @property
    def words(self) -> str:
        """As people say it."""
        return self.value.replace("_", " ")


class ItemName(NamedTuple):
    """What one automation of an org is called: `Sale__c.No_Zero` of a rule, `Sale_Flow` of a flow or trigger."""

    kind: AutomationKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.words} {self.name}"


class ItemState(Struct, frozen=True, kw_only=True):
    """One automation, exactly as the org has it.

    Attributes:
        item: Which.
        record_id: Its Salesforce Id.
        is_active: Whether it acts on records.
        document: All of it as JSON: the whole `Metadata`, or the files of a retrieve.
        acts: What it does when records are saved, in one line, for people.
    """

    item: ItemName
    record_id: str
    is_active: bool
    document: Mapping[str, Any]
    acts: str


class Automation(Struct, frozen=True, kw_only=True):
    """One automation of an object, as a list of the org shows it.

    Attributes:
        is_active: As far as the list tells; None where only the whole state does.
        namespace: Of the managed package that it belongs to; None if it is the org's own.
    """

    item: ItemName
    object: str
    record_id: str
    is_active: bool | None
    namespace: str | None = None


class Found(Struct, frozen=True, kw_only=True):
    """The automations of some objects.

    `unplaced` names active ones of which the org does not tell whether they are of these objects.
    """

    automations: tuple[Automation, ...]
    unplaced: tuple[str, ...] = ()


class OrgFacts(Struct, frozen=True, kw_only=True):
    """What kind of org it is. In a production org a deploy of triggers runs Apex tests."""

    name: str
    edition: str
    is_production: bool


class HostFacts(Struct, frozen=True, kw_only=True):
    """What the org's host says without a sign-in: its clock, to the second, and the API versions, oldest first."""

    now: datetime | None
    versions: tuple[str, ...]


class Permissions(Struct, frozen=True, kw_only=True):
    """What the signed-in user may do in general; None where the org does not know such a permission."""

    api_enabled: bool | None
    bulk_hard_delete: bool | None
    customize_application: bool | None
    modify_metadata: bool | None


class NewField(Struct, frozen=True, kw_only=True):
    """An external ID field to be made: text, unique, of that length."""

    object: str
    name: str
    label: str
    length: int
    case_sensitive: bool = True


class FieldSeen(Struct, frozen=True, kw_only=True):
    """A field as setup shows it, whoever may see it. `is_indexed` and `has_history` are None where it does not tell."""

    record_id: str
    is_indexed: bool | None
    has_history: bool | None


class Grant(Struct, frozen=True, kw_only=True):
    """Where a field's visibility was granted: a permission set, or the one that a profile owns."""

    permission_set_id: str
    label: str


class Setup(Protocol):
    """The setup of a signed-in org.

    Raises (all methods): as `Org` does. A `LostReply` says that a change may have been made.
    """

    def facts(self) -> OrgFacts: ...

    def host(self) -> HostFacts: ...

    def permissions(self) -> Permissions: ...

    def find(self, objects: Sequence[str]) -> Found:
        """All automations of these objects, active or not."""
        ...

    def read(self, automations: Sequence[tuple[ItemName, str]]) -> dict[ItemName, ItemState]:
        """The exact states of items, given with their Ids; those that do not exist any more are left out."""
        ...

    def switched_off(self, state: ItemState) -> ItemState:
        """The same with nothing changed but that it does not act. Pure."""
        ...

    def steps(self, states: Sequence[ItemState]) -> list[list[ItemState]]:
        """What is written together, in an order that the org allows. Pure."""
        ...

    def write(self, states: Sequence[ItemState], *, run_tests: Sequence[str]) -> None:
        """Make one step of items be so. In a production org a deploy of triggers runs these Apex tests, or all."""
        ...

    def restored(self, document: Mapping[str, Any], item: ItemName) -> ItemState:
        """A state from its document, as it was remembered. Pure."""
        ...

    def field(self, object_name: str, name: str) -> FieldSeen | None:
        """A field, whether or not the user may see it; None if there is none."""
        ...

    def tracked_fields(self, object_name: str) -> dict[str, bool]:
        """All fields of an object, whoever may see them, and whether their history is tracked."""
        ...

    def track_field(self, object_name: str, name: str) -> None:
        """Switch the history of a custom field on, and nothing else of it."""
        ...

    def make_field(self, field: NewField) -> None: ...

    def grant_field(self, object_name: str, name: str, *, permission_set: str | None) -> Grant:
        """Let the signed-in user see and write a field, by a permission set of that name or that of the profile."""
        ...
