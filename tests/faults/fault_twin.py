"""A twin as another process that can be killed, and a client of its own to ask it what it holds."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import polars as pl

BASE = "/services/data/v66.0"
PATIENCE_S = 120.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class TwinProcess:
    """`forcelift twin serve` on one data file and one port; it can be killed and started again.

    `log` gets a line for each request that was answered (or whose connection ended without).
    """

    def __init__(self, folder: Path, *, schema: str, pace: str = "fast", seed: int = 0) -> None:
        self.folder, self.port, self.pace, self.seed = folder, free_port(), pace, seed
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "twin.log"
        self._schema = folder / "org.yaml"
        self._schema.write_text(schema, encoding="utf-8")
        self._errors = folder / "twin.stderr"
        self._process: subprocess.Popen[bytes] | None = None
        self._first_line: dict[str, Any] = {}
        self._seen: list[tuple[str, str, int]] = []
        self._seen_bytes = 0

    def start(self) -> Self:
        """Start it, or start it again, and wait until it listens."""
        command = [sys.executable, "-m", "forcelift", "twin", "serve", "--schema", str(self._schema)]
        command += ["--data", str(self.folder / "org.duckdb"), "--port", str(self.port), "--log", str(self.log)]
        command += ["--pace", self.pace, "--seed", str(self.seed)]
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the twin did not start: {self._errors.read_text()}"
        self._first_line = json.loads(line)
        return self

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close_pipe()

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
        self._close_pipe()

    @property
    def control_token(self) -> str:
        return str(self._first_line["control_token"])

    @property
    def access_token(self) -> str:
        """A session of the org's first user, which ends with this process of the twin."""
        return str(self._first_line["access_token"])

    def requests(self) -> list[tuple[str, str, int]]:
        """Method, path and status of all requests so far."""
        if self.log.exists() and self.log.stat().st_size > self._seen_bytes:
            with self.log.open("rb") as file:
                file.seek(self._seen_bytes)
                whole, _, _ = file.read().rpartition(b"\n")
            self._seen_bytes += len(whole) + 1 if whole else 0
            entries = [json.loads(line) for line in whole.split(b"\n") if line]
            self._seen += [(entry["method"], entry["path"], entry["status"]) for entry in entries]
        return self._seen

    def count(self, method: str, path: str) -> int:
        """How many requests so far had this method and a path that the pattern is found in."""
        pattern = re.compile(path)
        return sum(seen == method and pattern.search(where) is not None for seen, where, _ in self.requests())

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()


class OrgClient:
    """Asks the org, and does what other users of it do. Shares no code with the loader."""

    def __init__(self, twin: TwinProcess, *, client_id: str = "loader") -> None:
        self._twin = twin
        self._client_id = client_id
        # Plain HTTP: loading the list of authorities would take longer than most calls.
        self._http = httpx.Client(base_url=twin.url, timeout=60, verify=False, trust_env=False)
        self.sign_in()

    def close(self) -> None:
        self._http.close()

    def sign_in(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": f"{self._client_id}-secret",
        }
        answer = self._http.post("/services/oauth2/token", data=form)
        assert answer.status_code == 200, answer.text
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self._http.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer

    def query(self, soql: str) -> list[dict[str, Any]]:
        """The records of a query that fits on one page."""
        document = self.call("GET", f"{BASE}/query", params={"q": soql}).json()
        assert document["done"]
        return list(document["records"])

    def count(self, object_name: str, where: str = "") -> int:
        """COUNT() by SOQL."""
        soql = f"SELECT COUNT() FROM {object_name} {where}".strip()
        return int(self.call("GET", f"{BASE}/query", params={"q": soql}).json()["totalSize"])

    def records(self, object_name: str, fields: list[str]) -> pl.DataFrame:
        """All records of an object by a bulk query; every value as text, empty as null."""
        body = {"operation": "query", "query": f"SELECT {', '.join(fields)} FROM {object_name}"}
        job = self.call("POST", f"{BASE}/jobs/query", json=body).json()["id"]
        self._wait(f"{BASE}/jobs/query/{job}")
        frames: list[pl.DataFrame] = []
        locator: str | None = None
        while locator != "null":
            params = {} if locator is None else {"locator": locator}
            answer = self.call("GET", f"{BASE}/jobs/query/{job}/results", params=params)
            frames.append(pl.read_csv(io.BytesIO(answer.content), infer_schema=False))
            locator = answer.headers["Sforce-Locator"]
        return pl.concat(frames).with_columns(pl.all().replace("", None))

    def create_job(self, object_name: str, key: str, *, operation: str = "upsert") -> str:
        """Create an ingest job and leave it open."""
        body = {"object": object_name, "operation": operation, "externalIdFieldName": key}
        return str(self.call("POST", f"{BASE}/jobs/ingest", json=body).json()["id"])

    def load(self, object_name: str, key: str, rows: pl.DataFrame) -> None:
        """Upsert records, all of which the org must take."""
        if rows.height == 0:
            return
        job = self.create_job(object_name, key)
        self.call(
            "PUT",
            f"{BASE}/jobs/ingest/{job}/batches",
            content=rows.write_csv().encode(),
            headers={"Content-Type": "text/csv"},
        )
        self.call("PATCH", f"{BASE}/jobs/ingest/{job}", json={"state": "UploadComplete"})
        ended = self._wait(f"{BASE}/jobs/ingest/{job}")
        assert (ended["numberRecordsProcessed"], ended["numberRecordsFailed"]) == (rows.height, 0), ended

    def abort(self, job_id: str) -> None:
        self.call("PATCH", f"{BASE}/jobs/ingest/{job_id}", json={"state": "Aborted"})

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All ingest jobs by id."""
        found: dict[str, dict[str, Any]] = {}
        url: str | None = f"{BASE}/jobs/ingest"
        while url is not None:
            page = self.call("GET", url).json()
            # The list also tells of bulk queries, such as those that take before-images.
            found |= {job["id"]: job for job in page["records"] if job["jobType"] == "V2Ingest"}
            url = page.get("nextRecordsUrl")
        return found

    def job(self, job_id: str) -> dict[str, Any]:
        """One ingest job, with its counts."""
        return dict(self.call("GET", f"{BASE}/jobs/ingest/{job_id}").json())

    def arm(self, *orders: dict[str, Any]) -> None:
        """Arm faults."""
        answer = self._control("POST", "/__twin__/faults", json=list(orders))
        assert answer.status_code == 201, answer.text

    def faults(self) -> list[dict[str, Any]]:
        """The armed faults and how often they struck."""
        return list(self._control("GET", "/__twin__/faults").json()["faults"])

    def end_sessions(self) -> int:
        """End all sessions, as an administrator does; signs itself in again."""
        ended = int(self._control("DELETE", "/__twin__/sessions").json()["ended"])
        self.sign_in()
        return ended

    def internal_errors(self) -> list[str]:
        return list(self._control("GET", "/__twin__/state").json()["internal_errors"])

    def _control(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._twin.control_token}"}
        return self._http.request(method, path, headers=headers, **options)

    def _wait(self, path: str) -> dict[str, Any]:
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            job: dict[str, Any] = self.call("GET", path).json()
            if job["state"] in ("JobComplete", "Failed", "Aborted"):
                assert job["state"] == "JobComplete", job
                return job
            time.sleep(0.02)
        raise AssertionError(f"{path} did not end")


@contextmanager
def org_client(twin: TwinProcess, *, client_id: str = "loader") -> Iterator[OrgClient]:
    """A signed-in client, closed at the end."""
    client = OrgClient(twin, client_id=client_id)
    try:
        yield client
    finally:
        client.close()
