"""What the parts of a plan must hold together. Pure: no source, no org, no file.

Every part is checked by itself, so that a fault of form in one of them hides nothing in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from msgspec import Struct
from pydantic import BaseModel, ValidationError

from forcelift.errors import Problem
from forcelift.plan import models
from forcelift.plan.second_person import SECOND_PERSON_STEPS
from forcelift.plan.shape import Path, Shaped, did_you_mean
from forcelift.plan.table_checks import Neighbours, place_problems, table_problems
from forcelift.plan.thresholds import THRESHOLDS
from forcelift.plan.urls import (
    AUDIT_SCHEMES,
    SERVER_SCHEMES,
    SOURCE_SCHEMES,
    database_fault,
    has_userinfo,
    holds_literal_secret,
    is_external,
    is_loopback,
    scheme_of,
    secret_spans,
    target_fault,
)

_Model = TypeVar("_Model", bound=BaseModel)

# What each way to sign in needs, and what it may have besides.
_FLOW_NEEDS = {
    "jwt": (("client_id", "username", "private_key"), ("audience",)),
    "client_credentials": (("client_id", "client_secret"), ()),
    "token": (("access_token",), ()),
    "sf_cli": (("alias",), ()),
}


class Draft(Struct, frozen=True, kw_only=True):
    """The parts of a plan that are of good form; None where one is not."""

    source: models.SourceSettings | None = None
    target: models.TargetSettings | None = None
    audit: models.AuditSettings | None = None
    limits: models.Limits | None = None
    tables: tuple[tuple[int, models.TablePlan], ...] = ()

    @classmethod
    def of(cls, data: Any) -> Draft:
        """Read each part of a plan's data by itself."""
        if not isinstance(data, dict):
            return cls()
        rows = data.get("tables")
        tables = [
            (index, _read(models.TablePlan, row)) for index, row in enumerate(rows if isinstance(rows, list) else [])
        ]
        return cls(
            source=_read(models.SourceSettings, data.get("source")),
            target=_read(models.TargetSettings, data.get("target")),
            audit=_read(models.AuditSettings, data.get("audit", {})),
            limits=_read(models.Limits, data.get("limits", {})),
            tables=tuple((index, table) for index, table in tables if table is not None),
        )

    @classmethod
    def of_plan(cls, plan: models.Plan) -> Draft:
        """All parts of a plan that is of good form: nothing has to be read once more."""
        return cls(
            source=plan.source,
            target=plan.target,
            audit=plan.audit,
            limits=plan.limits,
            tables=tuple(enumerate(plan.tables)),
        )


def plan_problems(shaped: Shaped, plan: models.Plan | None) -> Iterator[Problem]:
    """All faults that lie between the parts of a plan.

    Args:
        plan: What the data became; None where that failed, and each part is read by itself.
    """
    data = shaped.data if isinstance(shaped.data, dict) else {}
    draft = Draft.of(data) if plan is None else Draft.of_plan(plan)
    if draft.source is not None:
        yield from _source(draft.source, shaped)
    if draft.target is not None:
        yield from _target(draft.target, shaped)
    if draft.audit is not None:
        yield from _url(draft.audit.url.get_secret_value(), AUDIT_SCHEMES, ("audit", "url"), shaped)
        yield from _sign_in(draft.audit, "audit database", AUDIT_SCHEMES, "audit", shaped)
    if draft.limits is not None and draft.limits.window is not None:
        from forcelift.plan.windows import WINDOW_FORM, parse_hours  # for the plans that name hours

        try:
            parse_hours(draft.limits.window)
        except ValueError as error:
            yield shaped.problem(str(error), ("limits", "window"), hint=f"such as {WINDOW_FORM}")
    yield from _staging(data.get("staging"), shaped)
    yield from _thresholds(data.get("thresholds"), shaped)
    yield from _notify(data.get("notify"), shaped)
    yield from _roles(data.get("roles"), shaped)
    yield from _tables(draft, data, shaped)


def plan_notes(plan: models.Plan, shaped: Shaped) -> Iterator[Problem]:
    """What is allowed and deserves a second look."""
    for index, table in enumerate(plan.tables):
        if table.operation == "insert":
            yield shaped.problem(
                f"with `insert` a row that is sent twice is refused only if `{table.external_id}` is unique in the org",
                ("tables", index, "operation"),
                hint="`upsert` is safe either way",
            )
    if scheme_of(plan.target.url) == "twin" and plan.target.auth is not None:
        yield shaped.problem("a `twin:` inside the process needs no sign-in; `auth` is not used", ("target", "auth"))


