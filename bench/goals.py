"""What was set as a goal before it was measured, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.contestants import ALONE
from bench.figures import SPREAD_MOST, is_near, ratios
from bench.measure import Usage
from bench.measured import Measured
from bench.suite import NARROW_SIZES, SMALL_MEMORY_MB, TURNS

CORES: Final = 2
TO_FLOOR_MOST: Final = 1.4
TO_CORES_MOST: Final = 1.3
ROWS_PER_CPU_LEAST: Final = {"simple-salesforce": 4.0, "jsforce": 6.0, "Salesforce CLI": 8.0}
GROWTH_MOST: Final = 1.1
SMALL_PEAK_MOST_MB: Final = 560.0
SMALL_SLOWER_MOST: Final = 1.25
ROWS_PER_CALL_LEAST: Final = 37_440.0
JOB_LEAST_S: Final = 60.0
STARTS_MOST_MS: Final = {"forcelift --help": 300.0, "forcelift status": 500.0}
WHOLE, FLOOR = "forcelift", "floor"

_LARGEST = max(TURNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One promise in words, and the table sizes for which it must be measured; no size where none matters."""

    words: str
    sizes: tuple[int | None, ...]


TO_FLOOR: Final = Clause(words=f"whole pipe at most {TO_FLOOR_MOST} times the floor's CPU seconds", sizes=tuple(TURNS))
CHEAPER: Final = Clause(words="whole pipe cheaper than simple-salesforce is for loading alone", sizes=tuple(TURNS))
PEERS: Final = {
    "simple-salesforce": Clause(words="loading alone at least 4 times simple-salesforce's", sizes=tuple(TURNS)),
    "jsforce": Clause(words="loading alone at least 6 times jsforce's rows per CPU second", sizes=tuple(TURNS)),
    "Salesforce CLI": Clause(words="loading alone at least 8 times the CLI's", sizes=tuple(TURNS)),
}
WALL: Final = Clause(words="wall time on 2 cores within 1.3 of what the CPU seconds allow", sizes=tuple(TURNS))
FLAT: Final = Clause(words="peak memory of 20 million rows at most 1.1 times that of 1", sizes=(max(NARROW_SIZES),))
SMALL_PEAK: Final = Clause(words="`memory_mb: 512`: 5 million rows with a peak under 560 MB", sizes=(_LARGEST,))
SMALL_PACE: Final = Clause(words="`memory_mb: 512`: 5 million rows at most 25 % slower", sizes=(_LARGEST,))
CALLS: Final = Clause(words="at least 37,440 rows per API call, 5 million rows, jobs of minutes", sizes=(_LARGEST,))
STARTS: Final = {
    "forcelift --help": Clause(words="`forcelift --help` under 300 ms", sizes=(None,)),
    "forcelift status": Clause(words="`forcelift status` under 500 ms", sizes=(None,)),
}
AGAIN: Final = Clause(words="the figures reproduce within 20 % in a second run", sizes=(None,))
CLAUSES: Final = (
    TO_FLOOR, CHEAPER, *PEERS.values(), WALL, FLAT, SMALL_PEAK, SMALL_PACE, CALLS, *STARTS.values(), AGAIN,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A clause for one size: in words, as a bound in words, and what was found; no clause where none was promised."""

    what: str
    bound: str
    found: str
    is_met: bool
    clause: Clause | None = None
    rows: int | None = None


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


def verdicts(found: Sequence[Goal]) -> list[tuple[str, str]]:
    """Each clause with `met`, `not met` or `not measured`, and for which sizes it was not."""
    told = []
    for clause in CLAUSES:
        ours = [goal for goal in found if goal.clause == clause and goal.rows in clause.sizes]
        missing = [size for size in clause.sizes if size not in {goal.rows for goal in ours}]
        sizes = ", ".join(f"{size:,} rows" for size in missing if size is not None)
        left = f"not measured{f' with {sizes}' if sizes else ''}" if missing else ""
        if not all(goal.is_met for goal in ours):
            left, verdict = "", "**not met**"
        else:
            verdict = "met" if ours else ""
        told.append((clause.words, "; ".join(filter(None, [verdict, left]))))
    return told


def _most(
    what: str, found: float, bound: float, form: str = "{:.2f}", clause: Clause | None = None, rows: int | None = None
) -> Goal:
    bound_text = f"at most {form.format(bound)}"
    return Goal(what=what, bound=bound_text, found=form.format(found), is_met=found <= bound, clause=clause, rows=rows)


def _least(what: str, found: float, bound: float, form: str, clause: Clause, rows: int) -> Goal:
    bound_text = f"at least {form.format(bound)}"
    return Goal(what=what, bound=bound_text, found=form.format(found), is_met=found >= bound, clause=clause, rows=rows)


def _pipe(measured: Measured) -> Iterator[Goal]:
    for rows, found in measured.times.items():
        if WHOLE not in found:
            continue
        size = f"{rows:,} rows"
        # Of a floor that did other work nothing can be said.
        if FLOOR in found and not measured.differing.get(rows, 0):
            ratio = cpu(found[WHOLE]) / cpu(found[FLOOR])
            what = f"{size}: CPU seconds of the whole pipe to the floor's"
            yield _most(what, ratio, TO_FLOOR_MOST, clause=TO_FLOOR, rows=rows)
        if "simple-salesforce" in found:
            ratio = cpu(found[WHOLE]) / cpu(found["simple-salesforce"])
            what = f"{size}: CPU seconds of the whole pipe to simple-salesforce's for loading alone"
            yield _most(what, ratio, 1.0, clause=CHEAPER, rows=rows)
        ratio = statistics.median(usage.wall_s / (usage.cpu_s / CORES) for usage in found[WHOLE])
        what = f"{size}: wall time of the whole pipe to what its CPU seconds allow on 2 cores"
        yield _most(what, ratio, TO_CORES_MOST, clause=WALL, rows=rows)
        spreads = {name: _spread(usages) for name, usages in found.items() if len(usages) > 1}
        if spreads:
            name = max(spreads, key=lambda name: spreads[name])
            what = f"{size}: CPU seconds of the turns apart, most of all {name}"
            yield _most(what, spreads[name], SPREAD_MOST, "{:.0%}")


def _spread(usages: list[Usage]) -> float:
    seconds = [usage.cpu_s for usage in usages]
    return (max(seconds) - min(seconds)) / statistics.median(seconds)


def _alone(measured: Measured) -> Iterator[Goal]:
    for rows, found in measured.times.items():
        for name, bound in ROWS_PER_CPU_LEAST.items():
            if name in found and ALONE in found:
                ratio = cpu(found[name]) / cpu(found[ALONE])
                what = f"{rows:,} rows: rows per CPU second of loading alone to those of {name}"
                yield _least(what, ratio, bound, "{:.2f}", PEERS[name], rows)


def _memory(measured: Measured) -> Iterator[Goal]:
    if len(measured.memory) > 1:
        least, most = min(measured.memory), max(measured.memory)
        ratio = measured.memory[most].peak_mb / measured.memory[least].peak_mb
        what = f"peak memory for {most:,} narrow rows to that for {least:,}"
        yield _most(what, ratio, GROWTH_MOST, clause=FLAT, rows=most)
    for rows, small in measured.small.items():
        size = f"{rows:,} rows with `memory_mb: {SMALL_MEMORY_MB}`"
        peak = max(usage.peak_mb for usage in small)
        yield _most(f"{size}: peak in MB", peak, SMALL_PEAK_MOST_MB, "{:.0f}", SMALL_PEAK, rows)
        usual = measured.usual.get(rows, [])
        if len(usual) == len(small):
            ratio = sum(usage.wall_s for usage in small) / sum(usage.wall_s for usage in usual)
            yield _most(f"{size}: wall time to the usual", ratio, SMALL_SLOWER_MOST, clause=SMALL_PACE, rows=rows)


def _calls(measured: Measured) -> Iterator[Goal]:
    for rows, slow in measured.slow.items():
        middle = statistics.median(slow.job_seconds)
        what = f"{rows:,} rows into a twin whose jobs take {middle:.0f} s: rows for each API call"
        # Of short jobs the figure says nothing: they are polled less often.
        clause = CALLS if middle >= JOB_LEAST_S else None
        found = rows / slow.usage.requests
        yield Goal(
            what=what, bound=f"at least {ROWS_PER_CALL_LEAST:,.0f}", found=f"{found:,.0f}",
            is_met=found >= ROWS_PER_CALL_LEAST, clause=clause, rows=rows,
        )  # fmt: skip


def _starts(measured: Measured) -> Iterator[Goal]:
    for name, bound in STARTS_MOST_MS.items():
        if name in measured.starts:
            found = statistics.median(measured.starts[name]) * 1000
            yield _most(f"`{name}`: ms", found, bound, "{:.0f}", STARTS[name])


def _reproduced(measured: Measured) -> Iterator[Goal]:
    both = ratios(measured)
    if both:
        near = sum(is_near(ratio) for _, _, ratio in both.values())
        name = max(both, key=lambda name: max(both[name][2], 1 / both[name][2]))
        what = f"figures within {SPREAD_MOST:.0%} of those of a run before; farthest ({both[name][2]:.2f}) is {name}"
        yield Goal(what=what, bound=f"all {len(both)}", found=f"{near}", is_met=near == len(both), clause=AGAIN)
