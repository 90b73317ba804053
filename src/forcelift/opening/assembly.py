"""Put together what a plan names: source, org, and the compiled rules of each table.

Everything that can be found wrong is found here, before a batch is begun and before the org is asked to change.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from forcelift.errors import (
    OrgNotFound,
    PlanError,
    Problem,
    SourceError,
    SourceUnavailable,
    StateConflict,
    TargetError,
    UsageError,
)
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.work import TableWork
from forcelift.plan import LoadedPlan, TablePlan, load_order
from forcelift.plan.urls import is_loopback
from forcelift.plan.zones import byte_tables, codec_name
from forcelift.protocols.backups import Backups
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import FieldDescribe, ObjectDescribe, Org
from forcelift.protocols.refusals import RefusalReader
from forcelift.protocols.setup import Setup
from forcelift.protocols.source import ForeignKey, SharedSnapshot, Source
from forcelift.rules import ParentField, SourceDefaults, compile_table, lookup_targets, owner_names

_DATABASES = frozenset({"sqlite", "duckdb", "oracle", "postgresql"})


class Compiled(Struct, frozen=True, kw_only=True):
    """The plan's tables, ready to be worked on, in load order.

    `parent_keys` describes the key field of each lookup by (parent object, field name), `describes` objects by name.
    """

    works: Mapping[str, TableWork]
    positions: Mapping[str, int]
    parent_keys: Mapping[tuple[str, str], FieldDescribe]
    describes: Mapping[str, ObjectDescribe]

    @property
    def specs(self) -> list[TableSpec]:
        return [work.spec for work in self.works.values()]


@contextmanager
def open_source(
    loaded: LoadedPlan,
    *,
    memory_mb: int | None = None,
    threads: int | None = None,
    offered: Sequence[SharedSnapshot] = (),
) -> Iterator[Source]:
    """Open the plan's source, in a state that another process offers if that still stands.

    Args:
        memory_mb: What a source that caches may keep; its own default if None.
        threads: Its threads beside those that read from it; its own default if None.
    """
    from forcelift.source import open_source as open_adapter

    settings = loaded.plan.source
    source = open_adapter(
        loaded.source_url(),
        user=settings.user,
        password=settings.password.get_secret_value() if settings.password else None,
        encoding=codec_name(settings.encoding),
        byte_tables=byte_tables(loaded.plan),
        memory_mb=memory_mb,
        threads=threads,
        offered=offered,
        sessions=settings.limits.sessions,
    )
    try:
        yield source
    finally:
        source.close()


def foreign_keys(source: Source) -> list[ForeignKey]:
    """The foreign keys of a source that `open_source` opened."""
    from forcelift.source.foreign_keys import foreign_keys as read

    return read(source)


@contextmanager
def open_backups(loaded: LoadedPlan) -> Iterator[Backups]:
    """Open the place that keeps copies of the source's tables, to write. The source is not to be open meanwhile."""
    from forcelift.source import open_backups as open_adapter

    with open_source(loaded):  # whatever is wrong with the address is told by the reader
        pass
    settings = loaded.plan.source
    backups = open_adapter(
        loaded.source_url(),
        user=settings.user,
        password=settings.password.get_secret_value() if settings.password else None,
        encoding=codec_name(settings.encoding),
        into=Path(loaded.staging()) / "backups",
    )
    try:
        yield backups
    finally:
        backups.close()


@contextmanager
def open_org(loaded: LoadedPlan, *, clock: Clock) -> Iterator[Org]:
    """Sign in to the plan's target; a `twin:` target is started in this process and stopped at the end."""
    from forcelift.salesforce import AuthSettings, connect

    target = loaded.plan.target
    with ExitStack() as stack:
        if target.url.startswith("twin:"):
            server = stack.enter_context(_twin(loaded))
            url, auth = server.url, AuthSettings(flow="token", access_token=server.access_token)
        else:
            url, auth = loaded.target_url(), AuthSettings(**_auth_values(loaded))
        org = connect(
            url,
            auth=auth,
            api_version=target.api_version,
            ca_file=str(loaded.resolve(target.ca_file)) if target.ca_file is not None else None,
            clock=clock,
            expect_twin=_expect_twin(target.url),
        )
        stack.callback(org.close)
        yield org


def open_setup(org: Org, *, clock: Clock) -> Setup:
    """The setup of an org that `open_org` opened."""
    from forcelift.salesforce import SalesforceOrg
    from forcelift.salesforce.setup import SalesforceSetup

    if not isinstance(org, SalesforceOrg):
        raise TypeError(f"{type(org).__name__} has no setup")
    return SalesforceSetup(org, clock=clock)


