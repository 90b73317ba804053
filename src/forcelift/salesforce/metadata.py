"""The Metadata API: the files of components, retrieved over SOAP and deployed over REST.

Both are asynchronous: they are begun, then asked for until they have ended. A retrieve changes nothing and can be begun
again. A deploy is all or nothing (`rollbackOnError`); one whose reply was lost may still run.
Source: Metadata API guide, "retrieve()", "deployRequest"; sections 6.1 and 6.2 of the API reference.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from msgspec import Struct

from forcelift.errors import OrgRefused, TargetError
from forcelift.protocols.clock import Clock
from forcelift.salesforce.failures import broken_answer, public_text
from forcelift.salesforce.org import SalesforceOrg

NAMESPACE: Final = "http://soap.sforce.com/2006/04/metadata"
ENVELOPE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
MANIFEST: Final = "package.xml"
UNZIPPED_BYTES_MAX: Final = 100_000_000
RETRIEVE_S_MAX: Final = 600.0
DEPLOY_S_MAX: Final = 4 * 3600.0  # all Apex tests of a production org may take hours
_POLL_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PROBLEMS_SHOWN: Final = 5

Members = Mapping[str, Sequence[str]]
"""Full names by type: `{"ApexTrigger": ["SaleTrigger"]}`."""


class Component(Struct, frozen=True, kw_only=True):
    """One component of a retrieve with its files, by path within the package."""

    type: str
    full_name: str
    files: Mapping[str, bytes]


def retrieve(org: SalesforceOrg, members: Members, *, clock: Clock) -> list[Component]:
    """The files of components; what the org does not have is left out.

    Raises:
        OrgRefused: The org's fault, such as a missing permission.
        TargetError: It did not end within ten minutes, or failed.
    """
    what = "retrieve metadata"
    version = org.api_version
    request = (
        f"<retrieve><retrieveRequest><apiVersion>{version}</apiVersion><singlePackage>true</singlePackage>"
        f"<unpackaged>{_types(members)}<version>{version}</version></unpackaged></retrieveRequest></retrieve>"
    )
    retrieve_id = _text(_call(org, request, what=what), "id")
    ask = (
        f"<checkRetrieveStatus><asyncProcessId>{escape(retrieve_id)}</asyncProcessId>"
        "<includeZip>true</includeZip></checkRetrieveStatus>"
    )
    for _ in _patience(clock, seconds=RETRIEVE_S_MAX, what=what, which=retrieve_id):
        result = _call(org, ask, what=what)
        if _text(result, "done") == "true":
            break
    if _text(result, "success") != "true":
        raise TargetError(
            f"could not {what}: {public_text(_text(result, 'errorMessage')) or _text(result, 'status')}",
            state="nothing was changed",
            hint="look at the user's permission `Modify Metadata Through Metadata API Functions`",
        )
    files = _unzip(_text(result, "zipFile"), what=what)
    found = []
    for entry in _children(result, "fileProperties"):
        path = _text(entry, "fileName").removeprefix("unpackaged/")
        if path == MANIFEST:
            continue
        own = {name: files[name] for name in (path, f"{path}-meta.xml") if name in files}
        if own:
            found.append(Component(type=_text(entry, "type"), full_name=_text(entry, "fullName"), files=own))
    return found


def deploy(org: SalesforceOrg, components: Sequence[Component], *, options: Mapping[str, Any], clock: Clock) -> None:
    """Deploy components, all or nothing, and wait for the end.

    Args:
        components: Each with all its files.
        options: Beside the fixed ones: `testLevel`, `runTests`.
    Raises:
        LostReply: It may have been begun.
        OrgRefused: It failed, with the first problems and failed tests; nothing was changed.
        TargetError: It has not ended after hours, and may still.
    """
    what = "deploy metadata"
    fixed = {
        "allowMissingFiles": False,
        "autoUpdatePackage": False,
        "checkOnly": False,
        "ignoreWarnings": True,
        "performRetrieve": False,
        "purgeOnDelete": False,
        "rollbackOnError": True,
        "singlePackage": True,
    }
    boundary = f"forcelift-{secrets.token_hex(16)}"
    content = _multipart(boundary, {"deployOptions": {**fixed, **options}}, _zip(components, org.api_version))
    begun = org.transport.send_for_json(
        "POST",
        f"{org.root}/metadata/deployRequest",
        what=what,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        content=lambda: [content],
    )
    deploy_id = str(begun.get("id") or "") if isinstance(begun, dict) else ""
    if not deploy_id.isalnum():
        raise broken_answer(what=what, reason="it names no deploy", changes=True)
    result: dict[str, Any] = {}
    for _ in _patience(clock, seconds=DEPLOY_S_MAX, what=what, which=deploy_id):
        try:
            answer = org.read(f"/metadata/deployRequest/{deploy_id}?includeDetails=true", what="ask for a deploy")
        except OrgRefused as refused:
            # Not a refusal of the deploy, which goes on.
            raise TargetError(refused.message, state="the deploy may still end", hint=refused.hint) from refused
        told = answer.get("deployResult") if isinstance(answer, dict) else None
        if not isinstance(told, dict):
            raise broken_answer(what="ask for a deploy", reason="it has no result", changes=False)
        result = told
        if result.get("done"):
            break
    if not result.get("success"):
        raise OrgRefused(
            f"could not {what} ({deploy_id}): {'; '.join(_problems(result)) or result.get('status')}",
            code="DEPLOY_FAILED",
            http_status=200,
            state="a deploy is all or nothing: it changed nothing in the org",
            hint="see Setup, Deployment Status, for all of it",
        )


def _problems(result: Mapping[str, Any]) -> list[str]:
    """The first problems of a deploy in words, without values that messages may quote."""
    details = result.get("details") or {}
    found = [
        f"{entry.get('componentType')} {entry.get('fullName')}: {public_text(str(entry.get('problem')))}"
        for entry in details.get("componentFailures") or ()
    ]
    tests = details.get("runTestResult") or {}
    found += [
        f"Apex test {entry.get('name')}.{entry.get('methodName')} failed: {public_text(str(entry.get('message')))}"
        for entry in tests.get("failures") or ()
    ]
    found += [public_text(str(entry.get("message"))) for entry in tests.get("codeCoverageWarnings") or ()]
    if result.get("errorMessage"):
        found.append(public_text(str(result["errorMessage"])))
    more = len(found) - _PROBLEMS_SHOWN
    return [*found[:_PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _patience(clock: Clock, *, seconds: float, what: str, which: str) -> Iterator[None]:
    """One turn for each time to ask, with growing pauses between; an error when the time is over."""
    ends, turn = clock.monotonic() + seconds, 0
    while True:
        yield
        if clock.monotonic() >= ends:
            raise TargetError(
                f"could not {what}: `{which}` has not ended after {seconds / 60:.0f} minutes",
                state="it may still end; nothing more was begun",
                hint="see Setup, Deployment Status; when it has ended, run the same command again",
            )
        clock.sleep(_POLL_S[min(turn, len(_POLL_S) - 1)])
        turn += 1


def _call(org: SalesforceOrg, inner: str, *, what: str) -> Element:
    """A SOAP call; gives the `result`."""

    def envelope(token: str) -> bytes:
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><env:Envelope xmlns:env="{ENVELOPE}"><env:Header>'
            f'<SessionHeader xmlns="{NAMESPACE}"><sessionId>{escape(token)}</sessionId></SessionHeader></env:Header>'
            f'<env:Body xmlns="{NAMESPACE}">{inner}</env:Body></env:Envelope>'
        ).encode()

    status, content = org.transport.post_soap(f"/services/Soap/m/{org.api_version}", envelope, what=what)
    try:
        root = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise broken_answer(what=what, reason="it is not XML", changes=False) from error
    if status != 200:
        code, words = _find(root, "faultcode"), _find(root, "faultstring")
        name = (code.text or "" if code is not None else "").rpartition(":")[2]
        raise OrgRefused(
            f"could not {what}: {name}: {public_text(words.text or '' if words is not None else '')}",
            code=name or f"HTTP_{status}",
            http_status=status,
            state="nothing was changed",
            hint="the user needs `Modify Metadata Through Metadata API Functions` or `Modify All Data`",
        )
    result = _find(root, "result")
    if result is None:
        raise broken_answer(what=what, reason="it has no result", changes=False)
    return result


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _find(root: Element, name: str) -> Element | None:
    return next((element for element in root.iter() if _local(element) == name), None)


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _local(child) == name)


def _text(element: Element, name: str) -> str:
    """The text of the first child of that name; empty if there is none."""
    child = next(_children(element, name), None)
    return "" if child is None else (child.text or "").strip()


def _types(members: Members) -> str:
    return "".join(
        f"<types>{''.join(f'<members>{escape(name)}</members>' for name in names)}<name>{kind}</name></types>"
        for kind, names in members.items()
    )


def _zip(components: Sequence[Component], version: str) -> bytes:
    """The package of a deploy; equal components give equal bytes."""
    members: dict[str, list[str]] = {}
    for component in components:
        members.setdefault(component.type, []).append(component.full_name)
    manifest = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Package xmlns="{NAMESPACE}">{_types(members)}'
        f"<version>{version}</version></Package>\n"
    )
    files = {MANIFEST: manifest.encode()}
    for component in components:
        files |= component.files
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _unzip(text: str, *, what: str) -> dict[str, bytes]:
    """The files of an archive in base64, with a bound on what is inflated."""
    files: dict[str, bytes] = {}
    left = UNZIPPED_BYTES_MAX
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode("".join(text.split()), validate=True))) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise broken_answer(what=what, reason="its files are too large", changes=False)
                files[entry.filename.removeprefix("unpackaged/")] = content
    except (zipfile.BadZipFile, zlib.error, binascii.Error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise broken_answer(what=what, reason="its archive cannot be read", changes=False) from error
    return files


def _multipart(boundary: str, document: Mapping[str, Any], package: bytes) -> bytes:
    parts = (
        ('name="json"', "application/json", json.dumps(document).encode()),
        ('name="file"; filename="deploy.zip"', "application/zip", package),
    )
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, kind, content in parts
    )
    return body + f"--{boundary}--\r\n".encode()
