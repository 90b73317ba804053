"""Orders for faults: what a test, a file or the command line asks the twin to do wrong.

A fault strikes requests (`FaultOrder`), rows (`RowFaultOrder`), a limit (`LimitFaultOrder`) or a field
(`HiddenFieldOrder`). Common ones have a name: `--fault unavailable=3`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from forcelift.twin.errors import TwinError
from forcelift.twin.row_faults import RowFaultOrder


class FaultFileError(TwinError):
    """A fault file or a `--fault` cannot be used."""


class FaultOrder(BaseModel):
    """A fault to arm. It strikes requests whose method and path match, after `skip` of them, `times` times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal[
        "lose_reply",
        "drop",
        "answer",
        "cut_response",
        "cut_request",
        "delay",
        "slow_request",
        "slow_response",
        "expire_sessions",
    ]
    method: str = "*"
    path: str = ".*"
    """Regular expression, searched for in the path (doubled and trailing slashes removed, no query)."""
    times: int | None = Field(default=1, ge=1)
    """How often it strikes; null for always."""
    skip: int = Field(default=0, ge=0)
    probability: float = Field(default=1.0, gt=0, le=1)
    """Chance for each matching request, drawn from the twin's seed."""
    status: int = Field(default=503, ge=200, le=599)
    body: str = "<html><body><h1>503 Service Unavailable</h1></body></html>"
    content_type: str = "text/html"
    headers: dict[str, str] = Field(default_factory=dict)
    after_bytes: int = Field(default=0, ge=0)
    """`cut_response`, `cut_request`: how many bytes of the body pass before the connection closes."""
    bytes_per_second: int = Field(default=0, ge=0)
    """`slow_request`, `slow_response`: how fast the body passes."""
    seconds: float = Field(default=0.0, ge=0, le=3600)
    """`delay`: how long the request waits before it is worked on."""

    @field_validator("path")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _fits(self) -> FaultOrder:
        if self.action == "delay" and self.seconds == 0:
            raise ValueError("a delay needs `seconds`")
        if self.action in ("slow_request", "slow_response") and self.bytes_per_second == 0:
            raise ValueError(f"{self.action} needs `bytes_per_second`")
        return self


class LimitFaultOrder(BaseModel):
    """Sets a limit of the org, by its name in `/limits`, or `rows_per_day`, `batches_per_day` or `query_rows`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["limit"]
    name: str
    maximum: int = Field(ge=0)


class HiddenFieldOrder(BaseModel):
    """Takes field-level security for a field away: describe, queries and uploads know it no more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["hide_field"]
    object: str
    field: str


AnyOrder = Annotated[FaultOrder | RowFaultOrder | LimitFaultOrder | HiddenFieldOrder, Field(discriminator="action")]
ORDERS: TypeAdapter[AnyOrder | list[AnyOrder]] = TypeAdapter(AnyOrder | list[AnyOrder])

REST: Final = "^/services/data/v"
INGEST_RESULTS: Final = "/(successfulResults|failedResults|unprocessed[rR]ecords|results)$"
LIMIT_BODY: Final = '[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]'
TIMEOUT_BODY: Final = '[{"message":"Your query request was running for too long.","errorCode":"QUERY_TIMEOUT"}]'


def _times(text: str, default: int = 1) -> int:
    return int(text) if text else default


def _answer(status: int, times: str, **more: Any) -> dict[str, Any]:
    return {"action": "answer", "status": status, "path": REST, "times": _times(times), **more}


def _json(status: int, times: str, body: str, path: str = REST) -> dict[str, Any]:
    return _answer(status, times, body=body, content_type="application/json", path=path)


def _rows(kind: str, text: str) -> dict[str, Any]:
    """`OBJECT`, or `OBJECT:CONDITION`; nothing for all rows of all objects."""
    name, _, where = text.partition(":")
    return {"action": kind, "object": name.strip() or "*", "where": where.strip() or None}


def _limit(name: str, text: str) -> dict[str, Any]:
    return {"action": "limit", "name": name, "maximum": int(text)}


def _hidden(text: str) -> dict[str, Any]:
    name, _, field = text.partition(".")
    return {"action": "hide_field", "object": name, "field": field}


