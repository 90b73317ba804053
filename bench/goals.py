"""What was set as a goal before it was measured, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.measure import Usage
from bench.suite import JOB_SECONDS, SMALL_MEMORY_MB, Measured

CORES: Final = 2
TO_FLOOR_MOST: Final = 1.4
TO_CORES_MOST: Final = 1.3
ROWS_PER_CPU_LEAST: Final = {"simple-salesforce": 4.0, "jsforce": 6.0, "Salesforce CLI": 8.0}
GROWTH_MOST: Final = 1.1
SMALL_PEAK_MOST_MB: Final = 560.0
SMALL_SLOWER_MOST: Final = 1.25
ROWS_PER_CALL_LEAST: Final = 37_440.0
STARTS_MOST_MS: Final = {"forcelift --help": 300.0, "forcelift status": 500.0}
SPREAD_MOST: Final = 0.2
WHOLE, ALONE, FLOOR = "forcelift", "forcelift, loading alone", "floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal: in words, as a bound in words, and what was found."""

    what: str
    bound: str
    found: str
    is_met: bool


def cpu(usages: list[Usage]) -> float:
    """The median of CPU seconds."""
    return statistics.median(usage.cpu_s for usage in usages)


def goals(measured: Measured) -> list[Goal]:
    """All goals for which there are figures."""
    return [
        *_pipe(measured),
        *_alone(measured),
        *_memory(measured),
        *_calls(measured),
        *_starts(measured),
        *_reproduced(measured),
    ]


def _most(what: str, found: float, bound: float, form: str = "{:.2f}") -> Goal:
    return Goal(what=what, bound=f"at most {form.format(bound)}", found=form.format(found), is_met=found <= bound)


def _least(what: str, found: float, bound: float, form: str = "{:.2f}") -> Goal:
    return Goal(what=what, bound=f"at least {form.format(bound)}", found=form.format(found), is_met=found >= bound)


def _pipe(measured: Measured) -> Iterator[Goal]:
    for rows, found in measured.times.items():
        if WHOLE not in found:
            continue
        size = f"{rows:,} rows"
        if FLOOR in found:
            ratio = cpu(found[WHOLE]) / cpu(found[FLOOR])
            yield _most(f"{size}: CPU seconds of the whole pipe to the floor's", ratio, TO_FLOOR_MOST)
        if "simple-salesforce" in found:
            ratio = cpu(found[WHOLE]) / cpu(found["simple-salesforce"])
            yield _most(f"{size}: CPU seconds of the whole pipe to simple-salesforce's for loading alone", ratio, 1.0)
        ratio = statistics.median(usage.wall_s / (usage.cpu_s / CORES) for usage in found[WHOLE])
        yield _most(
            f"{size}: wall time of the whole pipe to what its CPU seconds allow on 2 cores", ratio, TO_CORES_MOST
        )
        spreads = {name: _spread(usages) for name, usages in found.items() if len(usages) > 1}
        if spreads:
            name = max(spreads, key=lambda name: spreads[name])
            yield _most(
                f"{size}: CPU seconds of the turns apart, most of all {name}", spreads[name], SPREAD_MOST, "{:.0%}"
            )


def _spread(usages: list[Usage]) -> float:
    seconds = [usage.cpu_s for usage in usages]
    return (max(seconds) - min(seconds)) / statistics.median(seconds)


def _alone(measured: Measured) -> Iterator[Goal]:
    for rows, found in measured.times.items():
        for name, bound in ROWS_PER_CPU_LEAST.items():
            if name in found and ALONE in found:
                ratio = cpu(found[name]) / cpu(found[ALONE])
                yield _least(f"{rows:,} rows: rows per CPU second of loading alone to those of {name}", ratio, bound)


def _memory(measured: Measured) -> Iterator[Goal]:
    if len(measured.memory) > 1:
        least, most = min(measured.memory), max(measured.memory)
        ratio = measured.memory[most].peak_mb / measured.memory[least].peak_mb
        yield _most(f"peak memory for {most:,} narrow rows to that for {least:,}", ratio, GROWTH_MOST)
    for rows, small in measured.small.items():
        yield _most(
            f"{rows:,} rows with `memory_mb: {SMALL_MEMORY_MB}`: peak in MB",
            small.peak_mb,
            SMALL_PEAK_MOST_MB,
            "{:.0f}",
        )
        usual = measured.times.get(rows, {}).get(WHOLE)
        if usual:
            ratio = small.wall_s / statistics.median(usage.wall_s for usage in usual)
            yield _most(
                f"{rows:,} rows with `memory_mb: {SMALL_MEMORY_MB}`: wall time to the usual", ratio, SMALL_SLOWER_MOST
            )


def _calls(measured: Measured) -> Iterator[Goal]:
    for rows, usage in measured.requests.items():
        what = f"{rows:,} rows in jobs of {JOB_SECONDS:.0f} s: rows for each API call"
        yield _least(what, rows / usage.requests, ROWS_PER_CALL_LEAST, "{:,.0f}")


def _starts(measured: Measured) -> Iterator[Goal]:
    for name, bound in STARTS_MOST_MS.items():
        if name in measured.starts:
            yield _most(f"`{name}`: ms", statistics.median(measured.starts[name]) * 1000, bound, "{:.0f}")


def apart(measured: Measured) -> list[tuple[int, str, float, float]]:
    """What was measured before with the same code, too: rows, contestant, its CPU seconds then and now."""
    before = (measured.earlier or {"cpu_s": {}})["cpu_s"]
    return [
        (rows, name, before[str(rows)][name], cpu(usages))
        for rows, found in measured.times.items()
        for name, usages in found.items()
        if name in before.get(str(rows), {})
    ]


def _reproduced(measured: Measured) -> Iterator[Goal]:
    both = apart(measured)
    if both:
        rows, name, then, now = max(both, key=lambda one: abs(one[3] / one[2] - 1))
        what = f"CPU seconds apart from those of a run before, most of all {name} with {rows:,} rows"
        yield _most(what, abs(now / then - 1), SPREAD_MOST, "{:.0%}")
