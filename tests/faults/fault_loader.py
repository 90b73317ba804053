"""The loader as another process that can be killed, and its progress as it can be seen from outside."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.fault_data import PLAN
from tests.faults.fault_twin import TwinProcess

BATCH = "faulted"
PATIENCE_S = 240.0
_LOOK_PAUSE_S = 0.002
_CHUNK_RANKS = {"planned": 0, "staged": 1, "loaded": 2, "linking": 3, "settled": 4}

_REQUESTS = {
    "creates": ("POST", "/jobs/ingest$"),
    "uploads": ("PUT", "/batches$"),
    "closes": ("PATCH", "/jobs/ingest/"),
    "results": ("GET", "Results$"),
}


class LoaderProcess:
    """`forcelift run` on a plan in a folder, as a process of its own, one after the other on the same batch."""

    def __init__(self, folder: Path, twin: TwinProcess, *, chunk_rows: int) -> None:
        self.folder = folder
        self.twin = twin
        self.plan = folder / "plan.yaml"
        self.plan.write_text(PLAN.format(url=twin.url, chunk_rows=chunk_rows), encoding="utf-8")
        self.audit_file = folder / "state" / "audit.db"
        self.staging = folder / "state" / "staging"
        self.log = folder / "loader.log"
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._audit: sqlite3.Connection | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin the batch, or resume it if it was begun."""
        begun = self.audit("SELECT count(*) FROM batch") not in ([], [(0,)])
        command = [sys.executable, "-m", "forcelift", "run", "--plan", str(self.plan)]
        command += ["--resume", BATCH] if begun else ["--batch", BATCH]
        self.starts += 1
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts}: {' '.join(command[4:])}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Wait for its end and give its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the loader did not end in {PATIENCE_S} s:\n{self.output()}") from None

    def run(self) -> int:
        """Begin or resume and wait for the end; gives the exit code."""
        self.start()
        return self.wait()

    def output(self) -> str:
        """What all its processes have printed."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def audit(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the audit database as it is now; nothing if it or its tables are not there yet."""
        if self._audit is None:
            if not self.audit_file.exists():
                return []
            self._audit = sqlite3.connect(f"file:{self.audit_file}?mode=ro", uri=True, timeout=10)
        try:
            return self._audit.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "unable to open" in str(error):
                return []
            raise

    def let_go_of_audit(self) -> None:
        """Close our connection before this process opens the file in another way: SQLite's locks are the process's."""
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    def close(self) -> None:
        """Kill what still runs."""
        if self.is_running:
            self.kill()
        self.let_go_of_audit()

    def progress(self) -> float:
        """How far the batch has come: 0 before the tables are cut into chunks, 1 when all chunks are settled."""
        chunks = self.audit("SELECT step, count(*), (SELECT count(*) FROM batch_table) FROM chunk GROUP BY step")
        if not chunks or chunks[0][2] < 2:
            return 0.0
        steps = [(str(step), int(count)) for step, count, _ in chunks]
        return sum(_CHUNK_RANKS[step] * count for step, count in steps) / (4 * sum(count for _, count in steps))

    def count(self, sign: str) -> int:
        """A number that a watcher sees; each only grows while a process runs, but for the files."""
        match sign:
            case "journal":
                head = self.audit("SELECT seq FROM journal_head")
                return int(head[0][0]) if head else 0
            case "files":
                # Folders go while they are counted: `os.walk` passes over them.
                return sum(len(folders) + len(files) for _, folders, files in os.walk(self.staging))
            case "requests":
                return len(self.twin.requests())
        method, path = _REQUESTS[sign]
        return self.twin.count(method, path)

    def wait_until(self, is_so: Callable[[], bool], what: str) -> bool:
        """Look until the condition holds; False if the process ends before."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            if is_so():
                return True
            if not self.is_running:
                return False
            time.sleep(_LOOK_PAUSE_S)
        raise AssertionError(f"waited {PATIENCE_S} s until {what}:\n{self.output()}")
