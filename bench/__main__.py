"""`python -m bench`: measure everything and write `docs/benchmarks.md` with its plots, or a part of it on demand.

Everything takes about 35 minutes on four quiet cores. After 75 minutes no further run is begun, and none may take
longer than 15; what was left out for that is told in the report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import earlier, report, suite
from bench.contestants import SHORT_NAMES


def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the report here, such as docs/benchmarks.md")
    parser.add_argument("--turns", type=int, help="runs of each contestant, the same for all table sizes")
    parser.add_argument("--largest", type=int, help="leave out tables of more rows than this")
    parser.add_argument("--only", nargs="+", choices=list(SHORT_NAMES), help="contestants, if not all")
    parser.add_argument("--parts", nargs="+", choices=suite.PARTS, default=suite.PARTS, help="parts, if not all")
    parser.add_argument("--minutes", type=float, default=suite.MINUTES_MOST, help="begin no further run after so many")
    part = parser.add_argument_group("loading one table, as no part of the whole; printed only")
    part.add_argument("--rows", type=int, nargs="+", help="these table sizes alone")
    part.add_argument("--memory-mb", type=int, default=2048, help="`limits.memory_mb` of Forcelift's plan")
    part.add_argument("--job-seconds", type=float, default=0.0, help="time that the sink takes for each job")
    options = parser.parse_args()
    names = [SHORT_NAMES[name] for name in options.only] if options.only else None
    if options.rows is None:
        measured = suite.measure_all(
            turns=options.turns,
            largest=options.largest,
            parts=options.parts,
            names=names,
            minutes_most=options.minutes,
        )
        measured.earlier = earlier.of_same_code(suite.FOLDER)
        earlier.remember(suite.FOLDER, measured.times)
    else:
        suite.compile_clients()
        measured = suite.Measured()
        for rows in options.rows:
            task = suite.sales_task(rows, memory_mb=options.memory_mb, job_seconds=options.job_seconds)
            suite.time_in_turns(measured, task, names or suite.names_for(rows), options.turns or 1)
            if {"floor", "forcelift"} <= set(measured.times[rows]):
                suite.check_same_work(task)
    text = report.document(measured)
    print(text)
    if options.out is not None:
        report.write(options.out, text, measured)


if __name__ == "__main__":
    main()