# Name to what its value means and the order that it makes.
NAMED: Final[Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]]] = {
    "session-expiry": (
        "N: all sessions end after N calls",
        lambda text: {"action": "expire_sessions", "path": REST, "skip": int(text)},
    ),
    "unavailable": ("[N]: N answers 503 with HTML", lambda text: _answer(503, text)),
    "no-route": ("[N]: N answers 420, empty", lambda text: _answer(420, text, body="")),
    "bad-gateway": (
        "[N]: N answers 502 with HTML",
        lambda text: _answer(502, text, body="<html><body><h1>502 Bad Gateway</h1></body></html>"),
    ),
    "html-body": (
        "[N]: N answers 200 with HTML in place of JSON",
        lambda text: _answer(200, text, body="<html><body>Maintenance</body></html>"),
    ),
    "request-limit": (
        "[N]: N answers 403 REQUEST_LIMIT_EXCEEDED",
        lambda text: _json(403, text, LIMIT_BODY),
    ),
    "query-timeout": (
        "[N]: N queries answer QUERY_TIMEOUT",
        lambda text: _json(400, text, TIMEOUT_BODY, path="/query(All)?$"),
    ),
    "query-rows": (
        "N: REST queries that find more than N records answer QUERY_TIMEOUT",
        lambda text: _limit("query_rows", text),
    ),
    "slow-upload": (
        "BYTES: uploads pass at BYTES a second",
        lambda text: {
            "action": "slow_request",
            "method": "PUT",
            "path": "/batches$",
            "times": None,
            "bytes_per_second": int(text),
        },
    ),
    "cut-results": (
        "[BYTES]: the next download of results breaks after BYTES",
        lambda text: {
            "action": "cut_response",
            "method": "GET",
            "path": INGEST_RESULTS,
            "after_bytes": _times(text, 1000),
        },
    ),
    "lost-reply": (
        "[N]: N changes are made, but their answers lost",
        lambda text: {"action": "lose_reply", "method": "POST|PATCH|PUT|DELETE", "path": REST, "times": _times(text)},
    ),
    "lock-storm": (
        "SHARE: this share of all rows (0 to 1) fails with UNABLE_TO_LOCK_ROW",
        lambda text: {"action": "lock_storm", "probability": float(text)},
    ),
    "trigger-exception": (
        "OBJECT[:CONDITION]: a trigger throws for these rows",
        lambda text: _rows("trigger_exception", text),
    ),
    "duplicate-rule": (
        "OBJECT[:CONDITION]: a duplicate rule hits these rows",
        lambda text: _rows("duplicate_rule", text),
    ),
    "cpu-timeout": (
        "OBJECT[:CONDITION]: chunks with such a row exceed the CPU limit",
        lambda text: _rows("cpu_timeout", text),
    ),
    "too-many-retries": (
        "OBJECT[:CONDITION]: these rows fail in a chunk that was saved too often",
        lambda text: _rows("too_many_retries", text),
    ),
    "storage-full": ("no value: new records find no storage", lambda text: _limit("DataStorageMB", text or "0")),
    "daily-rows": ("N: rows that jobs may process in 24 hours", lambda text: _limit("rows_per_day", text)),
    "daily-batches": ("N: Salesforce batches in 24 hours", lambda text: _limit("DailyBulkApiBatches", text)),
    "daily-requests": ("N: API requests in 24 hours", lambda text: _limit("DailyApiRequests", text)),
    "daily-query-jobs": ("N: bulk query jobs in 24 hours", lambda text: _limit("DailyBulkV2QueryJobs", text)),
    "field-without-fls": ("OBJECT.FIELD: no call knows the field", _hidden),
}


def parse_orders(value: Any) -> list[AnyOrder]:
    """Orders of JSON: one, a list, or `{"faults": [...]}`. Raises FaultFileError, never repeating values."""
    if isinstance(value, Mapping) and set(value) == {"faults"}:
        value = value["faults"]
    try:
        orders = ORDERS.validate_python(value)
    except ValidationError as error:
        raise FaultFileError("; ".join(f"{_place(item['loc'])}: {item['msg']}" for item in error.errors())) from error
    return orders if isinstance(orders, list) else [orders]


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "fault"


def named_order(text: str) -> AnyOrder:
    """An order in the form of the command line, `NAME` or `NAME=VALUE`. Raises FaultFileError."""
    name, _, value = text.partition("=")
    if name not in NAMED:
        raise FaultFileError(f"there is no fault `{name}`; the faults are {', '.join(NAMED)}")
    meaning, make = NAMED[name]
    try:
        return parse_orders(make(value.strip()))[0]
    except (ValueError, FaultFileError) as error:
        raise FaultFileError(f"`{name}` takes {meaning}") from error


def load_orders(file: Path) -> list[AnyOrder]:
    """The orders of a YAML or JSON file; a text in its list is a named one, as on the command line.

    Raises:
        FaultFileError: The file cannot be read, or an order is wrong.
    """
    try:
        value = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise FaultFileError(f"the fault file `{file}` cannot be read: {type(error).__name__}") from error
    listed = value.get("faults") if isinstance(value, Mapping) else value
    if not isinstance(listed, list):
        raise FaultFileError(f"the fault file `{file}` must be a list of faults")
    orders: list[AnyOrder] = []
    for entry in listed:
        orders += [named_order(entry)] if isinstance(entry, str) else parse_orders(entry)
    return orders
