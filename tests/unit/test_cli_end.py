"""How the command's process ends: with all that was written, and all that was to be called."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _end(code: str) -> subprocess.CompletedProcess[str]:
    program = f"import atexit, sys, threading, time\nfrom forcelift.cli.main import leave\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [0, 1, 130])
def test_what_was_written_is_there_and_what_was_registered_is_called(code: int) -> None:
    """More than a pipe holds at once, and more from a function that is called at the end."""
    done = _end(f"atexit.register(print, 'at the end')\nsys.stdout.write('x' * 300_000)\nleave({code})\nprint('later')")
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == "x" * 300_000 + "at the end\n"


def test_a_thread_at_work_is_waited_for() -> None:
    work = "threading.Thread(target=lambda: (go.wait(), print('done'))).start()"
    done = _end(f"go = threading.Event()\n{work}\nthreading.Timer(0.2, go.set).start()\nleave(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")
