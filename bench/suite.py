"""Everything that `make bench` measures: about 42 minutes on four quiet cores, and a bound that ends it earlier.

Turns, not blocks: what a neighbour on the machine costs then falls on all contestants alike.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from bench import contestants, sales
from bench.contestants import ALONE, CLIENTS, CONTESTANTS, NEEDS_CLIENTS, Task
from bench.floor import CHUNK_ROWS
from bench.measure import Usage, compile_all, run, running_sink
from bench.measured import Measured
from bench.slow_twin import forcelift_into_slow_twin

FOLDER: Final = Path(".bench")
TURNS: Final = {1_000_000: 3, 5_000_000: 2}
SLOW_PEERS: Final = frozenset({"jsforce", "Salesforce CLI"})
SLOW_PEERS_ROWS: Final = 1_000_000
SLOW_PEERS_TURNS: Final = 2
LONG_TURNS: Final = 1
"""Turns of other clients with larger tables, three to seven minutes each."""
NARROW_SIZES: Final = (1_000_000, 5_000_000, 20_000_000)
NARROW_TURNS: Final = {1_000_000: 3}
"""Where one run would say little: a large table's peak is the highest of many such."""

SMALL_MEMORY_MB: Final = 512
SLOW_ROWS_PER_S: Final = 8_000.0
"""Of the whole org, where jobs are to take minutes: five at once take 2.3 each, and all of the largest table 10.5."""

STARTS: Final = 9
COLD_STARTS: Final = 3
PARTS: Final = ("load", "starts", "small", "calls", "narrow", "slow-peers")
MINUTES_MOST: Final = 75.0


def measure_all(
    *,
    turns: int | None = None,
    largest: int | None = None,
    parts: Collection[str] = PARTS,
    names: Sequence[str] | None = None,
    minutes_most: float = MINUTES_MOST,
) -> Measured:
    """Measure everything, or some parts of it.

    Args:
        turns: So many for each size, if not as in `TURNS`.
        largest: Leave out larger tables.
        parts: Of `PARTS`, which.
        names: Contestants, if not all; for the part `load` alone.
        minutes_most: Begin no further run after so many minutes; what is left out is told in `Measured.left_out`.
    """
    compile_clients()
    measured = Measured()
    plan = _Schedule(measured, until=time.monotonic() + 60 * minutes_most)
    sizes = [size for size in TURNS if largest is None or size <= largest]
    narrow = [size for size in NARROW_SIZES if largest is None or size <= largest]
    if "load" in parts:
        for size in sizes:
            wanted = [name for name in names_for(size) if names is None or name in names]
            time_in_turns(measured, sales_task(size), wanted, turns or TURNS[size], may_begin=plan.may_begin)
            with told(measured, f"whether the floor did the same work with {size:,} rows"):
                check_same_work(measured, sales_task(size))
    if "starts" in parts and plan.may_begin("starts"):
        with told(measured, "starts"):
            if "forcelift" not in measured.times.get(sizes[0], {}):
                say(sizes[0], "forcelift, to have a batch", contestants.forcelift(sales_task(sizes[0])))
            time_starts(measured, sales_task(sizes[0]))
    if "small" in parts and plan.may_begin("little memory"):
        with told(measured, f"{sizes[-1]:,} rows with {SMALL_MEMORY_MB} MB"):
            time_little_memory(measured, sizes[-1])
    beside: threading.Thread | None = None
    if "calls" in parts and plan.may_begin("slow jobs"):
        beside = threading.Thread(target=_measure_slow, args=(measured, sizes[-1]))
        beside.start()
    for size in narrow if "narrow" in parts else ():
        if plan.may_begin(f"{size:,} narrow rows"):
            with told(measured, f"{size:,} narrow rows"):
                measured.memory[size] = middle_peak(narrow_task(size), NARROW_TURNS.get(size, 1))
    if beside is not None:
        beside.join()
    for size in sizes if "slow-peers" in parts else ():
        if size > SLOW_PEERS_ROWS:
            # Last, as they take longest, and once more with what they are held against.
            wanted = [name for name in names_for(size, slow=True) if names is None or name in names]
            time_in_turns(measured, sales_task(size), wanted, LONG_TURNS, may_begin=plan.may_begin)
    return measured


@dataclass(frozen=True, slots=True)
class _Schedule:
    """Keeps to the time that the whole may take."""

    measured: Measured
    until: float

    def may_begin(self, what: str) -> bool:
        """Whether there is time to begin this; if not, it is noted as left out."""
        if time.monotonic() < self.until:
            return True
        self.measured.left_out.append(what)
        print(f"left out, as the time is up: {what}", flush=True)
        return False


