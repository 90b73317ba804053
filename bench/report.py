"""Tables and plots of a benchmark run."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.contestants import client_versions
from bench.figures import SPREAD_MOST, is_near, ratios
from bench.floor import CHUNK_ROWS
from bench.goals import goals, verdicts
from bench.measure import Usage
from bench.measured import Measured
from bench.suite import SLOW_PEERS_ROWS, SLOW_ROWS_PER_S, SMALL_MEMORY_MB

_LIBRARIES: Final = ("polars", "duckdb", "pyarrow", "httpx", "isal")
_FLOOR: Final = "floor"


def document(measured: Measured) -> str:
    """The whole report as Markdown."""
    found_goals = goals(measured)
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; what is measured, and how, stands in `bench/`. CPU seconds are user + system of the",
        "client; requests are those of the whole run, signing in included. The org is a sink that answers and stores",
        "nothing, on other cores than the client where there are some; real orgs take far longer for each job.",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({_processor()}), clients on 2 of them, "
        f"{_memory_gb():.0f} GB, {platform.system()} {platform.release()}; "
        f"load average {os.getloadavg()[0]:.1f} at the end",
        "- medians of runs in turns; in brackets the smallest and the largest",
        f"- Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        *([f"- {versions}"] if (versions := client_versions()) else []),
        "- the table: 12 columns, Thai text, 466 bytes a row as CSV, one description in fifty dirty",
        f"- other clients get cleaned CSV files of {CHUNK_ROWS:,} rows (93 MB), one job each, since they refuse larger",
        "  ones or fail on them; all fetch all results, and simple-salesforce alone saves them",
        f"- with more than {SLOW_PEERS_ROWS:,} rows jsforce and the Salesforce CLI come last, as they take long",
        "",
        "## What was promised",
        "",
        "| promise | |",
        "| --- | --- |",
        *(f"| {words} | {verdict} |" for words, verdict in verdicts(found_goals)),
        "",
        "## Goals",
        "",
        "| goal | bound | found | |",
        "| --- | --- | --- | --- |",
        *(
            f"| {goal.what} | {goal.bound} | {goal.found} | {'met' if goal.is_met else '**not met**'} |"
            for goal in found_goals
        ),
        "",
    ]
    for rows, found in measured.times.items():
        lines += [f"## {rows:,} rows", "", *_table(rows, found)]
        lines += [
            f"| {name} | fails: {why[:100]} | | | | | | |" for name, why in measured.failures.get(rows, {}).items()
        ]
        lines.append("")
    lines += _whole_pipe(measured)
    lines += _starts(measured)
    lines += _earlier(measured)
    for rows, different in measured.differing.items():
        if different:
            lines += [f"**{different:,} of {rows:,} rows were hashed otherwise than by the floor.**", ""]
    if measured.left_out:
        lines += ["Not measured: " + "; ".join(measured.left_out) + ".", ""]
    return "\n".join(lines)


def _earlier(measured: Measured) -> list[str]:
    """How far a run before, of the same code on the same machine, was from this one."""
    both = ratios(measured)
    if not both or measured.earlier is None:
        return []
    return [
        "## A run before",
        "",
        f"On the same machine, {measured.earlier.at}; medians. Marked is what is more than {SPREAD_MOST:.0%} apart.",
        "",
        "| figure | then | now | ratio | |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {then:,.4g} | {now:,.4g} | {ratio:.2f} | {'' if is_near(ratio) else '**apart**'} |"
            for name, (then, now, ratio) in both.items()
        ),
        "",
    ]


def _starts(measured: Measured) -> list[str]:
    if not measured.starts:
        return []
    lines = [
        "## Starts",
        "",
        "Wall time in ms, medians; in brackets the longest. Cold: what lies in the environment's folders is read",
        "from the disk again, but for libraries that another process has mapped.",
        "",
        "| command | warm | cold |",
        "| --- | --- | --- |",
    ]
    for name, warm in measured.starts.items():
        cells = [
            f"{statistics.median(times) * 1000:.0f} ({max(times) * 1000:.0f})" if times else ""
            for times in (warm, measured.cold.get(name))
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return [*lines, ""]


def _whole_pipe(measured: Measured) -> list[str]:
    rows = [(f"{size:,} rows of 250 bytes", usage) for size, usage in measured.memory.items()]
    beside = {f"`memory_mb: {SMALL_MEMORY_MB}`": measured.small, "the usual memory, beside those": measured.usual}
    for name, found in beside.items():
        rows += [(f"{size:,} rows, {name}", usage) for size, usages in found.items() for usage in usages]
    rows += [
        (f"{size:,} rows into a twin that takes {SLOW_ROWS_PER_S:,.0f} rows/s", slow.usage)
        for size, slow in measured.slow.items()
    ]
    if not rows:
        return []
    lines = [
        "## The whole pipe in other places",
        "",
        "One run each. Narrow rows and the slow twin were measured at the same time, so their times say little.",
        "",
        "| load | peak MB | CPU s per million rows | rows/s | requests |",
        "| --- | --- | --- | --- | --- |",
    ]
    for what, usage in rows:
        cpu, pace = usage.cpu_s * 1e6 / usage.rows, usage.rows / usage.wall_s
        lines.append(f"| {what} | {usage.peak_mb:,.0f} | {cpu:.2f} | {pace:,.0f} | {usage.requests:,} |")
    for size, slow in measured.slow.items():
        times = slow.job_seconds
        lines += [
            "",
            f"Of the {len(times)} jobs of {size:,} rows each took {times[0]:.0f} to {times[-1]:.0f} s, most often "
            f"{statistics.median(times):.0f}: {size / slow.usage.requests:,.0f} rows for each call.",
        ]
    return [*lines, ""]


def _table(rows: int, found: dict[str, list[Usage]]) -> list[str]:
    lines = [
        "| contestant | runs | CPU s per million rows | to the floor | rows per CPU second | rows/s | peak MB "
        "| requests |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    floor = found.get(_FLOOR)
    for name, usages in found.items():
        cpu = [usage.cpu_s * 1e6 / rows for usage in usages]
        middle = statistics.median(cpu)
        ratio = "" if not floor else f"{middle / statistics.median(u.cpu_s * 1e6 / rows for u in floor):.2f}"
        lines.append(
            f"| {name} | {len(usages)} | {middle:.2f} ({min(cpu):.2f} to {max(cpu):.2f}) | {ratio} "
            f"| {1e6 / middle:,.0f} | "
            f"{rows / statistics.median(u.wall_s for u in usages):,.0f} | "
            f"{statistics.median(u.peak_mb for u in usages):,.0f} | "
            f"{statistics.median(u.requests for u in usages):,.0f} |"
        )
    return lines


def write(path: Path, text: str, measured: Measured) -> None:
    """Write the report, and a plot of rows/s and memory against table size beside it if there are several sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")  # first of all: no figure is lost if no plot can be drawn
    times = {rows: found for rows, found in measured.times.items() if found}
    if len(times) > 1:
        plot = path.with_suffix(".svg")
        _plot(times, measured.memory, plot)
        text += f"\n![Rows per second and peak memory against table size]({plot.name})\n"
        path.write_text(text, encoding="utf-8")


def _plot(results: dict[int, dict[str, list[Usage]]], narrow: dict[int, Usage], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "forcelift"
    figure, (speed, memory) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    names = [name for name in next(iter(results.values())) if all(name in found for found in results.values())]
    sizes = [rows / 1e6 for rows in results]
    for name in names:
        runs = [found[name] for found in results.values()]
        rates = [
            rows / statistics.median(usage.wall_s for usage in usages)
            for rows, usages in zip(results, runs, strict=True)
        ]
        peaks = [statistics.median(usage.peak_mb for usage in usages) for usages in runs]
        speed.plot(sizes, rates, marker="o", label=name)
        memory.plot(sizes, peaks, marker="o", label=name)
    if len(narrow) > 1:
        sizes, peaks = [rows / 1e6 for rows in narrow], [usage.peak_mb for usage in narrow.values()]
        memory.plot(sizes, peaks, marker="o", linestyle="dashed", color="black", label="forcelift, narrow rows")
        memory.legend()
    for axis, label in ((speed, "rows/s"), (memory, "peak memory, MB")):
        axis.set_xlabel("million rows")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    speed.legend()
    figure.savefig(path, metadata={"Date": None})


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
