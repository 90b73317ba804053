"""Drives the Salesforce hook of Airflow. Runs in its own environment: arguments are the task's file and what it saw.

The hook reads a connection from `AIRFLOW_CONN_SALESFORCE_DEFAULT` and makes a client of simple-salesforce; its own
methods are describe, query and the writing of results. Bulk work goes through the client that it hands out.
"""

import csv
import io
import json
import sys
import tempfile
from importlib.metadata import version

from airflow.providers.salesforce.hooks.salesforce import SalesforceHook

WAIT_S = 0.5


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results(bulk, kind, jobs):
    found = []
    for job in jobs:
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            getattr(bulk, f"get_{kind}_records")(job["job_id"], file=file.name)
            found.extend(rows_of(file.name))
    return found


def total(jobs):
    return sum(job["numberRecordsProcessed"] - job["numberRecordsFailed"] for job in jobs)


def drive(task):
    key, name = task["external_id"], task["object"]
    hook = SalesforceHook("salesforce_default", session_id=task["access_token"])
    org = hook.get_conn()
    bulk = getattr(org.bulk2, name)
    inserted = bulk.insert(csv_file=task["insert"], wait=WAIT_S)
    queried = hook.make_query(f"SELECT Id, {key} FROM {name}")["records"]
    upserted = bulk.upsert(csv_file=task["upsert"], external_id_field=key, wait=WAIT_S)
    accepted, refused = results(bulk, "successful", upserted), results(bulk, "failed", upserted)
    ids = {record[key]: record["Id"] for record in queried}
    deleted = bulk.delete(records=[{"Id": ids[each]} for each in task["delete_keys"]], wait=WAIT_S)
    pages = bulk.query(f"SELECT {key}, Name, Note__c FROM {name}", wait=WAIT_S)
    exported = [row for page in pages for row in csv.DictReader(io.StringIO(page, newline=""))]
    written = hook.get_object_from_salesforce(name, ["Id", key, "Name", "CreatedDate"])
    hook.write_object_to_file(written["records"], "objects.csv", fmt="csv", coerce_to_timestamp=True)
    return {
        "version": version("apache-airflow-providers-salesforce"),
        "login": org.oauth2("userinfo", method="GET")["preferred_username"],
        "fields": hook.get_available_fields(name),
        "inserted": total(inserted),
        "queried": len(queried),
        "created": sum(row["sf__Created"] == "true" for row in accepted),
        "updated": sum(row["sf__Created"] == "false" for row in accepted),
        "failed": {row[key]: row["sf__Error"] for row in refused},
        "deleted": total(deleted),
        "exported": {row[key]: [row["Name"], row["Note__c"]] for row in exported},
        "extra": {"tested": hook.test_connection(), "written": len(rows_of("objects.csv"))},
    }


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        seen = drive(json.load(file))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(seen, file)