def compile_clients() -> None:
    """Compile what the contestants in Python import, each one's libraries as well as its own files."""
    compile_all(Path("src"), Path("bench"), Path(sysconfig.get_path("purelib")), *CLIENTS.glob("simple-salesforce/lib"))


def names_for(rows: int, *, slow: bool = False) -> list[str]:
    """Who takes part at this size; with `slow` those that come last with large tables, and Forcelift's loading alone.

    Without other clients nobody is left to be held against, so nobody comes last.
    """
    if not CLIENTS.is_dir():
        print("other clients are left out: `python -m tests.clients.install` installs them", file=sys.stderr)
        return [] if slow else [name for name in CONTESTANTS if name not in NEEDS_CLIENTS]
    if slow:
        return [name for name in CONTESTANTS if name in SLOW_PEERS or name == ALONE]
    return [name for name in CONTESTANTS if rows <= SLOW_PEERS_ROWS or name not in SLOW_PEERS]


def time_in_turns(
    measured: Measured,
    task: Task,
    names: Sequence[str],
    turns: int,
    *,
    may_begin: Callable[[str], bool] = lambda what: True,
) -> None:
    """Let each contestant load the table once a turn. One that fails is told and does not come again."""
    found = measured.times.setdefault(task.rows, {})
    failed = measured.failures.setdefault(task.rows, {})
    for turn in range(1, turns + 1):
        for name in names:
            if name in failed or turn > turns_most(name, task.rows):
                continue
            if not may_begin(f"turn {turn} of {name} with {task.rows:,} rows"):
                continue
            try:
                usage = CONTESTANTS[name](task)
            except _FAILURES as error:
                failed[name] = str(error)
                print(f"{task.rows:,} rows: {name} fails: {error}", flush=True)
            else:
                found.setdefault(name, []).append(say(task.rows, f"turn {turn}: {name}", usage))


def time_little_memory(measured: Measured, rows: int) -> None:
    """Forcelift's whole pipe with little memory, and with the usual before and after it.

    What else the machine does changes its speed by a third within minutes, so that only neighbours can be compared, and
    in an order in which one that grows slower makes both slower alike.
    """
    small = sales_task(rows, memory_mb=SMALL_MEMORY_MB, folder="small")
    tasks = {"usual memory": (sales_task(rows), measured.usual), f"{SMALL_MEMORY_MB} MB": (small, measured.small)}
    for name in (*tasks, *reversed(tasks)):
        task, found = tasks[name]
        found.setdefault(rows, []).append(say(rows, f"forcelift, {name}", contestants.forcelift(task)))


