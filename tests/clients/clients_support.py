"""What the tests of foreign clients share: a served org, one course of work for all, and what the org must hold after.

The course is login, describe, bulk insert, query with paging, bulk upsert with rows that fail, delete, bulk query. A
client's driver does it and writes what the client saw; `check_course` compares that with what the org itself says.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

API_VERSION = "62.0"
DRIVERS = Path(__file__).parent / "drivers"
USERNAME = "loader@clients.example"
PASSWORD = "correct-horse-4711"
TOKEN = "SecurityToken9"
CLIENT_ID = "clients.app"
CLIENT_SECRET = "an-app-secret"
CLIENT_TIMEOUT_S = 240

SCHEMA = """
org: {name: Clients, sandbox: true}
users:
  - {username: loader@clients.example, name: Client Loader, email: loader@clients.example}
sign_in:
  soap_login: true
  passwords: {loader@clients.example: correct-horse-4711SecurityToken9}
connected_apps:
  - client_id: clients.app
    client_secret: an-app-secret
    certificate: app.crt
    run_as: loader@clients.example
    flows: [jwt, client_credentials, password, refresh_token]
objects:
  Account: {fields: {Name: {type: string, length: 255, required: true}}}  # every org has it, and clients look
  Region__c:
    fields:
      Region_Code__c: {type: string, length: 20, externalId: true, unique: true}
  Customer__c:
    fields:
      Ext_Id__c: {type: string, length: 30, externalId: true, unique: true, required: true}
      Amount__c: {type: currency, precision: 18, scale: 2}
      Since__c: {type: date}
      Note__c: {type: textarea, length: 4000}
      Status__c: {type: picklist, restrictedPicklist: true, values: [New, Active, Closed]}
      Region__c:
        {type: reference, referenceTo: Region__c, relationshipName: Region__r, childRelationshipName: Customers__r}
