"""Faults that are armed on the twin, and the endpoints that arm them.

Whether a fault with a probability strikes is drawn from the seed, the fault's number and how often it was met, so that
a run repeats. The control endpoints answer to loopback only and want the control token, which is no session of the org.
"""

from __future__ import annotations

import ipaddress
import random
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from forcelift.twin.errors import TwinError, not_found
from forcelift.twin.fault_orders import (
    AnyOrder,
    FaultFileError,
    FaultOrder,
    HiddenFieldOrder,
    LimitFaultOrder,
    parse_orders,
)
from forcelift.twin.http_core import Call, Reply, empty_reply, json_reply
from forcelift.twin.http_errors import HttpError
from forcelift.twin.org import TwinOrg
from forcelift.twin.recycle_bin import IDS_MAX, RecycleBin
from forcelift.twin.row_faults import RowFaultOrder

FAULTS_MAX = 1000
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


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
        wanted = self.order.method.upper().split("|")
        return ("*" in wanted or method in wanted) and re.search(self.order.path, path) is not None

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, **self.order.model_dump(), "met": self.met, "struck": self.struck, "spent": self.spent}


class Faults:
    """The faults that are armed, in the order of arming. Safe to use from several threads."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
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
                if fault.met <= fault.order.skip or self._draw(fault) >= fault.order.probability:
                    continue
                fault.struck += 1
                found.append(fault.order)
                if fault.order.action != "delay":
                    break
        return found

    def _draw(self, fault: ArmedFault) -> float:
        """A number from 0 to 1 that only this fault and this meeting of it decide, whatever else is armed."""
        return random.Random(f"{self.seed}:{fault.id}:{fault.met}").random()  # noqa: S311 - disturbs, guards nothing

    def take_number(self) -> int:
        """A number for a fault that is kept elsewhere."""
        with self._lock:
            number, self._next_id = self._next_id, self._next_id + 1
            return number

    def as_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [fault.as_json() for fault in self._armed]


class FaultDesk:
    """Arms faults of all kinds where they strike."""

    def __init__(self, faults: Faults, org: TwinOrg) -> None:
        self._faults = faults
        self._org = org
        self._lock = threading.Lock()
        self._set: list[dict[str, Any]] = []

    def arm(self, orders: Sequence[AnyOrder]) -> list[int]:
        """Arm them; tell their numbers. Raises FaultFileError for one that this org cannot carry out."""
        return [self._arm(order) for order in orders]

    def _arm(self, order: AnyOrder) -> int:
        try:
            if isinstance(order, FaultOrder):
                return self._faults.arm(order).id
            number = self._faults.take_number()
            match order:
                case RowFaultOrder():
                    return self._org.row_faults.arm(order, number=number).id
                case LimitFaultOrder():
                    self._org.usage.override(order.name, order.maximum)
                case HiddenFieldOrder():
                    entry = self._org.schema.object(order.object)
                    if entry is None or entry.field(order.field) is None or order.field.lower() == "id":
                        raise ValueError(f"the org has no field {order.object}.{order.field} that could be hidden")
                    entry.veiled.add(order.field.lower())
                    self._org.schema_changed_at = self._org.clock.now()
        except KeyError as error:
            raise FaultFileError(f"the org has no limit {error}") from error
        except (ValueError, TwinError) as error:
            raise FaultFileError(str(error)) from error
        with self._lock:
            self._set.append({"id": number, **order.model_dump()})
        return number

    def clear(self) -> None:
        """Disarm all of them; limits and fields are again what the schema says."""
        self._faults.clear()
        self._org.row_faults.clear()
        self._org.usage.lift_overrides()
        for entry in self._org.schema.objects:
            if entry.veiled:
                entry.veiled.clear()
                self._org.schema_changed_at = self._org.clock.now()
        with self._lock:
            self._set.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """All that is armed, in the order of arming."""
        with self._lock:
            kept = list(self._set)
        return sorted([*self._faults.as_json(), *self._org.row_faults.as_json(), *kept], key=lambda fault: fault["id"])


class Control:
    """The endpoints under `/__twin__`."""

    def __init__(
        self,
        desk: FaultDesk,
        bin: RecycleBin,
        *,
        seed: int,
        token: str,
        user_id: str,
        state: Callable[[], dict[str, Any]],
        end_sessions: Callable[[], int],
    ) -> None:
        self._desk = desk
        self._bin = bin
        self._seed = seed
        self._token = token
        self._user_id = user_id
        self._state = state
        self._end_sessions = end_sessions

    def show_faults(self, call: Call) -> Reply:
        self._check(call)
        return json_reply({"seed": self._seed, "faults": self._desk.as_json()})

    def arm_faults(self, call: Call) -> Reply:
        self._check(call)
        try:
            armed = self._desk.arm(parse_orders(call.json()))
        except FaultFileError as error:
            raise HttpError(400, "INVALID_FAULT", str(error)) from error
        return json_reply({"armed": armed}, status=201)

    def clear_faults(self, call: Call) -> Reply:
        self._check(call)
        self._desk.clear()
        return empty_reply()

    def undelete(self, call: Call) -> Reply:
        """Bring records back from the recycle bin, as a person does in the org: `{"ids": [...]}`."""
        self._check(call)
        ids = call.json_object().get("ids")
        if not isinstance(ids, list) or not 0 < len(ids) <= IDS_MAX or not all(isinstance(each, str) for each in ids):
            raise HttpError(400, "INVALID_INPUT", f"`ids` must be a list of 1 to {IDS_MAX} Ids")
        return json_reply([result.as_json() for result in self._bin.undelete(ids, user_id=self._user_id)])

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
