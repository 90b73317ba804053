"""Which automations the org has now: as declared in the schema, and as Tooling and Metadata calls have changed them.

Reads and writes: three facts of `meta.info` (declared, current, Ids). Whoever processes rows asks `active_on(object)`
once for each chunk; the answer is one immutable moment.
Re-run:  a reopened org keeps what was switched, also when the schema file is given again. What the file declares
         otherwise than before is taken from the file.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import duckdb

from forcelift.twin.automation_checks import Looked, Unread, unread_rules
from forcelift.twin.automation_models import (
    KINDS,
    AssignmentRule,
    Automation,
    Automations,
    Kind,
    automations_json,
    read_automations,
)
from forcelift.twin.ids import make_id
from forcelift.twin.schema import Schema
from forcelift.twin.store import Store

DECLARED: Final = "automations_declared"
CURRENT: Final = "automations"
NUMBERS: Final = "automation_numbers"
KEY_PREFIXES: Final[dict[Kind, str]] = {
    "validation_rules": "03d",
    "triggers": "01q",
    "flows": "300",
    "workflow_rules": "01Q",
    "duplicate_rules": "0Bm",
}


class AutomationState:
    """The automations of one org. Safe to use from several threads."""

    def __init__(self, store: Store, schema: Schema, *, pod: str) -> None:
        declared = schema.automations
        self._store = store
        self._schema = schema
        self._pod = pod
        self._lock = threading.Lock()
        self._look_lock = threading.Lock()
        self._revision = 0
        self._active: dict[str, Automations] = {}
        self._listeners: list[Callable[[duckdb.DuckDBPyConnection, Automations], None]] = []
        with store.write_meta() as cursor:
            facts = store.info(cursor)
            earlier = read_automations(json.loads(facts.get(DECLARED, "{}")))
            now = read_automations(json.loads(facts[CURRENT])) if CURRENT in facts else earlier
            self._numbers: dict[str, int] = json.loads(facts.get(NUMBERS, "{}"))
            self._now = merge(earlier=earlier, declared=declared, now=now)
            store.set_info(cursor, DECLARED, json.dumps(automations_json(declared)))
            self._save(cursor)
        self._looked: Looked = {}
        self._unread = unread_rules(self._now, schema, self._looked)

    def current(self) -> Automations:
        """All automations, active or not."""
        return self._now

    def active_on(self, object_name: str) -> Automations:
        """Only what is active on that object now, without rules whose formulas the twin cannot read."""
        key = object_name.lower()
        with self._lock:
            found = self._active.get(key)
            if found is None:
                idle = {(each.kind, each.full_name.lower()) for each in self._unread}
                found = self._active[key] = _without(self._now.active_on(object_name), idle)
            return found

    def acting_on(self, object_name: str, assignment_rule_id: str | None) -> Automations:
        """What acts on the rows of a job: what is active, and the assignment rule that the job names."""
        active = self.active_on(object_name)
        rule = None if assignment_rule_id is None else self.assignment_rule(object_name, assignment_rule_id)
        return active if rule is None else replace(active, assignment_rules=(rule,))

    def assignment_rule(self, object_name: str, rule_id: str) -> AssignmentRule | None:
        """The object's assignment rule of that Id, in its form of 15 or 18 characters."""
        for rule in self._now.assignment_rules:
            known = self.assignment_rule_id(rule)
            if rule.object.lower() == object_name.lower() and rule_id in (known, known[:15]):
                return rule
        return None

    def assignment_rule_id(self, rule: AssignmentRule) -> str:
        """Its Id, which never changes."""
        return make_id("01Q", self._pod, self._numbers[f"assignment_rules/{rule.full_name.lower()}"])

    def unread(self) -> tuple[Unread, ...]:
        """The rules that act on nothing here because of their formulas, active in the org or not."""
        return tuple(self._unread)

    def schema_changed(self) -> None:
        """Look at the formulas again: a field that one of them names may be there now."""
        self._look()

    @property
    def revision(self) -> int:
        """Grows with every change."""
        return self._revision

    def find(self, kind: Kind, full_name: str) -> Automation | None:
        """The automation of that kind and name (`Account.Rule`, `Trigger_Name`), whatever its case."""
        wanted = full_name.lower()
        return next((entry for entry in getattr(self._now, kind) if entry.full_name.lower() == wanted), None)

    def id_of(self, kind: Kind, full_name: str) -> str:
        """Its Id, which never changes."""
        return make_id(KEY_PREFIXES[kind], self._pod, self._numbers[_key(kind, full_name)])

    def version_id(self, full_name: str, number: int) -> str:
        """The Id of a flow's version."""
        return make_id("301", self._pod, self._numbers[_key("flows", full_name)] * 1000 + number)

    def put(self, *changes: tuple[Kind, Automation]) -> None:
        """Add automations, or replace those of the same name; all or none."""
        self._change(changes, removed=())

    def remove(self, *names: tuple[Kind, str]) -> None:
        """Delete automations by kind and full name; names that are not there are no error."""
        self._change((), removed=names)

    def apply(self, changes: tuple[tuple[Kind, Automation], ...], removed: tuple[tuple[Kind, str], ...]) -> None:
        """Add, replace and delete in one step, as a deploy does."""
        self._change(changes, removed)

    def on_change(self, listener: Callable[[duckdb.DuckDBPyConnection, Automations], None]) -> None:
        """Have a function called in the transaction of every change, with what will be current after it."""
        self._listeners.append(listener)

    def _change(self, changes: tuple[tuple[Kind, Automation], ...], removed: tuple[tuple[Kind, str], ...]) -> None:
        with self._store.write_meta() as cursor:
            lists: dict[Kind, dict[str, Any]] = {
                kind: {entry.full_name.lower(): entry for entry in getattr(self._now, kind)} for kind in KINDS
            }
            for kind, entry in changes:
                lists[kind][entry.full_name.lower()] = entry
            for kind, name in removed:
                lists[kind].pop(name.lower(), None)
            before, numbers = self._now, dict(self._numbers)
            try:
                # Under the store's lock: two changes at once must not lose one of them.
                changed: dict[str, Any] = {kind: tuple(entries.values()) for kind, entries in lists.items()}
                self._now = replace(before, **changed)
                self._save(cursor)
                for listener in self._listeners:
                    listener(cursor, self._now)
            except BaseException:
                self._now, self._numbers = before, numbers
                raise
            self._look()

    def _look(self) -> None:
        with self._look_lock:  # of two changes at once, the later look sees both
            unread = unread_rules(self._now, self._schema, self._looked)
            with self._lock:
                self._unread = unread
                self._active.clear()
            self._revision += 1

    def _save(self, cursor: duckdb.DuckDBPyConnection) -> None:
        for kind, entry in self._now.each():
            self._numbers.setdefault(_key(kind, entry.full_name), len(self._numbers) + 1)
        for rule in self._now.assignment_rules:
            self._numbers.setdefault(f"assignment_rules/{rule.full_name.lower()}", len(self._numbers) + 1)
        self._store.set_info(cursor, CURRENT, json.dumps(automations_json(self._now)))
        self._store.set_info(cursor, NUMBERS, json.dumps(self._numbers))


