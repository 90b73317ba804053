"""Faults that a test arms on the twin: lost replies, refusals, cut transfers, delays. Seeded, so that a run repeats.

The control endpoints answer to loopback only and want the control token, which is not a session of the org.
"""

from __future__ import annotations

import ipaddress
import random
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from forcelift.twin.errors import not_found
from forcelift.twin.http_core import Call, Reply, empty_reply, json_reply
from forcelift.twin.http_errors import HttpError

FAULTS_MAX = 1000
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class FaultOrder(BaseModel):
    """A fault to arm. It strikes requests whose method and path match, after `skip` of them, `times` times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["lose_reply", "drop", "answer", "cut_response", "cut_request", "delay"]
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
        return self


ORDERS: TypeAdapter[FaultOrder | list[FaultOrder]] = TypeAdapter(FaultOrder | list[FaultOrder])


@dataclass(slots=True, kw_only=True)
class ArmedFault:
    """A fault and how often it was met and struck."""

    id: int
    order: FaultOrder
    met: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return self.order.times is not None and self.struck >= self.order.times

    def matches(self, method: str, path: str) -> bool:
        wanted = self.order.method.upper()
        return wanted in ("*", method) and re.search(self.order.path, path) is not None

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, **self.order.model_dump(), "met": self.met, "struck": self.struck, "spent": self.spent}


class Faults:
    """The faults that are armed, in the order of arming. Safe to use from several threads."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - decides which request is disturbed, guards nothing
        self._armed: list[ArmedFault] = []
        self._next_id = 1
        self._lock = threading.Lock()

    def arm(self, order: FaultOrder) -> ArmedFault:
        """Add a fault. Raises ValueError when too many are armed."""
        with self._lock:
            if len(self._armed) >= FAULTS_MAX:
                raise ValueError(f"{FAULTS_MAX} faults are armed already; clear them first")
            fault = ArmedFault(id=self._next_id, order=order)
            self._next_id += 1
            self._armed.append(fault)
            return fault

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def strike(self, method: str, path: str) -> Sequence[FaultOrder]:
        """What happens to this request: any delays, then at most one other fault."""
        found: list[FaultOrder] = []
        with self._lock:
            for fault in self._armed:
                if fault.spent or not fault.matches(method, path):
                    continue
                fault.met += 1
                if fault.met <= fault.order.skip or self._random.random() >= fault.order.probability:
                    continue
                fault.struck += 1
                found.append(fault.order)
                if fault.order.action != "delay":
                    break
        return found

    def as_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [fault.as_json() for fault in self._armed]


class Control:
    """The endpoints under `/__twin__`."""

    def __init__(
        self,
        faults: Faults,
        *,
        token: str,
        state: Callable[[], dict[str, Any]],
        end_sessions: Callable[[], int],
    ) -> None:
        self.faults = faults
        self._token = token
        self._state = state
        self._end_sessions = end_sessions

    def show_faults(self, call: Call) -> Reply:
        self._check(call)
        return json_reply({"faults": self.faults.as_json()})

    def arm_faults(self, call: Call) -> Reply:
        self._check(call)
        try:
            orders = ORDERS.validate_python(call.json())
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise HttpError(400, "INVALID_FAULT", problems) from error
        try:
            armed = [self.faults.arm(order) for order in (orders if isinstance(orders, list) else [orders])]
        except ValueError as error:
            raise HttpError(400, "INVALID_FAULT", str(error)) from error
        return json_reply({"armed": [fault.id for fault in armed]}, status=201)

    def clear_faults(self, call: Call) -> Reply:
        self._check(call)
        self.faults.clear()
        return empty_reply()

    def show_state(self, call: Call) -> Reply:
        self._check(call)
        return json_reply(self._state())

    def end_sessions(self, call: Call) -> Reply:
        """End all sessions, as an administrator does: every client must sign in again."""
        self._check(call)
        return json_reply({"ended": self._end_sessions()})

    def _check(self, call: Call) -> None:
        """From loopback only, addressed by a loopback name (a page in a browser cannot fake Host), with the token."""
        if not is_loopback(call.client):
            raise not_found()
        host = call.headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in LOOPBACK_NAMES or call.headers.get("origin") is not None:
            raise HttpError(403, "FORBIDDEN", "The control endpoints answer to programs on this machine only")
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise HttpError(401, "INVALID_CONTROL_TOKEN", "The control token is missing or wrong")


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
