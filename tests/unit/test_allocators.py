"""Allocators are chosen before libraries are loaded, and what the environment says stays."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from forcelift.allocators import choose_allocators, give_back, share_arenas

_CHILD = """
import os, sys
from forcelift.allocators import choose_allocators, give_back, share_arenas
assert "polars" not in sys.modules
choose_allocators()
share_arenas()
import polars, pyarrow
give_back()
print(pyarrow.default_memory_pool().backend_name, os.environ["_RJEM_MALLOC_CONF"])
"""


def test_the_environment_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_RJEM_MALLOC_CONF", "narenas:7")
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "mimalloc")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "9")
    choose_allocators()
    share_arenas()
    give_back()
    assert (os.environ["_RJEM_MALLOC_CONF"], os.environ["ARROW_DEFAULT_MEMORY_POOL"]) == ("narenas:7", "mimalloc")


def test_what_polars_left_in_the_environment_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, polars; print(os.environ['_RJEM_MALLOC_CONF'])"
    env = {name: value for name, value in os.environ.items() if name != "_RJEM_MALLOC_CONF"}
    left = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    monkeypatch.setenv("_RJEM_MALLOC_CONF", left.stdout.strip())
    choose_allocators()
    assert os.environ["_RJEM_MALLOC_CONF"].startswith("narenas:")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pyarrow keeps its own pool")
def test_libraries_take_what_was_chosen() -> None:
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("_RJEM_MALLOC_CONF", "ARROW_DEFAULT_MEMORY_POOL")
    }
    done = subprocess.run([sys.executable, "-c", _CHILD], env=env, capture_output=True, text=True, check=True)
    pool, options = done.stdout.split()
    assert pool == "system"
    assert options.endswith("dirty_decay_ms:100,muzzy_decay_ms:0")
    assert done.stderr == ""  # jemalloc names there what it does not know


_THREADS = """
import ctypes, sys, threading
from forcelift.allocators import share_arenas
share_arenas()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(4)

def work():
    together.wait()
    held = [bytes(100_000) for _ in range(20)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
@pytest.mark.parametrize(("named", "is_one"), [(None, True), ("8", False)])
def test_threads_share_one_arena_unless_the_environment_says_otherwise(
    tmp_path: Path, named: str | None, is_one: bool
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    env |= {} if named is None else {"MALLOC_ARENA_MAX": named}
    subprocess.run([sys.executable, "-c", _THREADS, str(tmp_path / "told")], env=env, check=True)
    arenas = (tmp_path / "told").read_text(encoding="utf-8").count("<heap nr=")
    assert (arenas == 1) == is_one
