"""How the libraries that hold rows get their memory and give it back.

Rows pass through three allocators: polars' and DuckDB's jemalloc, and pyarrow's pool. Each keeps, for every thread that
ever asked, what that thread gave back; with a dozen threads that was a third of the process. A few shared arenas and
a quick way back cost no CPU that could be measured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Final

ARENAS: Final = 2
_M_ARENA_MAX: Final = -8  # of glibc's malloc.h; see mallopt(3)

_JEMALLOC: Final = "_RJEM_MALLOC_CONF"
_ARROW_POOL: Final = "ARROW_DEFAULT_MEMORY_POOL"


def choose_allocators() -> None:
    """Name the libraries' allocators; to be called before they are imported. What the environment says stays.

    Source: jemalloc's `TUNING.md`, pyarrow's "Memory Pools", both of which read the environment when they are loaded.
    """
    arenas = max(ARENAS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ARENAS)
    os.environ.setdefault(_JEMALLOC, f"narenas:{arenas},background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0")
    if sys.platform == "linux":  # elsewhere pyarrow's own choice gives back more than the system's allocator does
        os.environ.setdefault(_ARROW_POOL, "system")


def give_back() -> None:
    """Hand what was freed back to the system: glibc keeps the pages below the last one that is in use.

    Takes some milliseconds; to be called when much was freed, after a chunk or a job.
    """
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)


def share_arenas() -> None:
    """Let all threads of this process share a few arenas of glibc, where that is the system's allocator.

    To be called before the threads begin. An environment that names `MALLOC_ARENA_MAX` has decided already.
    """
    mallopt = _libc("mallopt") if "MALLOC_ARENA_MAX" not in os.environ else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


@cache
def _libc(name: str) -> Callable[..., object] | None:
    """A function of glibc; None where there is another library, which has neither arenas nor these functions."""
    if sys.platform != "linux":
        return None
    import ctypes  # only who moves rows waits for it

    found: Callable[..., object] | None = getattr(ctypes.CDLL(None), name, None)
    return found
