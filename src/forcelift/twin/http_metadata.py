"""The Metadata API over HTTP: `deployRequest` as REST, deploy, retrieve and listing as SOAP."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element

from pydantic import ValidationError

from forcelift.twin.clock import api_time
from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_core import Call, Reply, json_reply, parse_json
from forcelift.twin.http_multipart import split_multipart
from forcelift.twin.http_soap import SoapFrame
from forcelift.twin.ids import id18
from forcelift.twin.metadata_components import FOLDERS, TYPES, component_id, file_of, files_for, names_of
from forcelift.twin.metadata_deploy import DeployOptions, Deploys
from forcelift.twin.metadata_zip import (
    MANIFEST,
    BadPackage,
    Manifest,
    element_values,
    manifest_of,
    write_manifest,
    write_zip,
)
from forcelift.twin.org import TwinOrg
from forcelift.twin.soap import METADATA, SoapFault, SoapRequest, answer, child, children, flag_of, text_of

DEPLOY_BODY_MAX: Final = 60_000_000
RETRIEVES_KEPT_MAX: Final = 50
LIST_QUERIES_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Retrieved:
    """What a retrieve found."""

    content: bytes
    properties: list[dict[str, Any]]
    messages: list[dict[str, str]]


class MetadataCalls:
    """Handlers of `/metadata/deployRequest` and of `/services/Soap/m`."""

    def __init__(self, org: TwinOrg, frame: SoapFrame) -> None:
        self._org = org
        self._frame = frame
        self._deploys = Deploys(org)
        self._lock = threading.Lock()
        self._retrieved: OrderedDict[str, _Retrieved] = OrderedDict()
        self._operations = {
            "deploy": self._soap_deploy,
            "checkDeployStatus": self._soap_deploy_status,
            "cancelDeploy": self._soap_cancel,
            "retrieve": self._soap_retrieve,
            "checkRetrieveStatus": self._soap_retrieve_status,
            "listMetadata": self._soap_list,
            "describeMetadata": self._soap_describe,
        }

    def close(self) -> None:
        self._deploys.close()

    def root(self, call: Call) -> Reply:
        return json_reply({"deployRequest": f"/services/data/v{call.version}/metadata/deployRequest"})

    def deploy(self, call: Call) -> Reply:
        """Start a deploy: a multipart body with the parts `json` and `file`."""
        if call.content_type() != "multipart/form-data":
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "deployRequest takes multipart/form-data")
        parts = split_multipart(call.body(bytes_max=DEPLOY_BODY_MAX), call.headers.get("content-type", ""))
        if "json" not in parts or "file" not in parts:
            raise ApiError(400, "MISSING_ARGUMENT", "The multipart body needs the parts `json` and `file`")
        document = parse_json(bytes(parts["json"].content))
        content = document.get("deployOptions", {}) if isinstance(document, dict) else None
        options = read_options(content)
        started = self._deploys.start(bytes(parts["file"].content), options, user_id=call.session.user_id)
        return json_reply(self._deploy_document(call, started.id, details=False), status=201)

    def deploy_status(self, call: Call) -> Reply:
        details = call.query.get("includeDetails", "false").lower() == "true"
        return json_reply(self._deploy_document(call, call.params["id"], details=details))

    def cancel(self, call: Call) -> Reply:
        result = call.json_object().get("deployResult")
        if not isinstance(result, dict) or result.get("status") != "Canceling":
            raise ApiError(400, "INVALID_FIELD", "The only change of a deploy is to the status Canceling")
        self._deploys.cancel(call.params["id"])
        return json_reply(self._deploy_document(call, call.params["id"], details=False), status=202)

    def _deploy_document(self, call: Call, deploy_id: str, *, details: bool) -> dict[str, Any]:
        found = self._deploys.find(deploy_id)
        return {
            "id": found.id,
            "url": f"{call.host_url}/services/data/v{call.version}/metadata/deployRequest/{found.id}",
            "deployOptions": found.options.model_dump(by_alias=True),
            "deployResult": found.as_json(details=details),
        }

    def soap(self, call: Call, request: SoapRequest) -> Reply:
        """All SOAP calls of the Metadata API; each needs a session."""
        run = self._operations.get(request.operation)
        if run is None:
            raise SoapFault("soapenv:Client", f"No operation available for request {request.operation}")
        session = self._frame.session(request)
        try:
            return answer(request.operation, run(request.body, session.user_id), namespace=METADATA)
        except ApiError as error:
            raise SoapFault(error.error_code, error.message) from error

    def _soap_deploy(self, body: Element, user_id: str) -> dict[str, Any]:
        text = text_of(body, "ZipFile") or ""
        try:
            content = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, "INVALID_TYPE", "ZipFile is not valid base64") from error
        element = child(body, "DeployOptions")
        values = {} if element is None else element_values(element, lists=("runTests",))
        started = self._deploys.start(content, read_options(values), user_id=user_id)
        return {"done": False, "id": started.id, "state": "Queued"}

    def _soap_deploy_status(self, body: Element, user_id: str) -> dict[str, Any]:
        deployment = self._deploys.find(text_of(body, "asyncProcessId") or "")
        return _soap_result(deployment.as_json(details=flag_of(body, "includeDetails")))

    def _soap_cancel(self, body: Element, user_id: str) -> dict[str, Any]:
        found = self._deploys.cancel(text_of(body, "String") or text_of(body, "asyncProcessId") or "")
        return {"done": found.done, "id": found.id}

    def _soap_retrieve(self, body: Element, user_id: str) -> dict[str, Any]:
        request = child(body, "retrieveRequest")
        unpackaged = None if request is None else child(request, "unpackaged")
        if request is None or unpackaged is None:
            raise ApiError(400, "MISSING_ARGUMENT", "the twin retrieves what `unpackaged` lists; nothing is listed")
        try:
            manifest = manifest_of(unpackaged)
        except BadPackage as bad:
            raise ApiError(400, "INVALID_TYPE", str(bad)) from bad
        single = text_of(request, "singlePackage") != "false"
        found = self._retrieve(manifest, folder="" if single else "unpackaged/")
        retrieve_id = self._org.new_id("09S")
        with self._lock:
            self._retrieved[retrieve_id] = found
            while len(self._retrieved) > RETRIEVES_KEPT_MAX:
                self._retrieved.popitem(last=False)
        return {"done": False, "id": retrieve_id, "state": "Queued"}

    def _soap_retrieve_status(self, body: Element, user_id: str) -> dict[str, Any]:
        retrieve_id = text_of(body, "asyncProcessId") or ""
        with self._lock:
            found = self._retrieved.get(id18(retrieve_id)) if len(retrieve_id) in (15, 18) else None
        if found is None:
            raise not_found()
        result: dict[str, Any] = {"done": True, "fileProperties": found.properties, "id": id18(retrieve_id)}
        if found.messages:
            result["messages"] = found.messages
        result |= {"status": "Succeeded", "success": True}
        if text_of(body, "includeZip") != "false":
            result["zipFile"] = base64.b64encode(found.content).decode()
        return result

    def _retrieve(self, manifest: Manifest, *, folder: str) -> _Retrieved:
        wanted: dict[str, list[str]] = {}
        messages = []
        for type_name, names in manifest.members.items():
            if type_name not in TYPES:
                problem = f"Entity type: '{type_name}' is unknown"
                messages.append({"fileName": f"{folder}{MANIFEST}", "problem": problem})
                continue
            present = {name.lower(): name for name in names_of(self._org, type_name)}
            for name in names:
                if name == "*":
                    wanted.setdefault(type_name, []).extend(present.values())
                elif name.lower() in present:
                    wanted.setdefault(type_name, []).append(present[name.lower()])
                else:
                    problem = f"Entity of type '{type_name}' named '{name}' cannot be found"
                    messages.append({"fileName": f"{folder}{MANIFEST}", "problem": problem})
        wanted = {type_name: list(dict.fromkeys(names)) for type_name, names in wanted.items()}
        files = {f"{folder}{name}": content for name, content in files_for(self._org, wanted)}
        files[f"{folder}{MANIFEST}"] = write_manifest(wanted, version=manifest.version or "66.0")
        properties = [self._properties(type_name, name) for type_name, names in wanted.items() for name in names]
        return _Retrieved(content=write_zip(files), properties=properties, messages=messages)

    def _properties(self, type_name: str, full_name: str) -> dict[str, Any]:
        user = self._org.users[0]
        now = api_time(self._org.clock.now())
        who = {"ById": user.id, "ByName": user.name, "Date": now}
        return {
            **{f"created{name}": value for name, value in who.items()},
            "fileName": file_of(type_name, full_name),
            "fullName": full_name,
            "id": component_id(self._org, type_name, full_name),
            **{f"lastModified{name}": value for name, value in who.items()},
            "manageableState": "unmanaged",
            "type": type_name,
        }

    def _soap_list(self, body: Element, user_id: str) -> list[dict[str, Any]] | None:
        queries = children(body, "queries")
        if len(queries) > LIST_QUERIES_MAX:
            raise ApiError(400, "LIMIT_EXCEEDED", f"at most {LIST_QUERIES_MAX} queries in one call")
        found = []
        for query in queries:
            type_name = text_of(query, "type") or ""
            if type_name not in TYPES:
                raise ApiError(400, "INVALID_TYPE", f"Unknown type:{type_name}")
            found += [self._properties(type_name, name) for name in names_of(self._org, type_name)]
        return found or None

    def _soap_describe(self, body: Element, user_id: str) -> dict[str, Any]:
        types = [
            {
                "directoryName": folder,
                "inFolder": False,
                "metaFile": name == "ApexTrigger",
                "suffix": ending.removeprefix("."),
                "xmlName": name,
            }
            for name, (folder, ending) in FOLDERS.items()
        ]
        org = self._org.schema.org
        return {
            "metadataObjects": types,
            "organizationNamespace": org.namespace or "",
            "partialSaveAllowed": not org.is_production,
            "testRequired": org.is_production,
        }


def read_options(content: object) -> DeployOptions:
    """Raises ApiError 400 that names the option at fault."""
    if not isinstance(content, Mapping):
        raise ApiError(400, "JSON_PARSER_ERROR", "deployOptions must be an object")
    kept = {name: value for name, value in content.items() if value not in (None, "")}
    try:
        return DeployOptions.model_validate(kept)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        raise ApiError(400, "INVALID_FIELD", f"deployOptions: {place}: {item['msg']}", [place]) from error


def _soap_result(result: dict[str, Any]) -> dict[str, Any]:
    """SOAP leaves out what has no value, where JSON says null."""
    return {name: _soap_value(value) for name, value in result.items() if value is not None and value != []}


def _soap_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _soap_result(value)
    if isinstance(value, list):
        return [_soap_value(entry) for entry in value]
    return value
