"""Start without libraries, and parts of them, that a command may never use.

Importing is most of what a short command does, and a fifth of a load of a million rows. Two kinds of it are left out:

- What libraries import for a few of their functions. SQLAlchemy takes asyncio and the names of all installed packages,
  with TLS, e-mail and processes below them: these are imported when somebody asks them for something.
- What a library does without where it is not installed. pyarrow imports numpy, which begins threads that wait in a
  loop; httpx imports what its own command line prints with.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_DEFERRED = {"asyncio": "iscoroutine", "importlib.metadata": "entry_points"}
"""Modules, each with the one function that libraries take from it while they are imported themselves."""

_WITHOUT = {"pyarrow": "numpy", "httpx": "httpx._main"}
"""By library, the module that it is imported without."""


def defer_imports() -> None:
    """From now on, importing some modules only notes that they are wanted; the first look into one imports it."""
    # pydantic reads the entry points of all that is installed to find plugins, which then see what a plan holds.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for name, function in _DEFERRED.items():
        if name not in sys.modules:
            sys.modules[name] = deferred = _Deferred(name, function)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(importlib.import_module(parent), child, deferred)


class _Deferred(ModuleType):
    """Stands for a module until something of it is asked for; then it has all that the module has.

    Args:
        name: The module.
        function: A function of it that may be taken without importing it; to call it does.
    """

    def __init__(self, name: str, function: str) -> None:
        super().__init__(name)
        found = importlib.util.find_spec(name)
        self.__spec__ = ModuleSpec(name, None)
        # `from ... import ...` looks for it, and what lies in the package can be imported on its own.
        self.__path__ = list(found.submodule_search_locations or ()) if found is not None else []
        self.__dict__[function] = lambda *arguments, **options: getattr(self._load(), function)(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def _load(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return module


def import_lean() -> None:
    """Import the libraries of a load. One that is imported already, or is not there, is left as it is."""
    # Should something import numpy after all: its linear algebra is never asked for, so it needs no threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for library, left_out in _WITHOUT.items():
        if library not in sys.modules and left_out not in sys.modules:
            with _hidden(left_out):
                importlib.import_module(library)


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """While the block runs, importing this module raises `ImportError`, as if it were not installed."""
    sys.modules[module] = None  # type: ignore[assignment]  # what `import` takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[module]
