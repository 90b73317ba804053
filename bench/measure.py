"""Run one contestant against a fresh sink and take what the operating system says it used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 900.0
"""The longest that one run may take: three times what the slowest took on four quiet cores."""

_LAUNCHER: Final = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a run used: CPU seconds of the client (user and system), wall seconds, peak memory in MB, HTTP requests."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    requests: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkAddress:
    """Where a running sink listens."""

    url: str
    token: str

    def counts(self) -> dict[str, int]:
        """Requests taken and rows answered so far."""
        with urllib.request.urlopen(f"{self.url}/sink/counts", timeout=60) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts


def compile_all(*folders: Path) -> None:
    """Compile Python files, as pip does when it installs: else each start compiles libraries where that is not kept."""
    here = [str(folder) for folder in folders if folder.exists()]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *here], check=False, stdout=subprocess.DEVNULL)


def client_cores() -> set[int]:
    """The two cores that clients run on; the sink has the others, if there are any."""
    return set(sorted(os.sched_getaffinity(0))[:2])


@contextmanager
def running_sink(
    *, answers: Path | None = None, job_seconds: float = 0.0, port: int = 0, cores: set[int] | None = None
) -> Iterator[SinkAddress]:
    """A sink with its uploads in memory, on the cores that the client does not use.

    Args:
        answers: Where it keeps what it answered for the next turn; it forgets them if None.
        job_seconds: How long each job takes, at least.
        port: Where it listens; 0 is any free port.
        cores: Where it runs; by default where clients do not.
    """
    others = cores or os.sched_getaffinity(0) - client_cores() or os.sched_getaffinity(0)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="forcelift-sink-") as folder:
        kept = str(answers or Path(folder, "answers"))
        command = [sys.executable, "-m", "bench.sink", folder, kept, str(job_seconds), str(port)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, others)
        ) as process:
            try:
                assert process.stdout is not None
                first = json.loads(process.stdout.readline())
                yield SinkAddress(url=first["url"], token=first["access_token"])
            finally:
                process.kill()


def run(
    commands: Sequence[Sequence[str]], *, env: Mapping[str, str], log: Path, timeout_s: float = TIMEOUT_S
) -> tuple[float, float, float]:
    """Run commands one after the other on the client's cores.

    A small process starts each: see `bench.launch`, which also says why.

    Returns: CPU seconds and wall seconds of all, peak memory in MB of the largest process; threads, and children that
        were waited for, are included.
    Raises: RuntimeError if one fails, naming its log, or if all together take longer than `timeout_s`.
    """
    cpu = wall = peak = 0.0
    began = time.perf_counter()
    for command in commands:
        read_end, write_end = os.pipe()
        with log.open("ab") as out, os.fdopen(read_end, "rb") as report:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_LAUNCHER), str(write_end), *command],
                    stdout=out,
                    stderr=out,
                    env={**os.environ, **env},
                    pass_fds=(write_end,),
                    start_new_session=True,  # so that a client ends with the processes that it began
                    preexec_fn=lambda: os.sched_setaffinity(0, client_cores()),
                )
            finally:
                os.close(write_end)
            late = threading.Timer(began + timeout_s - time.perf_counter(), os.killpg, (process.pid, signal.SIGKILL))
            late.daemon = True
            late.start()
            try:
                told = report.read()
                process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            finally:
                late.cancel()
        if time.perf_counter() - began >= timeout_s:
            raise RuntimeError(f"`{command[0]}` was ended after {timeout_s:.0f} s; see {log}")
        used = json.loads(told) if told else {"ended_with": "nothing said about it"}
        if used["ended_with"] != 0:
            raise RuntimeError(f"`{command[0]}` ended with {used['ended_with']}; see {log}")
        cpu, wall = cpu + used["cpu_s"], wall + used["wall_s"]
        peak = max(peak, used["peak_kb"] / 1024)
    return cpu, wall, peak
