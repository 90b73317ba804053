"""Form of the twin's schema file. Field attributes are spelled as in describe JSON; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Names of `GET /limits` that the twin keeps, and its own two for what that call has no key for.
QUERY_ROWS_ANY: Final = 1_000_000_000_000
"""As many records as a REST query may find before it times out: a real org counts no records, but two minutes."""

LIMIT_DEFAULTS: Final = {
    "DailyApiRequests": 100_000,
    "DailyBulkApiBatches": 15_000,
    "DailyBulkV2QueryJobs": 10_000,
    "DailyBulkV2QueryFileStorageMB": 976_562,
    "DataStorageMB": 10_240,
    "FileStorageMB": 10_240,
    "rows_per_day": 150_000_000,
    "batches_per_day": 15_000,
    "query_rows": QUERY_ROWS_ANY,
}
UNLISTED_LIMITS: Final = frozenset({"rows_per_day", "batches_per_day", "query_rows"})
"""Limits that Salesforce keeps and `/limits` does not name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Camel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class PicklistValueFile(_Camel):
    value: str = Field(min_length=1)
    label: str | None = None
    active: bool = True
    default_value: bool = False


class RollUpFile(_Camel):
    child: str
    lookup: str
    function: Literal["COUNT", "SUM", "MIN", "MAX"]
    of: str | None = None


class FieldFile(_Camel):
    """One field. What is left out is None and takes what its type has in Salesforce."""

    type: str
    label: str | None = None
    length: int | None = Field(None, ge=1, le=131_072)
    precision: int | None = Field(None, ge=1, le=38)
    scale: int | None = Field(None, ge=0, le=38)
    digits: int | None = Field(None, ge=1, le=18)
    required: bool | None = None
    nillable: bool | None = None
    createable: bool | None = None
    updateable: bool | None = None
    defaulted_on_create: bool | None = None
    default_value: str | bool | int | float | None = None
    external_id: bool = False
    id_lookup: bool | None = None
    unique: bool = False
    case_sensitive: bool = False
    track_history: bool = False
    reference_to: tuple[str, ...] | str = ()
    relationship_name: str | None = None
    relationship_order: int | None = Field(None, ge=0, le=1)
    child_relationship_name: str | None = None
    restricted_picklist: bool = False
    values: tuple[str | PicklistValueFile, ...] = ()
    picklist_values: tuple[str | PicklistValueFile, ...] = ()
    calculated: bool = False
    auto_number: bool = False
    display_format: str | None = None
    cascade_delete: bool | None = None
    restricted_delete: bool = False
    write_requires_master_read: bool = False
    html_formatted: bool = False
    extra_type_info: str | None = None
    inline_help_text: str | None = None
    roll_up: RollUpFile | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.reference_to,) if isinstance(self.reference_to, str) else self.reference_to


class RecordTypeFile(_Camel):
    name: str
    developer_name: str
    active: bool = True
    available: bool = True
    default: bool = False
    picklist_values: dict[str, tuple[str, ...]] = {}


class ObjectFile(_Strict):
    label: str | None = None
    label_plural: str | None = Field(None, validation_alias=AliasChoices("label_plural", "labelPlural"))
    key_prefix: str | None = Field(None, validation_alias=AliasChoices("key_prefix", "keyPrefix"))
    bulk_capable: bool = True
    enable_history: bool = Field(True, validation_alias=AliasChoices("enable_history", "enableHistory"))
    fields: dict[str, FieldFile] = {}
    record_types: tuple[RecordTypeFile, ...] = Field((), validation_alias=AliasChoices("record_types", "recordTypes"))


class OrgFile(_Strict):
    name: str = "Twin"
    edition: str = "Developer Edition"
    sandbox: bool = True
    id: str | None = Field(default=None, pattern=r"^00D[A-Za-z0-9]{12}([A-Z0-5]{3})?$")
    instance: str = "TWIN1"
    namespace: str | None = None
    trial_expires: date | None = None


class UserFile(_Strict):
    username: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    name: str | None = None
    email: str | None = None
    active: bool = True
    permissions: tuple[str, ...] = ()
    unseen_fields: tuple[str, ...] = ()
    read_only_fields: tuple[str, ...] = ()


class SchemaFile(_Strict):
    """The whole file."""

    org: OrgFile = OrgFile()
    limits: dict[str, int] = {}
    users: tuple[UserFile, ...] = ()
    connected_apps: tuple[dict[str, Any], ...] = ()  # not of the schema: `http_apps` reads and checks them
    sign_in: dict[str, Any] = {}  # likewise
    automations: dict[str, Any] = {}  # `automation_models` reads and checks it
    objects: dict[str, ObjectFile] = {}
    describes: tuple[dict[str, Any], ...] = ()
    """Describe documents of a real org, beside or in place of `objects`."""
    record_counts: dict[str, int] = {}
    """Of the org that a snapshot was taken of; for people to read."""
    notes: tuple[str, ...] = ()
    """What a snapshot could not take; for people to read."""

    @classmethod
    def keys_beside(cls, place: Sequence[Any]) -> list[str]:
        """The keys that are known where an unknown one stood; `place` is a pydantic location."""
        model: type[BaseModel] = cls
        if place[0] == "objects" and len(place) > 2:
            model = ObjectFile
            if place[2] == "fields" and len(place) > 4:
                model = RollUpFile if "rollUp" in place[4:-1] else FieldFile
            elif place[2] in ("record_types", "recordTypes"):
                model = RecordTypeFile
        elif place[0] == "org" and len(place) > 1:
            model = OrgFile
        elif place[0] == "users" and len(place) > 2:
            model = UserFile
        return [info.alias or name for name, info in model.model_fields.items()]
