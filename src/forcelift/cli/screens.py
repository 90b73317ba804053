"""One-screen errors: what failed, what state the data is in, what to do now. Never a row value, never a traceback."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from forcelift.cli.output import notes
from forcelift.errors import ForceliftError

CAUSES_MAX = 3


def show_error(error: ForceliftError, *, debug: bool = False) -> None:
    """Print message, state and hint as three short paragraphs on stderr."""
    console = notes()
    console.print(Text.assemble(("error: ", "bold red"), error.message.strip()))
    if error.state:
        console.print(Text.assemble(("state: ", "bold"), error.state.strip()))
    if error.hint:
        console.print(Text.assemble(("next:  ", "bold"), error.hint.strip()))
    if debug:
        console.print(Text("".join(traceback.format_exception(error))))


def show_fault(error: BaseException, *, debug: bool = False, words: Sequence[str] = ()) -> None:
    """Say that the program itself failed, and where the traceback is kept."""
    console = notes()
    kind = type(error).__name__
    console.print(Text.assemble(("error: ", "bold red"), f"Forcelift itself failed ({kind}). This is a bug."))
    console.print(
        Text.assemble(
            ("state: ", "bold"),
            "What was marked as done is safe. A batch that was running can be resumed: `forcelift run --resume`.",
        )
    )
    trace = "".join(traceback.format_exception(error))
    if debug:
        console.print(Text(trace))
        return
    file = _keep(trace, words)
    console.print(
        Text.assemble(
            ("next:  ", "bold"),
            f"The traceback is in {file}. Read it before you pass it on: it may name keys or values of rows.",
        )
        if file is not None
        else Text.assemble(("next:  ", "bold"), "Run it again with `forcelift --debug ...` to see the traceback.")
    )


def _keep(trace: str, words: Sequence[str]) -> Path | None:
    """Write the traceback where the plan keeps its state, or else into the system's folder for temporary files."""
    for folder in (_state_folder(words), Path(tempfile.gettempdir())):
        if folder is None or not folder.is_dir():
            continue
        name = folder / f"forcelift-error-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            continue  # not writable: the next folder may be
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"python {sys.version}\n{trace}")
        return name
    return None


def _state_folder(words: Sequence[str]) -> Path | None:
    """The folder `state` beside the plan that the command line names."""
    plan = Path("forcelift.yaml")
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--plan" and following:
            plan = Path(following)
        elif word.startswith("--plan="):
            plan = Path(word.removeprefix("--plan="))
    return plan.parent / "state"
