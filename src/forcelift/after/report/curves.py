"""How a batch went on over time, for the plots of its report. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from forcelift.audit.readings import ChunkSpan
from forcelift.audit.step_times import ReservedHour

BINS: Final = 96
_DAY: Final = timedelta(hours=24)
_HOUR: Final = timedelta(hours=1)


class Curves(Struct, frozen=True, kw_only=True):
    """Rows over time, in bins of equal length from `began` on.

    Attributes:
        bin_seconds: Length of a bin.
        rates: Rows per second of each bin.
        done: Rows done by the end of each bin.
    """

    began: datetime
    ended: datetime
    bin_seconds: float
    rates: tuple[float, ...]
    done: tuple[float, ...]


class QuotaUse(Struct, frozen=True, kw_only=True):
    """The most that was reserved of the org's rolling day while the batch ran, by all batches of the audit database.

    Attributes:
        hours: End of each rolling day that was looked at, hour by hour, and its rows.
    """

    rows: int
    rows_allowed: int
    batches: int
    batches_allowed: int
    hours: tuple[tuple[datetime, int], ...] = ()

    @staticmethod
    def share(used: int, allowed: int) -> str:
        """In percent, to a hundredth; what is used is never said to be nothing."""
        if not used:
            return "0"
        return f"{max(0.01, used / allowed * 100):.2f}"


def curves(spans: Sequence[ChunkSpan], bins: int = BINS) -> Curves | None:
    """Each chunk's rows spread evenly over its time; None where no time passed."""
    if not spans:
        return None
    began, ended = min(one.began_at for one in spans), max(one.ended_at for one in spans)
    whole = (ended - began).total_seconds()
    if whole <= 0:
        return None
    size = whole / bins
    rows = [0.0] * bins
    for one in spans:
        first = (one.began_at - began).total_seconds()
        last = (one.ended_at - began).total_seconds()
        if last <= first:
            rows[min(bins - 1, int(first / size))] += one.rows
            continue
        for number in range(int(first / size), min(bins - 1, int(last / size)) + 1):
            inside = min(last, (number + 1) * size) - max(first, number * size)
            rows[number] += one.rows * max(0.0, inside) / (last - first)
    done, so_far = [], 0.0
    for amount in rows:
        so_far += amount
        done.append(so_far)
    return Curves(began=began, ended=ended, bin_seconds=size, rates=tuple(one / size for one in rows), done=tuple(done))


def quota_use(hours: Sequence[ReservedHour], *, since: datetime, rows_allowed: int, batches_allowed: int) -> QuotaUse:
    """The fullest rolling day of those that ended after an instant; `hours` begin a day before it."""
    days = [
        (
            one.hour,
            sum(other.rows for other in hours if one.hour - _DAY < other.hour <= one.hour),
            sum(other.batches for other in hours if one.hour - _DAY < other.hour <= one.hour),
        )
        for one in hours
        if one.hour + _HOUR > since
    ]
    return QuotaUse(
        rows=max((rows for _, rows, _ in days), default=0),
        rows_allowed=rows_allowed,
        batches=max((batches for _, _, batches in days), default=0),
        batches_allowed=batches_allowed,
        hours=tuple((hour, rows) for hour, rows, _ in days),
    )
