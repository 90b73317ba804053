"""Deploys of the Metadata API: asynchronous, all or nothing unless told otherwise, with Apex tests where the org asks.

A deploy lives in memory: a restarted twin knows its effects and not its id. It waits for the org's pace before it
begins, so that a slow org can be told to cancel.
Source: Metadata API guide, "deploy()" and "deployRequest"; sections 6.1 and 9 (point 34) of the API reference.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from forcelift.twin.automation_models import Automation, Automations, Kind, RecordFlow, Trigger
from forcelift.twin.clock import api_time
from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.ids import id18
from forcelift.twin.metadata_components import KIND_OF, TYPES, Change, component_id, file_of, names_of, read_change
from forcelift.twin.metadata_zip import MANIFEST, BadPackage, read_manifest, read_zip
from forcelift.twin.org import TwinOrg

COVERAGE_MIN: Final = 75  # percent, in production
KEPT_MAX: Final = 100
DESTRUCTIVE: Final = ("destructiveChangesPre.xml", "destructiveChanges.xml", "destructiveChangesPost.xml")
ENDED: Final = ("Succeeded", "SucceededPartial", "Failed", "Canceled")
TestLevel = Literal["NoTestRun", "RunSpecifiedTests", "RunLocalTests", "RunAllTestsInOrg", "RunRelevantTests"]


class DeployOptions(BaseModel):
    """As clients send them. What the twin has no use for is accepted: tools send all of them."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)

    allow_missing_files: bool = False
    auto_update_package: bool = False
    check_only: bool = False
    ignore_warnings: bool = False
    perform_retrieve: bool = False
    purge_on_delete: bool = False
    rollback_on_error: bool = False
    run_tests: tuple[str, ...] = ()
    single_package: bool = False
    test_level: TestLevel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What became of one component."""

    type: str
    full_name: str
    file_name: str
    problem: str | None = None
    problem_type: str | None = None
    created: bool = False
    changed: bool = False
    deleted: bool = False
    id: str | None = None

    def as_json(self, *, at: datetime) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "columnNumber": None,
            "componentType": self.type,
            "created": self.created,
            "createdDate": api_time(at),
            "deleted": self.deleted,
            "fileName": self.file_name,
            "fullName": self.full_name,
            "id": self.id,
            "lineNumber": None,
            "problem": self.problem,
            "problemType": self.problem_type,
            "success": self.problem_type != "Error",
            "warning": self.problem_type == "Warning",
        }


@dataclass(slots=True, kw_only=True)
class Deployment:
    """One deploy and what is known of it so far."""

    id: str
    options: DeployOptions
    user_id: str
    user_name: str
    created: datetime
    status: str = "Pending"
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    total: int = 0
    failures: list[Message] = field(default_factory=list)
    successes: list[Message] = field(default_factory=list)
    tests: dict[str, Any] = field(default_factory=lambda: run_tests_result((), {}, 100, at_least=0))

    @property
    def done(self) -> bool:
        return self.status in ENDED

    def as_json(self, *, details: bool) -> dict[str, Any]:
        """The `DeployResult`."""
        errors = [entry for entry in self.failures if entry.problem_type == "Error"]
        at = self.ended or self.started or self.created
        result: dict[str, Any] = {
            "checkOnly": self.options.check_only,
            "completedDate": None if self.ended is None else api_time(self.ended),
            "createdBy": self.user_id,
            "createdByName": self.user_name,
            "createdDate": api_time(self.created),
            "done": self.done,
            "errorMessage": self.error,
            "errorStatusCode": None if self.error is None else "UNKNOWN_EXCEPTION",
            "id": self.id,
            "ignoreWarnings": self.options.ignore_warnings,
            "lastModifiedDate": api_time(at),
            "numberComponentErrors": len(errors),
            "numberComponentsDeployed": len(self.successes),
            "numberComponentsTotal": self.total,
            "numberTestErrors": self.tests["numFailures"],
            "numberTestsCompleted": self.tests["numTestsRun"] - self.tests["numFailures"],
            "numberTestsTotal": self.tests["numTestsRun"],
            "rollbackOnError": self.options.rollback_on_error,
            "runTestsEnabled": bool(self.tests["numTestsRun"]),
            "startDate": None if self.started is None else api_time(self.started),
            "status": self.status,
            "success": self.status in ("Succeeded", "SucceededPartial"),
        }
        if details:
            result["details"] = {
                "componentFailures": [entry.as_json(at=at) for entry in self.failures],
                "componentSuccesses": [entry.as_json(at=at) for entry in self.successes],
                "retrieveResult": None,
                "runTestResult": self.tests,
            }
        return result


class Deploys:
    """Starts deploys, one at a time, and tells what became of them. Safe to use from several threads."""

    def __init__(self, org: TwinOrg) -> None:
        self._org = org
        self._known: OrderedDict[str, Deployment] = OrderedDict()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._closing = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="twin-deploy")

    def start(self, content: bytes, options: DeployOptions, *, user_id: str) -> Deployment:
        """Queue a deploy. Raises ApiError for options that the org refuses at once."""
        self._check_options(options)
        user = self._org.user(user_id)
        deployment = Deployment(
            id=self._org.new_id("0Af"), options=options, user_id=user_id, created=self._org.clock.now(),
            user_name="" if user is None else user.name,
        )  # fmt: skip
        with self._lock:
            self._known[deployment.id] = deployment
            while len(self._known) > KEPT_MAX:
                self._known.popitem(last=False)
        self._worker.submit(self._run, deployment, content)
        return deployment

    def find(self, deploy_id: str) -> Deployment:
        """Raises ApiError 404."""
        with self._lock:
            found = self._known.get(id18(deploy_id)) if len(deploy_id) in (15, 18) else None
        if found is None:
            raise not_found()
        return found

    def cancel(self, deploy_id: str) -> Deployment:
        """Cancel a deploy that has not ended. Raises ApiError."""
        deployment = self.find(deploy_id)
        with self._wake:
            if deployment.done:
                raise ApiError(400, "INVALID_ID_FIELD", "Deployment already completed")
            if deployment.status == "Pending":
                deployment.status, deployment.ended = "Canceled", self._org.clock.now()
            else:
                deployment.status = "Canceling"
            self._wake.notify_all()
        return deployment

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _check_options(self, options: DeployOptions) -> None:
        if not self._org.schema.org.is_production:
            return
        if not options.rollback_on_error:
            raise ApiError(400, "INVALID_OPERATION", "rollbackOnError must be true in production organizations")
        if options.purge_on_delete:
            raise ApiError(400, "INVALID_OPERATION", "purgeOnDelete cannot be used in production organizations")

    def _run(self, deployment: Deployment, content: bytes) -> None:
        with self._wake:
            self._wake.wait_for(
                lambda: self._closing or deployment.status != "Pending", timeout=self._org.pace.start_delay_s
            )
            if self._closing or deployment.status != "Pending":
                return
            deployment.status, deployment.started = "InProgress", self._org.clock.now()
        try:
            status = self._deploy(deployment, content)
        except BadPackage as bad:
            deployment.failures = [
                Message(type="", full_name=MANIFEST, file_name=MANIFEST, problem=str(bad), problem_type="Error")
            ]
            status = "Failed"
        except Exception as error:  # noqa: BLE001 - the client must see an end; the type tells what to look for
            deployment.error = f"An unexpected error occurred: {type(error).__name__}"
            status = "Failed"
        with self._wake:
            deployment.status, deployment.ended = status, self._org.clock.now()

    def _deploy(self, deployment: Deployment, content: bytes) -> str:
        options = deployment.options
        files = read_zip(content)
        changes = self._read_changes(deployment, files)
        removed = self._read_removals(deployment, files)
        deployment.total = len(changes) + len(removed) + len(deployment.failures)
        errors = any(entry.problem_type == "Error" for entry in deployment.failures)
        warned = any(entry.problem_type == "Warning" for entry in deployment.failures) and not options.ignore_warnings
        if (errors or warned) and (options.rollback_on_error or warned):
            return "Failed"
        after = preview(self._org.automations.current(), changes, removed)
        if not self._tests_pass(deployment, after, changes, removed):
            return "Failed"
        with self._lock:
            if deployment.status == "Canceling":
                return "Canceled"
        if not options.check_only:
            self._apply(changes, removed)
        deployment.successes = [self._success(change, check_only=options.check_only) for change in changes]
        deployment.successes += [
            Message(type=kind, full_name=name, file_name="", deleted=True, changed=True) for kind, name in removed
        ]
        return "SucceededPartial" if errors else "Succeeded"

    def _read_changes(self, deployment: Deployment, files: Mapping[str, bytes]) -> list[Change]:
        manifest = read_manifest(files[MANIFEST])
        changes: list[Change] = []
        listed: set[str] = set()
        # A FlowDefinition overrides the status in the flow's own file, so it comes after it.
        for type_name in sorted(manifest.members, key=lambda name: (name == "FlowDefinition", name)):
            for name in self._members(type_name, manifest.members[type_name], files):
                try:
                    change = read_change(self._org, type_name, name, files)
                except ApiError as error:
                    deployment.failures.append(
                        Message(
                            type=type_name,
                            full_name=name,
                            problem=error.message,
                            problem_type="Error",
                            file_name=file_of(type_name, name) if type_name in TYPES else MANIFEST,
                        )
                    )
                    continue
                changes.append(self._as_deployed(change))
                listed |= {change.file_name, f"{change.file_name}-meta.xml"}
        known = listed | {entry.file_name for entry in deployment.failures} | {MANIFEST, *DESTRUCTIVE}
        deployment.failures += [
            Message(
                type="",
                full_name=name,
                file_name=name,
                problem_type="Warning",
                problem="The file is not listed in package.xml",
            )
            for name in files
            if name not in known and name.removesuffix("-meta.xml") not in known
        ]
        return changes

    def _members(self, type_name: str, names: Sequence[str], files: Mapping[str, bytes]) -> list[str]:
        """The names with `*` written out: what exists in the org and has its file in the archive."""
        found: dict[str, None] = {}
        for name in names:
            if name == "*" and type_name in TYPES:
                present = names_of(self._org, type_name)
                found.update(dict.fromkeys(entry for entry in present if file_of(type_name, entry) in files))
            else:
                found[name] = None
        return list(found)

    def _as_deployed(self, change: Change) -> Change:
        """In production a flow lands inactive, whatever its file says."""
        flow = change.automation
        if change.type == "Flow" and isinstance(flow, RecordFlow) and self._org.schema.org.is_production:
            return replace(change, automation=replace(flow, active_version=None))
        return change

    def _read_removals(self, deployment: Deployment, files: Mapping[str, bytes]) -> list[tuple[Kind, str]]:
        removed: list[tuple[Kind, str]] = []
        for file_name in DESTRUCTIVE:
            members = read_manifest(files[file_name]).members if file_name in files else {}
            for type_name, names in members.items():
                for name in names:
                    kind = KIND_OF.get(type_name)
                    problem, severity = f"No {type_name} named: {name} found", "Warning"
                    if kind is None or kind == "flows":
                        problem, severity = f"the twin does not delete a {type_name}", "Error"
                    elif self._org.automations.find(kind, name) is not None:
                        removed.append((kind, name))
                        continue
                    deployment.failures.append(
                        Message(
                            type=type_name, full_name=name, file_name=file_name, problem=problem, problem_type=severity
                        )
                    )
        return removed

    def _tests_pass(
        self, deployment: Deployment, after: Automations, changes: Sequence[Change], removed: Sequence[tuple[Kind, str]]
    ) -> bool:
        """Run the org's Apex tests if the deploy must, or asks for it."""
        options, production = deployment.options, self._org.schema.org.is_production
        has_apex = any(change.type == "ApexTrigger" for change in changes) or any(k == "triggers" for k, _ in removed)
        level = options.test_level or ("RunLocalTests" if production and has_apex else "NoTestRun")
        if level == "NoTestRun":
            if production and has_apex:
                deployment.error = "testLevel of NoTestRun cannot be used in production organizations"
                return False
            return True
        tests = after.apex_tests
        wanted = tests.classes if level != "RunSpecifiedTests" else options.run_tests
        off = [name for name in tests.need_active if not is_active(after, name)]
        reasons = {
            name: f"System.AssertException: Assertion Failed: trigger {off[0]} did not act" for name in wanted if off
        }
        reasons |= {name: f"Apex class {name} not found" for name in wanted if name not in tests.classes}
        demanded = COVERAGE_MIN if production else 0
        deployment.tests = run_tests_result(wanted, reasons, tests.coverage, at_least=demanded)
        return not (reasons or deployment.tests["codeCoverageWarnings"])

    def _apply(self, changes: Sequence[Change], removed: Sequence[tuple[Kind, str]]) -> None:
        for change in changes:
            if change.field is not None and change.created:
                self._org.fields.create(change.full_name, change.field)
        entries = [(change.kind, change) for change in changes if change.kind is not None]
        puts = tuple((kind, change.automation) for kind, change in entries if change.automation is not None)
        gone = tuple((kind, change.full_name) for kind, change in entries if change.automation is None)
        self._org.automations.apply(puts, (*removed, *gone))

    def _success(self, change: Change, *, check_only: bool) -> Message:
        deleted = change.kind is not None and change.automation is None
        new = change.created and check_only
        return Message(
            type=change.type,
            full_name=change.full_name,
            file_name=change.file_name,
            created=change.created,
            changed=change.changed,
            deleted=deleted,
            id=None if new or deleted else component_id(self._org, change.type, change.full_name),
        )