def _source(source: models.SourceSettings, shaped: Shaped) -> Iterator[Problem]:
    url = source.url.get_secret_value()
    yield from _url(url, SOURCE_SCHEMES, ("source", "url"), shaped)
    yield from place_problems(source.encoding, source.timezone, ("source",), shaped)
    scheme = scheme_of(url)
    if scheme == "postgresql" and source.limits.sessions < 2:
        yield shaped.problem(
            "a PostgreSQL source takes two sessions at least",
            ("source", "limits", "sessions"),
            hint="one holds the snapshot that the others read under",
        )
    if scheme == "oracle":
        yield from _oracle_sign_in(source, url, shaped)
    elif source.lost_snapshot == "stop":
        yield shaped.problem(
            "only an Oracle source may lose its snapshot while it is read",
            ("source", "lost_snapshot"),
            hint="leave it out",
        )
    yield from _sign_in(source, "source", SOURCE_SCHEMES, "source", shaped)


def _sign_in(
    place: models.SourceSettings | models.AuditSettings, what: str, schemes: tuple[str, ...], key: str, shaped: Shaped
) -> Iterator[Problem]:
    url = place.url.get_secret_value()
    scheme = scheme_of(url)
    if scheme in schemes and scheme not in SERVER_SCHEMES:
        for name in ("user", "password"):
            if getattr(place, name) is not None:
                yield shaped.problem(f"`{scheme}` {what}s have no sign-in", (key, name), hint="leave it out")
    elif place.password is not None and secret_spans(url):
        yield shaped.problem("the URL holds a password, too", (key, "password"), hint="leave one of them out")


def _oracle_sign_in(source: models.SourceSettings, url: str, shaped: Shaped) -> Iterator[Problem]:
    """A user and a password, here or in the URL; a wallet may stand for both."""
    if is_external(url) or has_userinfo(url):
        return
    for name in ("user", "password"):
        if getattr(source, name) is None:
            hint = "write `user: ${ORACLE_USER}`" if name == "user" else "write `password: ${ORACLE_PASSWORD}`"
            yield shaped.problem(
                f"an Oracle source needs a {name}",
                ("source",),
                hint=f"{hint}, or sign in by a wallet with `external=true` in the URL",
            )


def _target(target: models.TargetSettings, shaped: Shaped) -> Iterator[Problem]:
    if holds_literal_secret(target.url):
        yield shaped.problem("a secret is written out inside the URL", ("target", "url"), hint="use `auth`")
    elif (fault := target_fault(target.url)) is not None:
        yield shaped.problem(fault[0], ("target", "url"), hint=fault[1])
    is_twin = scheme_of(target.url) == "twin"
    if target.twin_schema is not None and not is_twin:
        yield shaped.problem("only a `twin:` url has a schema file", ("target", "twin_schema"), hint="leave it out")
    if target.auth is not None:
        yield from _auth(target.auth, shaped)
    elif not is_twin and not is_loopback(target.url):
        yield shaped.problem("`auth` is missing", ("target",), hint="such as `auth: {flow: sf_cli, alias: production}`")


def _auth(auth: models.Auth, shaped: Shaped) -> Iterator[Problem]:
    place: Path = ("target", "auth")
    given = [name for name in models.Auth.model_fields if getattr(auth, name) is not None]
    if auth.airflow_conn is not None:
        for name in given:
            if name != "airflow_conn":
                yield shaped.problem(
                    "`airflow_conn` brings all credentials itself", (*place, name), hint="leave it out"
                )
        return
    if auth.flow is None:
        yield shaped.problem(
            "neither `flow` nor `airflow_conn` is given", place, hint=f"known flows: {', '.join(_FLOW_NEEDS)}"
        )
        return
    needs, may = _FLOW_NEEDS[auth.flow]
    for name in needs:
        if name not in given:
            yield shaped.problem(f"`{name}` is missing for `flow: {auth.flow}`", place)
    for name in given:
        if name != "flow" and name not in (*needs, *may):
            yield shaped.problem(f"`flow: {auth.flow}` has no use for it", (*place, name), hint="leave it out")


