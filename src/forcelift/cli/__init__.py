"""The command line. Each command is a module that is imported when it is asked for, so that `--help` is quick."""

from __future__ import annotations

from forcelift.cli.main import cli, main

__all__ = ["cli", "main"]