def org_snapshot(org: Org, objects: Sequence[str], *, progress: Callable[[str], None]) -> dict[str, Any]:
    """The shape of an org that `open_org` opened, as the document of a twin's schema file."""
    from forcelift.salesforce import SalesforceOrg
    from forcelift.salesforce.snapshot import take_snapshot

    if not isinstance(org, SalesforceOrg):
        raise TypeError(f"{type(org).__name__} has no shape to take")
    return take_snapshot(org, objects, progress=progress)


def unread_notes(document: Mapping[str, Any]) -> list[str]:
    """What of a twin's schema document the twin cannot act out though it is active.

    Raises:
        TargetError: No twin can be made of the document.
    """
    from forcelift.twin.automation_checks import unread_rules
    from forcelift.twin.errors import SchemaError
    from forcelift.twin.schema_file import schema_from_dict

    try:
        schema = schema_from_dict(document)
    except SchemaError as error:
        raise TargetError(
            f"no twin can be made of what the org tells: {error}", state="nothing was written to the org"
        ) from error
    return [rule.note for rule in unread_rules(schema.automations, schema) if rule.active]


def refusal_reader() -> RefusalReader:
    """Reads what the org refused, by the catalogue of the adapter."""
    from forcelift.salesforce import CatalogueReader

    return CatalogueReader()


def _expect_twin(url: str) -> bool | None:
    """A real org's token must never reach a twin: only a loopback address may be either."""
    if url.startswith("twin:"):
        return True
    return None if is_loopback(url) else False


@contextmanager
def _twin(loaded: LoadedPlan) -> Iterator[Any]:
    from forcelift.twin.errors import StoreError, TwinError
    from forcelift.twin.org import TwinOrg
    from forcelift.twin.schema_file import load_schema
    from forcelift.twin.server import TwinServer

    file = Path(loaded.target_url().removeprefix("twin:"))
    schema_file = loaded.plan.target.twin_schema
    if not file.exists() and schema_file is None:
        raise UsageError(
            f"the twin's data file `{file}` does not exist",
            state="nothing was read or written",
            hint="name a schema file under `target.twin_schema`, from which a new twin is made",
        )
    try:
        schema = load_schema(loaded.resolve(schema_file)) if schema_file is not None else None
        org = TwinOrg.open(file, schema=schema)
    except StoreError as error:
        raise StateConflict(
            str(error),
            state="nothing was read or written",
            hint="end the other program that has the file open, or name another file in `target.url`",
        ) from error
    except TwinError as error:
        raise UsageError(str(error), state="nothing was read or written", hint="mend the twin's schema") from error
    try:
        with TwinServer(org) as server:
            yield server
    finally:
        org.close()


def _auth_values(loaded: LoadedPlan) -> dict[str, Any]:
    auth = loaded.plan.target.auth
    if auth is None or auth.flow is None:
        raise UsageError(
            "the plan does not say how to sign in to the org",
            state="nothing was read or written",
            hint="add `target.auth` with a `flow`: jwt, client_credentials, token or sf_cli",
        )
    values = {
        "flow": auth.flow,
        "client_id": auth.client_id,
        "username": auth.username,
        "alias": auth.alias,
        "audience": auth.audience,
    }
    for name in ("client_secret", "private_key", "access_token"):
        secret = getattr(auth, name)
        values[name] = secret.get_secret_value() if secret is not None else None
    return values


def compile_plan(loaded: LoadedPlan, *, source: Source, org: Org, only: Sequence[str] | None = None) -> Compiled:
    """Check every table of the plan against source and org.

    Args:
        only: Names of the tables to work on; all if None. Parents left out must stand in the org already.
    Raises:
        UsageError: `only` names a table that the plan lacks.
        PlanError: All problems of all tables, with the lines of the plan file.
    """
    _check_names(loaded, only)
    describes = _Describes(org)
    owners = plan_owners(loaded, org, only)
    works: dict[str, TableWork] = {}
    parent_keys: dict[tuple[str, str], FieldDescribe] = {}
    problems: list[Problem] = []
    for number, group in enumerate(load_order(loaded.plan)):
        for name in group.tables:
            if only is not None and name not in only:
                continue
            plan = loaded.plan.table(name)
            describe = describes.of(plan.object)
            if describe is None:
                problems.append(_unknown_object(loaded, plan, org))
                continue
            spec = TableSpec(
                name=name,
                object=describe.name,
                operation=plan.operation,
                external_id_field=plan.external_id,
                group=number,
                waits_for=frozenset(parent for parent in group.parents if only is None or parent in only),
                has_links=bool(group.link_columns.get(name)),
            )
            links = frozenset(group.link_columns.get(name, ()))
            try:
                works[name] = _compile_table(
                    loaded, plan, spec, links, source, describe, describes, parent_keys, owners
                )
                problems.extend(_where_problems(loaded, works[name], source))
            except PlanError as error:
                problems.extend(loaded.problem(p.message, p.path, hint=p.hint) for p in error.problems)
    if problems:
        raise loaded.error(problems)
    return Compiled(
        works=works,
        positions={name: index for index, name in enumerate(works)},
        parent_keys=parent_keys,
        describes=describes.known(),
    )


