"""The pure state machine of a batch: events in, commands out.

Reads nothing and writes nothing; time comes with each event and randomness is given. Everything that it knows can be
rebuilt from the audit database (`restore`), so a process may end at any instant. The same events in the same order give
the same commands, which is what lets a simulation replay any schedule from a seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from forcelift.audit.records import Chunk, Control, Job
from forcelift.jobs.admission import stops_reading
from forcelift.jobs.board import Board, EngineSettings, new_board
from forcelift.jobs.governor import Governor
from forcelift.jobs.holds import DiskSeen, Wait
from forcelift.jobs.messages import Answer, Command, ControlSeen, Event
from forcelift.jobs.react import react
from forcelift.jobs.schedule import is_finished, next_commands, wake_at, why_skipped
from forcelift.jobs.tracks import Figures, TableSpec


class Coordinator:
    """Decides every step of a batch.

    Args:
        specs: The tables in load order.
        settings: Bounds of the engine.
        governor: Holds jobs back; carries the random source.
    """

    def __init__(self, specs: Sequence[TableSpec], *, settings: EngineSettings, governor: Governor) -> None:
        self._board: Board = new_board(specs, settings=settings, governor=governor)

    def restore(self, planned: Iterable[str], chunks: Iterable[Chunk], jobs: Iterable[Job]) -> None:
        """Take over what earlier processes of this batch made durable. `planned` names the tables cut into chunks."""
        jobs_of: dict[int, list[Job]] = defaultdict(list)
        for job in jobs:
            jobs_of[job.audit_id].append(job)
        chunks_of: dict[str, list[Chunk]] = defaultdict(list)
        for chunk in chunks:
            chunks_of[chunk.table_name].append(chunk)
        for name in planned:
            self._board.add_chunks(self._board.tables[name], chunks_of[name], jobs_of)

    def start(self, now: datetime, *, control: Control | None = None, disk: DiskSeen | None = None) -> list[Command]:
        """The first commands, given under what is known by then: wishes asked earlier, and how full the disk is."""
        if control is not None:
            self._board.hear(control)
        if disk is not None:
            self._board.holds.see_disk(disk)
        return next_commands(self._board, now)

    def on(self, event: Event, now: datetime) -> list[Command]:
        """Take an event into account; the commands that follow from it."""
        match event:
            case Answer():
                react(self._board, event, now)
            case ControlSeen(control=control):
                self._board.hear(control)
            case DiskSeen():
                self._board.holds.see_disk(event)
        return next_commands(self._board, now)

    def tick(self, now: datetime) -> list[Command]:
        """Time has passed and nothing else happened."""
        return next_commands(self._board, now)

    def wake_at(self, now: datetime) -> datetime | None:
        """When `tick` may bring something; None if only an event can."""
        return wake_at(self._board, now)

    def lose(self, error: Exception) -> None:
        """Another process has taken over: finish without touching anything of the batch any more."""
        if not self._board.is_lost:
            self._board.lose(error)

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken over what this one worked on."""
        return self._board.is_lost

    @property
    def is_finished(self) -> bool:
        return is_finished(self._board)

    @property
    def errors(self) -> Sequence[Exception]:
        """What went wrong, in order; empty if everything was carried through."""
        return tuple(self._board.errors)

    @property
    def control(self) -> Control:
        return self._board.control

    @property
    def is_complete(self) -> bool:
        """Whether every chunk of every table is settled."""
        return all(table.is_settled for table in self._board.tables.values())

    @property
    def why_unfinished(self) -> str:
        """Why chunks did not come to their end, if any did not."""
        return why_skipped(self._board)

    @property
    def skipped_chunks(self) -> int:
        return self._board.skipped_chunks

    @property
    def waiting_for(self) -> str | None:
        """Why nothing is read, the org is left alone or no job is started right now; None if nothing holds."""
        waits = self._board.holds.waits
        return str(waits[0]) if waits else None

    @property
    def waits(self) -> tuple[Wait, ...]:
        """All that holds the batch back, as of the last event; what a person should read first comes first."""
        return self._board.holds.waits

    @property
    def stops_reading(self) -> bool:
        """Whether reads that are under way are to be given up: the batch stops, or its hours have ended."""
        return stops_reading(self._board)

    @property
    def runners(self) -> int:
        """Processes alive on the batch, this one included, as of the last look at the others."""
        return 1 if self._board.share is None else self._board.share.runners

    @property
    def open_jobs(self) -> int:
        return self._board.open_jobs()

    def figures(self) -> Mapping[str, Figures]:
        """Counts per table, for displays."""
        return {name: table.figures for name, table in self._board.tables.items()}

    def take_decisions(self) -> list[str]:
        """The governor's decisions since the last call."""
        return self._board.governor.take_decisions()
