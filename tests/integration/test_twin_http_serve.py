"""`forcelift twin serve` as a process: its first line, its end, a kill, and bad options."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from tests.integration.twin_http_fixtures import BASE

from forcelift.cli import cli
from forcelift.errors import StateConflict, UsageError

SCHEMA = """
org: {sandbox: false}
users:
  - {username: etl@kpc.example}
connected_apps:
  - {client_id: app1, client_secret: s3cret, run_as: etl@kpc.example}
objects:
  Tenant__c:
    fields:
      Tenant_Code__c: {type: string, length: 20, externalId: true, unique: true}
"""


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    path = tmp_path / "org.yaml"
    path.write_text(SCHEMA)
    return path


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    command = [sys.executable, "-c", "from forcelift.cli.twin import twin; twin()", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read().decode() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()


def call(
    document: dict[str, Any], method: str, path: str, *, content_type: str | None = None, **options: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {document['access_token']}"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    return httpx.request(method, document["url"] + path, headers=headers, timeout=30, **options)


def test_a_twin_that_was_killed_goes_on_and_ends_on_a_signal(tmp_path: Path, schema_file: Path) -> None:
    """Goal: records and sessions outlive a kill, and no client keeps a twin from ending.

    Method: kill -9, serve the file again with the old token, SIGTERM in the middle of an upload.
    """
    data, log = tmp_path / "org.duckdb", tmp_path / "twin.log"
    options = ["--schema", str(schema_file), "--data", str(data), "--seed", "5"]
    with served(*options) as (process, first):
        assert first["pid"] == process.pid
        assert first["data"] == str(data)
        assert first["client_ids"] == ["app1"]
        assert first["username"] == "etl@kpc.example"
        assert first["access_token"].startswith(first["org_id"][:15] + "!")
        made = call(first, "POST", f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "K1"})
        assert made.status_code == 201
        process.kill()
        process.wait()
    with served("--data", str(data), "--log", str(log)) as (process, second):
        assert second["org_id"] == first["org_id"]
        again = {**second, "access_token": first["access_token"]}
        found = call(again, "GET", f"{BASE}/sobjects/Tenant__c/Tenant_Code__c/K1")
        assert found.json()["Id"] == made.json()["id"]
        assert "Tenant_Code__c" in log.read_text()
        job = call(again, "POST", f"{BASE}/jobs/ingest", json={"object": "Tenant__c", "operation": "insert"}).json()
        upload_until_the_end(process, again, job["id"])
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read().decode()


def upload_until_the_end(process: subprocess.Popen[bytes], document: dict[str, Any], job_id: str) -> None:
    """Send half a body, end the twin, and see that the half did not keep it from ending."""

    def body() -> Iterator[bytes]:
        yield b"Tenant_Code__c\n"
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        yield b"X\n"

    with pytest.raises(httpx.TransportError):
        call(document, "PUT", f"{BASE}/jobs/ingest/{job_id}/batches", content=body(), content_type="text/csv")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ([], UsageError, "needs a schema"),
        (["--schema", "{schema}", "--data", "{folder}/not-a-database"], StateConflict, "cannot be opened"),
        (["--schema", "{bad}"], UsageError, "problem"),
        (["--schema", "{schema}", "--client-id", "x", "--certificate", "{schema}"], UsageError, "not a PEM"),
        (["--schema", "{schema}", "--username", "nobody@kpc.example"], UsageError, "nobody@kpc.example"),
    ],
)
def test_what_cannot_be_served(
    tmp_path: Path, schema_file: Path, options: list[str], error: type[Exception], text: str
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("objects: {X__c: {fields: {A__c: {type: strong}}}}\n")
    (tmp_path / "not-a-database").write_bytes(b"something else" * 1000)
    names = {"schema": str(schema_file), "bad": str(bad), "folder": str(tmp_path)}
    result = CliRunner().invoke(cli, ["twin", "serve", *(option.format_map(names) for option in options)])
    assert isinstance(result.exception, error), result.exception
    assert text in str(result.exception)
    assert result.stdout == ""


def test_https_with_a_certificate_that_lies_beside_the_data(tmp_path: Path, schema_file: Path) -> None:
    data = tmp_path / "org.duckdb"
    with served("--schema", str(schema_file), "--data", str(data), "--tls", "--password", "hush") as (_, first):
        certificate = Path(first["certificate"])
        assert certificate == tmp_path / "org.duckdb.tls" / "cert.pem"
        assert first["url"].startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(certificate))
        assert call(first, "GET", f"{BASE}/limits", verify=context).status_code == 200
        body = (
            '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>'
            '<login xmlns="urn:partner.soap.sforce.com">'
            "<username>etl@kpc.example</username><password>hush</password></login></e:Body></e:Envelope>"
        )
        login = call(first, "POST", "/services/Soap/u/58.0", content=body, content_type="text/xml", verify=context)
        assert login.status_code == 200, login.text
        assert f"<serverUrl>{first['url']}/services/Soap/u/58.0/" in login.text
    pair = ["--tls-cert", str(certificate), "--tls-key", str(certificate.with_name("key.pem"))]
    with served("--data", str(data), *pair) as (_, second):
        assert second["certificate"] == str(certificate)
        assert call(second, "GET", f"{BASE}/limits", verify=context).status_code == 200


def test_a_certificate_without_its_key_is_refused(tmp_path: Path, schema_file: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("nothing")
    base = ["twin", "serve", "--schema", str(schema_file)]
    alone = CliRunner().invoke(cli, [*base, "--tls-cert", str(file)])
    assert isinstance(alone.exception, UsageError)
    assert "belong together" in alone.exception.message
    bad = CliRunner().invoke(cli, [*base, "--tls-cert", str(file), "--tls-key", str(file)])
    assert isinstance(bad.exception, UsageError)
    assert "no certificate" in bad.exception.message


def test_faults_from_a_file_and_the_command_line(schema_file: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("- unavailable=1\n- {action: hide_field, object: Tenant__c, field: Tenant_Code__c}\n")
    options = ["--schema", str(schema_file), "--faults", str(faults), "--fault", "no-route", "--fault", "daily-rows=5"]
    with served(*options) as (_, document):
        assert [call(document, "GET", f"{BASE}/limits").status_code for _ in range(3)] == [503, 420, 200]
        describe = call(document, "GET", f"{BASE}/sobjects/Tenant__c/describe").json()
        assert "Tenant_Code__c" not in [field["name"] for field in describe["fields"]]


@pytest.mark.parametrize(
    "fault", ["nope", "lock-storm=many", "field-without-fls=Nope__c.Name", "trigger-exception=Nope__c"]
)
def test_faults_that_cannot_be_armed_are_told_before_the_start(schema_file: Path, fault: str) -> None:
    arguments = ["twin", "serve", "--schema", str(schema_file), "--fault", fault]
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    assert caught.value.state == "nothing was changed"
