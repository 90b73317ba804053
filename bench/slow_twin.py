"""The whole pipe into a twin that works as slowly as a real org: how many calls a load takes.

Where requests are counted the sink will not do: it answers what the benchmark believes an org answers, and how often a
loader has to ask depends on how long jobs take. The twin takes as many rows a second as it is told, whatever the
machine could do, and logs each request.

`python -m bench.slow_twin FOLDER ROWS_PER_SECOND`: serve until killed; one line of JSON tells URL and token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bench import sales
from bench.contestants import Task, forcelift_command, write_plan
from bench.measure import SinkAddress, Usage, client_cores, run

BATCHES_AT_ONCE: Final = 5
_PLENTY: Final = 10_000_000
_ATTRIBUTES: Final = ("type", "length", "precision", "scale", "externalId", "unique")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLoad:
    """What a load into the slow twin took, and how long each of its jobs, from its creation to its end: ascending."""

    usage: Usage
    job_seconds: tuple[float, ...]


def forcelift_into_slow_twin(task: Task, *, rows_per_second: float) -> SlowLoad:
    """`forcelift run` with the plan's default settings into a new org that takes so many rows a second."""
    folder = task.fresh("slow-twin")
    with _running_twin(folder, rows_per_second=rows_per_second) as twin:
        plan = write_plan(task, folder, twin)
        log = folder / "requests.log"
        before = _lines(log)
        command = [*forcelift_command(), "run", "--plan", str(plan)]
        cpu, wall, peak = run([command], env={"SF_ACCESS_TOKEN": twin.token}, log=folder / "log", timeout_s=3600.0)
        requests = _lines(log) - before
        rows = int(_ask(twin, f"query?q={quote(f'SELECT COUNT() FROM {sales.OBJECT}')}")["totalSize"])
        if rows != task.rows:
            raise RuntimeError(f"the twin holds {rows:,} of {task.rows:,} rows")
        jobs = [_ask(twin, f"jobs/ingest/{job['id']}") for job in _ask(twin, "jobs/ingest")["records"]]
    seconds = tuple(
        sorted((_moment(job["systemModstamp"]) - _moment(job["createdDate"])).total_seconds() for job in jobs)
    )
    return SlowLoad(
        usage=Usage(cpu_s=cpu, wall_s=wall, peak_mb=peak, requests=requests, rows=rows), job_seconds=seconds
    )


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


def _lines(log: Path) -> int:
    with log.open("rb") as file:
        return sum(1 for _ in file)


def _ask(twin: SinkAddress, path: str) -> Any:
    request = urllib.request.Request(
        f"{twin.url}/services/data/v66.0/{path}", headers={"Authorization": f"Bearer {twin.token}"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


@contextmanager
def _running_twin(folder: Path, *, rows_per_second: float) -> Iterator[SinkAddress]:
    """A new, empty org in this folder, on the cores that clients do not use; its data go when the block ends."""
    others = os.sched_getaffinity(0) - client_cores() or os.sched_getaffinity(0)
    command = [sys.executable, "-m", "bench.slow_twin", str(folder), str(rows_per_second)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, others)
    ) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline() or "{}")
            if "url" not in first:
                raise RuntimeError("the twin did not begin")
            yield SinkAddress(url=first["url"], token=first["access_token"])
        finally:
            process.kill()
            process.wait()
            for file in folder.glob("org.duckdb*"):
                if file.is_file():
                    file.unlink()


def _schema() -> dict[str, Any]:
    fields = {
        name: {key: value for key, value in attributes.items() if key in _ATTRIBUTES}
        for name, _, attributes in sales.FIELDS.values()
    }
    return {
        "limits": {"DataStorageMB": _PLENTY, "DailyApiRequests": _PLENTY},
        "objects": {sales.OBJECT: {"fields": fields}},
    }


def main() -> None:
    """Be the twin's process."""
    from forcelift.twin.org import TwinOrg
    from forcelift.twin.pace import Pace
    from forcelift.twin.schema_file import schema_from_dict
    from forcelift.twin.server import TwinServer

    folder, pace = Path(sys.argv[1]), Pace(rows_per_second=float(sys.argv[2]), parallel_batches=BATCHES_AT_ONCE)
    with (
        (folder / "requests.log").open("a", encoding="utf-8") as log,
        TwinOrg.open(folder / "org.duckdb", schema=schema_from_dict(_schema()), pace=pace) as org,
        TwinServer(org, log_file=log) as server,
    ):
        print(json.dumps(server.describe()), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
