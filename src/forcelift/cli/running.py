"""A run at the command line: progress, signals that become stops, the summary, and the command that goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from msgspec import Struct
from rich.console import Console

from forcelift.account.summary import BatchSummary
from forcelift.audit.records import Batch, BatchMode, BatchState, Control
from forcelift.cli.options import again
from forcelift.cli.progress import RunProgress
from forcelift.cli.report import (
    half_loaded_line,
    next_lines,
    other_snapshots_line,
    pace_line,
    prediction_line,
    show_summary,
    unfinished_line,
)
from forcelift.cli.screens import show_error, show_fault
from forcelift.errors import ExitCode, ForceliftError, Interrupted
from forcelift.jobs.coordinator import Coordinator
from forcelift.migration.running import RunOptions, Watcher, locations, run_migration
from forcelift.plan import load_plan
from forcelift.protocols.org import Org

_STOPPING: Final = "stopping: what is in flight is finished first; Ctrl-C again aborts the open jobs"
_ABORTING: Final = (
    "aborting the open jobs; rows that the org has taken already stay, and are accounted for; Ctrl-C again ends at once"
)


class Ended(Struct, frozen=True, kw_only=True):
    """A run that has ended, with the seconds it took, and where its things lie by the plan it was begun with."""

    summary: BatchSummary
    plan_file: Path
    seconds: float
    locations: dict[str, str]


def watched_run(plan_file: Path, options: RunOptions, console: Console) -> Ended:
    """Run a batch with progress on the console and signals turned into stops."""
    began = time.monotonic()
    with RunProgress(console, monotonic=time.monotonic, dry_run=options.dry_run) as progress:
        stopper = Stopper(console, plan_file)

        def on_batch(batch: Batch) -> None:
            stopper.batch_id = batch.batch_id
            words = "dry run, nothing will be sent" if batch.mode is BatchMode.DRY_RUN else f"into {batch.org_url}"
            sample = f"a sample of {options.sample_percent} %, " if options.sample_percent is not None else ""
            console.print(f"batch {batch.batch_id} ({sample}{words})")

        def on_progress(coordinator: Coordinator, org: Org) -> None:
            stopper.say()
            progress.update(coordinator, org)

        watcher = Watcher(
            on_batch=on_batch, on_progress=on_progress, on_runner=stopper.on_runner, on_note=console.print
        )
        try:
            with stopper.listening():
                # Read once: who edits the plan while it runs, for days, must not lose the summary at the end.
                loaded = load_plan(plan_file)
                summary = run_migration(loaded, options, watcher=watcher)
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped before a batch was begun",
                state="nothing was written to the org",
                hint=f"begin again with `{again('run', plan_file)}`",
            ) from None
    seconds = time.monotonic() - began
    return Ended(summary=summary, plan_file=plan_file, seconds=seconds, locations=locations(loaded))


class Stopper(Struct):
    """Turns Ctrl-C and SIGTERM into stops: the first finishes what is in flight, the second aborts the open jobs."""

    console: Console
    plan_file: Path
    batch_id: str | None = None
    _stop: Callable[[Control], None] | None = None
    _presses: int = 0
    _said: int = 0

    def on_runner(self, stop: Callable[[Control], None]) -> None:
        """From now on a signal stops the run instead of the process."""
        self._stop = stop
        if self._presses:
            self._ask()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals while the block runs."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._presses += 1
        if self._presses > 2:
            os.write(2, b"ended at once; what is not written down is found again by a resume\n")
            os._exit(int(ExitCode.INTERRUPTED))
        if self._stop is not None:
            self._ask()
        elif self.batch_id is None:
            raise KeyboardInterrupt

    def _ask(self) -> None:
        assert self._stop is not None
        stop_now = self._presses > 1
        self._stop(Control(stop=True, stop_now=stop_now, by="a signal", reason="Ctrl-C or SIGTERM"))

    def say(self) -> None:
        """Tell what a signal has brought about; not done by the signal's handler, which may come between two prints."""
        if self._presses > self._said:
            self._said = self._presses
            self.console.print(_ABORTING if self._presses > 1 else _STOPPING)


def run_document(ended: Ended) -> dict[str, Any]:
    """The document of `run --json`; described in docs/reference/cli.md."""
    summary = ended.summary
    document = summary.document()
    document["run_seconds"] = round(ended.seconds, 3)
    word = "--join" if summary.others_go_on else "--resume"
    document["resume_command"] = (
        None
        if summary.batch.state is BatchState.DONE
        else again(f"run {word} {summary.batch.batch_id}", ended.plan_file)
    )
    document["locations"] = ended.locations
    return document


def show_end(console: Console, ended: Ended, *, resumed: bool) -> None:
    """Print the summary of a run: tables, refused rows, pace, and where everything lies."""
    summary = ended.summary
    is_dry = summary.is_dry_run
    if is_dry:
        console.print("DRY RUN: nothing was sent to the org.", style="bold")
    show_summary(console, summary)
    console.print()
    console.print(pace_line(summary, seconds=ended.seconds, resumed=resumed))
    if is_dry:
        console.print(prediction_line(summary))
    if (half_loaded := half_loaded_line(summary)) is not None:
        console.print(half_loaded)
    if (later := other_snapshots_line(summary)) is not None:
        console.print(later)
    if (unfinished := unfinished_line(summary)) is not None:
        console.print(unfinished)
    for name, place in ended.locations.items():
        console.print(f"{name.replace('_', ' ') + ':':<16} {place}")


def show_what_went_wrong(console: Console, summary: BatchSummary, plan_file: Path, *, debug: bool) -> None:
    """Errors on the way, and the command that goes on."""
    error = summary.first_error
    if isinstance(error, ForceliftError):
        show_error(error, debug=debug)
    elif error is not None:
        show_fault(error, debug=debug, words=["--plan", str(plan_file)])
    if len(summary.errors) > 1:
        console.print(f"and {len(summary.errors) - 1} more; `--json` lists them all")
    if summary.exit_code is ExitCode.INTERRUPTED:
        console.print("stopped; everything that was begun is accounted for")
    for line in next_lines(summary, plan_file):
        console.print(line)