def preview(now: Automations, changes: Sequence[Change], removed: Sequence[tuple[Kind, str]]) -> Automations:
    """The triggers as they would be after the deploy: what its tests see."""
    triggers: dict[str, Automation] = {entry.name.lower(): entry for entry in now.triggers}
    for change in changes:
        if change.type != "ApexTrigger":
            continue
        if change.automation is None:
            triggers.pop(change.full_name.lower(), None)
        else:
            triggers[change.full_name.lower()] = change.automation
    for kind, name in removed:
        if kind == "triggers":
            triggers.pop(name.lower(), None)
    return replace(now, triggers=tuple(entry for entry in triggers.values() if isinstance(entry, Trigger)))


def is_active(automations: Automations, trigger: str) -> bool:
    return any(entry.active for entry in automations.triggers if entry.name.lower() == trigger.lower())


def run_tests_result(
    classes: Sequence[str], reasons: Mapping[str, str], coverage: int, *, at_least: int
) -> dict[str, Any]:
    """The `RunTestsResult`: one method for each class."""
    warnings = []
    if classes and coverage < at_least:
        text = (
            f"Average test coverage across all Apex Classes and Triggers is {coverage}%, at least {at_least}% test "
            "coverage is required."
        )
        warnings.append({"id": None, "message": text, "name": None, "namespace": None})
    shared = {"methodName": "acts", "namespace": None, "time": 10.0}
    return {
        "codeCoverage": [],
        "codeCoverageWarnings": warnings,
        "failures": [
            {**shared, "name": name, "message": reason, "stackTrace": f"Class.{name}.acts: line 1", "type": "Class"}
            for name, reason in reasons.items()
        ],
        "numFailures": len(reasons),
        "numTestsRun": len(classes),
        "successes": [{**shared, "name": name} for name in classes if name not in reasons],
        "totalTime": 10.0 * len(classes),
    }
