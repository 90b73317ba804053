"""The Salesforce CLI against the twin, over HTTP and over HTTPS; and Forcelift's own sign-in by way of it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.clients.clients_support import (
    API_VERSION,
    BAD_ROWS,
    CLIENT_ID,
    DELETED_KEYS,
    USERNAME,
    Client,
    Org,
    Seen,
    check_course,
    check_requests,
    course_task,
    make_client,
    write_csv,
)
from tests.clients.install import FOLDER, node_folder

pytestmark = pytest.mark.clients

SETTINGS = {
    "SF_DISABLE_TELEMETRY": "true",
    "SF_AUTOUPDATE_DISABLE": "true",
    "SF_SKIP_NEW_VERSION_CHECK": "true",
    "SF_DISABLE_LOG_FILE": "true",
    "SF_USE_GENERIC_UNIX_KEYCHAIN": "true",
    "SF_ORG_API_VERSION": API_VERSION,
}

SIGN_IN_BY_CLI = """
import sys, httpx
from forcelift.salesforce.auth import AuthSettings, sign_in

def refuse(path, form):
    raise AssertionError("this flow asks the command line only")

url = httpx.URL(sys.argv[1])
token = sign_in(AuthSettings(flow="sf_cli", alias="twin"), url=url, post_form=refuse, clock=None)
print(token.access_token, token.instance_url.rstrip("/"))
"""


@dataclass(frozen=True, slots=True)
class Cli:
    client: Client

    def run(self, *arguments: str, status: int = 0, **settings: str) -> dict[str, Any]:
        """One command with `--json`; its document."""
        done = self.client.run("sf", *arguments, "--json", allow_failure=True, **SETTINGS, **settings)
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["status"] == status, done.stdout
        return document

    def result(self, *arguments: str, **settings: str) -> Any:
        return self.run(*arguments, **settings)["result"]


def make_cli(folder: Path, org: Org) -> Cli:
    programs = FOLDER / "node" / "node_modules" / ".bin"
    return Cli(make_client(folder, org, programs, node_folder()))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drive(cli: Cli, org: Org) -> Seen:
    folder, task = cli.client.folder, course_task(cli.client, org)
    target = ("--target-org", "twin")
    sign_in = ("org", "login", "access-token", "--instance-url", org.url, "--alias", "twin", "--no-prompt")
    cli.run(*sign_in, SF_ACCESS_TOKEN=str(org.document["access_token"]))
    shown = cli.result("org", "display", *target)
    described = cli.result("sobject", "describe", "--sobject", "Customer__c", *target)
    wait = ("--sobject", "Customer__c", "--wait", "5", *target)
    inserted = cli.result("data", "import", "bulk", "--file", task["insert"], "--line-ending", "LF", *wait)
    soql = "SELECT Id, Ext_Id__c, Region__r.Name FROM Customer__c"
    queried = cli.result("data", "query", "--query", soql, *target)["records"]
    upsert = ("data", "upsert", "bulk", "--file", task["upsert"], "--external-id", "Ext_Id__c", "--line-ending", "LF")
    upserted = cli.run(*upsert, *wait, status=1)  # rows were refused, and the CLI says so
    results = cli.result("data", "bulk", "results", "--job-id", upserted["data"]["jobId"], *target)
    assert (results["status"], results["failedRecords"]) == ("JobComplete", len(BAD_ROWS))
    accepted = rows_of(folder / results["successFilePath"])
    refused = rows_of(folder / results["failedFilePath"])
    ids = {record["Ext_Id__c"]: record["Id"] for record in queried}
    leaving = write_csv(folder / "delete.csv", [{"Id": ids[key]} for key in DELETED_KEYS])
    deleted = cli.result("data", "delete", "bulk", "--file", str(leaving), "--line-ending", "LF", *wait)
    export = ("data", "export", "bulk", "--query", "SELECT Ext_Id__c, Name, Note__c FROM Customer__c")
    exported = cli.result(*export, "--output-file", "export.csv", "--wait", "5", *target)
    rows = rows_of(folder / exported["filePath"])
    assert exported["totalSize"] == len(rows)
    job = deleted["jobInfo"]
    return Seen(
        version=cli.client.run("sf", "--version", **SETTINGS).stdout.partition("/cli/")[2].split()[0],
        login=shown["username"],
        fields=[entry["name"] for entry in described["fields"]],
        inserted=inserted["successfulRecords"],
        queried=len(queried),
        created=sum(row["sf__Created"] == "true" for row in accepted),
        updated=sum(row["sf__Created"] == "false" for row in accepted),
        failed={row["Ext_Id__c"]: row["sf__Error"] for row in refused},
        deleted=job["numberRecordsProcessed"] - job["numberRecordsFailed"],
        exported={row["Ext_Id__c"]: [row["Name"], row["Note__c"]] for row in rows},
        extra={"shown": shown},
    )


def test_the_salesforce_cli_does_the_whole_course(
    tmp_path: Path, need_environment: Callable[[str], None], record_property: Callable[[str, object], None], org: Org
) -> None:
    """Over plain HTTP, and Forcelift's flow `sf_cli` then signs in by way of the same CLI."""
    need_environment("node")
    cli = make_cli(tmp_path / "client", org)
    seen = drive(cli, org)
    record_property("client", f"@salesforce/cli {seen.version}")
    shown = seen.extra["shown"]
    assert shown["id"] == org.document["org_id"]
    assert shown["instanceUrl"].rstrip("/") == org.url
    assert shown["connectedStatus"] == "Connected"
    check_course(seen, org)
    check_requests(org, bulk=True)
    check_forcelift_signs_in(cli, org)