def merge(*, earlier: Automations, declared: Automations, now: Automations) -> Automations:
    """What is current after a file is opened with a schema.

    An automation that the schema declares as before stays as calls have left it, even deleted; one that it declares
    otherwise, or anew, is taken from the schema; one that it dropped is gone; one that calls have made stays.
    """
    lists: dict[str, tuple[Any, ...]] = {}
    for kind in KINDS:
        old = {entry.full_name.lower(): entry for entry in getattr(earlier, kind)}
        new = {entry.full_name.lower(): entry for entry in getattr(declared, kind)}
        present = {entry.full_name.lower(): entry for entry in getattr(now, kind)}
        kept = [present.get(name) if old.get(name) == entry else entry for name, entry in new.items()]
        made = [entry for name, entry in present.items() if name not in old and name not in new]
        lists[kind] = (*(entry for entry in kept if entry is not None), *made)
    return Automations(**lists, assignment_rules=declared.assignment_rules, apex_tests=declared.apex_tests)


def _without(automations: Automations, idle: set[tuple[Kind, str]]) -> Automations:
    kept: dict[str, Any] = {
        kind: tuple(each for each in getattr(automations, kind) if (kind, each.full_name.lower()) not in idle)
        for kind in KINDS
    }
    return replace(automations, **kept) if idle else automations


def _key(kind: Kind, full_name: str) -> str:
    return f"{kind}/{full_name.lower()}"
