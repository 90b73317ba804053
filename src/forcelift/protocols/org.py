"""What an org adapter offers: describe, query, limits, Bulk API 2.0 ingest and query.

The engine sees an org only through `Org`; the Salesforce adapter speaks HTTP, the simulation answers from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct


class FieldDescribe(Struct, frozen=True, kw_only=True):
    """One field, as the describe call tells it to the signed-in user. Names follow Salesforce's attributes."""

    name: str
    label: str
    type: str
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
    picklist_values: tuple[str, ...] = ()  # active ones
    cascade_delete: bool = False
    extra_type_info: str | None = None

    @property
    def required(self) -> bool:
        """True if an insert must give a value: createable, not nillable, no default made by the org."""
        return self.createable and not self.nillable and not self.defaulted_on_create


class RecordType(Struct, frozen=True, kw_only=True):
    """A record type that the signed-in user may see."""

    id: str
    name: str
    developer_name: str
    active: bool = True
    available: bool = True
    default: bool = False


class ChildRelationship(Struct, frozen=True, kw_only=True):
    """A lookup of another object (or the same) that points at this one."""

    child_object: str
    field: str
    cascade_delete: bool = False
    restricted_delete: bool = False


class ObjectDescribe(Struct, frozen=True, kw_only=True):
    """An object and its fields. `fields` is keyed by the exact API name."""

    name: str
    label: str
    key_prefix: str | None
    fields: Mapping[str, FieldDescribe]
    createable: bool = True
    updateable: bool = True
    deletable: bool = True
    queryable: bool = True
    record_types: tuple[RecordType, ...] = ()
    child_relationships: tuple[ChildRelationship, ...] = ()  # those in use

    def relationship(self, name: str) -> FieldDescribe | None:
        """The lookup field whose relationship has that name (`Tenant__r`, `Account`), or None."""
        return next((field for field in self.fields.values() if field.relationship_name == name), None)


class JobState(StrEnum):
    """States of a bulk job, as Salesforce spells them."""

    OPEN = "Open"
    UPLOAD_COMPLETE = "UploadComplete"
    IN_PROGRESS = "InProgress"
    JOB_COMPLETE = "JobComplete"
    ABORTED = "Aborted"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        return self in (JobState.JOB_COMPLETE, JobState.ABORTED, JobState.FAILED)


class ResultKind(StrEnum):
    """The three result files of an ingest job."""

    SUCCESSFUL = "successfulResults"
    FAILED = "failedResults"
    UNPROCESSED = "unprocessedrecords"


class JobRequest(Struct, frozen=True, kw_only=True):
    """What an ingest job is created from. CSV, comma, LF always."""

    object: str
    operation: str  # insert, update, upsert, delete, hardDelete
    external_id_field: str | None = None


class IngestJob(Struct, frozen=True, kw_only=True):
    """An ingest job as the org shows it. Counters are None where the org leaves them out (before a terminal state)."""

    id: str
    object: str
    operation: str
    state: JobState
    created_by_id: str
    created_date: datetime
    external_id_field: str | None = None
    api_version: float | None = None
    job_type: str | None = None
    records_processed: int | None = None
    records_failed: int | None = None
    total_processing_ms: int | None = None
    error_message: str | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """What `/limits` says. Missing keys are None."""

    api_requests_max: int | None
    api_requests_left: int | None
    bulk_batches_max: int | None
    bulk_batches_left: int | None
    storage_mb_max: int | None
    storage_mb_left: int | None
    raw: Mapping[str, Any]


class Org(Protocol):
    """A signed-in org. Methods may be called from several threads at once.

    Raises (all methods): `OrgUnavailable` (certainly not done), `LostReply` (sent, answer unknown; only for calls that
    change something), `OrgNotFound`, `OrgLimitReached`, `OrgRefused`, `SignInFailed`.
    """

    url: str
    org_id: str
    user_id: str
    user_name: str
    api_version: str
    is_twin: bool

    @property
    def api_calls(self) -> int:
        """HTTP requests sent by this object so far."""
        ...

    @property
    def api_requests_left(self) -> int | None:
        """Daily API requests left by the last `Sforce-Limit-Info` header; None before the first answer."""
        ...

    def describe(self, object_name: str) -> ObjectDescribe: ...

    def objects(self) -> list[str]: ...

    def limits(self) -> Limits: ...

    def query(self, soql: str) -> Iterator[dict[str, Any]]:
        """Records of a REST query, all pages, `attributes` left out, parents as nested dicts."""
        ...

    def count(self, soql: str) -> int:
        """`totalSize` of a `SELECT COUNT() FROM ...`."""
        ...

    def find(self, object_name: str, key: FieldDescribe, values: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Records whose key field has one of these values: pairs of Id and the key's text as the org shows it.

        Several queries where one would be too long. Values are canonical texts; the org decides what equals them.
        """
        ...

    def create_job(self, request: JobRequest) -> IngestJob: ...

    def create_loaded(self, request: JobRequest, *, content: Callable[[], Iterable[bytes]], size: int) -> IngestJob:
        """Create a job with its data in one call; the org begins to work on it at once. At most 100,000 characters.

        Nothing is sent before `content()` has been read to its end. `size` is its length in bytes.
        """
        ...

    def upload(self, job_id: str, *, content: Callable[[], Iterable[bytes]], size: int) -> None:
        """The one PUT of a job. `content()` starts the body from its beginning; `size` is its length in bytes."""
        ...

    def close_job(self, job_id: str) -> IngestJob: ...

    def abort_job(self, job_id: str) -> IngestJob: ...

    def delete_job(self, job_id: str) -> None: ...

    def get_job(self, job_id: str) -> IngestJob: ...

    def list_jobs(self) -> list[IngestJob]:
        """All ingest jobs that the org still knows, of all users, every page; only those of job type V2Ingest."""
        ...

    def results(self, job_id: str, kind: ResultKind) -> Iterator[bytes]:
        """One result file as CSV bytes, streamed, decompressed. An empty answer gives no bytes."""
        ...

    def bulk_query(self, soql: str) -> Iterator[bytes]:
        """Run a bulk query job and stream its pages: each item one page, a whole CSV with its header row."""
        ...

    def begin_query(self, soql: str) -> str:
        """Create a bulk query job to be read page by page, also by a later process. Returns its id."""
        ...

    def finish_query(self, job_id: str) -> int:
        """Wait for a query job. Returns the rows it found; `OrgNotFound` once the org has forgotten it (7 days)."""
        ...

    def query_page(self, job_id: str, locator: str | None, *, rows: int) -> tuple[bytes, str | None]:
        """One page of a complete query job, a whole CSV of at most so many rows, and the place of the next; None after
        the last.

        The first page is at None. Any page can be read again while the job exists, by the same place.
        """
        ...

    def drop_query(self, job_id: str) -> None:
        """Free what a complete query job holds in the org."""
        ...

    def close(self) -> None: ...
