"""CumulusCI against the twin, over HTTPS, as it knows no other. Its data tasks use REST here.

Its Bulk API is version 1.0, which the twin does not model.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.clients.clients_support import (
    API_VERSION,
    BAD_ROWS,
    DELETED_KEYS,
    ROWS_TO_INSERT,
    ROWS_TO_UPSERT,
    USERNAME,
    Client,
    Org,
    check_org,
    check_requests,
    expected_rows,
    make_client,
)
from tests.clients.install import FOLDER

pytestmark = pytest.mark.clients

PROJECT = f"""
minimum_cumulusci_version: '4.0.0'
project:
  name: clients
  package: {{name: clients, api_version: '{API_VERSION}'}}
"""
# The region is a lookup: the column holds the key of a row of the step before, whose Id takes its place.
MAPPING = """
Regions:
  sf_object: Region__c
  table: region
  action: upsert
  update_key: Region_Code__c
  api: rest
  fields: {Name: name, Region_Code__c: code}
Customers:
  sf_object: Customer__c
  table: customer
  api: rest
  ACTION
  fields:
    Ext_Id__c: key
    Name: name
    Amount__c: amount
    Since__c: since
    Note__c: note
    Status__c: status
  lookups:
    Region__c: {table: region, key_field: region_id}
"""
EXTRACT = """
Customers:
  sf_object: Customer__c
  table: customer
  api: rest
  fields: {Ext_Id__c: key, Name: name, Note__c: note}
"""
COLUMNS = ("Ext_Id__c", "Name", "Amount__c", "Since__c", "Note__c", "Status__c")


def make_cci(folder: Path, org: Org) -> Client:
    """A project in a git folder, made without git, and a home that knows one org from its environment."""
    client = make_client(folder, org)
    (folder / ".git" / "refs" / "heads").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".git" / "refs" / "heads" / "main").write_text("0" * 39 + "1\n")
    (folder / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    (folder / "cumulusci.yml").write_text(PROJECT)
    known = {
        "access_token": org.document["access_token"],
        "instance_url": org.url,
        "username": USERNAME,
        "org_id": org.document["org_id"],
        "id": f"{org.url}/id/{org.document['org_id']}/{user_id(org)}",
        "scratch": False,
    }
    environment = {
        **client.environment,
        "CUMULUSCI_DISABLE_REFRESH": "1",
        "CUMULUSCI_KEYCHAIN_CLASS": "cumulusci.core.keychain.EnvironmentProjectKeychain",
        "CUMULUSCI_ORG_twin": json.dumps(known),
    }
    return Client(folder=folder, environment=environment)


def user_id(org: Org) -> str:
    return str(org.http.get("/services/oauth2/userinfo").json()["user_id"])


def cci(client: Client, task: str, *options: str) -> str:
    program = FOLDER / "cumulusci" / "bin" / "cci"
    done = client.run(program, "task", "run", task, "--org", "twin", "--no-prompt", *options, COLUMNS="500")
    return done.stdout


def database(path: Path, rows: Sequence[dict[str, str]]) -> str:
    """Rows as CumulusCI takes them: tables with a whole number as primary key."""
    codes = sorted({row["Region__r.Region_Code__c"] for row in rows} - {"R9"})
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE region (id INTEGER PRIMARY KEY, code TEXT, name TEXT)")
        connection.executemany(
            "INSERT INTO region VALUES (?, ?, ?)", [(n, code, f"ภาค {code}") for n, code in enumerate(codes, 1)]
        )
        connection.execute(
            "CREATE TABLE customer (id INTEGER PRIMARY KEY, key TEXT, name TEXT, amount TEXT, since TEXT, note TEXT,"
            " status TEXT, region_id INTEGER)"
        )
        places = {code: number for number, code in enumerate(codes, 1)}
        values = [
            (number, *(row[name] for name in COLUMNS), places.get(row["Region__r.Region_Code__c"]))
            for number, row in enumerate(rows, 1)
        ]
        connection.executemany("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.close()
    return f"sqlite:///{path}"


def mapping(folder: Path, action: str) -> str:
    path = folder / "mapping.yml"
    path.write_text(MAPPING.replace("ACTION", action), encoding="utf-8")
    return str(path)


def test_cumulusci_loads_extracts_and_deletes(
    tmp_path: Path,
    need_environment: Callable[[str], None],
    record_property: Callable[[str, object], None],
    secure_org: Org,
) -> None:
    need_environment("cumulusci")
    org, client = secure_org, make_cci(tmp_path / "client", secure_org)
    folder = client.folder
    version = client.run(FOLDER / "cumulusci" / "bin" / "python", "-c", VERSION).stdout.strip()
    record_property("client", f"cumulusci {version}")
    assert re.match(r"\d+\.\d+", version)

    options = ("--ignore_row_errors", "True", "--set_recently_viewed", "False")
    url = database(folder / "insert.db", ROWS_TO_INSERT)
    said = cci(client, "load_dataset", "--mapping", mapping(folder, "action: insert"), "--database_url", url, *options)
    assert f"As user: {USERNAME}" in said
    assert org.count("SELECT COUNT() FROM Customer__c") == len(ROWS_TO_INSERT)

    # A region that is not there cannot be written in this form: its row has no region, and is accepted.
    rows = [row for row in ROWS_TO_UPSERT if row["Ext_Id__c"] != "F3"]
    upsert = mapping(folder, "action: upsert\n  update_key: Ext_Id__c")
    url = database(folder / "upsert.db", rows)
    said = cci(client, "load_dataset", "--mapping", upsert, "--database_url", url, *options)
    for key, (_, code) in BAD_ROWS.items():
        assert (code in said) == (key != "F3"), said

    keys = ",".join(f"'{key}'" for key in DELETED_KEYS)
    where = ("--objects", "Customer__c", "--where", f"Ext_Id__c IN ({keys})", "--api", "rest")
    cci(client, "delete_data", *where)
    check_org(org, expected_rows(), deleted=len(DELETED_KEYS))

    (folder / "extract.yml").write_text(EXTRACT)
    cci(client, "extract_dataset", "--mapping", "extract.yml", "--database_url", f"sqlite:///{folder / 'out.db'}")
    connection = sqlite3.connect(folder / "out.db")
    extracted = {key: (name, note) for key, name, note in connection.execute("SELECT key, name, note FROM customer")}
    connection.close()
    assert extracted == {key: (row["Name"], row["Note__c"]) for key, row in expected_rows().items()}
    check_requests(org, bulk=False)


VERSION = "from importlib.metadata import version; print(version('cumulusci'))"