"""

COLUMNS = ("Ext_Id__c", "Name", "Amount__c", "Since__c", "Note__c", "Status__c", "Region__r.Region_Code__c")
REGIONS = ("R0", "R1", "R2")
INSERTED = 2300  # more than one page of a query
UPDATED = 50
CREATED = 30
DELETED_KEYS = tuple(f"C{number:04d}" for number in range(101, 141))


def customer(key: str, number: int, **changes: str) -> dict[str, str]:
    """One row. Thai with combining vowels and tone marks, quotes, commas, a line break, money, a leap day."""
    row = {
        "Ext_Id__c": key,
        "Name": f"ผู้ค้ารายที่ {number}",
        "Amount__c": f"{number}.25",
        "Since__c": "2024-02-29",
        "Note__c": 'บรรทัดแรก\nsecond line, with "quotes"' if number % 10 == 0 else f"หมายเหตุ {number}",
        "Status__c": ("New", "Active", "Closed")[number % 3],
        "Region__r.Region_Code__c": REGIONS[number % 3],
    }
    return {**row, **changes}


ROWS_TO_INSERT = [customer(f"C{number:04d}", number) for number in range(1, INSERTED + 1)]
# Bad rows and the code with which the org must refuse each.
BAD_ROWS = {
    "F1": (customer("F1", 1, Status__c="Unheard of"), "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
    "F2": (customer("F2", 2, Name="ก" * 81), "STRING_TOO_LONG"),
    "F3": (customer("F3", 3, **{"Region__r.Region_Code__c": "R9"}), "INVALID_FIELD"),
    "F4": (customer("F4", 4, Amount__c="much"), "INVALID_TYPE_ON_FIELD_IN_RECORD"),
}
ROWS_TO_UPSERT = [
    *(customer(f"C{number:04d}", number, Name=f"แก้ไขแล้ว {number}") for number in range(1, UPDATED + 1)),
    *(customer(f"N{number:04d}", number) for number in range(1, CREATED + 1)),
    *(row for row, _ in BAD_ROWS.values()),
]


def expected_rows() -> dict[str, dict[str, str]]:
    """What the org must hold after the course, by key."""
    rows = {row["Ext_Id__c"]: row for row in ROWS_TO_INSERT}
    rows.update({row["Ext_Id__c"]: row for row in ROWS_TO_UPSERT if row["Ext_Id__c"] not in BAD_ROWS})
    return {key: row for key, row in rows.items() if key not in DELETED_KEYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Org:
    """A twin that runs as a process of its own, and a connection of ours to it."""

    document: Mapping[str, Any]
    http: httpx.Client
    log_file: Path
    key_file: Path

    @property
    def url(self) -> str:
        return str(self.document["url"])

    @property
    def certificate(self) -> str | None:
        found = self.document.get("certificate")
        return None if found is None else str(found)

    def records(self, soql: str, *, call: str = "query") -> list[dict[str, Any]]:
        page = self._get(f"/services/data/v{API_VERSION}/{call}", q=soql)
        found: list[dict[str, Any]] = page["records"]
        while not page["done"]:
            page = self._get(page["nextRecordsUrl"])
            found.extend(page["records"])
        return found

    def count(self, soql: str, *, call: str = "query") -> int:
        return int(self._get(f"/services/data/v{API_VERSION}/{call}", q=soql)["totalSize"])

    def make(self, name: str, records: Sequence[Mapping[str, str]]) -> None:
        for record in records:
            answer = self.http.post(f"/services/data/v{API_VERSION}/sobjects/{name}", json=record)
            assert answer.status_code == 201, answer.text

    def internal_errors(self) -> list[str]:
        headers = {"Authorization": f"Bearer {self.document['control_token']}"}
        return list(self.http.get("/__twin__/state", headers=headers).json()["internal_errors"])

    def requests(self, method: str, pattern: str) -> list[dict[str, Any]]:
        """Lines of the request log whose whole path matches, whoever sent them."""
        lines = map(json.loads, self.log_file.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["method"] == method and re.fullmatch(pattern, line["path"])]

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self.http.get(path, params=parameters or None)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def served_org(folder: Path, *, tls: bool) -> Iterator[Org]:
    """Serve a new org with `forcelift twin serve` and end it; it must have had no fault of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    key_file = write_app_certificate(folder)
    (folder / "org.yaml").write_text(SCHEMA, encoding="utf-8")
    log_file = folder / "requests.log"
    command = [sys.executable, "-m", "forcelift", "twin", "serve", "--schema", str(folder / "org.yaml"), "--seed", "4"]
    command += ["--data", str(folder / "org.duckdb"), "--log", str(log_file), *(["--tls"] if tls else [])]
    with (folder / "twin.err").open("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        alarm = threading.Timer(CLIENT_TIMEOUT_S * 2, process.kill)
        alarm.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "twin.err").read_text()
            with connect(json.loads(line)) as http:
                org = Org(document=json.loads(line), http=http, log_file=log_file, key_file=key_file)
                org.make("Region__c", [{"Region_Code__c": code, "Name": f"ภาค {code}"} for code in REGIONS])
                yield org
                assert org.internal_errors() == []
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            alarm.cancel()
            if process.stdout is not None:
                process.stdout.close()
        assert process.returncode == 0, (folder / "twin.err").read_text()


def connect(document: Mapping[str, Any]) -> httpx.Client:
    certificate = document.get("certificate")
    trust: ssl.SSLContext | bool = False if certificate is None else ssl.create_default_context(cafile=certificate)
    headers = {"Authorization": f"Bearer {document['access_token']}"}
    return httpx.Client(base_url=document["url"], headers=headers, verify=trust, timeout=60, trust_env=False)


