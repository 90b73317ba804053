"""`python -m bench`: measure everything and write `docs/benchmarks.md` with its plots, or a part of it on demand.

Everything takes about 42 minutes on four quiet cores, two of which are the clients'; with `--turns 1` it takes 34 and
measures for every goal, too. After `--minutes` no further run is begun; what was left out for that is told in the
report. The figures are kept in a file as well, which a second run may be held against:

    python -m bench --out docs/benchmarks.md --save first.json
    python -m bench --out docs/benchmarks.md --compare first.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import figures, report, suite
from bench.contestants import SHORT_NAMES
from bench.measured import Measured


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
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the figures here, too")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="an earlier run's figures, if not those of the same code"
    )
    part = parser.add_argument_group("loading one table, as no part of the whole; printed only")
    part.add_argument("--rows", type=int, nargs="+", help="these table sizes alone")
    part.add_argument("--memory-mb", type=int, default=2048, help="`limits.memory_mb` of Forcelift's plan")
    part.add_argument("--job-seconds", type=float, default=0.0, help="time that the sink takes for each job")
    options = parser.parse_args()
    before = figures.read(options.compare) if options.compare is not None else None
    names = [SHORT_NAMES[name] for name in options.only] if options.only else None
    if options.rows is None:
        measured = suite.measure_all(
            turns=options.turns,
            largest=options.largest,
            parts=options.parts,
            names=names,
            minutes_most=options.minutes,
        )
        kept = figures.of_same_code(suite.FOLDER)
        measured.earlier = before or (figures.read(kept) if kept.exists() else None)
        for file in filter(None, (kept, options.save)):
            figures.save(file, measured)
    else:
        suite.compile_clients()
        measured = Measured()
        for rows in options.rows:
            task = suite.sales_task(rows, memory_mb=options.memory_mb, job_seconds=options.job_seconds)
            suite.time_in_turns(measured, task, names or suite.names_for(rows), options.turns or 1)
            suite.check_same_work(measured, task)
        measured.earlier = before
        if options.save is not None:
            figures.save(options.save, measured)
    text = report.document(measured)
    print(text)
    if options.out is not None:
        report.write(options.out, text, measured)


if __name__ == "__main__":
    main()
