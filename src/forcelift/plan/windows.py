"""The hours in which a batch may read and load. Pure: whoever asks brings the time.

Hours are those of the clock on the zone's walls. Where the clock is set forward, hours that it leaves out do not come;
where it is set back, hours that come twice count both times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from forcelift.plan.zones import is_zone

WINDOW_FORM = "`22:00-06:00 Asia/Bangkok`, or with days `Mon-Fri,Sun 22:00-06:00 Asia/Bangkok`"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_A_DAY = 24 * 60
SEARCH_DAYS = 15
"""A window comes at least once a week; one week more where the clock leaves out its only hour."""

_WINDOW = re.compile(r"\s*(?:([A-Za-z][A-Za-z,\-\s]*?)\s+)?(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)\s+(\S+)\s*\Z", re.ASCII)


class Window(Struct, frozen=True, kw_only=True):
    """Hours of the days in a zone, in minutes since midnight; over midnight where `end` is not after `start`.

    `end` itself is outside. `days` are those on which the hours begin, 0 is Monday.
    """

    start: int
    end: int
    days: frozenset[int]
    zone: ZoneInfo

    def contains(self, instant: datetime) -> bool:
        """True if the aware `instant` lies within the hours, by the clock on the zone's walls."""
        wall = instant.astimezone(self.zone)
        day, minute = wall.weekday(), wall.hour * 60 + wall.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


class Hours(Struct, frozen=True, kw_only=True):
    """Everything that `limits.window` names: inside if inside one of them. `text` is what the plan says."""

    windows: tuple[Window, ...]
    text: str

    def contains(self, instant: datetime) -> bool:
        """Whether reading and loading may go on at that instant."""
        return any(window.contains(instant) for window in self.windows)

    def next_open(self, instant: datetime) -> datetime:
        """The first minute after `instant` that lies inside, in the zone of `instant`.

        Minute by minute, as neither summer time nor hours that come twice can then be got wrong.
        """
        minute = instant.replace(second=0, microsecond=0)
        for _ in range(SEARCH_DAYS * MINUTES_A_DAY):
            minute += timedelta(minutes=1)
            if self.contains(minute):
                return minute
        raise ValueError(f"{self.text} does not come within {SEARCH_DAYS} days")


def parse_hours(value: str | Sequence[str]) -> Hours:
    """Read `limits.window`: one window or a list of them. Raises ValueError that says what is wrong."""
    texts = [value] if isinstance(value, str) else list(value)
    if not texts:
        raise ValueError("no hours are named; `null` is always")
    return Hours(windows=tuple(map(parse_window, texts)), text="; ".join(text.strip() for text in texts))


def parse_window(text: str) -> Window:
    """Read one window: `[DAYS ]HH:MM-HH:MM ZONE`.

    Raises:
        ValueError: Another form, a day or an hour that does not exist, an unknown zone, or no time between both ends.
    """
    match = _WINDOW.match(text)
    if match is None:
        raise ValueError(f"the hours are written as {WINDOW_FORM}")
    days = _days(match[1]) if match[1] is not None else frozenset(range(7))
    start, end = _minutes(match[2], match[3], last=MINUTES_A_DAY - 1), _minutes(match[4], match[5], last=MINUTES_A_DAY)
    if not is_zone(match[6]):
        raise ValueError("there is no such time zone; IANA names are meant, such as `Asia/Bangkok`")
    if start == end:
        raise ValueError("the hours begin when they end; a whole day is 00:00-24:00")
    return Window(start=start, end=end, days=days, zone=ZoneInfo(match[6]))


def _minutes(hour: str, minute: str, *, last: int) -> int:
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > last:
        raise ValueError(f"there is no such hour of a day; write hours as {WINDOW_FORM}")
    return minutes


def _days(text: str) -> frozenset[int]:
    """`Mon-Fri,Sun` as numbers; a range may go over Sunday."""
    found: set[int] = set()
    for part in text.split(","):
        first, mark, last = (name.strip().capitalize() for name in part.partition("-"))
        if first not in DAYS or (mark and last not in DAYS):
            raise ValueError(f"the days of the hours are {', '.join(DAYS)}, one by one or as `Mon-Fri`")
        begin, end = DAYS.index(first), DAYS.index(last) if mark else DAYS.index(first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return frozenset(found)
