"""Progress: lines for a log, no guesses in the first hundredth, rates of this process only."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from rich.console import Console

from forcelift.audit.records import Control
from forcelift.cli.progress import RunProgress
from forcelift.jobs.tracks import Figures


@dataclass
class Seen:
    """What a coordinator and an org show to a display, with figures that the test decides."""

    tables: dict[str, Figures]
    waiting_for: str | None = None
    open_jobs: int = 2
    control: Control = field(default_factory=Control)
    api_requests_left: int | None = 99_000

    def figures(self) -> dict[str, Figures]:
        return self.tables


class Display:
    """A progress display with a clock of the test."""

    def __init__(self, *, terminal: bool) -> None:
        self.now = 0.0
        self.out = io.StringIO()
        self.console = Console(file=self.out, force_terminal=terminal, width=100, highlight=False, no_color=True)
        self.progress = RunProgress(self.console, monotonic=lambda: self.now, dry_run=False)

    def show(self, at: float, seen: Seen) -> None:
        self.now = at
        self.progress.update(seen, seen)  # type: ignore[arg-type]  # stands for coordinator and org

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    def drawn(self) -> str:
        with self.console.capture() as capture:
            self.console.print(self.progress)
        return capture.get()


def figures(answered: int, *, rows: int = 100_000, failed: int = 0, chunks_done: int = 0) -> Figures:
    return Figures(rows=rows, extracted=rows, answered=answered, failed=failed, chunks=10, chunks_done=chunks_done)


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    display = Display(terminal=False)
    display.show(0, Seen({"sales": figures(0)}))
    display.show(5, Seen({"sales": figures(5_000)}))
    display.show(8, Seen({"sales": figures(8_000)}))
    assert display.lines() == []
    display.show(20, Seen({"sales": figures(20_000, failed=7)}))
    display.show(21, Seen({"sales": figures(21_000, failed=7)}))
    display.show(50, Seen({"sales": figures(100_000, failed=9, chunks_done=10)}))
    display.show(51, Seen({"sales": figures(100_000, failed=9, chunks_done=10)}))
    assert display.lines() == [
        "sales: 20,000 of 100,000 rows (20 %), 1,000 rows/s, 7 refused, about 1 min 20 s left",
        "sales: 100,000 of 100,000 rows, 2,000 rows/s, 9 refused, done",
    ]


def test_a_wait_is_said_once_with_its_reason() -> None:
    display = Display(terminal=False)
    for at in range(3):
        display.show(at, Seen({"sales": figures(0)}, waiting_for="the org is busy (until 10:00)"))
    assert display.lines() == ["waiting: the org is busy (until 10:00)"]


def test_no_time_left_in_the_first_hundredth() -> None:
    display = Display(terminal=True)
    display.show(0, Seen({"sales": figures(0)}))
    display.show(10, Seen({"sales": figures(999)}))
    assert "sales" in display.drawn()
    assert display.drawn().splitlines()[1].endswith("-")
    display.show(11, Seen({"sales": figures(1_000)}))
    assert display.drawn().splitlines()[1].rstrip().endswith("18 min 9 s")


def test_a_resumed_batch_is_not_credited_with_earlier_work() -> None:
    display = Display(terminal=True)
    display.show(0, Seen({"sales": figures(90_000)}))
    display.show(10, Seen({"sales": figures(91_000)}))
    words = display.drawn().splitlines()[1].split()
    assert words[words.index("100,000") + 1] == "100"


def test_rows_that_a_rule_refused_do_not_run_ahead_of_the_others() -> None:
    display = Display(terminal=True)
    display.show(0, Seen({"sales": figures(0)}))
    staged = Figures(rows=100_000, extracted=50_000, rejected=10_000, chunks=10)
    display.show(5, Seen({"sales": staged}))
    assert display.drawn().splitlines()[1].split()[-5:] == ["0", "100,000", "-", "10,000", "-"]
    staged.answered = 20_000
    display.show(10, Seen({"sales": staged}))
    assert display.drawn().splitlines()[1].split()[-6:] == ["25,000", "100,000", "2,500", "10,000", "30", "s"]


def test_bars_name_open_jobs_api_requests_and_the_reason_of_a_wait() -> None:
    display = Display(terminal=True)
    display.show(0, Seen({"sales": figures(0)}, waiting_for="503 (until 10:00)"))
    assert "2 open jobs · 99,000 API requests left today · waiting: 503 (until 10:00)" in display.drawn()
    display.show(1, Seen({"sales": figures(0)}, control=Control(stop=True)))
    assert "stopping: finishing what is in flight" in display.drawn()


def test_no_time_left_is_told_once_the_guess_is_over() -> None:
    display = Display(terminal=False)
    display.show(0, Seen({"sales": figures(0)}))
    display.show(50, Seen({"sales": figures(90_000)}))
    display.show(70, Seen({"sales": figures(90_000)}))  # it was to end after 55.6 s, and stands still
    assert display.lines()[-1] == "sales: 90,000 of 100,000 rows (90 %), 1,800 rows/s, 0 refused"