def _compile_table(
    loaded: LoadedPlan,
    plan: TablePlan,
    spec: TableSpec,
    links: frozenset[str],
    source: Source,
    describe: ObjectDescribe,
    describes: _Describes,
    parent_keys: dict[tuple[str, str], FieldDescribe],
    owners: Mapping[str, str],
) -> TableWork:
    table = source.describe(plan.table)
    parents: dict[str, ParentField] = {}
    for column, target in lookup_targets(plan, describe).items():
        parent = describes.of(target.parent_object)
        field = parent.fields.get(target.key_field) if parent is not None else None
        if field is not None:
            parents[column] = ParentField.of(field)
            parent_keys[target.parent_object, target.key_field] = field
    settings = loaded.plan.source
    defaults = SourceDefaults(encoding=plan.encoding or settings.encoding, timezone=plan.timezone or settings.timezone)
    rules = compile_table(
        plan, table=table, describe=describe, parents=parents, link_columns=links, defaults=defaults, owners=owners
    )
    return TableWork(spec=spec, plan=plan, source=table, rules=rules, key_field=describe.fields[rules.key_field])


def _where_problems(loaded: LoadedPlan, work: TableWork, source: Source) -> list[Problem]:
    """Try the table's condition on a row, so that a fault in it is one of the plan's, found before a batch is begun."""
    plan = work.plan
    # In a file a fault of its rows would show here too, and is none of the plan's.
    if plan.where is None or source.kind not in _DATABASES:
        return []
    try:
        source.sample(plan.table, columns=work.rules.key_columns, where=plan.where, rows=1)
    except SourceUnavailable:
        raise
    except SourceError as error:
        return [loaded.problem(error.message, f"tables.{plan.table}.where", hint=error.hint)]
    return []


def plan_owners(loaded: LoadedPlan, org: Org, only: Sequence[str] | None) -> dict[str, str]:
    """Ids of the active users that the plan names as owners, by username."""
    from forcelift.salesforce.soql import select_in

    tables = [table for table in loaded.plan.tables if only is None or table.table in only]
    names = sorted({name for table in tables for name in owner_names(table)})
    queries = select_in("User", ["Id", "Username"], field="Username", values=names, where="IsActive = true")
    return {record["Username"]: record["Id"] for query in queries for record in org.query(query)}


class _Describes:
    """Describes, each asked for once."""

    def __init__(self, org: Org) -> None:
        self._org = org
        self._known: dict[str, ObjectDescribe | None] = {}

    def of(self, name: str) -> ObjectDescribe | None:
        if name not in self._known:
            try:
                self._known[name] = self._org.describe(name)
            except OrgNotFound:
                self._known[name] = None
        return self._known[name]

    def known(self) -> dict[str, ObjectDescribe]:
        """What was asked for and is there, by its own name."""
        return {describe.name: describe for describe in self._known.values() if describe is not None}


def _unknown_object(loaded: LoadedPlan, plan: TablePlan, org: Org) -> Problem:
    near = difflib.get_close_matches(plan.object, org.objects(), n=1)
    hint = f"did you mean `{near[0]}`?" if near else "check the API name, and that the user may see it"
    return loaded.problem(
        f"the org has no object `{plan.object}` that this user can see", f"tables.{plan.table}.object", hint=hint
    )


def _check_names(loaded: LoadedPlan, only: Sequence[str] | None) -> None:
    names = [table.table for table in loaded.plan.tables]
    for name in only or ():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise UsageError(
                f"the plan has no table `{name}`",
                state="nothing was read or written",
                hint=f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(names)}",
            )


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
