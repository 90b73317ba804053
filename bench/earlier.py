"""Figures of an earlier run of the same code on this machine: whether they reproduce.

Writes:  one small JSON file a state of the code, beside the tables of the benchmark; a later run replaces it.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measure import Usage


def of_same_code(folder: Path) -> dict[str, Any] | None:
    """What `remember` wrote last for the code as it is now; None if it has not been measured here before."""
    file = _file(folder)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def remember(folder: Path, times: dict[int, dict[str, list[Usage]]]) -> None:
    """Keep the medians of this run. A part of a size or of the contestants replaces that part."""
    known = of_same_code(folder) or {"cpu_s": {}}
    for rows, found in times.items():
        medians = {name: statistics.median(usage.cpu_s for usage in usages) for name, usages in found.items()}
        known["cpu_s"].setdefault(str(rows), {}).update(medians)
    known["at"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    _file(folder).write_text(json.dumps(known, indent=1), encoding="utf-8")


def _file(folder: Path) -> Path:
    digest = hashlib.sha256()
    for source in sorted([*Path("src").rglob("*.py"), *Path("bench").rglob("*.py"), Path("requirements/base.txt")]):
        digest.update(str(source).encode() + b"\0" + source.read_bytes())
    return folder / f"figures-{digest.hexdigest()[:16]}.json"
