"""Everything that `make bench` measures, in the order of its cost: about 20 minutes on four quiet cores.

Turns, not blocks: what a neighbour on the machine costs then falls on all contestants alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
    """

    times: dict[int, dict[str, list[Usage]]] = field(default_factory=dict)
    failures: dict[int, dict[str, str]] = field(default_factory=dict)
    memory: dict[int, Usage] = field(default_factory=dict)
    small: dict[int, Usage] = field(default_factory=dict)
    requests: dict[int, Usage] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)


def measure_all(*, turns: int | None = None, largest: int | None = None) -> Measured:
    """Measure everything.

    Args:
        turns: So many for each size, if not as in `TURNS`.
        largest: Leave out larger tables.
    """
    compile_clients()
    measured = Measured()
    sizes = [size for size in TURNS if largest is None or size <= largest]
    narrow = {size: narrow_task(size) for size in NARROW_SIZES if largest is None or size <= largest}
    tasks = {size: sales_task(size) for size in sizes}
    for size, task in tasks.items():
        time_in_turns(measured, task, names_for(size), turns or TURNS[size])
        check_same_work(task)
    measured.starts = time_starts(tasks[sizes[0]])
    largest_task = tasks[sizes[-1]]
    small = sales_task(largest_task.rows, memory_mb=SMALL_MEMORY_MB, folder="small")
    measured.small[small.rows] = say(small.rows, f"forcelift, {SMALL_MEMORY_MB} MB", contestants.forcelift(small))
    # Jobs that take a minute leave the cores idle, so memory is measured beside them: only time would suffer from it.
    slow = sales_task(largest_task.rows, job_seconds=JOB_SECONDS, folder="slow")
    beside = threading.Thread(target=_measure_into, args=(measured.requests, slow, "forcelift, slow jobs"))
    beside.start()
    for task in narrow.values():
        _measure_into(measured.memory, task, "forcelift, narrow rows")
    beside.join()
    return measured


def compile_clients() -> None:
    """Compile what the contestants in Python import, each one's libraries as well as its own files."""
    compile_all(Path("src"), Path("bench"), Path(sysconfig.get_path("purelib")), *CLIENTS.glob("simple-salesforce/lib"))


def names_for(rows: int) -> list[str]:
    """Who takes part at this size."""
    slow = () if rows <= SLOW_PEERS_ROWS else SLOW_PEERS
    if not CLIENTS.is_dir():
        print("other clients are left out: `python -m tests.clients.install` installs them", file=sys.stderr)
    return [name for name in CONTESTANTS if name not in slow and (name not in NEEDS_CLIENTS or CLIENTS.is_dir())]


def time_in_turns(measured: Measured, task: Task, names: Sequence[str], turns: int) -> None:
    """Let each contestant load the table once a turn. One that fails is told and does not come again."""
    found = measured.times.setdefault(task.rows, {})
    failed = measured.failures.setdefault(task.rows, {})
    for turn in range(1, turns + 1):
        for name in names:
            if name in failed or (name in SLOW_PEERS and turn > SLOW_PEERS_TURNS):
                continue
            try:
                usage = CONTESTANTS[name](task)
            except RuntimeError as error:
                if name not in NEEDS_CLIENTS:
                    raise
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


def _measure_into(found: dict[int, Usage], task: Task, what: str) -> None:
    found[task.rows] = say(task.rows, what, contestants.forcelift(task))
