"""Progress of a run on stderr: bars when it is a terminal, else a plain line per table now and then.

Rates and the time left come from what this process has seen, so a resumed batch is not credited with earlier work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from forcelift.cli.output import count, duration, plural
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.tracks import Figures
from forcelift.protocols.org import Org

LINE_PAUSE_S: Final = 10.0
ETA_FROM: Final = 0.01
RATE_FROM_S: Final = 1.0  # anything shorter says more about the loop's turns than about the table
BAR_WIDTH: Final = 16
REDRAWS_PER_SECOND: Final = 4


class TableProgress(Struct):
    """One table, as last seen. `done` rows have an outcome; under a dry run, those that were read and cleaned."""

    rows: int = 0
    done: int = 0
    refused: int = 0
    chunks: int = 0
    chunks_done: int = 0
    done_before: int | None = None  # when this process began
    since: float | None = None
    until: float | None = None  # when it last moved
    said_at: float | None = None
    said_done: bool = False

    @property
    def is_complete(self) -> bool:
        return self.chunks > 0 and self.chunks == self.chunks_done

    def rate(self) -> float | None:
        """Rows a second in this process; None before anything can be said."""
        if self.since is None or self.until is None or self.done_before is None:
            return None
        if self.until - self.since < RATE_FROM_S:
            return None
        return (self.done - self.done_before) / (self.until - self.since)

    def seconds_left(self, now: float) -> float | None:
        """By the rate so far; None in the first hundredth, where it would be a guess, and once that time is over."""
        rate = self.rate()
        if not rate or self.is_complete or self.since is None or self.until is None:
            return None
        if self.done < self.rows * ETA_FROM:
            return None
        left = (self.rows - self.done) / rate - (now - self.until)
        return left if left > 0 else None


def _rows_through(seen: Figures) -> int:
    """Rows that have come to their end.

    Rows are refused by rules when a chunk is read, long before its others have an answer; they count with those, so
    that rate and time left are not taken from them.
    """
    skipped = seen.rejected + seen.duplicate
    to_send = seen.extracted - skipped
    return seen.extracted * min(seen.answered, to_send) // to_send if to_send > 0 else seen.extracted


class RunProgress:
    """Shows how a run goes. Use as a context manager around the run.

    Args:
        console: Where; bars are shown only if it is a terminal.
        monotonic: Seconds that never go backwards.
        dry_run: Rows count as done when they are cleaned.
    """

    def __init__(self, console: Console, *, monotonic: Callable[[], float], dry_run: bool) -> None:
        self._console, self._monotonic, self._dry_run = console, monotonic, dry_run
        self._tables: dict[str, TableProgress] = {}
        self._last_change = monotonic()
        self._open_jobs = 0
        self._api_requests_left: int | None = None
        self._waiting: str | None = None
        self._stopping = False
        self._live = (
            Live(self, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, coordinator: Coordinator, org: Org) -> None:
        """Take over the coordinator's figures."""
        self._take(coordinator.figures())
        self._open_jobs = coordinator.open_jobs
        self._api_requests_left = org.api_requests_left
        self._stopping = coordinator.control.stop or coordinator.control.stop_now
        waiting = coordinator.waiting_for
        if self._live is None:
            self._say_lines(waiting)
        self._waiting = waiting

    def _take(self, figures: Mapping[str, Figures]) -> None:
        now = self._monotonic()
        changed = False
        for name, seen in figures.items():
            table = self._tables.setdefault(name, TableProgress())
            done = max(table.done, seen.extracted if self._dry_run else _rows_through(seen))
            table.rows, table.refused = seen.rows, seen.failed + seen.rejected
            table.chunks, table.chunks_done = seen.chunks, seen.chunks_done
            if table.done_before is None and seen.chunks:
                table.done_before = table.done = done
                changed = True
            if done != table.done:
                # Its turn began when something else last moved: its own first rows took time, too.
                table.since = self._last_change if table.since is None else table.since
                table.done, table.until = done, now
                changed = True
        if changed:
            self._last_change = now

    def __rich__(self) -> RenderableType:
        """The bars as of now."""
        now = self._monotonic()
        if not self._tables:
            return Text("reading the plan, looking at source and org", style="dim")
        grid = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        grid.add_column("table", no_wrap=True)
        grid.add_column("", width=BAR_WIDTH)
        for name in ("rows", "of", "rows/s", "refused", "left"):
            grid.add_column(name, justify="right", no_wrap=True)
        for name, table in self._tables.items():
            left = table.seconds_left(now)
            rate = table.rate()
            grid.add_row(
                name,
                ProgressBar(total=max(table.rows, 1), completed=table.rows if table.is_complete else table.done),
                count(table.done),
                count(table.rows if table.chunks else None),
                "-" if rate is None else f"{rate:,.0f}",
                count(table.refused),
                "done" if table.is_complete else "-" if left is None or self._stopping else duration(left),
            )
        return Group(grid, Text(self._org_line(), style="dim"))

    def _org_line(self) -> str:
        parts = ["stopping: finishing what is in flight"] if self._stopping else []
        if not self._dry_run:
            parts.append(f"{plural(self._open_jobs, 'open job')}")
        if self._api_requests_left is not None:
            parts.append(f"{self._api_requests_left:,} API requests left today")
        if self._waiting is not None:
            parts.append(f"waiting: {self._waiting}")
        return " · ".join(parts)

    def _say_lines(self, waiting: str | None) -> None:
        now = self._monotonic()
        for name, table in self._tables.items():
            finished = table.is_complete and not table.said_done
            if table.until is None and not finished:
                continue
            if table.said_at is None:
                table.said_at = now  # its turn has begun: the first line comes after a pause, or when it is done
            if finished or (table.done < table.rows and now - table.said_at >= LINE_PAUSE_S):
                table.said_at, table.said_done = now, table.is_complete
                self._console.print(self._line(name, table, now))
        if waiting is not None and waiting != self._waiting:
            self._console.print(f"waiting: {waiting}")

    @staticmethod
    def _line(name: str, table: TableProgress, now: float) -> str:
        share = f" ({100 * table.done / table.rows:.0f} %)" if table.rows and not table.is_complete else ""
        parts = [f"{name}: {table.done:,} of {table.rows:,} rows{share}"]
        if (rate := table.rate()) is not None:
            parts.append(f"{rate:,.0f} rows/s")
        parts.append(f"{table.refused:,} refused")
        if table.is_complete:
            parts.append("done")
        elif (left := table.seconds_left(now)) is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)
