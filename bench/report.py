"""Tables and plots of a benchmark run."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.measure import Usage

Results = dict[int, dict[str, list[Usage]]]

_LIBRARIES: Final = ("polars", "duckdb", "pyarrow", "httpx", "isal")
_FLOOR: Final = "floor"


def document(results: Results, *, turns: int) -> str:
    """The whole report as Markdown."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; what is measured, and how, stands in `bench/`. CPU seconds are user + system of the",
        "client, for a million rows; wall time is against a sink that answers without storing, on other cores where",
        "there are some.",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({_processor()}), clients on 2 of them; load average "
        f"{os.getloadavg()[0]:.1f} at the end",
        f"- medians of {turns} runs in turns; in brackets the smallest and the largest",
        f"- Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "- the table: 12 columns, Thai text, about 450 bytes a row as CSV, one description in fifty dirty",
        "",
    ]
    for rows, found in results.items():
        lines += [f"## {rows:,} rows", "", *_table(rows, found), ""]
    return "\n".join(lines)


def _table(rows: int, found: dict[str, list[Usage]]) -> list[str]:
    lines = [
        "| contestant | CPU s per million rows | to the floor | rows per CPU second | rows/s | peak MB | requests |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    floor = found.get(_FLOOR)
    for name, usages in found.items():
        cpu = [usage.cpu_s * 1e6 / rows for usage in usages]
        middle = statistics.median(cpu)
        ratio = "" if not floor else f"{middle / statistics.median(u.cpu_s * 1e6 / rows for u in floor):.2f}"
        lines.append(
            f"| {name} | {middle:.2f} ({min(cpu):.2f} to {max(cpu):.2f}) | {ratio} | {1e6 / middle:,.0f} | "
            f"{rows / statistics.median(u.wall_s for u in usages):,.0f} | "
            f"{statistics.median(u.peak_mb for u in usages):,.0f} | "
            f"{statistics.median(u.requests for u in usages):,.0f} |"
        )
    return lines


def write(path: Path, text: str, results: Results) -> None:
    """Write the report, and a plot of rows/s and memory against table size beside it if there are several sizes."""
    if len(results) > 1:
        plot = path.with_suffix(".svg")
        _plot(results, plot)
        text += f"\n![Rows per second and peak memory against table size]({plot.name})\n"
    path.write_text(text, encoding="utf-8")


def _plot(results: Results, path: Path) -> None:
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
    for axis, label in ((speed, "rows/s"), (memory, "peak memory, MB")):
        axis.set_xlabel("million rows")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    speed.legend()
    figure.savefig(path, metadata={"Date": None})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
