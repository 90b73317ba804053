"""Salesforce's JSON, taken in at the border: describe, jobs, limits, query pages. What is missing gets a default."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from forcelift.protocols.org import (
    ChildRelationship,
    FieldDescribe,
    IngestJob,
    JobState,
    Limits,
    ObjectDescribe,
    RecordType,
)
from forcelift.salesforce.failures import broken_answer

M = TypeVar("M", bound="Shape")


class Shape(BaseModel):
    """Outside data: attributes in Salesforce's spelling, unknown ones ignored, nulls taken as missing."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


def parse(shape: type[M], body: Any, *, what: str, changes: bool = False) -> M:
    """Read an answer's JSON as a shape.

    Raises:
        OrgUnavailable, LostReply: It is something else, so no server of the org has written it.
    """
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        places = sorted({".".join(str(part) for part in item["loc"]) or "all" for item in error.errors()})
        # The validation error holds the values, so only the names of what is wrong go on.
        reason = f"missing or wrong: {', '.join(places[:5])}"
    raise broken_answer(what=what, reason=reason, changes=changes)


class _Picklist(Shape):
    value: str = ""
    active: bool = True


class _Field(Shape):
    name: str
    label: str = ""
    type: str = "string"
    length: int = 0
    precision: int = 0
    scale: int = 0
    digits: int = 0
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    defaulted_on_create: bool = False
    external_id: bool = False
    id_lookup: bool = False
    unique: bool = False
    case_sensitive: bool = False
    calculated: bool = False
    auto_number: bool = False
    reference_to: tuple[str, ...] = ()
    relationship_name: str | None = None
    restricted_picklist: bool = False
    picklist_values: tuple[_Picklist, ...] = ()
    cascade_delete: bool = False
    extra_type_info: str | None = None

    def to_field(self) -> FieldDescribe:
        values = self.model_dump(exclude={"picklist_values", "label"})
        active = tuple(item.value for item in self.picklist_values if item.active)
        return FieldDescribe(**values, label=self.label or self.name, picklist_values=active)


class _RecordType(Shape):
    record_type_id: str = ""
    name: str = ""
    developer_name: str = ""
    active: bool = True
    available: bool = True
    default_record_type_mapping: bool = False
    master: bool = False


class _ChildRelationship(Shape):
    child_s_object: str = Field(default="", alias="childSObject")
    field: str = ""
    cascade_delete: bool = False
    restricted_delete: bool = False
    deprecated_and_hidden: bool = False


class DescribeShape(Shape):
    """The answer of `/sobjects/X/describe`."""

    name: str
    label: str = ""
    key_prefix: str | None = None
    createable: bool = True
    updateable: bool = True
    deletable: bool = True
    queryable: bool = True
    fields_: tuple[_Field, ...] = Field(alias="fields")
    record_type_infos: tuple[_RecordType, ...] = ()
    child_relationships: tuple[_ChildRelationship, ...] = ()

    def to_describe(self) -> ObjectDescribe:
        """In the protocol's words. The master record type, which every object has, is left out."""
        return ObjectDescribe(
            name=self.name,
            label=self.label or self.name,
            key_prefix=self.key_prefix,
            fields={field.name: field.to_field() for field in self.fields_},
            createable=self.createable,
            updateable=self.updateable,
            deletable=self.deletable,
            queryable=self.queryable,
            record_types=tuple(
                RecordType(
                    id=item.record_type_id,
                    name=item.name,
                    developer_name=item.developer_name,
                    active=item.active,
                    available=item.available,
                    default=item.default_record_type_mapping,
                )
                for item in self.record_type_infos
                if not item.master
            ),
            child_relationships=tuple(
                ChildRelationship(
                    child_object=item.child_s_object,
                    field=item.field,
                    cascade_delete=item.cascade_delete,
                    restricted_delete=item.restricted_delete,
                )
                for item in self.child_relationships
                if item.child_s_object and item.field and not item.deprecated_and_hidden
            ),
        )


class _ObjectName(Shape):
    name: str


class ObjectsShape(Shape):
    """The answer of `/sobjects`."""

    sobjects: tuple[_ObjectName, ...]


class JobShape(Shape):
    """An ingest job, as create, change, get and list answer it; each leaves out something else."""

    id: str
    object: str
    operation: str
    state: JobState
    created_by_id: str = ""
    created_date: datetime
    external_id_field_name: str | None = None
    api_version: float | None = None
    job_type: str | None = None
    number_records_processed: int | None = None
    number_records_failed: int | None = None
    total_processing_time: int | None = None
    error_message: str | None = None

    def to_job(self) -> IngestJob:
        """In the protocol's words."""
        return IngestJob(
            id=self.id,
            object=self.object,
            operation=self.operation,
            state=self.state,
            created_by_id=self.created_by_id,
            created_date=self.created_date,
            external_id_field=self.external_id_field_name,
            api_version=self.api_version,
            job_type=self.job_type,
            records_processed=self.number_records_processed,
            records_failed=self.number_records_failed,
            total_processing_ms=self.total_processing_time,
            error_message=self.error_message,
        )


class JobsPage(Shape):
    """One page of the list of jobs. Entries of other job types may look different, so they are read one by one."""

    done: bool
    records: tuple[dict[str, Any], ...]
    next_records_url: str | None = None


class QueryPage(Shape):
    """One page of a REST query."""

    total_size: int
    done: bool
    records: tuple[dict[str, Any], ...]
    next_records_url: str | None = None


class QueryJobShape(Shape):
    """A bulk query job."""

    id: str
    state: JobState
    number_records_processed: int | None = None
    error_message: str | None = None


class UserInfo(Shape):
    """The answer of `/services/oauth2/userinfo`, whose attributes are not in camel case."""

    model_config = ConfigDict(extra="ignore", alias_generator=None)

    user_id: str
    organization_id: str
    preferred_username: str


def to_limits(body: Any, *, what: str) -> Limits:
    """The answer of `/limits`. The key of the Bulk API's batches had another name in older orgs."""
    if not isinstance(body, dict):
        raise broken_answer(what=what, reason="it is no table of limits", changes=False)

    def pick(*names: str) -> tuple[int | None, int | None]:
        entry: dict[str, Any] = next((body[name] for name in names if isinstance(body.get(name), dict)), {})
        return _whole(entry.get("Max")), _whole(entry.get("Remaining"))

    api_max, api_left = pick("DailyApiRequests")
    batches_max, batches_left = pick("DailyBulkApiBatches", "DailyBulkApiRequests")
    storage_max, storage_left = pick("DataStorageMB")
    return Limits(
        api_requests_max=api_max,
        api_requests_left=api_left,
        bulk_batches_max=batches_max,
        bulk_batches_left=batches_left,
        storage_mb_max=storage_max,
        storage_mb_left=storage_left,
        raw=body,
    )


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
