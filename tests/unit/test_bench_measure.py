"""What the benchmark says that a command used: its own peak memory, the CPU seconds of its threads and children."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bench.measure import run

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the benchmark runs on Linux")

_MANY_MB = 400
_BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_peak_is_the_commands_own(tmp_path: Path) -> None:
    """A child that is executed keeps the highest size of whoever started it, which holds much here."""
    held = bytearray(_MANY_MB << 20)
    held[::4096] = bytes([1]) * len(held[::4096])
    _, _, small = run([python("pass")], env={}, log=tmp_path / "log")
    _, _, large = run([python(f"bytes([1]) * ({_MANY_MB} << 20)")], env={}, log=tmp_path / "log")
    assert len(held) >> 20 == _MANY_MB
    assert small < 100
    assert _MANY_MB < large < _MANY_MB + 100


def test_cpu_of_threads_and_of_children_counts(tmp_path: Path) -> None:
    in_thread = f"import threading\nthread = threading.Thread(target=exec, args=({_BURN.format(seconds=0.3)!r},))\n"
    in_child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BURN.format(seconds=0.4)!r}])\n"
    threads, _, _ = run([python(f"{in_thread}thread.start()\nthread.join()")], env={}, log=tmp_path / "log")
    children, _, _ = run([python(in_child)], env={}, log=tmp_path / "log")
    both, _, _ = run([python(_BURN.format(seconds=0.3)), python(in_child)], env={}, log=tmp_path / "log")
    assert threads >= 0.3
    assert children >= 0.4
    assert both >= 0.7


def test_a_peak_of_a_child_counts(tmp_path: Path) -> None:
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'bytes([1]) * ({_MANY_MB} << 20)'])"
    _, _, peak = run([python(child)], env={}, log=tmp_path / "log")
    assert peak > _MANY_MB


def test_environment_and_output_are_the_commands(tmp_path: Path) -> None:
    code = "import os, sys\nprint(os.environ['WHO'], len(os.listdir('/proc/self/fd')))"
    run([python(code)], env={"WHO": "bench"}, log=tmp_path / "log")
    assert (tmp_path / "log").read_text(encoding="utf-8").startswith("bench ")


def test_what_fails_or_takes_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3; see"):
        run([python("import sys; sys.exit(3)")], env={}, log=tmp_path / "log")
    with pytest.raises(RuntimeError, match="ended with -9; see"):
        run([python("import os; os.kill(os.getpid(), 9)")], env={}, log=tmp_path / "log")
    with pytest.raises(RuntimeError, match="nothing said about it"):
        run([["/no/such/command"]], env={}, log=tmp_path / "log")
    with pytest.raises(RuntimeError, match="was ended after 0 s"):
        run([python("import time; time.sleep(60)")], env={}, log=tmp_path / "log", timeout_s=0.3)