def check_forcelift_signs_in(cli: Cli, org: Org) -> None:
    """Forcelift takes its token from the CLI: the newest one shows it by another command than before."""
    done = cli.client.run(sys.executable, "-c", SIGN_IN_BY_CLI, org.url, **SETTINGS)
    assert done.stdout.split() == [org.document["access_token"], org.url]


def test_the_salesforce_cli_signs_in_by_jwt_and_handles_single_records(
    tmp_path: Path, need_environment: Callable[[str], None], secure_org: Org
) -> None:
    need_environment("node")
    cli = make_cli(tmp_path / "client", secure_org)
    sign_in = ["org", "login", "jwt", "--username", USERNAME, "--jwt-key-file", str(secure_org.key_file)]
    sign_in += ["--client-id", CLIENT_ID, "--instance-url", secure_org.url, "--alias", "twin", "--set-default"]
    cli.run(*sign_in, SF_AUDIENCE_URL="https://test.salesforce.com")
    assert [org["username"] for org in cli.result("org", "list")["nonScratchOrgs"] or ()] in ([], [USERNAME])
    record = ("--sobject", "Customer__c")
    made = cli.result("data", "create", "record", *record, "--values", "Ext_Id__c=K1 Name='หนึ่ง สอง'")["id"]
    cli.run("data", "update", "record", *record, "--record-id", made, "--values", "Note__c='สาม'")
    found = cli.result("data", "get", "record", *record, "--record-id", made)
    assert (found["Name"], found["Note__c"]) == ("หนึ่ง สอง", "สาม")
    refused = cli.run("data", "create", "record", *record, "--values", "Ext_Id__c=K1 Name=again", status=1)
    assert refused["name"] == "DUPLICATE_VALUE"
    counted = cli.result(
        "data", "query", "--query", "SELECT Status__c, COUNT(Id) n FROM Customer__c GROUP BY Status__c"
    )
    assert [(row["Status__c"], row["n"]) for row in counted["records"]] == [(None, 1)]
    wrong = cli.run("data", "query", "--query", "SELECT Nope__c FROM Customer__c", status=1)
    assert wrong["name"] == "INVALID_FIELD"
    limits = {limit["name"]: limit for limit in cli.result("org", "list", "limits")}
    assert limits["DailyBulkApiBatches"]["max"] == 15_000
    cli.run("data", "delete", "record", *record, "--record-id", made)
    assert secure_org.count("SELECT COUNT() FROM Customer__c") == 0
