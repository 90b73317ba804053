"""simple-salesforce, Bulk API 2.0: upsert CSV files one after the other and save all results.

Runs in the environment of that client. Arguments: URL, token, object, key field, folder for results, CSV files.
The client writes https:// before every host, so an adapter puts the loopback's http:// back.
"""

import json
import sys
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce


class PlainLoopback(HTTPAdapter):
    """Sends to http:// what the client addresses to https://."""

    def send(self, request, *args, **options):
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *args, **options)

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        return super().get_connection(request.url, proxies)


def main() -> None:
    url, token, name, key, folder, *files = sys.argv[1:]
    session = requests.Session()
    session.mount("https://127.0.0.1", PlainLoopback())
    org = Salesforce(instance_url=url.replace("http://", "https://"), session_id=token, version="66.0", session=session)
    bulk = getattr(org.bulk2, name)
    rows = 0
    for file in files:
        # It waits five seconds before it first looks at a job, if not told otherwise; each file is one job.
        for number, done in enumerate(bulk.upsert(file, external_id_field=key, batch_size=300_000, wait=1)):
            rows += done["numberRecordsProcessed"]
            stem = f"{Path(folder)}/{Path(file).stem}-{number}"
            bulk.get_successful_records(done["job_id"], file=f"{stem}-ok.csv")
            bulk.get_failed_records(done["job_id"], file=f"{stem}-failed.csv")
    print(json.dumps({"rows": rows}))


main()