def write_app_certificate(folder: Path) -> Path:
    """A key for the JWT flow and, as `app.crt`, the certificate that is registered with the connected app."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients.app")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    certificate = builder.not_valid_after(now + timedelta(days=2)).sign(key, hashes.SHA256())
    (folder / "app.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    path = folder / "app.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How a client's programs are started: a home of its own, and nothing of ours in its environment."""

    folder: Path
    environment: Mapping[str, str]

    def run(
        self, *command: str | Path, allow_failure: bool = False, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
        assert allow_failure or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    def drive(self, *command: str | Path, task: Mapping[str, Any], **settings: str) -> dict[str, Any]:
        """Run a driver: it reads its task from a file and writes what the client saw into another."""
        (self.folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        self.run(*command, "task.json", "seen.json", **settings)
        seen: dict[str, Any] = json.loads((self.folder / "seen.json").read_text(encoding="utf-8"))
        return seen


def make_client(folder: Path, org: Org, *programs: Path) -> Client:
    """Args: programs: Folders that a client of Node finds its programs in, before the system's."""
    (folder / "home").mkdir(parents=True)
    environment = {
        "PATH": os.pathsep.join([*map(str, programs), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TMPDIR": str(folder),
    }
    if not programs:
        # Where the network could not be closed off, what would leave this machine meets a dead proxy. Python's clients
        # leave loopback out, as they are told; jsforce sends everything to a proxy.
        dead = "http://127.0.0.1:9"
        environment |= {"HTTPS_PROXY": dead, "HTTP_PROXY": dead, "NO_PROXY": "127.0.0.1,localhost"}
    if org.certificate is not None:
        environment |= {
            "REQUESTS_CA_BUNDLE": org.certificate,
            "SSL_CERT_FILE": org.certificate,
            "NODE_EXTRA_CA_CERTS": org.certificate,
        }
    return Client(folder=folder, environment=environment)


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def course_task(client: Client, org: Org) -> dict[str, Any]:
    """What a driver is told."""
    return {
        "url": org.url,
        "access_token": org.document["access_token"],
        "org_id": org.document["org_id"],
        "username": USERNAME,
        "version": API_VERSION,
        "object": "Customer__c",
        "external_id": "Ext_Id__c",
        "insert": str(write_csv(client.folder / "insert.csv", ROWS_TO_INSERT)),
        "upsert": str(write_csv(client.folder / "upsert.csv", ROWS_TO_UPSERT)),
        "delete_keys": list(DELETED_KEYS),
        "password": PASSWORD,
        "security_token": TOKEN,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "key_file": str(org.key_file),
    }


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a client saw on the course."""

    version: str
    login: str
    fields: list[str]
    inserted: int
    queried: int
    created: int
    updated: int
    failed: Mapping[str, str]
    deleted: int
    exported: Mapping[str, Sequence[str]]  # key: name, note
    extra: dict[str, Any] = field(default_factory=dict)


def check_course(seen: Seen, org: Org, *, deleted_beside: int = 0) -> None:
    """The client and the org must tell the same story, and it must be the expected one.

    Args:
        deleted_beside: Records that the client made and deleted beside the course.
    """
    expected = expected_rows()
    assert re.match(r"\d+\.\d+", seen.version)
    assert seen.login == USERNAME
    assert {"Id", "Name", "Ext_Id__c", "Region__c", "SystemModstamp"} <= set(seen.fields)
    assert (seen.inserted, seen.queried) == (INSERTED, INSERTED)
    assert (seen.created, seen.updated) == (CREATED, UPDATED)
    assert {key: error.partition(":")[0] for key, error in seen.failed.items()} == {
        key: code for key, (_, code) in BAD_ROWS.items()
    }
    assert seen.deleted == len(DELETED_KEYS)
    # A client may turn line ends into its platform's; what it read is compared without that.
    exported = {key: [value.replace("\r\n", "\n") for value in values] for key, values in seen.exported.items()}
    assert exported == {key: [row["Name"], row["Note__c"]] for key, row in expected.items()}
    check_org(org, expected, deleted=seen.deleted + deleted_beside)


def check_org(org: Org, expected: Mapping[str, Mapping[str, str]], *, deleted: int) -> None:
    """Ask the org itself: every value of every record, and what was deleted."""
    held = {}
    for record in org.records(f"SELECT {','.join(COLUMNS)} FROM Customer__c"):
        values = {name: record[name] for name in COLUMNS if "." not in name}
        region = record["Region__r"]["Region_Code__c"] if record["Region__r"] else None
        held[record["Ext_Id__c"]] = {**values, "Region__r.Region_Code__c": region}
    wanted = {key: {**row, "Amount__c": float(row["Amount__c"])} for key, row in expected.items()}
    assert held == wanted
    assert org.count("SELECT COUNT() FROM Customer__c") == len(wanted)
    assert org.count("SELECT COUNT() FROM Customer__c WHERE IsDeleted = true", call="queryAll") == deleted


def check_requests(org: Org, *, bulk: bool) -> None:
    """The client must have gone the way that the course is about."""
    base = r"/services/data/v\d+\.0"
    assert org.requests("GET", rf"{base}/sobjects/Customer__c/describe/?")
    assert org.requests("GET", rf"{base}/query/?")
    assert org.requests("GET", rf"{base}/query/01g\w+-\d+")
    if bulk:
        assert len(org.requests("POST", rf"{base}/jobs/ingest/?")) >= 3
        assert len(org.requests("PUT", rf"{base}/jobs/ingest/750\w+/batches/?")) >= 3
        assert org.requests("GET", rf"{base}/jobs/ingest/750\w+/failedResults/?")
        assert org.requests("POST", rf"{base}/jobs/query/?")
        assert org.requests("GET", rf"{base}/jobs/query/750\w+/results/?")
