"""The Tooling API: queries, single records with their whole `Metadata`, and writes that replace it.

A PATCH replaces the whole block, so that what was read is sent back with nothing left out.
Source: Tooling API guide; section 6 of the API reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from forcelift.errors import OrgNotFound, TargetError
from forcelift.salesforce.failures import broken_answer
from forcelift.salesforce.ids import id18, is_id
from forcelift.salesforce.org import SalesforceOrg
from forcelift.salesforce.soql import quoted

_NAMES_PER_QUERY = 50


def query(org: SalesforceOrg, soql: str) -> Iterator[dict[str, Any]]:
    """Records of a Tooling query, all pages."""
    path: str | None = f"/tooling/query?q={quote(soql, safe='')}"
    seen: set[str] = set()
    while path is not None:
        if path in seen:
            raise broken_answer(what="query the Tooling API", reason="its pages go round in a ring", changes=False)
        seen.add(path)
        page = org.read(path, what="query the Tooling API")
        if not isinstance(page, dict) or not isinstance(page.get("records"), list):
            raise broken_answer(what="query the Tooling API", reason="it has no records", changes=False)
        yield from page["records"]
        # Only the locator is taken: host and version stay those of this connection.
        following = None if page.get("done", True) else str(page.get("nextRecordsUrl"))
        path = None if following is None else f"/tooling/query/{quote(following.rpartition('/')[2])}"


def record(org: SalesforceOrg, kind: str, record_id: str) -> dict[str, Any] | None:
    """A record with all its columns, `Metadata` and `FullName` among them; None if there is none."""
    what = f"read a {kind}"
    try:
        found = org.read(f"/tooling/sobjects/{kind}/{quote(record_id, safe='')}", what=what)
    except OrgNotFound:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("Metadata"), dict):
        raise TargetError(
            f"could not {what}: the org does not show its Metadata",
            state="nothing was changed",
            hint="the signed-in user needs `View Setup and Configuration` and `Customize Application`",
        )
    return found


def replace(org: SalesforceOrg, kind: str, record_id: str, body: Mapping[str, Any]) -> None:
    """Replace the `Metadata` of a record."""
    content = json.dumps(body).encode()
    org.transport.send(
        "PATCH",
        f"{org.root}/tooling/sobjects/{kind}/{quote(record_id, safe='')}",
        what=f"change a {kind}",
        headers={"Content-Type": "application/json"},
        content=lambda: [content],
    )


def create(org: SalesforceOrg, kind: str, body: Mapping[str, Any]) -> None:
    """Make a record."""
    org.transport.send_json("POST", f"{org.root}/tooling/sobjects/{kind}", dict(body), what=f"make a {kind}")


class Entities:
    """Which of some objects is meant, where the org tells a name, or an Id of 15 or 18 characters."""

    def __init__(self, org: SalesforceOrg, objects: Sequence[str]) -> None:
        self._names = {name.lower(): name for name in objects}
        for part in parts(objects):
            listed = ", ".join(quoted(name) for name in part)
            where = f"QualifiedApiName IN ({listed})"
            for row in query(org, f"SELECT DurableId, QualifiedApiName FROM EntityDefinition WHERE {where}"):
                name = self._names.get(str(row["QualifiedApiName"]).lower())
                durable_id = str(row["DurableId"])
                if name is not None and is_id(durable_id):
                    self._names[id18(durable_id)] = name

    def of(self, told: object) -> str | None:
        """The object, or None if it is another one."""
        text = str(told or "")
        # A standard object's name may have the form of an Id, so names are looked for first.
        return self._names.get(text.lower()) or (self._names.get(id18(text)) if is_id(text) else None)


def parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Lists short enough for one query."""
    return (names[start : start + _NAMES_PER_QUERY] for start in range(0, len(names), _NAMES_PER_QUERY))
