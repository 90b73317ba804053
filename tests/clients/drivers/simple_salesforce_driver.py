"""Drives simple-salesforce. Runs in its own environment: arguments are the task's file and the file for what it saw.

simple-salesforce writes https:// before every host. For an org over plain HTTP an adapter puts http:// back; sign-ins
go to `https://<domain>.salesforce.com`, so another adapter sends these to the org.
"""

import csv
import io
import json
import sys
import tempfile
import urllib.parse
from importlib.metadata import version

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce

WAIT_S = 0.5  # between looks at a job; 5 unless told otherwise


class ToOrg(HTTPAdapter):
    """Sends each request to the org, whatever scheme and host it was written for."""

    def __init__(self, url):
        super().__init__()
        self._org = urllib.parse.urlsplit(url)

    def _aim(self, request):
        parts = urllib.parse.urlsplit(request.url)
        request.url = parts._replace(scheme=self._org.scheme, netloc=self._org.netloc).geturl()

    def send(self, request, **options):
        self._aim(request)
        # The session chose a proxy for the host that was written.
        return super().send(request, **{**options, "proxies": {}})

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        self._aim(request)
        return super().get_connection_with_tls_context(request, verify, None, cert)


def session_to(url):
    session = requests.Session()
    if url.startswith("http:"):
        session.mount("https://127.0.0.1", ToOrg(url))
    for host in ("login", "test", "acme.my"):
        session.mount(f"https://{host}.salesforce.com", ToOrg(url))
    return session


def sign_in_every_way(task):
    """The user that each way of signing in gives."""
    common = {"session": session_to(task["url"]), "version": task["version"]}
    user, password = {"username": task["username"]}, {"password": task["password"]}
    app, secret = {"consumer_key": task["client_id"]}, {"consumer_secret": task["client_secret"]}
    ways = {
        "soap": {**user, **password, "security_token": task["security_token"], "domain": "test"},
        "password": {**user, "password": task["password"] + task["security_token"], **app, **secret, "domain": "test"},
        "jwt": {**user, **app, "privatekey_file": task["key_file"], "domain": "test"},
        "client_credentials": {**app, **secret, "domain": "acme.my"},
    }
    found = {}
    for name, arguments in ways.items():
        org = Salesforce(**arguments, **common)
        answer = org.oauth2("userinfo", method="GET")
        found[name] = answer["preferred_username"]
    return found


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def parse(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def results(bulk, kind, jobs):
    """Result rows of several jobs. Read from files: what is returned as text is decoded as Latin-1."""
    found = []
    for job in jobs:
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            getattr(bulk, f"get_{kind}_records")(job["job_id"], file=file.name)
            found.extend(rows_of(file.name))
    return found


def drive(task):
    org = Salesforce(
        instance_url=task["url"].replace("http:", "https:"), session_id=task["access_token"],
        session=session_to(task["url"]), version=task["version"],
    )  # fmt: skip
    customers, bulk = getattr(org, task["object"]), getattr(org.bulk2, task["object"])
    fields = [field["name"] for field in customers.describe()["fields"]]
    assert any(entry["name"] == task["object"] for entry in org.describe()["sobjects"])
    inserted = bulk.insert(csv_file=task["insert"], batch_size=1000, wait=WAIT_S)
    queried = list(org.query_all_iter(f"SELECT Id, {task['external_id']}, Region__r.Name FROM {task['object']}"))
    upserted = bulk.upsert(records=rows_of(task["upsert"]), external_id_field=task["external_id"], wait=WAIT_S)
    accepted, refused = results(bulk, "successful", upserted), results(bulk, "failed", upserted)
    ids = {record[task["external_id"]]: record["Id"] for record in queried}
    deleted = bulk.delete(records=[{"Id": ids[key]} for key in task["delete_keys"]], wait=WAIT_S)
    soql = f"SELECT {task['external_id']}, Name, Note__c FROM {task['object']}"
    pages = list(bulk.query(soql, max_records=1000, wait=WAIT_S))
    exported = [row for page in pages for row in parse(page)]
    return {
        "version": version("simple-salesforce"),
        "login": org.oauth2("userinfo", method="GET")["preferred_username"],
        "fields": fields,
        "inserted": total(inserted),
        "queried": len(queried),
        "created": sum(row["sf__Created"] == "true" for row in accepted),
        "updated": sum(row["sf__Created"] == "false" for row in accepted),
        "failed": {row[task["external_id"]]: row["sf__Error"] for row in refused},
        "deleted": total(deleted),
        "exported": {row[task["external_id"]]: [row["Name"], row["Note__c"]] for row in exported},
        "extra": {
            "sign_ins": sign_in_every_way(task),
            "export_pages": len(pages),
            "insert_jobs": len(inserted),
            "one_record": one_record(customers, task),
            "api_usage": org.api_usage["api-usage"].used,
            "is_sandbox": org.is_sandbox(),
            "storage": org.limits()["DataStorageMB"]["Max"],
        },
    }


def total(jobs):
    return sum(job["numberRecordsProcessed"] - job["numberRecordsFailed"] for job in jobs)


def one_record(customers, task):
    """Create, read, change, upsert and delete one record by REST."""
    made = customers.create({"Ext_Id__c": "one/ หนึ่ง", "Name": "ก"})["id"]
    assert customers.update(made, {"Name": "ข"}) == 204
    key = urllib.parse.quote("one/ หนึ่ง", safe="")
    assert customers.upsert(f"{task['external_id']}/{key}", {"Name": "ค"}) in (200, 204)
    name = customers.get(made)["Name"]
    assert customers.delete(made) == 204
    return name


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        seen = drive(json.load(file))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(seen, file)
