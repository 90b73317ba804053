"""Errors that a person reads: what failed and where, what state the data is in, which command to run now.

Every error that leaves the library is a `ForceliftError` with an exit code of DESIGN section 8. `TransientError` marks
what may pass by itself; everything else is final until somebody changes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct


class ExitCode(IntEnum):
    """What the process says when it ends; see DESIGN section 8."""

    DONE = 0
    ROWS_REFUSED = 1
    USAGE = 2
    STATE = 3
    SOURCE = 4
    TARGET = 5
    BUG = 70
    INTERRUPTED = 130


class ForceliftError(Exception):
    """Base of all errors meant for a person.

    Args:
        message: What failed and where, one or two sentences. Never a row value, token or password.
        state: What state the data is in.
        hint: Which command to run, or which line to change, now.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, state: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.state = state
        self.hint = hint


class TransientError(ForceliftError):
    """May pass by itself: try again later, unchanged."""


class UsageError(ForceliftError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = ExitCode.USAGE


class Problem(Struct, frozen=True, kw_only=True):
    """One fault of a plan file. `line` and `column` count from 1; None where no place in the file can be named."""

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        where = f"`{self.path}`: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{where}{self.message}{hint}"


class PlanError(UsageError):
    """The plan file cannot be carried out. Carries all its problems, not just the first."""

    def __init__(self, problems: Sequence[Problem], *, file: str | None = None) -> None:
        self.problems = tuple(problems)
        self.file = file
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        super().__init__(
            f"the plan {f'`{file}` ' if file else ''}has {count} {noun}:\n"
            + "\n".join(f"  - {problem}" for problem in self.problems),
            state="nothing was read from the source and nothing was written to the org",
            hint="mend the lines named above and run the same command again",
        )


class StateConflict(ForceliftError):
    """The recorded state forbids it: a batch that runs already, a changed plan, a move of status not allowed."""

    exit_code = ExitCode.STATE


class NothingRecorded(StateConflict):
    """There is no audit database yet: no batch was ever begun here."""


class LeaseLost(StateConflict):
    """Another process has taken over what this one worked on: it must touch nothing of it any more."""


class StorageError(ForceliftError):
    """Staging, ledger or audit database cannot be written or read: disk full, file missing, checksum differs."""

    exit_code = ExitCode.STATE


class DiskFull(StorageError, TransientError):
    """The disk or the quota had no room for a write: the file was not changed, and room may come back."""


class SourceError(ForceliftError):
    """The source cannot be reached, lacks what the plan names, or holds data that cannot be read."""

    exit_code = ExitCode.SOURCE


class SourceUnavailable(SourceError, TransientError):
    """The source did not answer; it may later."""


class SourceFaulty(SourceUnavailable):
    """The source failed inside itself, which may not pass: the same is asked of it once more, and no oftener."""


class ReadingStopped(SourceError, TransientError):
    """A read was given up between two pieces, since the batch stops or its hours have ended: nothing of it was kept."""


class SourceChanged(SourceError):
    """The source no longer is what the batch was planned on."""


class SnapshotLost(SourceChanged):
    """The source has forgotten the state that was to be read: a shorter read may still find it, a later state is there.

    What was read of it before stands.
    """


class TargetError(ForceliftError):
    """The org refused, or cannot be used as the plan wants."""

    exit_code = ExitCode.TARGET


class OrgUnavailable(TargetError, TransientError):
    """The org did not take the request (connection refused, 503 before anything was done): nothing happened there."""


class LostReply(TargetError, TransientError):
    """The request was sent and no usable answer came: whether it took effect is unknown."""


class SignInFailed(TargetError):
    """The org refused the credentials."""


class OrgRefused(TargetError):
    """The org answered with an error. `code` is Salesforce's errorCode, `http_status` the HTTP status."""

    def __init__(
        self, message: str, *, code: str, http_status: int, state: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, state=state, hint=hint)
        self.code = code
        self.http_status = http_status


class OrgNotFound(OrgRefused):
    """404: the job, object or record does not exist, was deleted, or cannot be seen by this user."""


class OrgLimitReached(OrgRefused, TransientError):
    """A limit of the org is used up (REQUEST_LIMIT_EXCEEDED, LIMIT_EXCEEDED, ExceededQuota); time frees it."""


class Interrupted(ForceliftError):
    """Stopped by Ctrl-C, a signal or `forcelift stop`; the batch can be resumed."""

    exit_code = ExitCode.INTERRUPTED
