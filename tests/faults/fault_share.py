"""Several processes on one batch, their audit database on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
from tests.faults.fault_loader import BATCH, PATIENCE_S, LoaderProcess
from tests.faults.fault_twin import TwinProcess

ROOT = Path(__file__).parents[2]
STALE_AFTER_S = 8.0


class SharingLoader(LoaderProcess):
    """Processes on one batch; `pids` in the order in which they were started."""

    def __init__(self, folder: Path, twin: TwinProcess, *, chunk_rows: int, audit_url: str) -> None:
        super().__init__(folder, twin, chunk_rows=chunk_rows)
        self.audit_url = audit_url
        with self.plan.open("a", encoding="utf-8") as plan:
            plan.write(f'audit: {{url: "{audit_url}"}}\n')
        self.processes: list[subprocess.Popen[bytes]] = []
        self._connection: psycopg.Connection | None = None

    def launch(self, how: str, *, stale_after_s: float = STALE_AFTER_S) -> subprocess.Popen[bytes]:
        """Start a process that begins, joins or resumes the batch."""
        words = ["-m", "tests.faults.share_runner", str(self.plan), how, BATCH, str(stale_after_s)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, cwd=self.folder, env=environment
            )
        self.processes.append(process)
        return process

    def begin_and_join(self, others: int = 1) -> list[subprocess.Popen[bytes]]:
        """Begin the batch, and have so many others join it."""
        processes = [self.launch("begin")]
        assert self.wait_until(lambda: self.audit("SELECT 1 FROM batch") == [(1,)], "the batch is begun")
        processes += [self.launch("join") for _ in range(others)]
        assert self.wait_until(lambda: len(self.living()) == others + 1, "all have joined")
        return processes

    def living(self) -> list[int]:
        """Fences of the runners that are alive."""
        found = self.audit(
            "SELECT fence FROM lease WHERE released_at IS NULL AND lost_at IS NULL "
            "AND heartbeat > clock_timestamp() - patience_s * interval '1 second' ORDER BY fence"
        )
        return [int(fence) for (fence,) in found]

    def end_of(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the process's end; its exit code."""
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a process did not end in {PATIENCE_S} s:\n{self.output()}") from None

    @property
    def is_running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def audit(self, sql: str) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(self.audit_url, autocommit=True)
        try:
            return self._connection.execute(sql).fetchall()
        except psycopg.errors.UndefinedTable:
            return []

    def let_go_of_audit(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
                process.wait()
        self.let_go_of_audit()
