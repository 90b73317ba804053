"""What the tests of Tooling and Metadata calls share: an org with one automation of each kind, and small helpers."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zipfile
from typing import Any

import httpx
from tests.integration.twin_http_fixtures import BASE, SCHEMA_DOCUMENT, Client

TOOLING = f"{BASE}/tooling"
DEPLOY = f"{BASE}/metadata/deployRequest"
METADATA_NS = "http://soap.sforce.com/2006/04/metadata"

AUTOMATIONS: dict[str, Any] = {
    "validation_rules": [
        {
            "name": "No_Zero",
            "object": "Sale__c",
            "formula": "Amount__c = 0",
            "error_message": "Not zero & not <less>",
            "error_field": "Amount__c",
            "description": "Sales of nothing",
        },
        {"name": "Managed", "object": "Sale__c", "formula": "false", "error_message": "-", "namespace": "pkg"},
    ],
    "triggers": [{"name": "SaleTrigger", "object": "Sale__c", "events": ["before insert", "after update"]}],
    "flows": [
        {
            "name": "Sale_Flow",
            "object": "Sale__c",
            "versions": [{"number": 1}, {"number": 2}, {"number": 3}],
            "active_version": 2,
        }
    ],
    "workflow_rules": [
        {
            "name": "Set_Group",
            "object": "Sale__c",
            "condition": "ISBLANK(Group__c)",
            "field_updates": [{"field": "Group__c", "value": "none"}],
        }
    ],
    "duplicate_rules": [{"name": "Twice", "object": "Sale__c", "match_fields": ["Sale_Id__c"]}],
    "apex_tests": {"classes": ["SaleTest", "OtherTest"], "coverage": 80, "need_active": ["SaleTrigger"]},
}
SANDBOX = {"name": "Sand", "edition": "Unlimited Edition", "sandbox": True}
PRODUCTION = {"name": "Prod", "edition": "Enterprise Edition", "sandbox": False}


def document(org: dict[str, Any], **automations: Any) -> dict[str, Any]:
    return {**SCHEMA_DOCUMENT, "org": org, "automations": {**AUTOMATIONS, **automations}}


def tooling(client: Client, soql: str) -> list[dict[str, Any]]:
    answer = client.get(f"{TOOLING}/query/", params={"q": soql})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["size"] == len(found["records"])
    records: list[dict[str, Any]] = found["records"]
    return records


def one(client: Client, soql: str) -> dict[str, Any]:
    (record,) = tooling(client, soql)
    return record


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()[0]["errorCode"]


def make_zip(**files: str) -> bytes:
    """Paths are given with `__` for `/` left alone: keys are plain names, see callers."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def package(**types: list[str]) -> str:
    listed = "".join(
        f"<types>{''.join(f'<members>{name}</members>' for name in names)}<name>{kind}</name></types>"
        for kind, names in types.items()
    )
    head = f'<?xml version="1.0" encoding="UTF-8"?><Package xmlns="{METADATA_NS}">'
    return f"{head}{listed}<version>66.0</version></Package>"


def trigger_zip(status: str, **more: str) -> bytes:
    meta = f"<apiVersion>66.0</apiVersion><status>{status}</status>"
    return make_zip(
        **{
            "package.xml": package(ApexTrigger=["SaleTrigger"]),
            "triggers/SaleTrigger.trigger": "trigger SaleTrigger on Sale__c (before insert, after update) {\n}\n",
            "triggers/SaleTrigger.trigger-meta.xml": f'<ApexTrigger xmlns="{METADATA_NS}">{meta}</ApexTrigger>',
            **more,
        }
    )


def rest_deploy(client: Client, content: bytes, **options: Any) -> httpx.Response:
    part = json.dumps({"deployOptions": {"rollbackOnError": True, "singlePackage": True, **options}})
    files = {"json": (None, part, "application/json"), "file": ("deploy.zip", content, "application/zip")}
    return client.post(DEPLOY, files=files)


def deployed(client: Client, content: bytes, **options: Any) -> dict[str, Any]:
    """Deploy and wait for the end; gives the deployResult with details."""
    answer = rest_deploy(client, content, **options)
    assert answer.status_code == 201, answer.text
    return wait_deploy(client, answer.json()["id"])


def wait_deploy(client: Client, deploy_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        result: dict[str, Any] = client.get(f"{DEPLOY}/{deploy_id}?includeDetails=true").json()["deployResult"]
        if result["done"]:
            return result
        time.sleep(0.005)
    raise AssertionError(f"deploy {deploy_id} did not end")


def soap(client: Client, inner: str, *, token: str | None = None, version: str = "66.0") -> httpx.Response:
    session = client.server.access_token if token is None else token
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
        f'<soapenv:Header><SessionHeader xmlns="{METADATA_NS}"><sessionId>{session}</sessionId></SessionHeader>'
        f'</soapenv:Header><soapenv:Body xmlns="{METADATA_NS}">{inner}</soapenv:Body></soapenv:Envelope>'
    )
    headers = {"Content-Type": "text/xml", "SOAPAction": '""'}
    return client.post(f"/services/Soap/m/{version}", content=body, headers=headers)


def tag(text: str, name: str) -> str:
    found = re.search(f"<(?:\\w+:)?{name}(?: [^>]*)?>([^<]*)<", text)
    assert found is not None, f"no `{name}` in {text}"
    return found.group(1)


def retrieved(client: Client, types: str) -> dict[str, str]:
    """The files of a retrieve by path."""
    request = f"<retrieveRequest><apiVersion>66.0</apiVersion><unpackaged>{types}</unpackaged></retrieveRequest>"
    started = soap(client, f"<retrieve>{request}</retrieve>")
    assert started.status_code == 200, started.text
    retrieve_id = tag(started.text, "id")
    status = soap(client, f"<checkRetrieveStatus><asyncProcessId>{retrieve_id}</asyncProcessId></checkRetrieveStatus>")
    assert tag(status.text, "done") == "true", status.text
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(tag(status.text, "zipFile")))) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}