def _url(url: str, schemes: tuple[str, ...], place: Path, shaped: Shaped) -> Iterator[Problem]:
    if (fault := database_fault(url, schemes)) is not None:
        yield shaped.problem(fault[0], place, hint=fault[1])


def _staging(staging: Any, shaped: Shaped) -> Iterator[Problem]:
    if not isinstance(staging, str):
        return
    place: Path = ("staging",)
    head, mark, rest = staging.partition("://")
    if not mark:
        if any(ord(letter) < 32 for letter in staging):
            yield shaped.problem("the path holds a control character", place)
    elif head != "s3":
        yield shaped.problem("staging is a folder or an S3 bucket", place, hint="write a path, or `s3://bucket/prefix`")
    elif "@" in rest or secret_spans(staging):
        yield shaped.problem("credentials do not belong into staging's URL", place, hint="write `s3://bucket/prefix`")
    elif not rest.split("/")[0]:
        yield shaped.problem("the URL names no bucket", place, hint="write `s3://bucket/prefix`")


def _thresholds(thresholds: Any, shaped: Shaped) -> Iterator[Problem]:
    if not isinstance(thresholds, dict):
        return
    for name, value in thresholds.items():
        threshold = THRESHOLDS.get(name)
        if threshold is None:
            hint = did_you_mean(name, THRESHOLDS) or f"known are {', '.join(THRESHOLDS)}"
            yield shaped.problem("there is no such threshold", ("thresholds", name), hint=hint)
        elif threshold.unit == "%" and isinstance(value, (int, float)) and value > 100:
            yield shaped.problem("a share in % goes from 0 to 100", ("thresholds", name))
    for stem in ("fail_rate", "chunk_duration", "disk_usage"):
        warning, critical = f"{stem}_warning", f"{stem}_critical"
        values = [thresholds.get(name, THRESHOLDS[name].default) for name in (warning, critical)]
        if all(isinstance(value, (int, float)) for value in values) and values[0] > values[1]:
            named = warning if warning in thresholds else critical
            yield shaped.problem(
                f"`{warning}` {values[0]:g} lies above `{critical}` {values[1]:g}", ("thresholds", named)
            )


def _notify(notify: Any, shaped: Shaped) -> Iterator[Problem]:
    if not isinstance(notify, dict):
        return
    for name, value in notify.items():
        if not isinstance(value, (dict, list)):
            yield shaped.problem("must be a map or a list", ("notify", name))


def _roles(roles: Any, shaped: Shaped) -> Iterator[Problem]:
    if not isinstance(roles, dict):
        return
    steps, signers = roles.get("second_person_for"), roles.get("sign_off")
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(step, str) and step not in SECOND_PERSON_STEPS:
            hint = did_you_mean(step, SECOND_PERSON_STEPS) or f"known are {', '.join(SECOND_PERSON_STEPS)}"
            yield shaped.problem(
                f"`{step}` is no step that a second person can be wanted for",
                ("roles", "second_person_for", index),
                hint=hint,
            )
    seen: set[str] = set()
    for index, role in enumerate(signers if isinstance(signers, list) else []):
        if isinstance(role, str):
            if role.casefold() in seen:
                yield shaped.problem("this role is named twice", ("roles", "sign_off", index), hint="leave one out")
            seen.add(role.casefold())


def _tables(draft: Draft, data: dict[str, Any], shaped: Shaped) -> Iterator[Problem]:
    rows = data.get("tables")
    names = [row.get("table") if isinstance(row, dict) else None for row in (rows if isinstance(rows, list) else [])]
    # Tables whose form is wrong still count as parents, so that one fault does not look like two.
    external_ids: dict[str, str | None] = {name: None for name in names if isinstance(name, str)}
    external_ids |= {table.table: table.external_id for _, table in draft.tables}
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if isinstance(name, str) and name in first:
            line = (shaped.position(("tables", first[name], "table")) or (0, 0))[0]
            yield shaped.problem(f"the table `{name}` is named twice, first in line {line}", ("tables", index, "table"))
        elif isinstance(name, str):
            first[name] = index
    for index, table in draft.tables:
        neighbours = Neighbours(external_ids=external_ids)
        yield from table_problems(table, ("tables", index), shaped=shaped, neighbours=neighbours)


def _read(model: type[_Model], data: Any) -> _Model | None:
    try:
        return model.model_validate(data)
    except ValidationError:
        return None
