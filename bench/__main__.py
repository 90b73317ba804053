"""`python -m bench`: measure everything and write `docs/benchmarks.md` with its plots, or a part of it on demand."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import report, suite
from bench.contestants import CONTESTANTS


def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the report here, such as docs/benchmarks.md")
    parser.add_argument("--turns", type=int, help="runs of each contestant, the same for all table sizes")
    parser.add_argument("--largest", type=int, help="leave out tables of more rows than this")
    part = parser.add_argument_group("a part of it, printed only")
    part.add_argument("--rows", type=int, nargs="+", help="these table sizes alone, and nothing but loading")
    part.add_argument("--only", nargs="+", choices=list(CONTESTANTS), help="contestants, if not all")
    part.add_argument("--memory-mb", type=int, default=2048, help="`limits.memory_mb` of Forcelift's plan")
    part.add_argument("--job-seconds", type=float, default=0.0, help="time that the sink takes for each job")
    options = parser.parse_args()
    if options.rows is None:
        measured = suite.measure_all(turns=options.turns, largest=options.largest)
    else:
        suite.compile_clients()
        measured = suite.Measured()
        for rows in options.rows:
            task = suite.sales_task(rows, memory_mb=options.memory_mb, job_seconds=options.job_seconds)
            suite.time_in_turns(measured, task, options.only or suite.names_for(rows), options.turns or 1)
            suite.check_same_work(task)
    text = report.document(measured)
    print(text)
    if options.out is not None:
        report.write(options.out, text, measured)


if __name__ == "__main__":
    main()
