"""Allocators are chosen before libraries are loaded, and what the environment says stays."""

from __future__ import annotations

import os
import subprocess
import sys

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
