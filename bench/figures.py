"""Every figure of a run by its name, kept so that a later run can be held against it.

Writes:  a JSON file where it is told to, and one for each state of the code beside the tables of the benchmark; a later
run replaces what it measured again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.measure import Usage
from bench.measured import Earlier, Measured

SPREAD_MOST: Final = 0.2
"""So far apart may two runs be."""


def figures(measured: Measured) -> dict[str, float]:
    """All figures: medians of turns, each by what it is of."""
    found: dict[str, float] = {}
    for rows, contestants in measured.times.items():
        for name, usages in contestants.items():
            found |= _of(f"{rows:,} rows, {name}", usages)
    for rows, usages in measured.small.items():
        found |= _of(f"{rows:,} rows, little memory", usages)
    for rows, usage in measured.memory.items():
        found[f"{rows:,} narrow rows: peak MB"] = usage.peak_mb
    for rows, slow in measured.slow.items():
        found[f"{rows:,} rows, slow jobs: requests"] = slow.usage.requests
    for name, seconds in measured.starts.items():
        found[f"{name}: ms"] = statistics.median(seconds) * 1000
    return found


def _of(what: str, usages: list[Usage]) -> dict[str, float]:
    return {
        f"{what}: CPU s": statistics.median(usage.cpu_s for usage in usages),
        f"{what}: rows/s": statistics.median(usage.rows / usage.wall_s for usage in usages),
        f"{what}: peak MB": statistics.median(usage.peak_mb for usage in usages),
        f"{what}: requests": statistics.median(usage.requests for usage in usages),
    }


def ratios(measured: Measured) -> dict[str, tuple[float, float, float]]:
    """What an earlier run measured too: figures then and now, and how many times then now is."""
    then = measured.earlier.figures if measured.earlier is not None else {}
    return {
        name: (then[name], now, now / then[name]) for name, now in figures(measured).items() if then.get(name, 0.0) > 0
    }


def is_near(ratio: float) -> bool:
    """Whether two runs that are so many times apart count as the same, whichever came first."""
    return max(ratio, 1 / ratio) <= 1 + SPREAD_MOST


def read(file: Path) -> Earlier:
    """What `save` wrote. Raises OSError or ValueError if it is not there or something else."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return Earlier(at=str(content["at"]), figures={name: float(value) for name, value in content["figures"].items()})


def save(file: Path, measured: Measured) -> None:
    """Keep the figures of this run; others that the file holds stay."""
    known = read(file).figures if file.exists() else {}
    content = {"at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "figures": known | figures(measured)}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def of_same_code(folder: Path) -> Path:
    """Where the figures of the code as it is now are kept."""
    digest = hashlib.sha256()
    for source in sorted([*Path("src").rglob("*.py"), *Path("bench").rglob("*.py"), Path("requirements/base.txt")]):
        digest.update(str(source).encode() + b"\0" + source.read_bytes())
    return folder / f"figures-{digest.hexdigest()[:16]}.json"