def middle_peak(task: Task, turns: int) -> Usage:
    """Of so many runs of Forcelift's whole pipe, the one whose peak is in the middle.

    An uncounted run comes first where the sink has no answers yet: while it makes them no job ends, so that a small
    table is read before the first answers come, and its peak is lower than that of a table where both meet.
    """
    if not task.answers.exists():
        say(task.rows, "forcelift, narrow rows, uncounted", contestants.forcelift(task))
    found = [say(task.rows, "forcelift, narrow rows", contestants.forcelift(task)) for _ in range(turns)]
    return sorted(found, key=lambda usage: usage.peak_mb)[len(found) // 2]


def turns_most(name: str, rows: int) -> int:
    """How often a contestant comes at most: those that take long come less often."""
    if rows > SLOW_PEERS_ROWS and name == "simple-salesforce":
        return LONG_TURNS
    return SLOW_PEERS_TURNS if name in SLOW_PEERS else max(TURNS.values())


def time_starts(measured: Measured, task: Task) -> None:
    """Wall seconds of commands that only look, on a batch that has been loaded."""
    plan = str(task.folder / "forcelift" / "forcelift.yaml")
    env = {"SF_ACCESS_TOKEN": "none"}
    commands = {"forcelift --help": ["--help"], "forcelift status": ["status", "--plan", plan]}
    for name, words in commands.items():
        command, log = [[*contestants.forcelift_command(), *words]], task.folder / "start.log"
        # The first fills the memory; after that starts are warm.
        measured.starts[name] = [run(command, env=env, log=log)[1] for _ in range(STARTS + 1)][1:]
        print(f"{name}: {statistics.median(measured.starts[name]) * 1000:.0f} ms", flush=True)
    for name, words in commands.items() if hasattr(os, "posix_fadvise") else ():
        command, log = [[*contestants.forcelift_command(), *words]], task.folder / "start.log"
        for _ in range(COLD_STARTS):
            forget_files(Path("src"), Path(sysconfig.get_path("purelib")))
            measured.cold.setdefault(name, []).append(run(command, env=env, log=log)[1])
        print(f"{name}, cold: {statistics.median(measured.cold[name]) * 1000:.0f} ms", flush=True)


def forget_files(*folders: Path) -> None:
    """Let the system read what lies in these folders from the disk again, but for what a process has mapped."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_same_work(measured: Measured, task: Task) -> None:
    """Hold the floor and Forcelift to the same row hashes, if both have run."""
    if {"floor", "forcelift"} <= set(measured.times.get(task.rows, ())):
        measured.differing[task.rows] = different = contestants.check_same_work(task)
        print(f"{task.rows:,} rows: {different:,} row hashes of Forcelift differ from the floor's", flush=True)


def sales_task(rows: int, *, memory_mb: int = sales.MEMORY_MB, job_seconds: float = 0.0, folder: str = "runs") -> Task:
    """The sales table and its CSV files, made once and kept in `.bench`."""
    home = FOLDER / f"{rows}"
    home.mkdir(parents=True, exist_ok=True)
    database, files = home / "sales.duckdb", home / "csv"
    form = f"descriptions {sales.WIDE}, files {CHUNK_ROWS}"
    if not _is_made(home, form):
        print(f"making the table of {rows:,} rows", flush=True)
        for old in (files, home / "answers"):
            shutil.rmtree(old, ignore_errors=True)
        sales.make_database(database, rows)
        with running_sink() as sink:
            command = [sys.executable, "-m", "bench.floor", str(database), sink.url, sink.token, str(files)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        if done["rows"] != rows:
            raise SystemExit(f"the floor loaded {done['rows']:,} of {rows:,} rows")
        (home / "made").write_text(form, encoding="utf-8")
    return Task(
        database=database,
        csv_files=tuple(sorted(files.glob("[0-9]*.csv"), key=lambda file: int(file.stem))),
        rows=rows,
        folder=home / folder,
        memory_mb=memory_mb,
        job_seconds=job_seconds,
    )


def _is_made(home: Path, form: str) -> bool:
    """Whether a table is there, in this form; one that an earlier version made is taken away."""
    made = home / "made"
    if made.exists() and made.read_text(encoding="utf-8") == form:
        return True
    made.unlink(missing_ok=True)
    return False


def narrow_task(rows: int) -> Task:
    """The same table with short texts: 250 bytes a row."""
    home = FOLDER / f"{rows}-narrow"
    home.mkdir(parents=True, exist_ok=True)
    form = f"descriptions {sales.NARROW}"
    if not _is_made(home, form):
        print(f"making the narrow table of {rows:,} rows", flush=True)
        sales.make_database(home / "sales.duckdb", rows, letters=sales.NARROW)
        (home / "made").write_text(form, encoding="utf-8")
    return Task(database=home / "sales.duckdb", csv_files=(), rows=rows, folder=home / "runs")


def say(rows: int, what: str, usage: Usage) -> Usage:
    """Print one figure as it comes."""
    print(
        f"{rows:,} rows, {what:34} {usage.cpu_s * 1e6 / rows:6.2f} CPU s/M  {rows / usage.wall_s:9,.0f} rows/s  "
        f"{usage.peak_mb:6,.0f} MB  {usage.requests} requests",
        flush=True,
    )
    return usage


_FAILURES: Final = (
    RuntimeError,
    OSError,
    ValueError,
    subprocess.SubprocessError,
    sqlite3.Error,
    pl.exceptions.PolarsError,
)
"""What may go wrong with one figure, be it the contestant's fault or the benchmark's."""


@contextmanager
def told(measured: Measured, what: str) -> Iterator[None]:
    """Let nothing that fails keep the rest from being measured: it is told here, and in the report."""
    try:
        yield
    except _FAILURES as error:
        measured.left_out.append(f"{what}: {error}")
        print(f"{what} fails: {error}", flush=True)


def _measure_slow(measured: Measured, rows: int) -> None:
    with told(measured, f"{rows:,} rows into a slow twin"):
        task = sales_task(rows, folder="slow")
        slow = measured.slow[rows] = forcelift_into_slow_twin(task, rows_per_second=SLOW_ROWS_PER_S)
        say(rows, "forcelift into a slow twin", slow.usage)
