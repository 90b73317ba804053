"""Everything that `make bench` measures: about 35 minutes on four quiet cores, and a bound that ends it earlier.

Turns, not blocks: what a neighbour on the machine costs then falls on all contestants alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import contestants, sales
from bench.contestants import CLIENTS, CONTESTANTS, NEEDS_CLIENTS, Task
from bench.measure import Usage, compile_all, run, running_sink

FOLDER: Final = Path(".bench")
TURNS: Final = {1_000_000: 3, 5_000_000: 2}
SLOW_PEERS: Final = frozenset({"jsforce", "Salesforce CLI"})
SLOW_PEERS_ROWS: Final = 1_000_000
SLOW_PEERS_TURNS: Final = 2
NARROW_SIZES: Final = (1_000_000, 5_000_000, 20_000_000)
SMALL_MEMORY_MB: Final = 512
JOB_SECONDS: Final = 60.0
STARTS: Final = 9
PARTS: Final = ("load", "starts", "small", "calls", "narrow")
MINUTES_MOST: Final = 75.0


@dataclass(slots=True, kw_only=True)
class Measured:
    """All that was measured.

    Attributes:
        times: By table size and contestant, one figure a turn.
        failures: By table size and contestant, why there is no figure.
        memory: By table size, the whole pipe on the narrow table.
        small: The whole pipe with little memory, by table size.
        requests: The whole pipe where each job takes `JOB_SECONDS`, by table size.
        starts: Wall seconds of short commands, one a start.
        left_out: What there was no time for.
        earlier: Figures of the same code from a run before, as `bench.earlier` keeps them.
    """

    times: dict[int, dict[str, list[Usage]]] = field(default_factory=dict)
    failures: dict[int, dict[str, str]] = field(default_factory=dict)
    memory: dict[int, Usage] = field(default_factory=dict)
    small: dict[int, Usage] = field(default_factory=dict)
    requests: dict[int, Usage] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    earlier: dict[str, Any] | None = None


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
            if {"floor", "forcelift"} <= set(measured.times[size]):
                check_same_work(sales_task(size))
    if "starts" in parts and plan.may_begin("starts"):
        if "forcelift" not in measured.times.get(sizes[0], {}):
            say(sizes[0], "forcelift, to have a batch", contestants.forcelift(sales_task(sizes[0])))
        measured.starts = time_starts(sales_task(sizes[0]))
    if "small" in parts and plan.may_begin("little memory"):
        small = sales_task(sizes[-1], memory_mb=SMALL_MEMORY_MB, folder="small")
        _measure_into(measured, measured.small, small, f"forcelift, {SMALL_MEMORY_MB} MB")
    beside: threading.Thread | None = None
    if "calls" in parts and plan.may_begin("slow jobs"):
        slow = sales_task(sizes[-1], job_seconds=JOB_SECONDS, folder="slow")
        beside = threading.Thread(
            target=_measure_into, args=(measured, measured.requests, slow, "forcelift, slow jobs")
        )
        beside.start()
    for size in narrow if "narrow" in parts else ():
        if plan.may_begin(f"{size:,} narrow rows"):
            _measure_into(measured, measured.memory, narrow_task(size), "forcelift, narrow rows")
    if beside is not None:
        beside.join()
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


def names_for(rows: int) -> list[str]:
    """Who takes part at this size."""
    slow = () if rows <= SLOW_PEERS_ROWS else SLOW_PEERS
    if not CLIENTS.is_dir():
        print("other clients are left out: `python -m tests.clients.install` installs them", file=sys.stderr)
    return [name for name in CONTESTANTS if name not in slow and (name not in NEEDS_CLIENTS or CLIENTS.is_dir())]


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
            if name in failed or (name in SLOW_PEERS and turn > SLOW_PEERS_TURNS):
                continue
            if not may_begin(f"turn {turn} of {name} with {task.rows:,} rows"):
                continue
            try:
                usage = CONTESTANTS[name](task)
            except RuntimeError as error:
                failed[name] = str(error)
                print(f"{task.rows:,} rows: {name} fails: {error}", flush=True)
            else:
                found.setdefault(name, []).append(say(task.rows, f"turn {turn}: {name}", usage))


def time_starts(task: Task) -> dict[str, list[float]]:
    """Wall seconds of commands that only look, on a batch that has been loaded."""
    plan = str(task.folder / "forcelift" / "forcelift.yaml")
    env = {"SF_ACCESS_TOKEN": "none"}
    commands = {"forcelift --help": ["--help"], "forcelift status": ["status", "--plan", plan]}
    found: dict[str, list[float]] = {}
    for name, words in commands.items():
        log = task.folder / "start.log"
        found[name] = [run([[*contestants.forcelift_command(), *words]], env=env, log=log)[1] for _ in range(STARTS)]
        print(f"{name}: {statistics.median(found[name]) * 1000:.0f} ms", flush=True)
    return found


def check_same_work(task: Task) -> None:
    """Hold the floor and Forcelift to the same row hashes, if both have run."""
    if all((task.folder / name).is_dir() for name in ("floor", "forcelift")):
        different = contestants.check_same_work(task)
        print(f"{task.rows:,} rows: {different:,} row hashes of Forcelift differ from the floor's", flush=True)
        if different:
            raise SystemExit("the two did not do the same work, so their figures must not be compared")


def sales_task(rows: int, *, memory_mb: int = sales.MEMORY_MB, job_seconds: float = 0.0, folder: str = "runs") -> Task:
    """The sales table and its CSV files, made once and kept in `.bench`."""
    home = FOLDER / f"{rows}"
    home.mkdir(parents=True, exist_ok=True)
    database, files = home / "sales.duckdb", home / "csv"
    if not (home / "made").exists():
        print(f"making the table of {rows:,} rows", flush=True)
        sales.make_database(database, rows)
        with running_sink() as sink:
            command = [sys.executable, "-m", "bench.floor", str(database), sink.url, sink.token, str(files)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        if done["rows"] != rows:
            raise SystemExit(f"the floor loaded {done['rows']:,} of {rows:,} rows")
        (home / "made").touch()
    return Task(
        database=database,
        csv_files=tuple(sorted(files.glob("[0-9]*.csv"), key=lambda file: int(file.stem))),
        rows=rows,
        folder=home / folder,
        memory_mb=memory_mb,
        job_seconds=job_seconds,
    )


def narrow_task(rows: int) -> Task:
    """The same table with short texts: about 250 bytes a row."""
    home = FOLDER / f"{rows}-narrow"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "made").exists():
        print(f"making the narrow table of {rows:,} rows", flush=True)
        sales.make_database(home / "sales.duckdb", rows, letters=sales.NARROW)
        (home / "made").touch()
    return Task(database=home / "sales.duckdb", csv_files=(), rows=rows, folder=home / "runs", keeps_answers=False)


def say(rows: int, what: str, usage: Usage) -> Usage:
    """Print one figure as it comes."""
    print(
        f"{rows:,} rows, {what:34} {usage.cpu_s * 1e6 / rows:6.2f} CPU s/M  {rows / usage.wall_s:9,.0f} rows/s  "
        f"{usage.peak_mb:6,.0f} MB  {usage.requests} requests",
        flush=True,
    )
    return usage


def _measure_into(measured: Measured, found: dict[int, Usage], task: Task, what: str) -> None:
    """Measure the whole pipe once; if it fails, that is told, and the rest goes on."""
    try:
        found[task.rows] = say(task.rows, what, contestants.forcelift(task))
    except RuntimeError as error:
        measured.left_out.append(f"{task.rows:,} rows, {what}: {error}")
        print(f"{task.rows:,} rows, {what} fails: {error}", flush=True)
