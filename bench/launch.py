"""Start one command and say what the operating system counted for it.

A process's highest resident size (`ru_maxrss`) begins with that of the process which it was forked from: Linux takes
the larger of the two when the command is executed. The benchmark itself has held whole tables, so it lets this small
process start what it measures; nothing is imported here that is not needed.

`python -I -S bench/launch.py REPORT COMMAND...`: REPORT is the number of an open file for one line of JSON. Ends when
the command has ended, with 0.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Run the command to its end, then report."""
    report, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)  # what outlives the command must not keep the benchmark waiting
    began = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(process, 0)
    told = {
        "ended_with": os.waitstatus_to_exitcode(status),
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.perf_counter() - began,
        "peak_kb": used.ru_maxrss,
    }
    os.write(report, json.dumps(told).encode())


main()
