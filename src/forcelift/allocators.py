"""How the libraries that hold rows get their memory and give it back.

Rows pass through three allocators: polars' and DuckDB's jemalloc, and pyarrow's pool. Each keeps, for every thread that
ever asked, what that thread gave back; with a dozen threads that was a third of the process. A few shared arenas and
a quick way back cost no CPU that could be measured.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Final

ARENAS: Final = 2
"""Of jemalloc, at least."""

# Of glibc's malloc.h, and the variables that set them instead; see mallopt(3). About half of what the arenas have after
# some minutes of a load is holes, with one arena (72 of 130 MB) as with two (70 of 149 MB); that one is better has been
# seen in loads of five million rows only. Blocks from the second size on are mapped; 2 MB made a third more page faults
# than 4 MB. To name that size ends glibc's own choice of the third, whose default gives pages back at once.
_OPTIONS: Final = (
    ("MALLOC_ARENA_MAX", -8, 1),
    ("MALLOC_MMAP_THRESHOLD_", -3, 4 << 20),
    ("MALLOC_TRIM_THRESHOLD_", -1, 16 << 20),
)

_JEMALLOC: Final = "_RJEM_MALLOC_CONF"
_LEFT_BY_POLARS: Final = "dirty_decay_ms:500,muzzy_decay_ms:1000"
"""What `import polars` leaves in the environment of a process, and so of those that it begins; see its `__init__`."""

_ARROW_POOL: Final = "ARROW_DEFAULT_MEMORY_POOL"


_given_back_at = -math.inf


def choose_allocators() -> None:
    """Name the libraries' allocators; to be called before they are imported. What the environment says stays.

    But for what stands there only because a program that began this one has imported polars: nobody chose that, and it
    was 40 MB of a load.

    Source: jemalloc's `TUNING.md`, pyarrow's "Memory Pools", both of which read the environment when they are loaded.
    """
    arenas = max(ARENAS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ARENAS)
    if os.environ.get(_JEMALLOC) == _LEFT_BY_POLARS:
        del os.environ[_JEMALLOC]
    os.environ.setdefault(_JEMALLOC, f"narenas:{arenas},background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0")
    if sys.platform == "linux":  # elsewhere pyarrow's own choice gives back more than the system's allocator does
        os.environ.setdefault(_ARROW_POOL, "system")


def give_back(*, least_s: float = 0.0) -> None:
    """Hand what was freed back to the system: glibc keeps the pages below the last one that is in use.

    Takes some milliseconds; to be called when much was freed, after a chunk or a job.

    Args:
        least_s: Leave it if any thread has done it within so many seconds.
    """
    global _given_back_at
    trim, now = _libc("malloc_trim"), time.monotonic()
    if trim is not None and now - _given_back_at >= least_s:
        _given_back_at = now
        trim(0)


def share_arenas() -> None:
    """Let all threads of this process share one arena of glibc, where that is the system's allocator.

    To be called before the threads begin. What the environment names (`MALLOC_ARENA_MAX`, ...) is decided already.
    """
    mallopt = _libc("mallopt")
    if mallopt is None:
        return
    for name, option, value in _OPTIONS:
        if name not in os.environ:
            mallopt(option, value)


@cache
def _libc(name: str) -> Callable[..., object] | None:
    """A function of glibc; None where there is another library, which has neither arenas nor these functions."""
    if sys.platform != "linux":
        return None
    import ctypes  # only who moves rows waits for it

    found: Callable[..., object] | None = getattr(ctypes.CDLL(None), name, None)
    return found
